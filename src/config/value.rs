//! How values are written: flags, sizes, durations, ratios, addresses and queue priorities. Every function here reads
//! text and knows no key; the ranges are in the table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::cluster::{Secret, Seed};
use super::discovery::Url;
use super::listener::AccessRule;
use super::types::{Bandwidth, PerTime, Watermark};

const SIZE_UNITS: [(&str, u64); 4] = [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10), ("b", 1)];

/// Largest first: a duration names its parts in this order.
const TIME_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `true`, `false`, `on`, `off`.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "on" => Some(true),
        "false" | "off" => Some(false),
        _ => None,
    }
}

/// `none`, or the path of a file.
pub(super) fn file(text: &str) -> Option<Option<PathBuf>> {
    match text {
        "none" => Some(None),
        _ if text.is_empty() || text.contains('\0') => None,
        _ => Some(Some(PathBuf::from(text))),
    }
}

/// A whole number in decimal digits.
pub(super) fn count(text: &str) -> Option<u64> {
    // `u64::from_str` takes a leading plus sign, which no key means.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Bytes, or a number with B, KB, MB or GB, each 1024 of the one before, as in EMQ X.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    for (unit, bytes) in SIZE_UNITS {
        if let Some(number) = lower.strip_suffix(unit) {
            return count(number)?.checked_mul(bytes);
        }
    }
    count(&lower)
}

/// `300ms`, `15s`, `1m`, `2h`, `1d`, `1w`, or several with the larger unit first: `1h30m`. Zero needs no unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = TIME_UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(letters);
        // The iterator goes on from the last unit found, so a unit that repeats or rises is not found.
        let (_, factor) = units.find(|(unit, _)| *unit == name)?;
        total = total.checked_add(count(number)?.checked_mul(*factor)?)?;
        rest = tail;
    }
    if text.is_empty() { None } else { Some(Duration::from_millis(total)) }
}

/// A number such as `0.75`; never infinite, never "not a number".
pub(super) fn ratio(text: &str) -> Option<f64> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    text.parse().ok()
}

/// `ADDRESS:PORT`, or a bare port, which means every IPv4 interface, as in EMQ X.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(port) = text.parse::<u16>() {
        return Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    }
    text.parse().ok()
}

/// What names a listener or a zone: letters, digits, `_` and `-`, at most 64.
pub(super) fn name(text: &str) -> Option<&str> {
    let fits = (1..=NAME_LENGTH_MAX).contains(&text.len());
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    (fits && plain).then_some(text)
}

/// `NAME@HOST`, fit to be a level of a topic name.
pub(super) fn node_name(text: &str) -> Option<&str> {
    let (name, host) = text.split_once('@')?;
    let fits = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'[' | b']');
        (1..=255).contains(&part.len()) && part.bytes().all(plain)
    };
    (fits(name) && fits(host)).then_some(text)
}

/// `t=10,u=8` or `none`. A topic is compared word for word, so a wildcard is refused.
pub(super) fn priorities(text: &str) -> Option<Vec<(String, u8)>> {
    let mut found: Vec<(String, u8)> = Vec::new();
    if text == "none" {
        return Some(found);
    }
    for part in text.split(',') {
        // The last `=` ends the topic: a topic may contain one.
        let (topic, priority) = part.trim().rsplit_once('=')?;
        let priority = u8::try_from(count(priority.trim())?).ok().filter(|p| *p >= 1)?;
        let topic = topic.trim_end();
        if topic.is_empty() || topic.contains(['+', '#']) || found.iter().any(|(known, _)| known == topic) {
            return None;
        }
        found.push((topic.to_owned(), priority));
    }
    Some(found)
}

/// `none`, or `NAME=TEXT,…`, each name once.
pub(super) fn claims(text: &str) -> Option<Vec<(String, String)>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let mut claims: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || value.is_empty() || claims.iter().any(|(known, _)| known == name) {
            return None;
        }
        claims.push((name.to_owned(), value.to_owned()));
    }
    Some(claims)
}

/// `none`, or what `read` makes of it.
pub(super) fn or_none<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "none" { Some(None) } else { read(text).map(Some) }
}

/// `100,10s`.
pub(super) fn per_time(text: &str) -> Option<PerTime> {
    let (number, time) = text.split_once(',')?;
    let number = u32::try_from(count(number.trim())?).ok().filter(|number| *number > 0)?;
    let time = duration(time.trim()).filter(|time| (PER_TIME_MIN..=PER_TIME_MAX).contains(time))?;
    Some(PerTime { count: number, time })
}

/// `100KB,200KB`.
pub(super) fn bandwidth(text: &str) -> Option<Bandwidth> {
    let (rate, burst) = text.split_once(',')?;
    let read = |text: &str| size(text.trim()).filter(|bytes| (1..=BANDWIDTH_MAX).contains(bytes));
    Some(Bandwidth { bytes_per_second: read(rate)?, burst: read(burst)? })
}

/// The beginning of a topic.
pub(super) fn mountpoint(text: &str) -> Option<String> {
    let fits = (1..=MOUNTPOINT_LENGTH_MAX).contains(&text.len()) && !text.contains(['+', '#', '\0']);
    // No client could publish below the first one; below the others its topics would name a group.
    let reserved = ["$SYS/", "$share/", "$queue/"].iter().any(|prefix| text.starts_with(prefix));
    (fits && !reserved).then(|| text.to_owned())
}

/// `80%` or a size.
pub(super) fn watermark(text: &str) -> Option<Watermark> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = u8::try_from(count(percent)?).ok().filter(|percent| (1..=99).contains(percent))?;
            Some(Watermark::Percent(percent))
        }
        None => size(text).filter(|bytes| *bytes >= WATERMARK_BYTES_MIN).map(Watermark::Bytes),
    }
}

/// A text that is not shown.
pub(super) fn secret(text: &str) -> Option<Secret> {
    (1..=SECRET_LENGTH_MAX).contains(&text.len()).then(|| Secret::new(text))
}

/// `none`, or `newtmq@10.0.0.1,10.0.0.2:4371`.
pub(super) fn seeds(text: &str) -> Option<Vec<Seed>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let seeds: Vec<Seed> = text.split(',').map(|seed| Seed::parse(seed.trim())).collect::<Option<_>>()?;
    (seeds.len() <= SEEDS_MAX).then_some(seeds)
}

/// `none`, or `https://10.0.0.1:2379,https://10.0.0.2:2379`.
pub(super) fn urls(text: &str) -> Option<Vec<Url>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let urls: Vec<Url> = text.split(',').map(|url| Url::parse(url.trim())).collect::<Option<_>>()?;
    (urls.len() <= URLS_MAX).then_some(urls)
}

/// What is written without spaces.
pub(super) fn text(text: &str) -> Option<&str> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    (plain && (1..=TEXT_LENGTH_MAX).contains(&text.len())).then_some(text)
}

/// An id of MQTT-SN that is not reserved.
pub(super) fn topic_id(number: u16) -> Option<u16> {
    (1..u16::MAX).contains(&number).then_some(number)
}

/// A Topic Name that clients may publish to.
pub(super) fn topic(text: &str) -> Option<&str> {
    let name = newtmq_mqtt::TopicName::new(text).ok()?;
    (!name.as_str().starts_with('$')).then_some(text)
}

/// `4369,4370`.
pub(super) fn ports(text: &str) -> Option<Vec<u16>> {
    let port = |text: &str| count(text.trim()).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let ports: Vec<u16> = text.split(',').map(port).collect::<Option<_>>()?;
    (ports.len() <= PORTS_MAX).then_some(ports)
}

/// Positions of some words, in the order written; at least one and none twice.
pub(super) fn words(known: &[&str], text: &str) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in text.split([',', ':']) {
        let at = known.iter().position(|word| *word == part.trim())?;
        if found.contains(&at) {
            return None;
        }
        found.push(at);
    }
    Some(found)
}

/// `allow all`, `deny 192.0.2.0/24`, `allow 2001:db8::1`.
pub(super) fn access(text: &str) -> Option<AccessRule> {
    let (word, whom) = text.trim().split_once(char::is_whitespace)?;
    let allow = match word {
        "allow" => true,
        "deny" => false,
        _ => return None,
    };
    let network = match whom.trim() {
        "all" => None,
        whom => {
            let network = whom.parse::<IpNet>().or_else(|_| whom.parse::<IpAddr>().map(IpNet::from)).ok()?;
            Some(canonical(network)?.trunc())
        }
    };
    Some(AccessRule { allow, network })
}

/// Addresses are compared as what they are, so a network of IPv4 addresses that is written as IPv6 is one of IPv4, too;
/// it would fit nobody otherwise. None for a network with some of them and others.
fn canonical(network: IpNet) -> Option<IpNet> {
    let IpAddr::V4(address) = network.addr().to_canonical() else { return Some(network) };
    match network {
        IpNet::V4(_) => Some(network),
        IpNet::V6(mapped) => Ipv4Net::new(address, mapped.prefix_len().checked_sub(96)?).ok().map(IpNet::V4),
    }
}

/// A host name, perhaps with `*.` in front.
pub(super) fn host(text: &str) -> Option<&str> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        plain && (1..=63).contains(&label.len())
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(text)
}

/// The path of a file; whether it is there is seen when it is read.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// The path of a URL.
pub(super) fn url_path(text: &str) -> Option<&str> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    (text.starts_with('/') && plain && text.len() <= URL_PATH_LENGTH_MAX).then_some(text)
}

/// A size as short as it can be written exactly.
pub(super) fn show_size(bytes: u64) -> String {
    for (unit, factor) in SIZE_UNITS {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{}", bytes / factor, unit.to_ascii_uppercase());
        }
    }
    bytes.to_string()
}

/// A duration in the largest unit that writes it exactly.
pub(super) fn show_duration(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for (unit, factor) in TIME_UNITS {
        // Weeks are read but not written: 365d says more than 521w does.
        if unit != "w" && millis >= factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    "0s".to_owned()
}

const NAME_LENGTH_MAX: usize = 64;
const SECRET_LENGTH_MAX: usize = 255;
const SEEDS_MAX: usize = 255;
const PORTS_MAX: usize = 16;
const URLS_MAX: usize = 16;
const TEXT_LENGTH_MAX: usize = 255;
const MOUNTPOINT_LENGTH_MAX: usize = 1024;
const PER_TIME_MIN: Duration = Duration::from_millis(1);
const PER_TIME_MAX: Duration = Duration::from_secs(86_400);
const BANDWIDTH_MAX: u64 = 1 << 40;
const WATERMARK_BYTES_MIN: u64 = 1 << 20;
const URL_PATH_LENGTH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        for (text, want) in [
            ("true", Some(true)),
            ("on", Some(true)),
            ("false", Some(false)),
            ("off", Some(false)),
            ("yes", None),
            ("True", None),
            ("", None),
        ] {
            assert_eq!(flag(text), want, "{text}");
        }
    }

    #[test]
    fn access_rules() {
        let all = |allow| Some(AccessRule { allow, network: None });
        let network = |allow, text: &str| Some(AccessRule { allow, network: text.parse().ok() });
        for (text, want) in [
            ("allow all", all(true)),
            ("deny   all", all(false)),
            ("deny 192.0.2.0/24", network(false, "192.0.2.0/24")),
            ("deny 192.0.2.7/24", network(false, "192.0.2.0/24")),
            ("allow 2001:db8::1", network(true, "2001:db8::1/128")),
            ("deny ::ffff:192.0.2.7/120", network(false, "192.0.2.0/24")),
            ("deny ::ffff:192.0.2.7", network(false, "192.0.2.7/32")),
            ("deny ::/0", network(false, "::/0")),
            ("deny ::ffff:192.0.2.7/95", None),
            ("allow", None),
            ("Allow all", None),
            ("deny 192.0.2.0/33", None),
            ("deny example.org", None),
            ("", None),
        ] {
            assert_eq!(access(text), want, "{text}");
        }
    }

    #[test]
    fn host_names_and_paths() {
        let hosts = ["example.org", "*.example.org", "a_b-c", "*.org", "", "*", "a..b", "a.*.b", "ex ample.org"];
        let taken: Vec<_> = hosts.into_iter().filter(|text| host(text).is_some()).collect();
        assert_eq!(taken, hosts[..4]);
        let paths = ["/", "/mqtt", "/a/b%20c", "mqtt", "/a?b", "/a#b", "/a b", "/ü", ""];
        let taken: Vec<_> = paths.into_iter().filter(|text| url_path(text).is_some()).collect();
        assert_eq!(taken, paths[..3]);
        assert_eq!(words(&["a", "b"], "b, a"), Some(vec![1, 0]));
        assert_eq!((words(&["a"], "a,a"), words(&["a"], ""), words(&["a"], "c")), (None, None, None));
    }

    #[test]
    fn counts() {
        for (text, want) in [
            ("0", Some(0)),
            ("65535", Some(65_535)),
            ("+1", None),
            ("-1", None),
            ("1_000", None),
            ("", None),
            (" 1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(count(text), want, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("1MB", Some(1 << 20)),
            ("1mb", Some(1 << 20)),
            ("512KB", Some(512 << 10)),
            ("100B", Some(100)),
            ("2GB", Some(2 << 30)),
            ("1 MB", None),
            ("1.5MB", None),
            ("MB", None),
            ("1M", None),
            ("-1KB", None),
            ("99999999999999999GB", None),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("15s", Some(15_000)),
            ("2h", Some(7_200_000)),
            ("300ms", Some(300)),
            ("1m", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("1w", Some(604_800_000)),
            ("1m500ms", Some(60_500)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("15", None),
            ("", None),
            ("s", None),
            ("1.5h", None),
            ("-1s", None),
            ("1s1s", None),
            ("30m1h", None),
            ("1h 30m", None),
            ("1y", None),
            ("99999999999999999w", None),
        ] {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn ratios() {
        for (text, want) in [
            ("0.75", Some(0.75)),
            ("1", Some(1.0)),
            ("inf", None),
            ("NaN", None),
            ("1e3", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(ratio(text), want, "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (text, want) in [
            ("127.0.0.1:1883", Some("127.0.0.1:1883")),
            ("[::1]:1883", Some("[::1]:1883")),
            ("1883", Some("0.0.0.0:1883")),
            ("0", Some("0.0.0.0:0")),
            ("localhost:1883", None),
            ("127.0.0.1", None),
            ("70000", None),
            ("", None),
        ] {
            assert_eq!(address(text), want.map(|a| a.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(name("external"), Some("external"));
        assert_eq!(name("a-b_1"), Some("a-b_1"));
        for bad in ["", "a b", "ä", "a.b", &"x".repeat(65)] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn queue_priorities() {
        let pair = |topic: &str, priority| (topic.to_owned(), priority);
        assert_eq!(priorities("none"), Some(vec![]));
        assert_eq!(priorities("t=10,u=8"), Some(vec![pair("t", 10), pair("u", 8)]));
        assert_eq!(priorities("a=b=1, c = 255"), Some(vec![pair("a=b", 1), pair("c", 255)]));
        for bad in ["", "t", "t=", "=1", "t=0", "t=256", "t=1,", "t/#=1", "+=1", "t=1,t=2"] {
            assert_eq!(priorities(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_and_durations_are_written_as_they_are_read() {
        for text in ["64B", "1KB", "1MB", "256MB", "3GB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        for text in ["0s", "10ms", "15s", "90s", "2h", "1d", "3650d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        assert_eq!(show_size(0), "0");
        assert_eq!(show_duration(Duration::from_millis(60_500)), "60500ms");
    }
}
