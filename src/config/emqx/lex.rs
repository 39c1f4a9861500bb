//! Lines of the flat format: `key = value`, comments, `include FILE`. What keys mean is decided elsewhere.
//!
//! A comment has a line of its own, as in EMQ X: topics have a `#`. A value goes on to the end of its line; quotes around
//! all of it are taken off. Lines such as `{{ additional_configs }}` are left by the template that the file is made from.

use super::super::problem::{Fault, Origin, Problem};
use super::super::value;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path.
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Entry(Entry),
    /// Another file, as it is written.
    Include(String, Origin),
}

/// Reads the text of a file. Whoever wrote it made its mistakes; each names its line.
pub(super) fn lines(name: &str, text: &str) -> (Vec<Line>, Vec<Problem>) {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (at, line) in text.split('\n').enumerate() {
        let origin = Origin::Line(name.to_owned(), at + 1);
        match read(line.trim(), &origin) {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => {}
            Err(fault) => problems.push(Problem { origin: Some(origin), fault }),
        }
    }
    (lines, problems)
}

fn read(line: &str, origin: &Origin) -> Result<Option<Line>, Fault> {
    if line.is_empty() || line.starts_with('#') || (line.starts_with("{{") && line.ends_with("}}")) {
        return Ok(None);
    }
    if let Some(file) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t', '"'])) {
        let file = unquoted(file.trim()).trim();
        // `include = 1` is no key of EMQ X, either; what it means is said best where keys are.
        if !file.is_empty() && !file.starts_with('=') {
            return Ok(Some(Line::Include(file.to_owned(), origin.clone())));
        }
    }
    let Some((key, value)) = line.split_once('=') else { return Err(no_setting(line)) };
    let key = key.trim();
    if key.is_empty() || !key.split('.').all(is_word) {
        return Err(no_setting(line));
    }
    // `a\.b` is one part with a dot in it.
    let key = key.replace("\\.", ".");
    let value = value.trim();
    if value.is_empty() {
        return Err(Fault::Flat { message: format!("{key}: there is no value; leave the line out for the default") });
    }
    Ok(Some(Line::Entry(Entry { key, value: filled(unquoted(value)), origin: origin.clone() })))
}

/// A part of a key.
fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-@/:\\".contains(&b))
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// The folders that a template would fill in are those of EMQ X.
fn filled(value: &str) -> String {
    let mut out = value.to_owned();
    for (word, folder) in [("etc", "etc"), ("data", "data"), ("log", "log")] {
        for template in [format!("{{{{ platform_{word}_dir }}}}"), format!("{{{{platform_{word}_dir}}}}")] {
            out = out.replace(&template, folder);
        }
    }
    out
}

/// What a line is that is neither.
fn no_setting(line: &str) -> Fault {
    let first = line.split_whitespace().next().unwrap_or(line);
    let message = if line.ends_with('{') || line == "}" {
        "braces are the format of EMQX 5, which is not read; this file is read as that of EMQ X 3 and 4, `key = value`"
            .to_owned()
    } else if !line.contains('=') && value::name(first).is_some() && super::super::mosquitto::is_key(first) {
        format!("this looks like a mosquitto.conf; docs/migration.md says what `{first}` is here")
    } else {
        "neither `key = value` nor a comment, which begins with #".to_owned()
    };
    Fault::Flat { message }
}

/// Whether a text is of this format and not TOML. The name decides, unless it is no name for either.
pub(in crate::config) fn is_flat(name: &str, text: &str) -> bool {
    let meant = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if name.ends_with(".toml") || meant().any(|line| line.starts_with('[') && line.ends_with(']')) {
        return false;
    }
    let is_bare = |line: &str| {
        let value = line.split_once('=').map(|(_, value)| value.trim());
        value.is_some_and(|value| value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/'))
            && toml::de::DeTable::parse(line).is_err()
    };
    name.ends_with(".conf") || meant().any(is_bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<(String, String)> {
        let (lines, problems) = lines("f", text);
        assert_eq!(problems, []);
        let pair = |line| match line {
            Line::Entry(Entry { key, value, .. }) => (key, value),
            Line::Include(file, _) => ("include".to_owned(), file),
        };
        lines.into_iter().map(pair).collect()
    }

    #[test]
    fn what_lines_say() {
        for (line, want) in [
            ("## a = b", None),
            ("   # a = b", None),
            ("", None),
            ("{{ additional_configs }}", None),
            ("a.b=c", Some(("a.b", "c"))),
            (" a.b  =  c d  \r", Some(("a.b", "c d"))),
            ("a = t/#,u/# ", Some(("a", "t/#,u/#"))),
            ("a = b ## c", Some(("a", "b ## c"))),
            ("a = b=c", Some(("a", "b=c"))),
            ("a = \"b c\"", Some(("a", "b c"))),
            ("a = 'b c'", Some(("a", "b c"))),
            ("a = \"b\" and \"c\"", Some(("a", "\"b\" and \"c\""))),
            ("a = {{ platform_etc_dir }}/acl.conf", Some(("a", "etc/acl.conf"))),
            ("a = {\"b\": 1}", Some(("a", "{\"b\": 1}"))),
            (r"a.b\.c = 1", Some(("a.b.c", "1"))),
            ("include \"other.conf\"", Some(("include", "other.conf"))),
            ("include other.conf", Some(("include", "other.conf"))),
            ("include.x = 1", Some(("include.x", "1"))),
        ] {
            let want: Vec<_> = want.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            assert_eq!(entries(line), want, "{line:?}");
        }
        assert_eq!(entries("\u{feff}a = 1"), [("a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn what_is_no_line() {
        let text = "a\n= 1\na. = 1\na b = 1\nä = 1\n\nkey =\nnode {\n}\nlistener 1883\nlistener = 1883 =\n";
        let problems: Vec<String> = lines("f", text).1.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(problems.join("\n"));
    }

    #[test]
    fn which_format_a_text_has() {
        for (name, text, want) in [
            ("a.toml", "a = b", false),
            ("a.conf", "", true),
            ("a.conf", "a = 1", true),
            ("a.conf", "# a\n[zone.external]\nmax_inflight = 1", false),
            ("a", "a = 1", false),
            ("a", "a = \"b\"", false),
            ("a", "a = 1\nlistener.tcp.external = 0.0.0.0:1883", true),
            ("a", "log.level = info", true),
            ("a", "", false),
        ] {
            assert_eq!(is_flat(name, text), want, "{name} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_mistake_has_a_line(text in "(?s).{0,200}") {
            let (_, problems) = lines("f", &text);
            for problem in problems {
                let line = match problem.origin { Some(Origin::Line(_, line)) => line, _ => 0 };
                prop_assert!((1..=text.split('\n').count()).contains(&line));
            }
        }
    }
}
