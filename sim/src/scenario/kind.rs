//! Kinds of values in a scenario file: how each is read, written and described. Nothing else knows their syntax.

use core::ops::RangeInclusive;

use newtmq_mqtt::{TopicFilter, TopicName};
use toml::de::{DeInteger, DeValue};

use super::problem::nearest;
use crate::history::ClientIx;

/// What values may name: it is known from keys that stand earlier in the definition.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    /// Names of the clients, in order.
    pub(super) clients: Vec<String>,
    pub(super) nodes: u16,
    pub(super) shards: u16,
}

/// A kind of value.
pub(super) trait Kind {
    type Value: Clone + PartialEq;

    /// What a person is to write, to stand after "it must be".
    fn expected(&self) -> String;

    /// The value, if it is one of this kind.
    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<Self::Value>;

    /// In TOML.
    fn write(&self, value: &Self::Value, context: &Context) -> String;

    /// What was probably meant by a text that is not of this kind.
    fn suggest(&self, _text: &str, _context: &Context) -> Option<String> {
        None
    }
}

/// A whole number.
pub(super) struct Int<T>(pub(super) RangeInclusive<T>);

impl<T: Copy + PartialEq + TryFrom<i128> + Into<i128>> Kind for Int<T> {
    type Value = T;

    fn expected(&self) -> String {
        let (low, high) = ((*self.0.start()).into(), (*self.0.end()).into());
        if low == high { low.to_string() } else { format!("a number from {low} to {high}") }
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<T> {
        let number = integer(value)?;
        ((*self.0.start()).into() <= number && number <= (*self.0.end()).into()).then(|| T::try_from(number).ok())?
    }

    fn write(&self, value: &T, _: &Context) -> String {
        let number: i128 = (*value).into();
        number.to_string()
    }
}

/// Any 64 bits. TOML has no number above 2^63 - 1, so the others are texts.
pub(super) struct Seed;

impl Kind for Seed {
    type Value = u64;

    fn expected(&self) -> String {
        "a number from 0 to 9223372036854775807, or a text such as \"0x1f\"".into()
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<u64> {
        if let DeValue::String(text) = value {
            return u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        }
        u64::try_from(integer(value)?).ok()
    }

    fn write(&self, value: &u64, _: &Context) -> String {
        if *value <= i64::MAX as u64 { value.to_string() } else { format!("\"{value:#x}\"") }
    }
}

/// The number of a node.
pub(super) struct Node;

impl Kind for Node {
    type Value = u16;

    fn expected(&self) -> String {
        "the number of a node, less than `nodes`".into()
    }

    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<u16> {
        u16::try_from(integer(value)?).ok().filter(|node| *node < context.nodes)
    }

    fn write(&self, value: &u16, _: &Context) -> String {
        value.to_string()
    }
}

/// Groups of nodes.
pub(super) struct Groups;

impl Kind for Groups {
    type Value = Vec<Vec<u16>>;

    fn expected(&self) -> String {
        "an array of groups, each an array of numbers of nodes, such as [[0, 1], [2]]".into()
    }

    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<Self::Value> {
        let group = |value: &DeValue<'_>| value.as_array()?.iter().map(|of| Node.read(of.get_ref(), context)).collect();
        value.as_array()?.iter().map(|of| group(of.get_ref())).collect()
    }

    fn write(&self, value: &Self::Value, _: &Context) -> String {
        let group = |group: &Vec<u16>| {
            let nodes: Vec<String> = group.iter().map(u16::to_string).collect();
            format!("[{}]", nodes.join(", "))
        };
        format!("[{}]", value.iter().map(group).collect::<Vec<_>>().join(", "))
    }
}

/// The number of a shard.
pub(super) struct Shard;

impl Kind for Shard {
    type Value = u16;

    fn expected(&self) -> String {
        "the number of a shard, less than `shards`".into()
    }

    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<u16> {
        u16::try_from(integer(value)?).ok().filter(|shard| *shard < context.shards)
    }

    fn write(&self, value: &u16, _: &Context) -> String {
        value.to_string()
    }
}

/// The name of a client.
pub(super) struct Client;

impl Kind for Client {
    type Value = ClientIx;

    fn expected(&self) -> String {
        "the name of a client".into()
    }

    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<ClientIx> {
        let name = value.as_str()?;
        let index = context.clients.iter().position(|client| client == name)?;
        u32::try_from(index).ok().map(ClientIx)
    }

    fn write(&self, value: &ClientIx, context: &Context) -> String {
        quoted(context.clients.get(value.0 as usize).map_or("", |name| name))
    }

    fn suggest(&self, text: &str, context: &Context) -> Option<String> {
        nearest(text, context.clients.iter().map(String::as_str))
    }
}

/// `true` or `false`.
pub(super) struct Bool;

impl Kind for Bool {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".into()
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<bool> {
        value.as_bool()
    }

    fn write(&self, value: &bool, _: &Context) -> String {
        value.to_string()
    }
}

/// One of a few words, or numbers that stand for something. Of two for one value the first is written.
pub(super) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Words<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.join(""),
        }
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<T> {
        let decimal = || value.as_integer().filter(|number| number.radix() == 10).map(DeInteger::as_str);
        let text = value.as_str().or_else(decimal).or_else(|| value.as_float().map(|number| number.as_str()))?;
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn write(&self, value: &T, _: &Context) -> String {
        let word = self.0.iter().find(|(_, known)| known == value).map_or("", |(word, _)| *word);
        if word.len() == 1 { word.to_owned() } else { quoted(word) }
    }

    fn suggest(&self, text: &str, _: &Context) -> Option<String> {
        nearest(text, self.0.iter().map(|(word, _)| *word))
    }
}

/// A least and a most value, or one number for both.
pub(super) struct Span(pub(super) RangeInclusive<u64>);

impl Kind for Span {
    type Value = RangeInclusive<u64>;

    fn expected(&self) -> String {
        format!("a number or [LEAST, MOST] in this order, from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<RangeInclusive<u64>> {
        let number = |value| u64::try_from(integer(value)?).ok().filter(|number| self.0.contains(number));
        match value.as_array() {
            Some(pair) if pair.len() == 2 => {
                let (low, high) = (number(pair[0].get_ref())?, number(pair[1].get_ref())?);
                (low <= high).then_some(low..=high)
            }
            Some(_) => None,
            None => number(value).map(|number| number..=number),
        }
    }

    fn write(&self, value: &RangeInclusive<u64>, _: &Context) -> String {
        let (low, high) = (value.start(), value.end());
        if low == high { low.to_string() } else { format!("[{low}, {high}]") }
    }
}

/// A text that a rule accepts.
pub(super) struct Text {
    pub(super) expected: &'static str,
    pub(super) accepts: fn(&str) -> bool,
}

impl Kind for Text {
    type Value = String;

    fn expected(&self) -> String {
        self.expected.into()
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<String> {
        value.as_str().filter(|text| (self.accepts)(text)).map(str::to_owned)
    }

    fn write(&self, value: &String, _: &Context) -> String {
        quoted(value)
    }
}

/// A Topic Name.
pub(super) const TOPIC: Text = Text { expected: "a Topic Name", accepts: |text| TopicName::new(text).is_ok() };

/// A Topic Filter.
pub(super) const FILTER: Text =
    Text { expected: "a Topic Filter or $share/GROUP/FILTER", accepts: |text| TopicFilter::new(text).is_ok() };

/// Several texts, or one.
pub(super) struct Texts(pub(super) Text);

impl Kind for Texts {
    type Value = Vec<String>;

    fn expected(&self) -> String {
        format!("{}, or an array of them", self.0.expected)
    }

    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<Vec<String>> {
        match value.as_array() {
            Some(texts) if texts.is_empty() => None,
            Some(texts) => texts.iter().map(|text| self.0.read(text.get_ref(), context)).collect(),
            None => self.0.read(value, context).map(|text| vec![text]),
        }
    }

    fn write(&self, value: &Vec<String>, _: &Context) -> String {
        match &value[..] {
            [single] => quoted(single),
            several => format!("[{}]", several.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(super) struct Hex;

impl Kind for Hex {
    type Value = Vec<u8>;

    fn expected(&self) -> String {
        "an even number of hexadecimal digits, at most 65536 bytes; blanks are allowed".into()
    }

    fn read(&self, value: &DeValue<'_>, _: &Context) -> Option<Vec<u8>> {
        let digits: Vec<u8> = value.as_str()?.bytes().filter(|byte| *byte != b' ').collect();
        if digits.len() > 2 * 65_536 || digits.len() % 2 == 1 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
    }

    fn write(&self, value: &Vec<u8>, _: &Context) -> String {
        let digits: Vec<String> = value.iter().map(|byte| format!("{byte:02x}")).collect();
        quoted(&digits.join(" "))
    }
}

/// A value that need not be there.
pub(super) struct Opt<K>(pub(super) K);

impl<K: Kind> Kind for Opt<K> {
    type Value = Option<K::Value>;

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn read(&self, value: &DeValue<'_>, context: &Context) -> Option<Self::Value> {
        self.0.read(value, context).map(Some)
    }

    fn write(&self, value: &Self::Value, context: &Context) -> String {
        value.as_ref().map(|value| self.0.write(value, context)).unwrap_or_default()
    }

    fn suggest(&self, text: &str, context: &Context) -> Option<String> {
        self.0.suggest(text, context)
    }
}

/// Microseconds that may be written as milliseconds, too.
pub(super) trait Micros: Sized {
    /// As milliseconds, if they are whole ones.
    fn to_ms(&self) -> Option<Self>;

    /// From milliseconds.
    fn of_ms(ms: Self) -> Self;
}

impl Micros for u64 {
    fn to_ms(&self) -> Option<u64> {
        (*self > 0 && self.is_multiple_of(1_000)).then_some(self / 1_000)
    }

    fn of_ms(ms: u64) -> u64 {
        ms.saturating_mul(1_000)
    }
}

impl Micros for RangeInclusive<u64> {
    fn to_ms(&self) -> Option<RangeInclusive<u64>> {
        let whole = *self.end() > 0 && self.start().is_multiple_of(1_000) && self.end().is_multiple_of(1_000);
        whole.then(|| self.start() / 1_000..=self.end() / 1_000)
    }

    fn of_ms(ms: RangeInclusive<u64>) -> RangeInclusive<u64> {
        u64::of_ms(*ms.start())..=u64::of_ms(*ms.end())
    }
}

/// A text in TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as a person wrote it, for messages.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("`{text}`"),
        DeValue::Integer(number) => format!("`{}`", number.as_str()),
        DeValue::Float(number) => format!("`{}`", number.as_str()),
        DeValue::Boolean(flag) => format!("`{flag}`"),
        DeValue::Datetime(_) => "a date or time".into(),
        DeValue::Table(_) => "a table".into(),
        DeValue::Array(array) => {
            let parts: Vec<String> = array.iter().map(|part| shown(part.get_ref()).replace('`', "")).collect();
            format!("`[{}]`", parts.join(", "))
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let number: &DeInteger<'_> = value.as_integer()?;
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}
