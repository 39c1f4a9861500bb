//! Writes scenario files: what has its default is left out, and the order is that of the definition, so that equal
//! scenarios are equal files.

use core::fmt::Write as _;

use super::fields::{Section, Visitor};
use super::kind::{Context, Kind, Micros, quoted};
use super::{ClientSpec, FilterSpec, Scenario};

impl Scenario {
    /// The scenario as a file. [`Scenario::parse`] makes the same scenario of it, if it is one that a file can have: valid
    /// topics, clients that are there, numbers in their limits.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut writer = Writer::default();
        self.clone().fields(&mut writer);
        writer.out
    }

    /// A step as one line, with the keys and values that it has in a file.
    ///
    /// # Panics
    /// If there is no such step.
    #[must_use]
    pub fn step_line(&self, index: usize) -> String {
        let mut writer = Writer::default();
        writer.clients(&self.clients);
        self.steps[index].clone().fields(&mut writer);
        writer.out.lines().map(str::trim).collect::<Vec<_>>().join(", ").replace("[, ", "[").replace(",, ", ", ")
    }
}

#[derive(Default)]
struct Writer {
    out: String,
    context: Context,
}

impl Writer {
    fn line(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.out, "{key} = {value}");
    }
}

impl Visitor for Writer {
    fn optional<K: Kind>(
        &mut self,
        key: &'static str,
        _: &'static str,
        kind: K,
        value: &mut K::Value,
        default: &K::Value,
    ) {
        if value != default {
            self.line(key, &kind.write(value, &self.context));
        }
    }

    fn required<K: Kind>(&mut self, key: &'static str, _: &'static str, kind: K, value: &mut K::Value) -> bool {
        self.line(key, &kind.write(value, &self.context));
        true
    }

    fn micros<K: Kind<Value: Micros>>(
        &mut self,
        [ms, us]: [&'static str; 2],
        _: &'static str,
        kind: K,
        value: &mut K::Value,
        default: &K::Value,
    ) {
        if value != default {
            match value.to_ms() {
                Some(whole) => self.line(ms, &kind.write(&whole, &self.context)),
                None => self.line(us, &kind.write(value, &self.context)),
            }
        }
    }

    fn filters(&mut self, filters: &mut Vec<FilterSpec>) {
        let Some(first) = filters.first() else { return };
        let options = |filter: &FilterSpec| FilterSpec { filter: String::new(), ..filter.clone() };
        let mut common = options(first);
        if filters.iter().all(|filter| options(filter) == common) {
            match &filters[..] {
                [one] => self.line("filter", &quoted(&one.filter)),
                several => {
                    let texts: Vec<String> = several.iter().map(|filter| quoted(&filter.filter)).collect();
                    self.line("filters", &format!("[{}]", texts.join(", ")));
                }
            }
            common.options(self);
            return;
        }
        self.out.push_str("filters = [\n");
        for filter in filters {
            let mut table = Writer::default();
            table.line("filter", &quoted(&filter.filter));
            filter.options(&mut table);
            let pairs: Vec<&str> = table.out.lines().collect();
            let _ = writeln!(self.out, "  {{ {} }},", pairs.join(", "));
        }
        self.out.push_str("]\n");
    }

    fn section<T: Section>(&mut self, key: &'static str, value: &mut T) {
        let before = self.out.len();
        let _ = write!(self.out, "\n[{key}]\n");
        let empty = self.out.len();
        value.fields(self);
        if self.out.len() == empty {
            self.out.truncate(before);
        }
    }

    fn sections<T: Section + Default>(&mut self, key: &'static str, values: &mut Vec<T>) {
        for value in values {
            let _ = write!(self.out, "\n[[{key}]]\n");
            value.fields(self);
        }
    }

    fn nodes(&mut self, nodes: u16, shards: u16) {
        self.context.nodes = nodes;
        self.context.shards = shards;
    }

    fn clients(&mut self, clients: &[ClientSpec]) {
        self.context.clients = clients.iter().map(|client| client.name.clone()).collect();
    }
}
