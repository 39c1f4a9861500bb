//! Reads scenario files: every mistake of a file is told, not only the first.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fields::{Section, Visitor};
use super::kind::{Context, FILTER, Kind, Micros, shown};
use super::problem::{Fault, Problem, Problems, nearest};
use super::{ClientSpec, FilterSpec, QoS, Scenario};

impl Scenario {
    /// Reads the text of a file. Steps are sorted by time; of two at one time the first one is first.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with `file`, line, key and what would be right.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, Problems> {
        let mut shared = Shared { text, context: Context::default(), faults: Vec::new(), sections: Vec::new() };
        let mut scenario = Scenario::default();
        let (table, errors) = DeTable::parse_recoverable(text);
        // Recovery can stumble over the same line several times; the first message is the one that helps.
        let mut syntax = BTreeMap::new();
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            syntax.entry(shared.line(at)).or_insert((at, error.message()));
        }
        for (at, message) in syntax.into_values() {
            shared.fault(at, Fault::Syntax { message: message.to_owned() });
        }
        if errors.is_empty() {
            let mut reader = Reader::new(&mut shared, table.get_ref(), 0, "");
            scenario.fields(&mut reader);
            reader.finish();
        }
        if shared.faults.is_empty() {
            let at = table
                .get_ref()
                .iter()
                .find(|(key, _)| key.get_ref() == "driver")
                .map_or(0, |(key, _)| key.span().start);
            for what in scenario.beyond_its_tier() {
                shared.fault(at, Fault::BeyondTier { what });
            }
        }
        if shared.faults.is_empty() {
            scenario.steps.sort_by_key(|step| step.at_ms);
            return Ok(scenario);
        }
        shared.faults.sort_by_key(|(at, _)| *at);
        let line = |at| text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let problems =
            shared.faults.into_iter().map(|(at, fault)| Problem { file: file.into(), line: line(at), fault });
        Err(Problems(problems.collect()))
    }
}

/// What readers of all tables have in common.
struct Shared<'t> {
    text: &'t str,
    context: Context,
    /// With the byte that each is about.
    faults: Vec<(usize, Fault)>,
    /// Where the tables of the last array of tables begin.
    sections: Vec<usize>,
}

impl Shared<'_> {
    fn fault(&mut self, at: usize, fault: Fault) {
        self.faults.push((at.min(self.text.len()), fault));
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Reads one table.
struct Reader<'r, 't> {
    shared: &'r mut Shared<'t>,
    table: &'r DeTable<'r>,
    at: usize,
    /// Stands before keys in messages: nothing, or the section with a dot.
    prefix: &'static str,
    known: Vec<&'static str>,
    skip: bool,
}

type Entry<'r> = (usize, &'r Spanned<DeValue<'r>>);

impl<'r, 't> Reader<'r, 't> {
    fn new(shared: &'r mut Shared<'t>, table: &'r DeTable<'r>, at: usize, prefix: &'static str) -> Self {
        Reader { shared, table, at, prefix, known: Vec::new(), skip: false }
    }

    /// A key by its name, with where it stands.
    fn take(&mut self, key: &'static str) -> Option<Entry<'r>> {
        self.known.push(key);
        self.peek(key)
    }

    fn peek(&self, key: &str) -> Option<Entry<'r>> {
        let table = self.table;
        table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, value)| (name.span().start, value))
    }

    fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    fn value<K: Kind>(&mut self, key: &str, kind: &K, (at, value): Entry<'_>) -> Option<K::Value> {
        let value = value.get_ref();
        let read = kind.read(value, &self.shared.context);
        if read.is_none() {
            let suggestion = value.as_str().and_then(|text| kind.suggest(text, &self.shared.context));
            let (key, found, expected) = (self.path(key), shown(value), kind.expected());
            self.shared.fault(at, Fault::BadValue { key, found, expected, suggestion });
        }
        read
    }

    fn child<T: Section>(&mut self, key: &'static str, at: usize, value: &DeValue<'_>, into: &mut T) {
        match value.as_table() {
            Some(table) => {
                let mut reader = Reader::new(self.shared, table, at, key);
                into.fields(&mut reader);
                reader.finish();
            }
            None => self.bad(key, at, value, "a section"),
        }
    }

    fn bad(&mut self, key: &str, at: usize, value: &DeValue<'_>, expected: &str) {
        let fault =
            Fault::BadValue { key: self.path(key), found: shown(value), expected: expected.into(), suggestion: None };
        self.shared.fault(at, fault);
    }

    /// Complains about keys that nobody asked for.
    fn finish(self) {
        if self.skip {
            return;
        }
        for (name, _) in self.table {
            let (at, name) = (name.span().start, name.get_ref());
            if !self.known.iter().any(|known| known == name) {
                let suggestion = nearest(name, self.known.iter().copied());
                self.shared.fault(at, Fault::UnknownKey { key: self.path(name), suggestion });
            }
        }
    }

    /// The filters of an array: texts, which have the options of the step, or tables with options of their own.
    fn filter_list(&mut self, at: usize, list: &DeValue<'_>, options: &FilterSpec) -> Vec<FilterSpec> {
        let Some(array) = list.as_array().filter(|array| !array.is_empty()) else {
            self.bad("filters", at, list, "an array of Topic Filters or of tables with `filter` and options");
            return Vec::new();
        };
        let mut filters = Vec::new();
        for item in array {
            let mut filter = options.clone();
            if let Some(table) = item.get_ref().as_table() {
                let mut reader = Reader::new(self.shared, table, item.span().start, "step.filters");
                reader.required("filter", "", FILTER, &mut filter.filter);
                filter.options(&mut Defaults { reader: &mut reader });
                reader.finish();
            } else if let Some(text) = self.value("filters", &FILTER, (at, item)) {
                filter.filter = text;
            }
            filters.push(filter);
        }
        filters
    }
}

impl Visitor for Reader<'_, '_> {
    fn optional<K: Kind>(
        &mut self,
        key: &'static str,
        _: &'static str,
        kind: K,
        value: &mut K::Value,
        default: &K::Value,
    ) {
        let entry = self.take(key);
        *value = entry.and_then(|entry| self.value(key, &kind, entry)).unwrap_or_else(|| default.clone());
    }

    fn required<K: Kind>(&mut self, key: &'static str, _: &'static str, kind: K, value: &mut K::Value) -> bool {
        let Some(entry) = self.take(key) else {
            let fault = Fault::Missing { key: self.path(key), expected: kind.expected() };
            self.shared.fault(self.at, fault);
            return false;
        };
        let read = self.value(key, &kind, entry);
        let fine = read.is_some();
        if let Some(read) = read {
            *value = read;
        }
        fine
    }

    fn micros<K: Kind<Value: Micros>>(
        &mut self,
        [ms, us]: [&'static str; 2],
        _: &'static str,
        kind: K,
        value: &mut K::Value,
        default: &K::Value,
    ) {
        let entries = (self.take(ms), self.take(us));
        if let (Some(_), Some((at, _))) = entries {
            let fault = Fault::Both { key: self.path(us), other: ms };
            self.shared.fault(at, fault);
        }
        let read = match entries {
            (Some(entry), _) => self.value(ms, &kind, entry).map(Micros::of_ms),
            (None, Some(entry)) => self.value(us, &kind, entry),
            (None, None) => None,
        };
        *value = read.unwrap_or_else(|| default.clone());
    }

    fn filters(&mut self, filters: &mut Vec<FilterSpec>) {
        let mut options = FilterSpec::new("", QoS::AtMostOnce);
        options.options(self);
        let (one, several) = (self.take("filter"), self.take("filters"));
        match (one, several) {
            (Some(entry), None) => {
                if let Some(filter) = self.value("filter", &FILTER, entry) {
                    *filters = vec![FilterSpec { filter, ..options }];
                }
            }
            (None, Some((at, list))) => *filters = self.filter_list(at, list.get_ref(), &options),
            (Some(_), Some((at, _))) => {
                let fault = Fault::Both { key: self.path("filters"), other: "filter" };
                self.shared.fault(at, fault);
            }
            (None, None) => {
                let fault = Fault::Missing { key: self.path("filter"), expected: FILTER.expected() };
                self.shared.fault(self.at, fault);
            }
        }
    }

    fn needs(&mut self, keys: &'static [&'static str], other: &'static str) {
        for key in keys {
            if self.peek(other).is_none()
                && let Some((at, _)) = self.peek(key)
            {
                let fault = Fault::Needs { key: self.path(key), other };
                self.shared.fault(at, fault);
            }
        }
    }

    fn skip_rest(&mut self) {
        self.skip = true;
    }

    fn section<T: Section>(&mut self, key: &'static str, value: &mut T) {
        if let Some((at, table)) = self.take(key) {
            self.child(key, at, table.get_ref(), value);
        }
    }

    fn sections<T: Section + Default>(&mut self, key: &'static str, values: &mut Vec<T>) {
        self.shared.sections.clear();
        let Some((at, array)) = self.take(key) else { return };
        let Some(tables) = array.get_ref().as_array() else {
            let expected = format!("sections that begin with [[{key}]]");
            self.bad(key, at, array.get_ref(), &expected);
            return;
        };
        for table in tables {
            let mut value = T::default();
            let at = table.span().start;
            self.child(key, at, table.get_ref(), &mut value);
            self.shared.sections.push(at);
            values.push(value);
        }
    }

    fn nodes(&mut self, nodes: u16, shards: u16) {
        self.shared.context.nodes = nodes;
        self.shared.context.shards = shards;
    }

    fn clients(&mut self, clients: &[ClientSpec]) {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        let sections = core::mem::take(&mut self.shared.sections);
        for (client, at) in clients.iter().zip(sections) {
            if client.name.is_empty() {
                let expected = "the name that steps call the client, unless there is an `id`".into();
                self.shared.fault(at, Fault::Missing { key: "client.name".into(), expected });
            } else if let Some(earlier) = first.get(&client.name[..]) {
                let (name, first) = (client.name.clone(), self.shared.line(*earlier));
                self.shared.fault(at, Fault::Twice { key: "client.name".into(), name, first });
            } else {
                first.insert(&client.name, at);
            }
        }
        self.shared.context.clients = clients.iter().map(|client| client.name.clone()).collect();
    }
}

/// Reads options of which those that are left out stay as they are.
struct Defaults<'a, 'r, 't> {
    reader: &'a mut Reader<'r, 't>,
}

impl Visitor for Defaults<'_, '_, '_> {
    fn optional<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut K::Value, _: &K::Value) {
        let default = value.clone();
        self.reader.optional(key, doc, kind, value, &default);
    }

    fn required<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut K::Value) -> bool {
        self.reader.required(key, doc, kind, value)
    }

    fn micros<K: Kind<Value: Micros>>(
        &mut self,
        keys: [&'static str; 2],
        doc: &'static str,
        kind: K,
        value: &mut K::Value,
        _: &K::Value,
    ) {
        let default = value.clone();
        self.reader.micros(keys, doc, kind, value, &default);
    }

    fn filters(&mut self, filters: &mut Vec<FilterSpec>) {
        self.reader.filters(filters);
    }

    fn section<T: Section>(&mut self, key: &'static str, value: &mut T) {
        self.reader.section(key, value);
    }

    fn sections<T: Section + Default>(&mut self, key: &'static str, values: &mut Vec<T>) {
        self.reader.sections(key, values);
    }
}
