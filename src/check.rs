//! `newtmq check-config`: what a configuration sets, or everything that is wrong with it, for people or as one line of
//! JSON. Nothing is started.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{Difference, Effect, Given, Import, Loaded, Origin, Problem, Problems, Setting};

/// What was set and where, for people.
#[must_use]
pub fn report(file: &Path, loaded: &Loaded) -> String {
    let mut out = String::new();
    for Setting { key, value, origin } in &loaded.settings {
        let Given::Text(value) = value else { continue };
        let _ = match origin {
            Origin::Line(name, line) if Path::new(name) == file => writeln!(out, "{key} = {value}  (line {line})"),
            Origin::Line(..) | Origin::Environment(_) | Origin::Set | Origin::File(_) | Origin::Absent(_) => {
                writeln!(out, "{key} = {value}  ({origin})")
            }
        };
    }
    for difference in &loaded.differences {
        let _ = writeln!(out, "{}", told(difference));
    }
    for note in &loaded.notes {
        let _ = writeln!(out, "warning: {note}");
    }
    let _ = writeln!(out, "{}: no errors; every key that is not listed has its default", file.display());
    out
}

/// A line about a key of an `emqx.conf`.
#[must_use]
pub fn told(difference: &Difference) -> String {
    let Difference { key, value, origin, kind, why } = difference;
    let value = match value.char_indices().nth(VALUE_MAX) {
        _ if value.is_empty() => String::new(),
        Some((end, _)) => format!(" = {}...", &value[..end]),
        None => format!(" = {value}"),
    };
    format!("{}: {key}{value}  ({origin}): {why}", kind.word())
}

/// What of a file is not in this version, for the log: a line for each thing that is missing.
#[must_use]
pub fn missing(loaded: &Loaded) -> Vec<String> {
    let mut things: Vec<(&str, Vec<&Difference>)> = Vec::new();
    for difference in loaded.differences.iter().filter(|difference| difference.kind == Effect::NotYet) {
        match things.iter_mut().find(|(why, _)| *why == difference.why) {
            Some((_, all)) => all.push(difference),
            None => things.push((&difference.why, vec![difference])),
        }
    }
    let line = |(why, all): &(&str, Vec<&Difference>)| {
        let others = match all.len() - 1 {
            0 => String::new(),
            1 => " and another key".to_owned(),
            more => format!(" and {more} other keys"),
        };
        format!("not in this version: {why} ({}{others}, {})", all[0].key, all[0].origin)
    };
    things.iter().map(line).collect()
}

/// As one object.
#[must_use]
pub fn difference(of: &Difference) -> Value {
    let (source, line) = place(Some(&of.origin));
    json!({ "key": of.key, "value": of.value, "source": source, "line": line, "effect": of.kind.word(), "why": of.why })
}

/// The same, or the errors, as one line of JSON. `of_files` is what is wrong with a file that the configuration names.
#[must_use]
pub fn json(file: &Path, result: &Result<Loaded, Problems>, of_files: Option<String>) -> String {
    let (settings, warnings, mut errors) = match result {
        Ok(loaded) => (loaded.settings.iter().filter_map(setting).collect(), loaded.notes.clone(), Vec::new()),
        Err(problems) => (Vec::new(), Vec::new(), problems.0.iter().map(problem).collect()),
    };
    let differences: Vec<Value> =
        result.as_ref().map(|loaded| loaded.differences.iter().map(difference).collect()).unwrap_or_default();
    errors.extend(of_files.map(|message| json!({ "key": null, "source": null, "line": null, "message": message })));
    let line = json!({
        "event": "checked",
        "file": file.display().to_string(),
        "ok": errors.is_empty(),
        "settings": settings,
        "warnings": warnings,
        "differences": differences,
        "errors": errors,
    });
    format!("{line}\n")
}

/// `newtmq config import`, as one line of JSON. `written` are the files that were written.
#[must_use]
pub fn import_json(file: &Path, result: &Result<Import, Problems>, written: &[PathBuf]) -> String {
    let (toml, differences, errors) = match result {
        Ok(import) => (Some(&import.toml), import.differences.iter().map(difference).collect(), Vec::new()),
        Err(problems) => (None, Vec::new(), problems.0.iter().map(problem).collect()),
    };
    let line = json!({
        "event": "imported",
        "file": file.display().to_string(),
        "ok": errors.is_empty(),
        "written": written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "toml": if written.is_empty() { toml } else { None },
        "differences": differences,
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
        Some(origin @ (Origin::File(_) | Origin::Set | Origin::Environment(_) | Origin::Absent(_))) => {
            (Some(origin.to_string()), None)
        }
    }
}

/// Characters of a value that are shown.
const VALUE_MAX: usize = 60;

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
