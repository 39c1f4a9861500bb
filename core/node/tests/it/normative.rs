//! Which normative statements of MQTT 5.0 have a test. Every statement that applies to a server must be named in test code,
//! as in `[MQTT-3.1.0-1]`, or have a written reason in `normative-exempt.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Section and numbers of the statements that apply to "Server" or "Both".
const STATEMENTS: &[(&str, &[u32])] = &[
    ("1.5.4", &[1, 2, 3]),
    ("1.5.5", &[1]),
    ("1.5.7", &[1]),
    ("2.1.3", &[1]),
    ("2.2.1", &[2, 4, 5, 6]),
    ("2.2.2", &[1]),
    ("3.1.0", &[1, 2]),
    ("3.1.2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29]),
    ("3.1.3", &[2, 3, 4, 5, 6, 8, 9, 10, 11, 12]),
    ("3.1.4", &[1, 2, 3, 4, 5, 6]),
    ("3.2.0", &[1, 2]),
    ("3.2.2", &[1, 2, 3, 6, 7, 8, 9, 10, 12, 13, 16, 19, 20, 22]),
    ("3.3.1", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("3.3.2", &[1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]),
    ("3.3.4", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ("3.4.2", &[1, 2, 3]),
    ("3.5.2", &[1, 2, 3]),
    ("3.6.1", &[1]),
    ("3.6.2", &[1, 2, 3]),
    ("3.7.2", &[1, 2, 3]),
    ("3.8.1", &[1]),
    ("3.8.3", &[1, 2, 3, 4, 5]),
    ("3.8.4", &[1, 2, 3, 4, 5, 6, 7, 8]),
    ("3.9.2", &[1, 2]),
    ("3.9.3", &[1, 2]),
    ("3.10.1", &[1]),
    ("3.10.3", &[1, 2]),
    ("3.10.4", &[1, 4, 5, 6]),
    ("3.11.2", &[1, 2]),
    ("3.11.3", &[1, 2]),
    ("3.12.4", &[1]),
    ("3.14.0", &[1]),
    ("3.14.1", &[1]),
    ("3.14.2", &[1, 2, 3, 4]),
    ("3.14.4", &[1, 2, 3]),
    ("3.15.1", &[1]),
    ("3.15.2", &[2, 3]),
    ("4.1.0", &[1, 2]),
    ("4.2", &[1]),
    ("4.3.1", &[1]),
    ("4.3.2", &[1, 2, 3, 4, 5]),
    ("4.3.3", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("4.4.0", &[1, 2]),
    ("4.5.0", &[1]),
    ("4.6.0", &[5, 6]),
    ("4.7.0", &[1]),
    ("4.7.1", &[1, 2]),
    ("4.7.2", &[1]),
    ("4.7.3", &[1, 2, 3, 4]),
    ("4.8.2", &[1, 2, 3, 4, 5, 6]),
    ("4.9.0", &[1, 2, 3]),
    ("4.12.0", &[1, 2, 3, 4, 5, 6, 7]),
    ("4.12.1", &[2]),
    ("4.13.1", &[1]),
    ("4.13.2", &[1]),
    ("6.0.0", &[1, 2, 4]),
];

fn statements() -> BTreeSet<String> {
    let ids = |(section, numbers): &(&str, &[u32])| -> Vec<String> {
        numbers.iter().map(|number| format!("MQTT-{section}-{number}")).collect()
    };
    STATEMENTS.iter().flat_map(ids).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

#[allow(clippy::disallowed_methods, reason = "this test is about the sources")]
fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Files with test code: those of `tests` folders and modules, and of the others what follows an inline test module.
fn test_code() -> Vec<String> {
    let root = root();
    let mut files = Vec::new();
    for folder in ["core", "tests", "src"] {
        rust_files(&root.join(folder), &mut files);
    }
    let code = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap();
        if inside.ends_with("core/node/tests/it/normative.rs") || inside.components().any(|c| c.as_os_str() == "target")
        {
            return None;
        }
        let all = text(&path)?;
        let is_test = inside.components().any(|c| c.as_os_str() == "tests") || inside.ends_with("tests.rs");
        if is_test {
            return Some(all);
        }
        let at = all.find("#[cfg(test)]\nmod tests {")?;
        Some(all[at..].to_string())
    };
    files.into_iter().filter_map(code).collect()
}

/// Statement ids in a text.
fn named(text: &str) -> BTreeSet<String> {
    let id = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(rest.len());
        format!("MQTT-{}", &rest[..end])
    };
    text.split("MQTT-").skip(1).map(id).collect()
}

/// Statements without a test, and why. Lines of the form `"MQTT-1.2.3-4" = "reason"`.
fn exempt() -> BTreeMap<String, String> {
    let file = text(&root().join("core/node/tests/normative-exempt.toml")).unwrap();
    let entry = |line: &str| {
        let (id, reason) = line.split_once(" = ").unwrap();
        (id.trim_matches('"').to_string(), reason.trim_matches('"').to_string())
    };
    file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(entry).collect()
}

#[test]
fn every_statement_about_servers_has_a_test() {
    let tested: BTreeSet<String> = test_code().iter().flat_map(|code| named(code)).collect();
    let exempt = exempt();
    let statements = statements();
    let missing: Vec<_> = statements.iter().filter(|id| !tested.contains(*id) && !exempt.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{} of {} statements have no test: {missing:?}", missing.len(), statements.len());
    for (id, reason) in &exempt {
        assert!(statements.contains(id), "{id} is no statement about servers");
        assert!(!tested.contains(id), "{id} has a test, so it needs no reason");
        assert!(reason.len() > 20, "{id}: that is no reason");
    }
}

/// The list above is complete, where the list of the statements is at hand.
#[test]
fn the_list_of_statements_is_complete() {
    let Some(list) = text(&root().join("../shared/conformance/mqtt5_normative.txt")) else { return };
    let about_servers = |line: &str| {
        let mut columns = line.split('\t');
        let id = columns.next()?;
        matches!(columns.nth(1), Some("Server" | "Both")).then(|| id.to_string())
    };
    let expected: BTreeSet<String> = list.lines().filter_map(about_servers).collect();
    assert_eq!(statements(), expected);
}
