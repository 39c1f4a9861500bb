//! `newtmq check-config`: what a configuration sets, or everything that is wrong with it, for people or as one line of
//! JSON. Nothing is started.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Given, Loaded, Origin, Problem, Problems, Setting};

/// What was set and where, for people.
#[must_use]
pub fn report(file: &Path, loaded: &Loaded) -> String {
    let mut out = String::new();
    for Setting { key, value, origin } in &loaded.settings {
        let Given::Text(value) = value else { continue };
        let _ = match origin {
            Origin::Line(_, line) => writeln!(out, "{key} = {value}  (line {line})"),
            Origin::Environment(_) | Origin::Set | Origin::File(_) => writeln!(out, "{key} = {value}  ({origin})"),
        };
    }
    for note in &loaded.notes {
        let _ = writeln!(out, "warning: {note}");
    }
    let _ = writeln!(out, "{}: no errors; every key that is not listed has its default", file.display());
    out
}

/// The same, or the errors, as one line of JSON. `of_files` is what is wrong with a file that the configuration names.
#[must_use]
pub fn json(file: &Path, result: &Result<Loaded, Problems>, of_files: Option<String>) -> String {
    let (settings, warnings, mut errors) = match result {
        Ok(loaded) => (loaded.settings.iter().filter_map(setting).collect(), loaded.notes.clone(), Vec::new()),
        Err(problems) => (Vec::new(), Vec::new(), problems.0.iter().map(problem).collect()),
    };
    errors.extend(of_files.map(|message| json!({ "key": null, "source": null, "line": null, "message": message })));
    let line = json!({
        "event": "checked",
        "file": file.display().to_string(),
        "ok": errors.is_empty(),
        "settings": settings,
        "warnings": warnings,
        "errors": errors,
    });
    format!("{line}\n")
}

fn setting(setting: &Setting) -> Option<Value> {
    let Setting { key, value: Given::Text(value), origin } = setting else { return None };
    let (source, line) = place(Some(origin));
    Some(json!({ "key": key, "value": value, "source": source, "line": line }))
}

fn problem(problem: &Problem) -> Value {
    let (source, line) = place(problem.origin.as_ref());
    json!({ "key": problem.fault.key(), "source": source, "line": line, "message": problem.fault.to_string() })
}

/// The file, the variable or `--set`; and the line, if it is a file.
fn place(origin: Option<&Origin>) -> (Option<String>, Option<usize>) {
    match origin {
        None => (None, None),
        Some(Origin::Line(file, line)) => (Some(file.clone()), Some(*line)),
        Some(origin @ (Origin::File(_) | Origin::Set | Origin::Environment(_))) => (Some(origin.to_string()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};

    fn load(text: &str) -> Result<Loaded, Problems> {
        let environment = vec![("NEWTMQ_LOG__FORMAT".to_owned(), "json".to_owned())];
        config::load_text("a.toml", text, &Sources { environment, ..Sources::default() })
    }

    #[test]
    fn the_report_tells_what_is_set_and_where() {
        let loaded = load("log.level = \"warn\"\n[zone.internal]\nmax_inflight = 3\n").unwrap();
        insta::assert_snapshot!(report(Path::new("a.toml"), &loaded));
    }

    #[test]
    fn as_json() {
        let line = json(Path::new("a.toml"), &load("log.level = \"warn\"\n[zone.internal]\n"), None);
        insta::assert_snapshot!("as_json_right", line);
        let line = json(
            Path::new("a.toml"),
            &load("log.level = \"warm\"\nlog.lvl = 1\nlistener.tcp.lan.zone = \"external\"\n"),
            None,
        );
        insta::assert_snapshot!("as_json_wrong", line);
        let line = json(Path::new("a.toml"), &load("log.level = warn"), None);
        insta::assert_snapshot!("as_json_no_toml", line);
    }
}
