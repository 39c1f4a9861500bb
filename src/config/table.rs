//! The tables of keys: each key once, with its kind, range, default and meaning. Reading, errors and
//! `docs/configuration.md` all come from here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::api::API;
use super::cluster::{Secret, Seed};
use super::cluster_table::CLUSTER;
use super::dashboard::{ALARM, DASHBOARD};
use super::discovery::Url;
use super::discovery_table::DISCOVERY;
use super::listener::AccessRule;
use super::sn_table::SN;
use super::types::{
    AclDenyAction, AclNomatch, Bandwidth, Config, LogFormat, LogLevel, PerTime, SharedStrategy, Watermark,
};
use super::value;
pub(super) use super::zone_table::ZONE;

/// One key. `T` is what it is a key of: a listener, a zone or the whole configuration.
pub(super) struct Key<T: 'static> {
    /// What follows the name of a listener or a zone, with `N` for a number; the whole key otherwise.
    pub(super) name: &'static str,
    /// What its values are, and where they go.
    pub(super) field: Field<T>,
    /// The default, written as in a file; empty if there is none.
    pub(super) default: &'static str,
    /// One line for the documentation.
    pub(super) doc: &'static str,
}

/// The kind of a key's values with its range, and the setter that takes them.
pub(super) enum Field<T: 'static> {
    /// `true`, `false`, `on`, `off`.
    Flag(fn(&mut T, bool)),
    /// A whole number.
    Count(u64, u64, fn(&mut T, u64)),
    /// Bytes.
    Size(u64, u64, fn(&mut T, u64)),
    /// A duration; the range is in milliseconds.
    Time(u64, u64, fn(&mut T, Duration)),
    /// A duration of whole seconds, as MQTT counts; the range is in seconds.
    Seconds(u64, u64, fn(&mut T, Duration)),
    /// `none`, or a duration of 1 to 65535 whole seconds, which may come as a bare number.
    KeepAlive(fn(&mut T, Option<Duration>)),
    /// A fraction.
    Ratio(f64, f64, fn(&mut T, f64)),
    /// One of some words, by position.
    Word(&'static [&'static str], fn(&mut T, usize)),
    /// `ADDRESS:PORT`.
    Address(fn(&mut T, SocketAddr)),
    /// `NAME@HOST`.
    NodeName(fn(&mut T, &str)),
    /// The name of a zone.
    Name(fn(&mut T, &str)),
    /// `none`, or the path of a file.
    File(fn(&mut T, Option<PathBuf>)),
    /// `topic=priority,…` or `none`.
    Priorities(fn(&mut T, Vec<(String, u8)>)),
    /// `none`, or `COUNT,DURATION`.
    PerTime(fn(&mut T, Option<PerTime>)),
    /// `none`, or `SIZE,SIZE`: bytes per second and at once.
    Bandwidth(fn(&mut T, Option<Bandwidth>)),
    /// `none`, or the beginning of a topic.
    Mountpoint(fn(&mut T, Option<String>)),
    /// `none`, a percentage or a size.
    Watermark(fn(&mut T, Option<Watermark>)),
    /// Some words, by position, each at most once.
    Words(&'static [&'static str], fn(&mut T, &[usize])),
    /// `allow` or `deny`, and a network or `all`. Numbered.
    Access(fn(&mut T, u16, AccessRule)),
    /// A host name. Numbered.
    Host(fn(&mut T, u16, &str)),
    /// The path of a file. Numbered, or once.
    Path(fn(&mut T, u16, PathBuf)),
    /// The path of a URL.
    UrlPath(fn(&mut T, &str)),
    /// `none`, or what is not shown.
    Secret(fn(&mut T, Option<Secret>)),
    /// `none`, or `ADDRESS:PORT`.
    AddressOrNone(fn(&mut T, Option<SocketAddr>)),
    /// `none`, or a list of `NAME@HOST:PORT`.
    Seeds(fn(&mut T, Vec<Seed>)),
    /// An IPv4 address.
    Ip(fn(&mut T, Ipv4Addr)),
    /// A list of ports.
    Ports(fn(&mut T, Vec<u16>)),
    /// `none`, or a host name.
    HostOrNone(fn(&mut T, Option<String>)),
    /// `none`, or a list of URLs.
    Urls(fn(&mut T, Vec<Url>)),
    /// Printable characters.
    Text(fn(&mut T, &str)),
    /// `none`, or printable characters.
    TextOrNone(fn(&mut T, Option<String>)),
    /// `none`, or `NAME=TEXT,…`.
    Claims(fn(&mut T, Vec<(String, String)>)),
    /// A Topic Name. Numbered.
    Topic(fn(&mut T, u16, &str)),
    /// `off`, or a duration; the range is in milliseconds.
    TimeOrOff(u64, u64, fn(&mut T, Option<Duration>)),
}

impl<T> Field<T> {
    /// Reads `text` and sets it; `None` leaves the target as it was. `number` is the `N` of a numbered key.
    pub(super) fn set(&self, target: &mut T, number: u16, text: &str) -> Option<()> {
        match self {
            Field::Flag(set) => set(target, value::flag(text)?),
            Field::Count(min, max, set) => set(target, value::count(text).filter(|n| (min..=max).contains(&n))?),
            Field::Size(min, max, set) => set(target, value::size(text).filter(|n| (min..=max).contains(&n))?),
            Field::Time(min, max, set) => {
                let range = Duration::from_millis(*min)..=Duration::from_millis(*max);
                set(target, value::duration(text).filter(|t| range.contains(t))?);
            }
            Field::Seconds(min, max, set) => {
                let fits = |t: &Duration| t.subsec_nanos() == 0 && (*min..=*max).contains(&t.as_secs());
                set(target, value::duration(text).filter(fits)?);
            }
            Field::KeepAlive(set) => set(target, keep_alive(text)?),
            Field::Ratio(min, max, set) => set(target, value::ratio(text).filter(|r| (min..=max).contains(&r))?),
            Field::Word(words, set) => set(target, words.iter().position(|word| *word == text)?),
            Field::Address(set) => set(target, value::address(text)?),
            Field::Name(set) => set(target, value::name(text)?),
            Field::NodeName(set) => set(target, value::node_name(text)?),
            Field::File(set) => set(target, value::file(text)?),
            Field::Priorities(set) => set(target, value::priorities(text)?),
            Field::Claims(set) => set(target, value::claims(text)?),
            Field::PerTime(set) => set(target, value::or_none(text, value::per_time)?),
            Field::Bandwidth(set) => set(target, value::or_none(text, value::bandwidth)?),
            Field::Mountpoint(set) => set(target, value::or_none(text, value::mountpoint)?),
            Field::Watermark(set) => set(target, value::or_none(text, value::watermark)?),
            Field::Words(words, set) => set(target, &value::words(words, text)?),
            Field::Access(set) => set(target, number, value::access(text)?),
            Field::Host(set) => set(target, number, value::host(text)?),
            Field::Path(set) => set(target, number, value::path(text)?),
            Field::UrlPath(set) => set(target, value::url_path(text)?),
            Field::Secret(set) => set(target, value::or_none(text, value::secret)?),
            Field::AddressOrNone(set) => set(target, value::or_none(text, value::address)?),
            Field::Seeds(set) => set(target, value::seeds(text)?),
            Field::Ip(set) => set(target, text.parse().ok()?),
            Field::Ports(set) => set(target, value::ports(text)?),
            Field::HostOrNone(set) => {
                let host = |text: &str| value::host(text).filter(|host| !host.contains('*')).map(str::to_owned);
                set(target, value::or_none(text, host)?);
            }
            Field::Urls(set) => set(target, value::urls(text)?),
            Field::Text(set) => set(target, value::text(text)?),
            Field::TextOrNone(set) => set(target, value::or_none(text, |text| value::text(text).map(str::to_owned))?),
            Field::Topic(set) => set(target, value::topic_id(number)?, value::topic(text)?),
            Field::TimeOrOff(min, max, set) => {
                let range = Duration::from_millis(*min)..=Duration::from_millis(*max);
                let time = |text: &str| value::duration(text).filter(|time| range.contains(time));
                set(target, if text == "off" { None } else { Some(time(text)?) });
            }
        }
        Some(())
    }

    /// What a value must be, to follow "must be".
    pub(super) fn expected(&self) -> String {
        match self {
            Field::Flag(_) => "true or false".to_owned(),
            Field::Count(min, max, _) => format!("a whole number from {min} to {max}"),
            Field::Size(min, max, _) => {
                format!("a size from {} to {}, such as 512KB", value::show_size(*min), value::show_size(*max))
            }
            Field::Time(min, max, _) => {
                let show = |millis| value::show_duration(Duration::from_millis(millis));
                format!("a duration with its unit from {} to {}, such as 15s or 1h30m", show(*min), show(*max))
            }
            Field::Seconds(min, max, _) => {
                let show = |seconds| value::show_duration(Duration::from_secs(seconds));
                format!("a duration of whole seconds from {} to {}, such as 30s or 1h30m", show(*min), show(*max))
            }
            Field::KeepAlive(_) => "none, or whole seconds from 1s to 65535s".to_owned(),
            Field::Ratio(min, max, _) => format!("a number from {min} to {max}"),
            Field::Word(words, _) => format!("one of {}", words.join(", ")),
            Field::Address(_) => {
                "an IP address and a port, such as \"127.0.0.1:1883\" or \"[::1]:1883\", or a port".to_owned()
            }
            Field::NodeName(_) => "a name and a host, such as \"newtmq@127.0.0.1\"".to_owned(),
            Field::Name(_) => "a name of at most 64 letters, digits, _ and -".to_owned(),
            Field::File(_) => "none, or the path of a file".to_owned(),
            Field::Claims(_) => "none, or names of claims with what they must be, such as \"username=%u\"".to_owned(),
            Field::Priorities(_) => {
                "none, or topics without wildcards and priorities from 1 to 255, such as \"t=10,u=8\"".to_owned()
            }
            Field::PerTime(_) => "none, or a number and a time from 1ms to 1d, such as \"100,10s\"".to_owned(),
            Field::Bandwidth(_) => {
                "none, or bytes per second and bytes at once, at least 1 each, such as \"100KB,200KB\"".to_owned()
            }
            Field::Mountpoint(_) => {
                "none, or at most 1024 bytes without wildcards that begin a topic, such as \"devices/%c/\"".to_owned()
            }
            Field::Watermark(_) => "none, a percentage from 1% to 99%, or a size from 1MB, such as 2GB".to_owned(),
            Field::Words(words, _) => format!("a list of some of {}, with commas between", words.join(", ")),
            Field::Access(_) => {
                "allow or deny, and an address, a network or all, such as \"deny 192.0.2.0/24\" or \"allow all\""
                    .to_owned()
            }
            Field::Host(_) => "a host name, such as \"mqtt.example.org\" or \"*.example.org\"".to_owned(),
            Field::Path(_) => "the path of a file".to_owned(),
            Field::UrlPath(_) => "the path of a URL without a query, such as \"/mqtt\"".to_owned(),
            Field::Secret(_) => "none, or a text of 1 to 255 bytes".to_owned(),
            Field::AddressOrNone(_) => {
                "none, or an IP address and a port, such as \"127.0.0.1:4370\" or \"[::1]:4370\", or a port".to_owned()
            }
            Field::Seeds(_) => {
                "none, or nodes with commas between, such as \"newtmq@10.0.0.1,newtmq@10.0.0.2:4371\"".to_owned()
            }
            Field::Ip(_) => "an IPv4 address".to_owned(),
            Field::Ports(_) => "ports with commas between, such as \"4369,4370\"".to_owned(),
            Field::HostOrNone(_) => "none, or a host name".to_owned(),
            Field::Urls(_) => {
                "none, or URLs without user, password and query with commas between, such as \"https://10.0.0.1:2379,https://10.0.0.2:2379\"".to_owned()
            }
            Field::Text(_) => "a text of 1 to 255 printable ASCII characters without spaces".to_owned(),
            Field::TextOrNone(_) => "none, or a text of 1 to 255 printable ASCII characters without spaces".to_owned(),
            Field::Topic(_) => "a topic without wildcards, and the number one from 1 to 65534".to_owned(),
            Field::TimeOrOff(min, max, _) => {
                let show = |millis| value::show_duration(Duration::from_millis(millis));
                format!("off, or a duration with its unit from {} to {}, such as 5m", show(*min), show(*max))
            }
        }
    }

    /// The words that it takes, for a suggestion.
    pub(super) fn words(&self) -> &'static [&'static str] {
        match self {
            Field::Word(words, _) => words,
            Field::Flag(_) => &["true", "false"],
            _ => &[],
        }
    }

    /// A value, as in a file, of a key without a default.
    pub(super) fn example(&self) -> &'static str {
        match self {
            Field::Access(_) => "\"allow all\"",
            Field::Host(_) => "\"mqtt.example.org\"",
            Field::Topic(_) => "\"devices/temperature\"",
            _ => "\"etc/certs/file.pem\"",
        }
    }

    /// Whether its values are paths of files.
    pub(super) fn is_path(&self) -> bool {
        matches!(self, Field::File(_) | Field::Path(_))
    }

    /// Whether its values are durations.
    pub(super) fn is_time(&self) -> bool {
        matches!(self, Field::Time(..) | Field::Seconds(..) | Field::TimeOrOff(..) | Field::KeepAlive(_))
    }

    /// Whether its values are not shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Field::Secret(_))
    }

    /// Whether a value that it refuses is not shown, either.
    pub(super) fn hides(&self, text: &str) -> bool {
        self.is_secret() || matches!(self, Field::Urls(_)) && text.contains('@')
    }

    /// Whether a default is written with quotes in a file.
    pub(super) fn quoted(&self) -> bool {
        !matches!(self, Field::Flag(_) | Field::Count(..) | Field::Ratio(..))
    }
}

fn keep_alive(text: &str) -> Option<Option<Duration>> {
    if text == "none" {
        return Some(None);
    }
    let time = value::count(text).map(Duration::from_secs).or_else(|| value::duration(text))?;
    let fits = time.subsec_nanos() == 0 && (1..=u64::from(u16::MAX)).contains(&time.as_secs());
    fits.then_some(Some(time))
}

/// Fills `target` with the defaults of its keys.
pub(super) fn with_defaults<T: 'static>(keys: impl IntoIterator<Item = &'static Key<T>>, mut target: T) -> T {
    for key in keys {
        // Some have none: nothing is set then.
        if !key.default.is_empty() {
            key.field.set(&mut target, 0, key.default).expect("a default is a value of its key; a test sets each");
        }
    }
    target
}

/// A number that the table's range has already made fit.
pub(super) fn fit<N: TryFrom<u64>>(number: u64) -> N {
    N::try_from(number).ok().expect("the key's range lies within its field's type; a test sets both ends")
}

pub(super) const fn key<T>(name: &'static str, field: Field<T>, default: &'static str, doc: &'static str) -> Key<T> {
    Key { name, field, default, doc }
}

/// Keys that exist once.
pub(super) fn once() -> impl Iterator<Item = &'static Key<Config>> {
    CLUSTER.iter().chain(DISCOVERY).chain(API).chain(DASHBOARD).chain(ALARM).chain(ROOT).chain(SN)
}

const ROOT: &[Key<Config>] = &[
    key(
        "mqtt.max_packet_size",
        Field::Size(64, 256 * MB, |c, v| c.mqtt.max_packet_size = fit(v)),
        "2MB",
        "The largest packet that a client may send. In a file a bare number is bytes. EMQ X: 1MB, which a payload of 1 MiB just exceeds.",
    ),
    key(
        "mqtt.max_clientid_len",
        Field::Count(23, 65_535, |c, v| c.mqtt.max_clientid_len = fit(v)),
        "65535",
        "Bytes of a Client Identifier.",
    ),
    key(
        "mqtt.max_topic_levels",
        Field::Count(0, 65_535, |c, v| c.mqtt.max_topic_levels = fit(v)),
        "128",
        "Levels of a topic name or filter; 0 is no limit, and lets one client's filters take much memory. EMQ X: 0.",
    ),
    key(
        "mqtt.max_qos_allowed",
        Field::Count(0, 2, |c, v| c.mqtt.max_qos_allowed = fit(v)),
        "2",
        "The highest QoS that clients may use.",
    ),
    key(
        "mqtt.max_topic_alias",
        Field::Count(0, 65_535, |c, v| c.mqtt.max_topic_alias = fit(v)),
        "32",
        "Topic aliases that an MQTT 5 client may use (EMQ X: 0).",
    ),
    key(
        "mqtt.retain_available",
        Field::Flag(|c, v| c.mqtt.retain_available = v),
        "true",
        "Retained messages are allowed.",
    ),
    key(
        "mqtt.wildcard_subscription",
        Field::Flag(|c, v| c.mqtt.wildcard_subscription = v),
        "true",
        "Filters with `+` and `#` are allowed.",
    ),
    key(
        "mqtt.shared_subscription",
        Field::Flag(|c, v| c.mqtt.shared_subscription = v),
        "true",
        "`$share/GROUP/FILTER` is allowed.",
    ),
    key(
        "mqtt.ignore_loop_deliver",
        Field::Flag(|c, v| c.mqtt.ignore_loop_deliver = v),
        "false",
        "A client does not get what it publishes itself; an MQTT 5 client can ask for this per subscription (No Local).",
    ),
    key(
        "retained.max_retained_messages",
        Field::Count(0, 1_000_000_000, |c, v| c.retained.max_retained_messages = v),
        "0",
        "Topics with a retained message; 0 is no limit. At the limit a new topic's message is delivered but not retained.",
    ),
    key(
        "retained.max_payload_size",
        Field::Size(1, 256 * MB, |c, v| c.retained.max_payload_size = fit(v)),
        "1MB",
        "The largest payload that is retained; a larger one is delivered but not retained, and the one before it is forgotten.",
    ),
    key(
        "retained.expiry_interval",
        Field::Time(0, 3650 * DAY, |c, v| c.retained.expiry_interval = v),
        "0s",
        "After this a retained message is deleted; 0s is never. A message's own expiry counts if it is shorter.",
    ),
    key(
        "broker.sys_interval",
        Field::Time(0, DAY, |c, v| c.broker.sys_interval = v),
        "1m",
        "How often the node publishes its figures under `$SYS/brokers/NODE`; 0s is never.",
    ),
    key(
        "broker.shared_subscription_strategy",
        Field::Word(SharedStrategy::WORDS, |c, v| c.broker.shared_subscription_strategy = SharedStrategy::ALL[v]),
        "random",
        "Which member of a share group gets a message: any, one after the other, the same one until it leaves, or by the \
         publisher's Client Identifier.",
    ),
    key(
        "broker.hook_timeout",
        Field::Time(10, HOUR, |c, v| c.broker.hook_timeout = v),
        "5s",
        "A question to a hook, such as whether a client may connect or publish, is answered with no after this time.",
    ),
    key(
        "store.group_wait",
        Field::Time(0, 1000, |c, v| c.store.group_wait = v),
        "2ms",
        "How long the first one waits for others to come along, with `durability = \"group\"`: one sync is for all of \
         them. `0ms` is only for those who came while the last sync was under way.",
    ),
    key(
        "store.segment_size",
        Field::Size(64 << 10, 1 << 30, |c, v| c.store.segment_size = v),
        "64MB",
        "A file of the log is followed by a new one when it has this size. A start needs memory for one of them.",
    ),
    key(
        "store.log_size_min",
        Field::Size(128 << 10, 1 << 40, |c, v| c.store.log_size_min = v),
        "256MB",
        "Below this size the log is never made shorter; above, it may be twice as large as what lives in it.",
    ),
    key(
        "memory.high_watermark",
        Field::Watermark(|c, v| c.memory.high_watermark = v),
        "90%",
        "Memory of the process, in bytes or of what the machine or its container has. Above it QoS 0 messages that would \
         have to wait are dropped; a sixteenth above it clients that publish with QoS 1 or 2 or RETAIN are read slowly. It \
         ends a sixteenth below, or when memory has not grown for 10 s: what is freed mostly stays with the process. \
         Only on Linux.",
    ),
    key(
        ALLOW_ANONYMOUS,
        Field::Flag(|c, v| c.access.allow_anonymous = v),
        "true",
        "Clients may connect without a user name. A user name that is given needs its password, if there is a \
         `password_file` or a `user_table`; `false` needs one of them.",
    ),
    key(
        PASSWORD_FILE,
        Field::File(|c, v| c.access.password_file = v),
        "none",
        "Users and their passwords, written by `newtmq passwd`. Without it no password is looked at.",
    ),
    key(
        "user_table",
        Field::Flag(|c, v| c.access.user_table = v),
        "off",
        "Users and Client Identifiers with passwords may be added while the broker runs, by `newtmq ctl users` and `clientid` or \
         the HTTP API; the cluster keeps them. A user name that is given then always needs its password. See \
         [Access](access.md#users-that-are-added-while-it-runs).",
    ),
    key(
        JWT_SECRET,
        Field::Secret(|c, v| c.access.jwt.secret = v),
        "none",
        "Secret of JSON Web Tokens with HS256 that clients give as passwords. It should have 32 random characters or more. See \
         [Access](access.md#json-web-tokens).",
    ),
    key(
        JWT_PUBLIC_KEY,
        Field::File(|c, v| c.access.jwt.public_key = v),
        "none",
        "File with the public key of tokens with RS256 or ES256, in PEM.",
    ),
    key(
        JWT_JWKS_FILE,
        Field::File(|c, v| c.access.jwt.jwks_file = v),
        "none",
        "File with a set of keys of tokens (JWKS), which name theirs with `kid`.",
    ),
    key(
        "jwt.verify_claims",
        Field::Claims(|c, v| c.access.jwt.verify_claims = v),
        "username=%u",
        "What a token must say: `%u` stands for the User Name and `%c` for the Client Identifier. With `none` whoever has a token has any name.",
    ),
    key(
        AUTH_HTTP,
        Field::Urls(|c, v| c.access.http.auth.urls = v),
        "none",
        "Where a service is asked whether a client may log in; the next one if one does not answer. See [Access](access.md#a-service-that-decides).",
    ),
    key(
        "auth_http.auth_method",
        Field::Word(&["post", "get"], |c, v| c.access.http.auth.is_get = v == 1),
        "post",
        "How. With `get` a password is in the URL, and so maybe in logs of the service.",
    ),
    key(
        "auth_http.auth_params",
        Field::Claims(|c, v| c.access.http.auth.params = v),
        "clientid=%c,username=%u,password=%P",
        "What is said: `%u` User Name, `%c` Client Identifier, `%P` password, `%a` address, `%A` 1 to subscribe and 2 to publish, `%t` topic.",
    ),
    key(
        "auth_http.super_url",
        Field::Urls(|c, v| c.access.http.superuser.urls = v),
        "none",
        "Where a service is asked whether no rule counts for a client that has logged in so; the next one if one does not answer. See [Access](access.md#a-service-that-decides).",
    ),
    key(
        "auth_http.super_method",
        Field::Word(&["post", "get"], |c, v| c.access.http.superuser.is_get = v == 1),
        "post",
        "How. With `get` a password is in the URL, and so maybe in logs of the service.",
    ),
    key(
        "auth_http.super_params",
        Field::Claims(|c, v| c.access.http.superuser.params = v),
        "clientid=%c,username=%u",
        "What is said: `%u` User Name, `%c` Client Identifier, `%P` password, `%a` address, `%A` 1 to subscribe and 2 to publish, `%t` topic.",
    ),
    key(
        "auth_http.acl_url",
        Field::Urls(|c, v| c.access.http.acl.urls = v),
        "none",
        "Where a service is asked whether a client may publish to or subscribe to a topic; the next one if one does not answer. See [Access](access.md#a-service-that-decides).",
    ),
    key(
        "auth_http.acl_method",
        Field::Word(&["post", "get"], |c, v| c.access.http.acl.is_get = v == 1),
        "post",
        "How. With `get` a password is in the URL, and so maybe in logs of the service.",
    ),
    key(
        "auth_http.acl_params",
        Field::Claims(|c, v| c.access.http.acl.params = v),
        "access=%A,username=%u,clientid=%c,ipaddr=%a,topic=%t",
        "What is said: `%u` User Name, `%c` Client Identifier, `%P` password, `%a` address, `%A` 1 to subscribe and 2 to publish, `%t` topic.",
    ),
    key(
        "auth_http.timeout",
        Field::Time(10, 60_000, |c, v| c.access.http.timeout = v),
        "4s",
        "An answer that takes longer is none: the client is refused. Less than `broker.hook_timeout`, or that counts.",
    ),
    key(
        "auth_http.cacertfile",
        Field::File(|c, v| c.access.http.cacertfile = v),
        "none",
        "The certificate authority of the service; `https` needs it. It is read with each connection.",
    ),
    key(
        "acl_file",
        Field::File(|c, v| c.access.acl_file = v),
        "none",
        "Rules of who may publish and subscribe to what, in the form of EMQ X's `acl.conf`. EMQ X: `etc/acl.conf`.",
    ),
    key(
        "acl_nomatch",
        Field::Word(AclNomatch::WORDS, |c, v| c.access.acl_nomatch = AclNomatch::ALL[v]),
        "allow",
        "What a client may do where no rule fits.",
    ),
    key(
        "acl_deny_action",
        Field::Word(AclDenyAction::WORDS, |c, v| c.access.acl_deny_action = AclDenyAction::ALL[v]),
        "ignore",
        "What happens to a client that tries what it may not: nothing but the answer, or the end of its connection.",
    ),
    key(
        "enable_acl_cache",
        Field::Flag(|c, v| c.access.enable_acl_cache = v),
        "on",
        "A connection remembers what it may do.",
    ),
    key(
        "acl_cache_max_size",
        Field::Count(1, 1024, |c, v| c.access.acl_cache_max_size = fit(v)),
        "32",
        "Answers that a connection remembers; at the limit the oldest is forgotten.",
    ),
    key(
        "acl_cache_ttl",
        Field::Time(1000, DAY, |c, v| c.access.acl_cache_ttl = v),
        "1m",
        "How long an answer is remembered. New rules drop all of them.",
    ),
    key(
        "login_throttle.user_failures",
        Field::Count(0, 1_000_000, |c, v| c.access.login_throttle.user_failures = fit(v)),
        "10",
        "Failed logins with a user name before it has to wait; 0 is never.",
    ),
    key(
        "login_throttle.address_failures",
        Field::Count(0, 1_000_000, |c, v| c.access.login_throttle.address_failures = fit(v)),
        "50",
        "Failed logins from an address, in IPv6 from a /64, before it has to wait; 0 is never.",
    ),
    key(
        "login_throttle.window",
        Field::Time(1000, DAY, |c, v| c.access.login_throttle.window = v),
        "1m",
        "Failures are forgotten after this.",
    ),
    key(
        "login_throttle.delay_max",
        Field::Time(1000, DAY, |c, v| c.access.login_throttle.delay_max = v),
        "5m",
        "The longest wait. The first is 1 s, and each further failure doubles it.",
    ),
    key(
        "log.level",
        Field::Word(LogLevel::WORDS, |c, v| c.log.level = LogLevel::ALL[v]),
        "info",
        "The least severe level that is logged.",
    ),
    key(
        "log.format",
        Field::Word(LogFormat::WORDS, |c, v| c.log.format = LogFormat::ALL[v]),
        "auto",
        "The shape of log lines; auto is pretty on a terminal and json otherwise.",
    ),
];

/// The key whose value `false` needs the other.
pub(super) const ALLOW_ANONYMOUS: &str = "allow_anonymous";
/// With it a service decides about logins.
pub(super) const AUTH_HTTP: &str = "auth_http.auth_url";
pub(super) const JWT_SECRET: &str = "jwt.secret";
pub(super) const JWT_PUBLIC_KEY: &str = "jwt.public_key";
pub(super) const JWT_JWKS_FILE: &str = "jwt.jwks_file";
pub(super) const PASSWORD_FILE: &str = "password_file";
/// The key of a zone that may need a data directory.
pub(super) const DURABILITY: &str = "durability";
/// What a zone's keys begin with, before its name.
pub(super) const ZONE_SECTION: &str = "zone";

pub(super) const MB: u64 = 1 << 20;
pub(super) const HOUR: u64 = 3_600_000;
pub(super) const DAY: u64 = 24 * HOUR;
