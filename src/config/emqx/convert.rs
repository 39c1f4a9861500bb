//! Values that are written in another way in EMQ X. Each function reads one value and knows no key.

use super::super::listener::{CIPHERS, TlsVersion};
use super::super::value;

/// What a value becomes.
pub(super) enum Converted {
    /// This.
    To(String),
    /// This, which is not quite the same: why.
    Nearly(String, String),
    /// Nothing: what it would have to be.
    Wrong(String),
}

/// `0` is `off`.
pub(super) fn zero_is_off(text: &str) -> Converted {
    Converted::To(if is_zero(text) { "off" } else { text }.to_owned())
}

/// `0` is `none`.
pub(super) fn zero_is_none(text: &str) -> Converted {
    Converted::To(if is_zero(text) { "none" } else { text }.to_owned())
}

fn is_zero(text: &str) -> bool {
    value::duration(text).is_some_and(|time| time.is_zero())
}

/// `0` is no limit.
pub(super) fn awaiting_rel(text: &str) -> Converted {
    match text {
        "0" => Converted::Nearly(u16::MAX.to_string(), "no limit is 65535".to_owned()),
        _ => Converted::To(text.to_owned()),
    }
}

/// `1.5h` and `1f`, a fortnight, which are durations in EMQ X alone; none if it is none of these.
pub(super) fn duration(text: &str) -> Option<String> {
    const UNITS: [(&str, f64); 7] = [
        ("ms", 1.0),
        ("f", 14.0 * 86_400_000.0),
        ("w", 7.0 * 86_400_000.0),
        ("d", 86_400_000.0),
        ("h", 3_600_000.0),
        ("m", 60_000.0),
        ("s", 1000.0),
    ];
    let (unit, millis) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = value::ratio(text.strip_suffix(unit)?)?;
    let millis = (number * millis).ceil();
    (millis < 9e15).then(|| format!("{millis:.0}ms"))
}

/// The levels of syslog.
pub(super) fn log_level(text: &str) -> Converted {
    let word = match text {
        "warning" | "error" => "warn",
        "notice" => "info",
        "critical" | "alert" | "emergency" => "error",
        other => other,
    };
    match text {
        "error" => {
            let why =
                "warnings are written, too: they tell what of a file has no effect; `--log error` leaves them out";
            Converted::Nearly(word.to_owned(), why.to_owned())
        }
        _ => Converted::To(word.to_owned()),
    }
}

/// `100KB,10s` is so much in a time; `1024,4096` is bytes per second and at once.
pub(super) fn rate_limit(text: &str) -> Converted {
    let Some((amount, time)) = text.split_once(',') else { return Converted::To(text.to_owned()) };
    let (amount, time) = (amount.trim(), time.trim());
    match (value::size(amount), value::duration(time)) {
        (Some(bytes), Some(time)) if !time.is_zero() => {
            let rate = (u128::from(bytes) * 1000 / time.as_millis()).max(1);
            Converted::To(format!("{rate},{bytes}"))
        }
        _ => Converted::To(text.to_owned()),
    }
}

/// Versions that there still are.
pub(super) fn tls_versions(text: &str) -> Converted {
    let (kept, dropped) = sorted(text, TlsVersion::WORDS);
    let expected = || format!("some of {}, with commas between; others are broken", TlsVersion::WORDS.join(", "));
    match (kept.is_empty(), dropped.is_empty()) {
        (true, _) => Converted::Wrong(expected()),
        (_, true) => Converted::To(kept.join(",")),
        _ => Converted::Nearly(kept.join(","), format!("{} left out, as broken", dropped.join(", "))),
    }
}

/// Cipher suites that there still are. `with_tls_1_3` puts those of TLS 1.3 first, if none of them is named.
pub(super) fn ciphers(text: &str, with_tls_1_3: bool) -> Converted {
    let (mut kept, dropped) = sorted(text, CIPHERS);
    let of_1_3 = |name: &&str| name.starts_with("TLS_");
    let adds = with_tls_1_3 && !kept.iter().any(of_1_3);
    if kept.is_empty() && !with_tls_1_3 {
        return Converted::Wrong(format!("some of {}, with commas between", CIPHERS.join(", ")));
    }
    if adds {
        kept.splice(0..0, CIPHERS.iter().copied().filter(of_1_3));
    }
    let mut why = Vec::new();
    if !dropped.is_empty() {
        why.push(format!("{} of the suites left out, as weak or unknown", dropped.len()));
    }
    if adds {
        why.push("those of TLS 1.3 added".to_owned());
    }
    match why.is_empty() {
        true => Converted::To(kept.join(",")),
        false => Converted::Nearly(kept.join(","), why.join("; ")),
    }
}

/// Words that are known, each once, and those that are not.
fn sorted<'a>(text: &'a str, known: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for word in text.split([',', ':']).map(str::trim).filter(|word| !word.is_empty()) {
        match known.contains(&word) {
            true if !kept.contains(&word) => kept.push(word),
            true => {}
            false => dropped.push(word),
        }
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(converted: Converted) -> String {
        match converted {
            Converted::To(text) => text,
            Converted::Nearly(text, why) => format!("{text} ({why})"),
            Converted::Wrong(expected) => format!("wrong: {expected}"),
        }
    }

    #[test]
    fn values() {
        for (got, want) in [
            (to(zero_is_off("0")), "off"),
            (to(zero_is_off("0s")), "off"),
            (to(zero_is_off("5m")), "5m"),
            (to(zero_is_none("0")), "none"),
            (to(awaiting_rel("0")), "65535 (no limit is 65535)"),
            (to(log_level("warning")), "warn"),
            (to(log_level("alert")), "error"),
            (to(log_level("loud")), "loud"),
            (to(rate_limit("1024,4096")), "1024,4096"),
            (to(rate_limit("100KB, 10s")), "10240,102400"),
            (to(rate_limit("1,1d")), "1,1"),
            (to(rate_limit("x,1s")), "x,1s"),
            (to(tls_versions("tlsv1.2,tlsv1.1,tlsv1")), "tlsv1.2 (tlsv1.1, tlsv1 left out, as broken)"),
            (to(tls_versions("tlsv1.3")), "tlsv1.3"),
            (to(tls_versions("tlsv1")), "wrong: some of tlsv1.3, tlsv1.2, with commas between; others are broken"),
            (
                to(ciphers("ECDHE-RSA-AES256-GCM-SHA384,AES128-SHA", false)),
                "ECDHE-RSA-AES256-GCM-SHA384 (1 of the suites left out, as weak or unknown)",
            ),
            (
                to(ciphers("AES128-SHA", true)),
                "TLS_AES_256_GCM_SHA384,TLS_AES_128_GCM_SHA256,TLS_CHACHA20_POLY1305_SHA256 (1 of the suites left out, as \
                 weak or unknown; those of TLS 1.3 added)",
            ),
            (to(ciphers("TLS_AES_128_GCM_SHA256", true)), "TLS_AES_128_GCM_SHA256"),
        ] {
            assert_eq!(got, want);
        }
        for (text, want) in [
            ("1.5h", Some("5400000ms")),
            ("0.1s", Some("100ms")),
            ("1f", Some("1209600000ms")),
            ("0.5ms", Some("1ms")),
            ("h", None),
            ("1.5", None),
            ("-1s", None),
            ("1e9s", None),
            ("99999999999999999999w", None),
        ] {
            assert_eq!(duration(text).as_deref(), want, "{text}");
        }
        assert!(to(ciphers("AES128-SHA", false)).starts_with("wrong: "));
    }
}
