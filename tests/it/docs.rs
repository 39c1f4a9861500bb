//! The documentation does what it says. A code block is run if a comment stands before it:
//!
//! | comment | the block |
//! |---|---|
//! | `<!-- test: file NAME -->` | is the file of this name for what follows |
//! | `<!-- test: run -->` | commands that succeed; the last line starts a broker if it says so with its banner |
//! | `<!-- test: mistake -->` | a mistake in the file as it is told, with a wrong key of the same line |
//! | `<!-- test: scenario -->` | is a scenario that violates nothing |
//! | `<!-- test: subscriber -->` | goes on running |
//! | `<!-- test: publisher, WORDS -->` | makes the subscriber print these words |
//!
//! The standard port is replaced by one that is free, and ways to call the program by the program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use newtmq_mqtt::{QoS, TopicFilter, TopicName};
use rustix::process::Signal;

use crate::broker::{Broker, DEADLINE, NEWTMQ, Process, Scratch, any_port, clean, newtmq, wait_until};
use crate::client::Client;

/// A block with its comment.
#[derive(Debug)]
struct Example {
    place: String,
    what: String,
    text: String,
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].iter().map(|name| root.join(name)).collect();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "book") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn examples(document: &Path) -> Vec<Example> {
    let text = std::fs::read_to_string(document).unwrap();
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((at, line)) = lines.next() {
        let Some(what) = line.trim().strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let place = format!("{}:{}", document.display(), at + 1);
        let (_, fence) = lines.next().expect("a block follows");
        assert!(fence.trim().starts_with("```"), "{place}: a block follows");
        let block = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
        let text = block.map(|line| format!("{}\n", line.trim_start())).collect();
        found.push(Example { place, what: what.to_owned(), text });
    }
    found
}

/// The commands with the program under test in place of how users call it.
fn commands(text: &str) -> String {
    let mut text = text.replace("cargo run --release -- ", "newtmq ").replace("cargo run --release", "newtmq");
    text = text.lines().filter(|line| !line.starts_with("cargo build")).map(|line| format!("{line}\n")).collect();
    text.replace("target/release/newtmq", "newtmq").replace("/var/lib/newtmq", "data")
}

fn shell(scratch: &Scratch, text: &str) -> Process {
    let mut command = clean(Command::new("sh"));
    let bin = Path::new(NEWTMQ).parent().unwrap().display();
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["-euc", text]).current_dir(scratch.path()).env("PATH", format!("{bin}:{path}"));
    // The environment wins over a file and loses to an argument.
    any_port(&mut command);
    Process::start(command)
}

/// Runs a block; a broker that it starts is stopped when it has told that it runs.
fn run(scratch: &Scratch, example: &Example) {
    let text = commands(&example.text);
    // The shell becomes the last command, so that a signal reaches it.
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    let mut process = shell(scratch, &format!("{before}\nexec {last}"));
    let starts_a_broker = !["check-config", "newtmq passwd", "newtmq demo"].iter().any(|other| last.contains(other));
    if starts_a_broker {
        process.stdout.wait_for("the start message", |line| line.contains("stop      Ctrl-C"));
        process.signal(Signal::TERM);
    }
    assert_eq!(process.wait().code(), Some(0), "{}: {text}", example.place);
}

/// Makes the mistake that the text shows, and compares what is told.
fn mistake(scratch: &Scratch, example: &Example, file: &str) {
    let told = example.text.lines().last().unwrap();
    let field = |n: usize| told.trim().split(": ").nth(n).unwrap();
    let wrong = field(1).rsplit('.').next().unwrap();
    let right = told.rsplit('`').nth(1).unwrap().rsplit('.').next().unwrap();
    let path = scratch.path().join(file);
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, before.replace(right, wrong)).unwrap();
    let mut process = shell(scratch, &format!("exec newtmq check-config {file}"));
    assert_eq!(process.wait().code(), Some(2));
    let trimmed = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(&process.stderr.to_end()), trimmed(&example.text), "{}", example.place);
    std::fs::write(&path, before).unwrap();
}

#[test]
fn what_the_documentation_shows_works() {
    let mut tested = 0;
    for document in documents() {
        let scratch = Scratch::new(&format!("docs-{}", document.file_stem().unwrap().display()));
        let mut file = String::new();
        for example in examples(&document) {
            match example.what.split_once(' ').unwrap_or((&example.what, "")) {
                ("file", name) => {
                    scratch.write(name, &example.text);
                    file = name.to_owned();
                }
                ("run", "") => run(&scratch, &example),
                ("mistake", "") => mistake(&scratch, &example, &file),
                ("scenario", "") => {
                    let scenario = newtmq_sim::Scenario::parse(&example.place, &example.text).unwrap();
                    assert_eq!(newtmq_sim::run(&scenario).verdict_name(), "ok", "{}", example.place);
                }
                ("subscriber", "") | ("publisher,", _) => continue,
                _ => panic!("{}: {}", example.place, example.what),
            }
            tested += 1;
        }
    }
    assert!(tested >= 6, "only {tested} examples are marked");
}

/// Tests that the security guide names are there.
#[test]
fn tests_that_the_security_guide_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, table) = guide.split_once("## What is tried against it").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`"));
    let mut seen = 0;
    for row in rows {
        let mut file = String::new();
        let (_, tests) = row.trim_start_matches("| ").split_once(" | ").unwrap();
        for word in tests.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                file = std::fs::read_to_string(root.join(word)).unwrap_or_else(|error| panic!("{word}: {error}"));
            } else {
                assert!(file.contains(&format!("fn {word}(")), "no test {word} in its file: {row}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

/// Each topic of the table is published by a broker.
#[test]
fn topics_of_the_broker_are_those_of_the_page() {
    let sets =
        ["node.name=n@h", "broker.sys_interval=1s", "zone.external.max_inflight=1", "zone.external.max_mqueue_len=1"];
    let broker = Broker::of(newtmq(), &sets, &["--shards", "2"]);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migration.md")).unwrap();
    let topics = page.lines().filter_map(|line| line.strip_prefix("| `$SYS/")?.split('`').next());
    let filter =
        |topic: &str| format!("$SYS/{}", topic.replace("NODE", "n@h").replace("NAME", "+").replace("ID", "loom"));
    let mut wanted: Vec<String> = topics.map(filter).collect();
    assert!(wanted.len() > 9, "{wanted:?}");
    let mut watcher = Client::connect(&broker, "watcher");
    watcher.subscribe("$SYS/#", QoS::AtMostOnce);
    // Who comes, goes, and does not take messages, which is an alarm.
    drop(Client::connect(&broker, "loom"));
    let mut slow = Client::connect(&broker, "slow");
    slow.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(&broker, "publisher");
    (0..10).for_each(|_| publisher.publish("t", b"x", QoS::AtLeastOnce));
    let until = Instant::now() + DEADLINE;
    while !wanted.is_empty() {
        assert!(Instant::now() < until, "not published: {wanted:?}");
        let message = watcher.message();
        let topic = TopicName::new(&message.topic).unwrap();
        wanted.retain(|filter| !TopicFilter::new(filter).unwrap().matches(topic));
    }
    broker.stays_well();
}

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_commands_of_the_documentation_work() {
    let scratch = Scratch::new("docs-mosquitto");
    let mut tested = 0;
    for document in documents() {
        let broker = Broker::start(&[]);
        let with_port = |text: &str| text.replace("1883", &broker.address.port().to_string());
        let mut subscriber = None;
        for Example { place, what, text } in examples(&document) {
            if what == "subscriber" {
                // `mosquitto_sub` prints at once only to a terminal or with a line at a time.
                let text = with_port(text.trim_end());
                subscriber = Some(shell(&scratch, &format!("exec {text}")));
            } else if let Some(words) = what.strip_prefix("publisher, ") {
                let subscriber = subscriber.as_ref().expect("a subscriber goes before");
                wait_until(words, || {
                    assert_eq!(shell(&scratch, &with_port(&text)).wait().code(), Some(0), "{place}");
                    (subscriber.stdout.count(words) > 0).then_some(())
                });
                tested += 1;
            }
        }
        broker.stays_well();
    }
    assert!(tested >= 1);
}

/// The banner of the quick start is what the program prints.
#[test]
fn the_start_message_is_as_shown() {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/quick-start.md")).unwrap();
    let (_, shown) = document.split_once("```text\nNewtMQ ").expect("it is shown");
    let (shown, _) = shown.split_once("```").unwrap();
    let scratch = Scratch::new("docs-banner");
    let process = shell(&scratch, "exec newtmq");
    process.stdout.wait_for("its end", |line| line.contains("Ctrl-C"));
    // The version, the id and the port differ from day to day.
    let words = |text: &str| {
        let text: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        text.iter().map(|word| word.chars().filter(|c| !c.is_ascii_hexdigit()).collect()).collect::<Vec<String>>()
    };
    let printed = process.stdout.text();
    assert_eq!(words(printed.strip_prefix("NewtMQ ").unwrap()), words(shown));
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for (before, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(target);
            let line = before.lines().count();
            assert!(path.exists(), "{}:{line}: {target} is not there", document.display());
        }
    }
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let contents = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    for page in documents().iter().filter_map(|path| path.strip_prefix(&docs).ok()) {
        let listed = contents.contains(&format!("({})", page.display()));
        assert!(listed || page == Path::new("SUMMARY.md"), "{} is not in SUMMARY.md", page.display());
    }
}

#[test]
fn scenarios_that_pages_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for command in text.split("cargo sim replay scenarios/").skip(1) {
            let file = command.split_whitespace().next().unwrap().trim_end_matches('`');
            assert!(root.join("scenarios").join(file).exists(), "{}: {file} is not there", document.display());
            named += 1;
        }
    }
    assert!(named >= 20, "guarantees.md names some for each promise");
}
