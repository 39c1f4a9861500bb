//! Where settings come from: the file, environment variables, `--set`. All become one list of paths with text
//! values and their origin; what they mean is decided elsewhere, in the same way for each source.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::emqx::{self, Difference, Flat, User};
use super::known;
use super::problem::{Fault, Origin, Problem};

/// A path that was given a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The full path, as in `listener.tcp.external.bind`.
    pub key: String,
    /// The value.
    pub value: Given,
    /// Where.
    pub origin: Origin,
}

/// What was written for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A string, number or boolean, as text.
    Text(String),
    /// Something that no key takes: an array, a date.
    Other(&'static str),
    /// A section without keys.
    EmptySection,
}

/// The settings that were read and the problems met.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) settings: Vec<Setting>,
    pub(super) problems: Vec<Problem>,
    /// Environment variables with our prefix that name no key.
    pub(super) ignored: Vec<String>,
    /// The file could be read only in part, so that what is missing from it means nothing.
    pub(super) partial: bool,
    /// What keys of EMQ X do not do here, or not as there.
    pub(super) differences: Vec<Difference>,
    /// Users that a plugin's file names.
    pub(super) users: Vec<User>,
    /// A file of EMQ X, until its variables are read, too.
    flat: Option<Flat>,
}

impl Read {
    fn problem(&mut self, origin: Origin, fault: Fault) {
        self.problems.push(Problem { origin: Some(origin), fault });
    }

    /// Reads a file.
    pub(super) fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        match emqx::read_text(path) {
            Ok(text) => self.text(&name, &text, true),
            Err(fault) => {
                self.partial = true;
                self.problem(Origin::File(name), fault);
            }
        }
    }

    /// Reads the text of a file of either format; `has_disk` if it may name others.
    pub(super) fn text(&mut self, name: &str, text: &str, has_disk: bool) {
        if emqx::is_flat(name, text) {
            self.flat = Some(Flat::new(name, text, has_disk));
        } else {
            self.toml(name, text);
        }
    }

    /// Reads the text of a file in TOML.
    fn toml(&mut self, name: &str, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut faults = BTreeMap::new();
        for error in &errors {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            // Recovery can stumble over the same line several times; the first message is the one that helps.
            let message = || explain(error.message(), text.lines().nth(line - 1).unwrap_or_default());
            faults.entry(line).or_insert_with(message);
        }
        for (line, message) in faults {
            self.problem(Origin::Line(name.to_owned(), line), Fault::Syntax { message });
        }
        if errors.is_empty() {
            let mut lines = Vec::new();
            self.table(name, text, "", table.get_ref(), &mut lines);
            // The parser keeps tables in alphabetical order; problems are told in the order of the file.
            lines.sort_by_key(|(at, _)| *at);
            self.unique(lines.into_iter().map(|(_, setting)| setting));
        } else {
            self.partial = true;
        }
    }

    fn table(&mut self, file: &str, text: &str, prefix: &str, table: &DeTable<'_>, into: &mut Vec<(usize, Setting)>) {
        for (key, value) in table {
            let path =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            let at = key.span().start;
            let value = match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() => {
                    self.table(file, text, &path, inner, into);
                    continue;
                }
                DeValue::Table(_) => Given::EmptySection,
                DeValue::String(string) => Given::Text(string.to_string()),
                DeValue::Integer(number) if number.radix() == 10 => Given::Text(number.as_str().to_owned()),
                DeValue::Integer(_) => Given::Other("a number that is not decimal"),
                DeValue::Float(number) => Given::Text(number.as_str().to_owned()),
                DeValue::Boolean(flag) => Given::Text(flag.to_string()),
                DeValue::Array(_) => Given::Other("an array"),
                DeValue::Datetime(_) => Given::Other("a date or time"),
            };
            let origin = Origin::Line(file.to_owned(), line_of(text, at));
            into.push((at, Setting { key: known::canonical(&path), value, origin }));
        }
    }

    /// TOML refuses a key that comes twice, but not two ways to write one key.
    fn unique(&mut self, settings: impl Iterator<Item = Setting>) {
        for setting in settings {
            let earlier = self.settings.iter().find(|known| known.key == setting.key);
            match earlier.map(|known| &known.origin) {
                Some(Origin::Line(_, first)) => {
                    let fault = Fault::Twice { key: setting.key, first: *first };
                    self.problem(setting.origin, fault);
                }
                _ => self.settings.push(setting),
            }
        }
    }

    /// Reads environment variables: `EMQX_A__B` sets `a.b`, and `NEWTMQ_A__B` wins over it.
    pub(super) fn environment(&mut self, variables: &[(String, String)]) {
        let mut flat = self.flat.take();
        for prefix in ["EMQX_", "NEWTMQ_"] {
            let mut ours: Vec<_> = variables.iter().filter(|(name, _)| name.starts_with(prefix)).collect();
            ours.sort();
            // With a file of EMQ X its variables mean what they mean there.
            if let Some(mut flat) = flat.take_if(|_| prefix == "EMQX_") {
                let unused = ours.into_iter().filter(|(name, value)| !flat.variable(name, value));
                self.ignored.extend(unused.map(|(name, _)| name.clone()));
                self.partial |= flat.translate(self);
                continue;
            }
            for (name, value) in ours {
                let path = name[prefix.len()..].to_ascii_lowercase().replace("__", ".");
                // A container orchestrator sets variables such as NEWTMQ_PORT_1883_TCP_ADDR for a service of that
                // name. A key without a section has one word, so anything that is not nearly one is not for us.
                let for_us = path.contains('.')
                    || known::find(&path).is_some()
                    || known::of_emqx(&path)
                    || known::suggest(&path).is_some();
                if !for_us {
                    self.ignored.push(name.clone());
                    continue;
                }
                let key = known::canonical(&path);
                self.settings.push(Setting {
                    key,
                    value: Given::Text(value.clone()),
                    origin: Origin::Environment(name.clone()),
                });
            }
        }
    }

    /// Reads one `--set`.
    pub(super) fn set(&mut self, text: &str) {
        let Some((path, value)) = text.split_once('=') else {
            return self.problem(Origin::Set, Fault::NoEquals { text: text.to_owned() });
        };
        let value = value.trim();
        // Quotes that a file needs do no harm here.
        let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        self.settings.push(Setting {
            key: known::canonical(path.trim()),
            value: Given::Text(bare.to_owned()),
            origin: Origin::Set,
        });
    }
}

/// The parser's message, or what helps somebody who knows `emqx.conf` more than that.
fn explain(message: &str, line: &str) -> String {
    if message.contains("cannot extend value") {
        return format!("{message}; write listener.tcp.NAME.bind = ADDRESS for a listener that has other keys");
    }
    let assignment = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    match assignment {
        Some((key, value))
            if value.starts_with(|c: char| c.is_alphanumeric() || c == '/') && !message.contains("key") =>
        {
            let value = value.split('#').next().unwrap_or(value).trim();
            format!("a value that is not a number, true or false needs quotes: {key} = \"{value}\"")
        }
        _ => message.replace('\n', ", "),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}
