//! How people see a run: the timeline, the story, the JSON and the page, of a run that was made up (`sample.rs`).

mod sample;

use newtmq_sim::history::ClientIx;
use newtmq_sim::timeline::{TextStyle, text};
use newtmq_sim::{Scenario, explain, html, json};
use serde_json::Value;

#[test]
fn the_timeline_of_a_loss() {
    let (scenario, report) = sample::sample(sample::SMALL, false);
    let style = TextStyle { around_ms: Some(400), max_lines: Some(60), ..TextStyle::default() };
    insta::assert_snapshot!(text(&scenario, &report, style));
}

#[test]
fn the_story_of_a_loss() {
    let (scenario, report) = sample::sample(sample::SMALL, false);
    insta::assert_snapshot!(explain::explain(&scenario, &report));
}

#[test]
fn the_story_of_a_clean_run() {
    let (scenario, report) = sample::sample(sample::SMALL, true);
    insta::assert_snapshot!(explain::explain(&scenario, &report));
}

#[test]
fn a_timeline_is_as_wide_and_as_long_as_it_may_be() {
    let (scenario, report) = sample::sample(sample::SMALL, false);
    let all = text(&scenario, &report, TextStyle { max_lines: None, ..TextStyle::default() });
    for max in [1, 10, 60, 10_000] {
        let style = TextStyle { colour: false, width: 80, max_lines: Some(max), around_ms: None };
        let shown = text(&scenario, &report, style);
        assert!(shown.lines().count() <= all.lines().count() + 1);
        assert!(shown.contains("is violated") || max == 1, "what matters stays");
        let timeline = shown.split("\n\n").nth(1).unwrap();
        assert!(timeline.lines().all(|line| line.chars().count() <= 80), "{timeline}");
        let rows = timeline.lines().filter(|line| !line.contains("left out")).count();
        assert!(rows <= max, "{rows} rows of at most {max}");
    }
    assert!(!all.contains('\u{1b}'), "plain without colours");
    assert!(text(&scenario, &report, TextStyle { colour: true, ..TextStyle::default() }).contains("\u{1b}["));
}

#[test]
fn every_form_works_without_a_history() {
    let (scenario, mut report) = sample::sample(sample::SMALL, false);
    report.history = None;
    assert!(text(&scenario, &report, TextStyle::default()).contains("S1"));
    assert!(explain::explain(&scenario, &report).contains("MQTT-4.5.0-1"));
    assert_eq!(json::report(&scenario, &report)["verdict"], "S1");
    assert_eq!(data(&html::page(&scenario, &report))["events"], Value::Array(Vec::new()));
}

#[test]
fn json_says_what_was_violated() {
    let (scenario, report) = sample::sample(sample::SMALL, false);
    let value: Value = serde_json::from_str(&json::text(&scenario, &report)).unwrap();
    assert_eq!((&value["verdict"], &value["class"], &value["seed"]), (&"S1".into(), &"safety".into(), &7.into()));
    assert_eq!(value["trace_hash"], "0123456789abcdef");
    assert_eq!(value["violations"][0]["witness"]["clients"], serde_json::json!(["phone", "sensor-1"]));
    assert_eq!(value["violations"][0]["witness"]["moments"].as_array().map(Vec::len), Some(6));
    assert_eq!(value["obligations"]["S2"], 41);
}

#[test]
fn the_page_is_whole_in_itself() {
    let (scenario, report) = sample::sample(sample::SMALL, false);
    let page = html::page(&scenario, &report);
    for outside in ["http:", "https:", "//cdn", "url(", "@import", " src=", "<link", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let data = data(&page);
    assert_eq!(data["format"], 1);
    assert_eq!(data["events"].as_array().map(Vec::len), report.history.as_ref().map(|h| h.events.len()));
    assert_eq!(data["clients"][4]["name"], "phone");
    assert_eq!(data["violations"][0]["check"], "S1");
    // Times are differences from one event to the next.
    let total: u64 = data["events"].as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap()).sum();
    assert_eq!(total, 20_000_000_000);
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "</script><script>alert(1)</script><!--\u{1b}[2J\u{202e}\u{2028}\"'&{{data}}";
    let (_, report) = sample::sample(sample::SMALL, false);
    let mut scenario = Scenario { why: hostile.into(), ..sample::sample(sample::SMALL, false).0 };
    scenario.clients[4].name = hostile.into();
    let mut report = report;
    report.violations[0].message = hostile.into();
    report.violations[0].witness.moments[0].1 = hostile.into();
    report.violations[0].witness.clients.push(ClientIx(99));
    let history = report.history.as_mut().unwrap();
    let conn = newtmq_sim::history::ConnIx(0);
    let at = history.events.last().unwrap().at;
    let event = newtmq_sim::history::Event::Unexpected { conn, what: hostile.into() };
    history.events.push(newtmq_sim::history::Stamped { at, event });

    let page = html::page(&scenario, &report);
    let (_, clean) = sample::sample(sample::SMALL, true);
    let plain = html::page(&Scenario::default(), &clean);
    assert_eq!(page.matches("<script").count(), plain.matches("<script").count());
    assert_eq!(page.matches("</script").count(), plain.matches("</script").count());
    assert!(!page.contains("<!--") && !page.contains("alert(1)</"));
    assert_eq!(data(&page)["clients"][4]["name"], hostile.replace(['\u{1b}', '\u{202e}'], "\u{fffd}"));
    for shown in [text(&scenario, &report, TextStyle::default()), explain::explain(&scenario, &report)] {
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "a terminal obeys nobody's name");
    }
}

/// The data in a page, read back as a browser does it: from the element's start to the first end tag.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"run\">").expect("the page has its data");
    let (data, _) = rest.split_once("</script").expect("the element ends");
    serde_json::from_str(data).expect("the data is JSON")
}
