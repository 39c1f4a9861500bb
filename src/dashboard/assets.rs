//! The files of the pages, which are in the binary. Nothing is read from the disk, and nothing is loaded from elsewhere.

use std::borrow::Cow;

/// The kind and the text of a file, by its whole name.
pub(super) fn find(name: &str) -> Option<(&'static str, Cow<'static, str>)> {
    if name == "replay/page.js" {
        // As in the file that `newtmq-sim replay --html` writes: one scope for all of them.
        return Some((JS, format!("(() => {{\n'use strict'\n{}}})()\n", REPLAY.concat()).into()));
    }
    if name == "replay/frame.css" {
        return Some(("text/css; charset=utf-8", include_str!("../../sim/src/html/page.css").into()));
    }
    if name == "replay/frame.html" {
        return Some((HTML, frame().into()));
    }
    let (name, text) = FILES.iter().find(|(of, _)| *of == name)?;
    let kind = match name.rsplit('.').next() {
        Some("html") => HTML,
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => JS,
    };
    Some((kind, Cow::Borrowed(text)))
}

/// What the page of a run is made of, with its style in a file of its own; its data and scripts are for the page around it.
fn frame() -> String {
    let body =
        PAGE.split_once("<body>").and_then(|(_, rest)| rest.split_once("<noscript>")).expect("the page has both").0;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>A run</title>\n\
         <link rel=\"stylesheet\" href=\"/replay/frame.css\">\n</head>\n<body>{body}\
         <script type=\"application/json\" id=\"run\"></script>\n</body>\n</html>\n"
    )
}

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("assets/", $name)))),+]
    };
}

const FILES: &[(&str, &str)] = files![
    "index.html" "style.css" "icon.svg" "app.js" "api.js" "dom.js" "chart.js" "rates.js" "table.js" "login.js" "mqtt.js" "forms.js"
    "pages.js" "pages/overview.js" "pages/cluster.js" "pages/lists.js" "pages/client.js" "pages/listeners.js"
    "pages/access.js" "pages/alarms.js" "pages/settings.js" "pages/websocket.js" "pages/replay.js" "pages/apps.js"
    "pages/accounts.js" "pages/banned.js" "pages/traces.js"
];

/// The page of a run, which the simulator writes as one file.
const PAGE: &str = include_str!("../../sim/src/html/page.html");
/// Its scripts.
const REPLAY: [&str; 5] = [
    include_str!("../../sim/src/html/model.js"),
    include_str!("../../sim/src/html/draw.js"),
    include_str!("../../sim/src/html/arrows.js"),
    include_str!("../../sim/src/html/panel.js"),
    include_str!("../../sim/src/html/page.js"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_nothing_is_inline() {
        let frame = frame();
        for (name, text) in FILES.iter().copied().chain([("replay/frame.html", &*frame)]) {
            // Names of XML are no addresses of anything.
            let text = text.replace("http://www.w3.org/", "");
            for foreign in ["http://", "https://", "//cdn", "eval(", "new Function", "innerHTML", "style=\""] {
                assert!(!text.contains(foreign), "{name} has {foreign}");
            }
            if name.ends_with(".html") {
                assert!(!text.contains("<style") && !text.contains(" onclick"), "{name}");
                assert_eq!(
                    text.matches("<script").count(),
                    text.matches("<script type=\"module\" src=").count()
                        + text.matches("<script type=\"application/json\"").count(),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn every_file_that_is_imported_is_there() {
        for (name, text) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            for line in text.lines().filter(|line| line.starts_with("import ")) {
                let from = line.rsplit('\'').nth(1).unwrap_or_else(|| panic!("{name}: {line}"));
                let path = match from.strip_prefix("../") {
                    Some(rest) => rest.to_owned(),
                    None if folder.is_empty() => from.trim_start_matches("./").to_owned(),
                    None => format!("{folder}/{}", from.trim_start_matches("./")),
                };
                assert!(find(&path).is_some(), "{name} imports {path}");
            }
        }
    }

    #[test]
    fn the_frame_of_a_run_has_all_that_its_scripts_look_for() {
        let (_, frame) = find("replay/frame.html").unwrap();
        let ids = |text: &str| -> std::collections::BTreeSet<String> {
            text.split(" id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
        };
        assert_eq!(ids(&frame), ids(PAGE));
    }
}
