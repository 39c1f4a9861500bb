//! Reads an `emqx.conf` of EMQ X 3 or 4 as it is, with the files of its plugins, and makes of it the settings that a TOML
//! file has. What becomes of each key is in the table; what is not done, or not quite, is told with its line and never
//! passed over. It starts nothing and changes nothing.

mod convert;
pub(super) mod docs;
mod lex;
mod plugins;
mod surface;
mod table;
#[cfg(test)]
mod tests;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::cluster::Secret;
use super::known::{self, Found};
use super::problem::{Fault, Origin, Problem};
use super::source::{Given, Read, Setting};
use super::types::{DEFAULT_NAME, INTERNAL_NAME, STANDARD_ZONES};
use super::value;
use convert::Converted;
pub(super) use lex::is_flat;
use lex::{Entry, Line};
use table::{Does, Row};

/// Plugins of EMQ X by name, whether each is a part of the broker, and what it is.
pub fn plugins() -> impl Iterator<Item = (&'static str, bool, &'static str)> {
    plugins::PLUGINS.iter().map(|plugin| (plugin.name, plugin.is == plugins::Is::BuiltIn, plugin.why))
}

/// What a key of EMQ X does not do here, or not as there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key as it is written.
    pub key: String,
    /// Its value; empty if it is a password or is not set.
    pub value: String,
    /// Where.
    pub origin: Origin,
    /// How far it goes.
    pub kind: Effect,
    /// What is different.
    pub why: String,
}

/// What a key of EMQ X does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// What it does there, with a difference.
    Differs,
    /// Nothing, and nothing is missed.
    NoEffect,
    /// Nothing, for it is not in this version.
    NotYet,
}

impl Effect {
    /// For people and programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Effect::Differs => "differs",
            Effect::NoEffect => "no effect here",
            Effect::NotYet => "not in this version",
        }
    }
}

/// A user with a password, as the file of a plugin has it.
pub(super) type User = (String, Secret);

/// An `emqx.conf` and what belongs to it, as it is written.
#[derive(Debug, Default)]
pub(super) struct Flat {
    name: String,
    /// What relative paths begin from; empty is the directory that the broker was started in.
    root: PathBuf,
    /// Whether other files may be read.
    has_disk: bool,
    entries: Vec<Entry>,
    problems: Vec<Problem>,
    differences: Vec<Difference>,
    /// Plugins that `EMQX_LOADED_PLUGINS` names.
    loaded: Option<(String, Origin)>,
}

impl Flat {
    /// Reads the text of a file, and the files that it includes if `has_disk`.
    pub(super) fn new(name: &str, text: &str, has_disk: bool) -> Flat {
        let mut flat = Flat { name: name.to_owned(), root: root(Path::new(name)), has_disk, ..Flat::default() };
        flat.text(name, text, 0);
        flat
    }

    fn text(&mut self, name: &str, text: &str, depth: usize) {
        let (lines, problems) = lex::lines(name, text);
        self.problems.extend(problems);
        for line in lines {
            match line {
                Line::Entry(entry) => self.entry(entry),
                Line::Include(file, origin) => {
                    let path = Path::new(name).parent().unwrap_or(Path::new("")).join(&file);
                    let name = path.display().to_string();
                    let read = match (self.has_disk, depth < INCLUDES_MAX) {
                        (true, true) => read_text(&path),
                        (_, false) => Err(Fault::Flat { message: format!("files include each other: {file}") }),
                        (false, _) => Err(Fault::Flat { message: format!("{file} cannot be included here") }),
                    };
                    match read {
                        Ok(text) => self.text(&name, &text, depth + 1),
                        Err(Fault::Unreadable(why)) => {
                            self.problem(origin, Fault::Flat { message: format!("{name} cannot be read: {why}") });
                        }
                        Err(fault) => self.problem(origin, fault),
                    }
                }
            }
        }
    }

    /// The last line of a key counts.
    fn entry(&mut self, entry: Entry) {
        if let Some(at) = self.entries.iter().position(|earlier| earlier.key == entry.key) {
            let earlier = self.entries.remove(at);
            if let (Origin::Line(..), Origin::Line(..)) = (&earlier.origin, &entry.origin) {
                let why = format!("it is set again by {}, which counts", entry.origin);
                self.difference(&earlier, Effect::Differs, why);
            }
        }
        self.entries.push(entry);
    }

    /// A variable `EMQX_A__B` is a line `a.b`. Says whether it is one.
    pub(super) fn variable(&mut self, variable: &str, value: &str) -> bool {
        let Some(path) = variable.strip_prefix("EMQX_") else { return false };
        let origin = Origin::Environment(variable.to_owned());
        let key = path.to_ascii_lowercase().replace("__", ".");
        if key == "loaded_plugins" {
            self.loaded = Some((value.to_owned(), origin));
        } else if key.contains('.') || table::find(&key).is_some() || known::suggest(&key).is_some() {
            self.entry(Entry { key, value: value.to_owned(), origin });
        } else {
            return false;
        }
        true
    }

    /// Makes settings of it.
    ///
    /// Says whether a part of it could not be read, so that what is missing means nothing.
    pub(super) fn translate(mut self, read: &mut Read) -> bool {
        if self.has_disk {
            plugins::read(&mut self);
        }
        for entry in std::mem::take(&mut self.entries) {
            match glued(&entry.value) {
                Some(next) => self.problem(entry.origin, Fault::Glued { key: entry.key, next }),
                None => self.entries.push(entry),
            }
        }
        let is_partial = !self.problems.is_empty();
        let given: BTreeMap<String, Entry> = self.entries.iter().map(|e| (e.key.clone(), e.clone())).collect();
        let mut to = Translation { given, settings: Vec::new(), flat: &mut self };
        let entries = std::mem::take(&mut to.flat.entries);
        for entry in &entries {
            to.translate(entry);
        }
        together::judge(&mut to);
        to.defaults();
        let users = together::users(&mut to);
        let settings = to.settings;
        read.users = users;
        read.settings.extend(settings);
        read.problems.append(&mut self.problems);
        read.differences.append(&mut self.differences);
        is_partial
    }

    fn problem(&mut self, origin: Origin, fault: Fault) {
        self.problems.push(Problem { origin: Some(origin), fault });
    }

    fn difference(&mut self, entry: &Entry, kind: Effect, why: String) {
        let Entry { key, value, origin } = entry.clone();
        let value = if is_secret(&key) { String::new() } else { value };
        self.differences.push(Difference { key, value, origin, kind, why });
    }

    /// A path as it is from the directory that the broker was started in.
    fn path(&self, text: &str) -> String {
        if text == "none" || self.root.as_os_str().is_empty() {
            return text.to_owned();
        }
        self.root.join(text).display().to_string()
    }
}

/// What is made of the lines.
struct Translation<'a> {
    /// What is set, by key.
    given: BTreeMap<String, Entry>,
    settings: Vec<Setting>,
    flat: &'a mut Flat,
}

impl Translation<'_> {
    fn translate(&mut self, entry: &Entry) {
        let Some(row) = table::find(&entry.key) else {
            return match known::find(&entry.key) {
                // What EMQ X has no key for has ours.
                Some(_) => self.set(&entry.key, &entry.value, &entry.origin),
                None => {
                    let (key, suggestion) = (entry.key.clone(), suggest(&entry.key));
                    self.flat.problem(entry.origin.clone(), Fault::UnknownKey { key, suggestion });
                }
            };
        };
        match row.does {
            Does::Same => self.nearly(row, entry, &entry.key, &entry.value),
            Does::As(other) => self.nearly(row, entry, &named(other, &entry.key), &entry.value),
            Does::By(convert) => self.converted(row, entry, convert(&entry.value)),
            Does::Together => {}
            Does::NodeWide(other) => self.node_wide(row, entry, other),
            Does::NoEffect => self.tell(row, entry, Effect::NoEffect),
            Does::NotYet => self.tell(row, entry, Effect::NotYet),
            Does::Refused => {
                let (key, why) = (entry.key.clone(), row.why);
                self.flat.problem(entry.origin.clone(), Fault::Needs { key, needs: why });
            }
        }
    }

    fn tell(&mut self, row: &Row, entry: &Entry, kind: Effect) {
        if !row.is_quiet(&entry.value) && !row.why.is_empty() {
            self.flat.difference(entry, kind, row.why.to_owned());
        }
    }

    /// The same value for a key that may do something else.
    fn nearly(&mut self, row: &Row, entry: &Entry, key: &str, value: &str) {
        self.tell(row, entry, Effect::Differs);
        self.set(key, value, &entry.origin);
    }

    fn converted(&mut self, row: &Row, entry: &Entry, converted: Converted) {
        match converted {
            Converted::To(value) if value == entry.value => self.set(&entry.key, &value, &entry.origin),
            Converted::To(value) => self.nearly(row, entry, &entry.key, &value),
            Converted::Nearly(value, why) => {
                self.flat.difference(entry, Effect::Differs, why);
                self.set(&entry.key, &value, &entry.origin);
            }
            Converted::Wrong(expected) => {
                let (key, found) = (entry.key.clone(), format!("`{}`", entry.value));
                let fault = Fault::BadValue { key, found, expected, suggestion: None };
                self.flat.problem(entry.origin.clone(), fault);
            }
        }
    }

    /// A key of a zone that is the same for all of them here.
    fn node_wide(&mut self, row: &Row, entry: &Entry, other: &'static str) {
        let absent = table::find(other).map_or("", |row| row.absent);
        let of_node = self.given.get(other).map_or(absent, |entry| &entry.value);
        if !known::is_same(other, of_node, &entry.value) {
            let fault = Fault::NodeWide { key: entry.key.clone(), other, why: row.why };
            self.flat.problem(entry.origin.clone(), fault);
        }
    }

    /// Sets a key of ours.
    fn set(&mut self, key: &str, value: &str, origin: &Origin) {
        let key = known::canonical(key);
        let value = match known::find(&key) {
            Some(found) if found.is_path() => self.flat.path(value),
            Some(found) if found.is_time() && value::duration(value).is_none() => {
                convert::duration(value).unwrap_or_else(|| value.to_owned())
            }
            _ => value.to_owned(),
        };
        self.settings.push(Setting { key, value: Given::Text(value), origin: origin.clone() });
    }

    /// What EMQ X takes where nothing is said.
    fn defaults(&mut self) {
        let origin = Origin::Absent(self.flat.name.clone());
        let is_set: BTreeSet<String> = self.settings.iter().map(|setting| setting.key.clone()).collect();
        let scopes = self.scopes();
        for row in table::rows().filter(|row| !row.absent.is_empty()) {
            for path in table::paths(row, "") {
                for key in scopes.iter().filter_map(|scope| in_scope(&path, scope)) {
                    if is_set.contains(&key) || self.given.contains_key(&key) {
                        continue;
                    }
                    let converted = if let Does::By(convert) = row.does { Some(convert(row.absent)) } else { None };
                    match converted {
                        Some(Converted::To(value) | Converted::Nearly(value, _)) => self.set(&key, &value, &origin),
                        _ => self.set(&key, row.absent, &origin),
                    }
                }
            }
        }
    }

    /// The zones and listeners that there are, as `zone.NAME` and `listener.tcp.NAME`; the empty one is the node.
    fn scopes(&self) -> BTreeSet<String> {
        let mut scopes = BTreeSet::from([String::new()]);
        for setting in &self.settings {
            match setting.key.split('.').collect::<Vec<_>>().as_slice() {
                ["zone", name, _, ..] => drop(scopes.insert(format!("zone.{name}"))),
                ["listener", transport, name, _, ..] => drop(scopes.insert(format!("listener.{transport}.{name}"))),
                _ => {}
            }
        }
        let zone_of = |listener: &str| match self.given.get(&format!("{listener}.zone")) {
            Some(entry) => entry.value.as_str(),
            None if listener == "listener.tcp.internal" => INTERNAL_NAME,
            None => DEFAULT_NAME,
        };
        let listeners = scopes.iter().filter(|scope| scope.starts_with("listener."));
        let mut zones: Vec<String> = listeners.map(|listener| format!("zone.{}", zone_of(listener))).collect();
        if zones.is_empty() {
            zones = STANDARD_ZONES.iter().map(|zone| format!("zone.{zone}")).collect();
        }
        scopes.extend(zones);
        scopes
    }
}

/// The path of a row, with the names of a scope in it; none if it is not of this scope.
fn in_scope(path: &str, scope: &str) -> Option<String> {
    let Some((before, leaf)) = path.split_once(".$name.") else {
        return scope.is_empty().then(|| path.to_owned());
    };
    let (of, name) = scope.rsplit_once('.')?;
    (of == before).then(|| format!("{of}.{name}.{leaf}"))
}

/// `zone.$name.publish_limit`, with the name that a path has there.
fn named(pattern: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let part = |(at, pattern): (usize, &str)| {
        let named = if pattern.starts_with('$') { parts.get(at).copied() } else { None };
        named.unwrap_or(pattern).to_owned()
    };
    pattern.split('.').enumerate().map(part).collect::<Vec<_>>().join(".")
}

/// The next line, if it has come to the end of this one, as in `0.0.0.0:8080cluster.k8s.service_name = emqx`.
fn glued(value: &str) -> Option<String> {
    for (at, _) in value.match_indices('=') {
        let before = value[..at].trim_end();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let word = &before[before.trim_end_matches(is_part).len()..];
        // Every end of the word may be the key: the value before it ends anywhere.
        let ends = word.char_indices().map(|(start, _)| &word[start..]);
        let first = |end: &str| end.starts_with(|c: char| c.is_ascii_lowercase());
        let mut keys = ends.filter(|end| first(end) && (table::find(end).is_some() || known::find(end).is_some()));
        if let Some(key) = keys.next() {
            return Some(format!("{key} = {}", value[at + 1..].trim()));
        }
    }
    None
}

/// Whether EMQ X has a key of this path that is none here, neither under another name.
pub(super) fn has_alone(path: &str) -> bool {
    let is_alone = |row: &Row| !matches!(row.does, Does::Same | Does::By(_)) && known::find(path).is_none();
    table::find(path).is_some_and(is_alone)
}

/// The key that somebody who wrote `path` most likely meant.
fn suggest(path: &str) -> Option<String> {
    let paths: Vec<String> = table::rows().flat_map(|row| table::paths(row, path)).collect();
    let near = known::nearest(path, paths.iter().map(String::as_str)).map(str::to_owned);
    near.or_else(|| known::suggest(path))
}

/// Where relative paths begin: `emqx.conf` is in `etc`, and they are written as seen from above it.
fn root(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder.file_name().is_some_and(|name| name == "etc") => {
            folder.parent().unwrap_or(Path::new("")).to_owned()
        }
        _ => PathBuf::new(),
    }
}

/// The text of a file; what is wrong with it otherwise.
pub(super) fn read_text(path: &Path) -> Result<String, Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::Unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        Fault::Unreadable(format!("line {line} is not UTF-8"))
    })
}

/// Whether what a key has is not shown.
fn is_secret(key: &str) -> bool {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    ["password", "secret", "cookie", "passcode", "key_password"].iter().any(|word| leaf.contains(word))
}

/// What a key of ours holds: the path of a file, a duration.
impl Found<'_> {
    fn is_path(&self) -> bool {
        match self {
            Found::Listener(_, _, _, key) => key.field.is_path(),
            Found::Zone(_, key) => key.field.is_path(),
            Found::Root(_, key) => key.field.is_path(),
        }
    }

    fn is_time(&self) -> bool {
        match self {
            Found::Listener(_, _, _, key) => key.field.is_time(),
            Found::Zone(_, key) => key.field.is_time(),
            Found::Root(_, key) => key.field.is_time(),
        }
    }
}

/// How deep files include others.
const INCLUDES_MAX: usize = 8;
