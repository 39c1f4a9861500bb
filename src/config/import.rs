//! Writes a configuration as a TOML file with comments: `newtmq config import`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::emqx::{Difference, Effect};
use super::known::{self, Found};
use super::problem::{Origin, Problems};
use super::source::{Given, Read, Setting};
use super::{Config, Sources, is_secret};

/// A configuration to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The text of the file.
    pub toml: String,
    /// What it amounts to.
    pub config: Config,
    /// What keys of EMQ X do not do here, or not as there.
    pub differences: Vec<Difference>,
    /// A value in it is secret.
    pub has_secrets: bool,
}

/// Reads a file alone, and writes what it says in TOML. Users that a plugin's file has with their passwords are to be in
/// `users`, the path of a password file; they are not written.
///
/// # Errors
/// Every problem of the file.
pub fn import(file: &Path, users: &Path) -> Result<Import, Problems> {
    let mut read = Read::default();
    read.file(file);
    of(read, &file.display().to_string(), users)
}

fn of(read: Read, name: &str, users: &Path) -> Result<Import, Problems> {
    let loaded = super::judged(read, &Sources::default())?;
    let mut values: BTreeMap<(usize, &str), (usize, &Setting)> = BTreeMap::new();
    for (at, setting) in loaded.settings.iter().enumerate() {
        // The last one of a key counts.
        values.insert((section(&setting.key), &setting.key), (at, setting));
    }
    let mut out = Writer { toml: String::new(), differences: &loaded.differences };
    let _ = writeln!(out.toml, "# Written by `newtmq config import` from {name}.");
    let mut values: Vec<_> = values.into_iter().map(|((section, _), (at, setting))| (section, at, setting)).collect();
    // Listeners and zones stay in their order.
    let first = |of: &Setting| loaded.settings.iter().position(|setting| scope_of(&setting.key) == scope_of(&of.key));
    values.sort_by_key(|(section, at, setting)| (*section, first(setting), *at));
    let mut before = None;
    for (section, _, setting) in &values {
        let group = (*section, scope_of(&setting.key));
        if before.replace(group) != Some(group) {
            out.title(*section, group.1);
        }
        out.setting(setting);
    }
    if !loaded.config.access.users.is_empty() {
        let names = loaded.config.access.users.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        out.comment(&format!("\nUsers with their passwords: {names}."));
        let _ = writeln!(out.toml, "password_file = {}", quoted(&users.display().to_string()));
    }
    out.left_out();
    let has_secrets = loaded.settings.iter().any(|setting| is_secret(&setting.key) && !is_none(setting));
    Ok(Import { toml: out.toml, config: loaded.config, differences: loaded.differences, has_secrets })
}

fn is_none(setting: &Setting) -> bool {
    matches!(&setting.value, Given::Text(text) if text == "none")
}

struct Writer<'a> {
    toml: String,
    differences: &'a [Difference],
}

impl Writer<'_> {
    fn title(&mut self, section: usize, scope: Option<&str>) {
        let title = match scope.map(|scope| (scope, scope.rsplit_once('.').map_or(scope, |(_, name)| name))) {
            Some((path, name)) if path.starts_with("zone.") => format!("Zone {name}"),
            Some((path, _)) => format!("Listener {path}"),
            None => TITLES[section].1.to_owned(),
        };
        let _ = writeln!(self.toml, "\n## {title}\n");
    }

    fn setting(&mut self, setting: &Setting) {
        let Setting { key, value: Given::Text(text), origin } = setting else {
            // A zone without keys.
            let _ = writeln!(self.toml, "[{}]", setting.key);
            return;
        };
        let of_line = |difference: &&Difference| difference.origin == *origin && difference.kind == Effect::Differs;
        let told: Vec<String> = match origin {
            Origin::Absent(_) => vec!["Not set there; the default of EMQ X.".to_owned()],
            _ => {
                let told = |difference: &Difference| format!("{}: {}.", difference.key, difference.why);
                self.differences.iter().filter(of_line).map(told).collect()
            }
        };
        for line in told {
            self.comment(&line);
        }
        let _ = match doc(key) {
            Some(doc) if doc.len() + key.len() + text.len() + 8 <= WIDTH => {
                writeln!(self.toml, "{key} = {} # {doc}", literal(text))
            }
            _ => writeln!(self.toml, "{key} = {}", literal(text)),
        };
    }

    /// Lines of at most so many characters.
    fn comment(&mut self, text: &str) {
        let text = text.strip_prefix('\n').map_or(text, |rest| {
            self.toml.push('\n');
            rest
        });
        let mut line = "#".to_owned();
        for word in text.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
                let _ = writeln!(self.toml, "{line}");
                "#".clone_into(&mut line);
            }
            let _ = write!(line, " {word}");
        }
        let _ = writeln!(self.toml, "{line}");
    }

    /// What has no effect here, each with its line.
    fn left_out(&mut self) {
        for (kind, title) in [
            (Effect::NotYet, "Not in this version, and left out:"),
            (Effect::NoEffect, "Without effect here, and left out:"),
        ] {
            let of_kind: Vec<&Difference> = self.differences.iter().filter(|of| of.kind == kind).collect();
            if of_kind.is_empty() {
                continue;
            }
            let _ = writeln!(self.toml, "\n## {title}");
            for Difference { key, value, origin, why, .. } in of_kind {
                let value = if value.is_empty() { String::new() } else { format!(" = {}", one_line(value)) };
                self.comment(&format!("{key}{value}  ({origin}): {why}"));
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The first sentence of a key's documentation.
fn doc(key: &str) -> Option<&'static str> {
    let doc = match known::find(key)? {
        Found::Listener(_, _, _, key) => key.doc,
        Found::Zone(_, key) => key.doc,
        Found::Root(_, key) => key.doc,
    };
    doc.split_once(". ").map_or(Some(doc.trim_end_matches('.')), |(first, _)| Some(first))
}

/// Where a key belongs.
fn section(key: &str) -> usize {
    let first = key.split_once('.').map_or("", |(first, _)| first);
    TITLES.iter().position(|(name, _)| *name == first).unwrap_or(TITLES.len() - 1)
}

/// `listener.tcp.NAME` of a key of a listener, `zone.NAME` of one of a zone.
fn scope_of(key: &str) -> Option<&str> {
    let dots = match key.split_once('.')? {
        ("listener", _) => 2,
        ("zone", _) => 1,
        _ => return None,
    };
    let end = key.match_indices('.').nth(dots).map_or(key.len(), |(end, _)| end);
    Some(&key[..end])
}

/// A value in TOML.
fn literal(text: &str) -> String {
    let is_number = (1..=18).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if is_number || ["true", "false"].contains(&text) { text.to_owned() } else { quoted(text) }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// First parts of keys, in the order of the file.
const TITLES: &[(&str, &str)] = &[
    ("node", "Node"),
    ("cluster", "Cluster"),
    ("listener", "Listeners"),
    ("zone", "Zones"),
    ("mqtt", "Protocol"),
    ("retained", "Retained messages"),
    ("broker", "Routing"),
    ("store", "Store"),
    ("memory", "Memory"),
    ("", "Access"),
    ("login_throttle", "Throttling of logins"),
    ("log", "Logging"),
    ("other", "Others"),
];

const WIDTH: usize = 118;

#[cfg(test)]
pub(super) fn import_text(name: &str, text: &str) -> Result<Import, Problems> {
    let mut read = Read::default();
    read.text(name, text, false);
    of(read, name, Path::new("users"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, want) in [
            ("0", "0"),
            ("32", "32"),
            ("032", "\"032\""),
            ("0.75", "\"0.75\""),
            ("true", "true"),
            ("on", "\"on\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\u{7f}\n", "\"a\\U0000007F\\U0000000A\""),
            ("", "\"\""),
        ] {
            assert_eq!(literal(text), want);
        }
    }
}
