//! Who is banned: clients, users, addresses and networks, with a reason and an end. The cluster keeps each ban as an opaque
//! record; this module says how one is written and read, and finds the bans of a client at once, however many there are.
//!
//! Time comes in: the end of a ban is wall-clock time in the record, for it outlives processes, and an [`Instant`] in the
//! [`Bans`] that are looked at.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, InvalidField, Put, Take};

/// Most bans.
pub const BANS_MAX: usize = 10_000;
/// Longest reason, and longest name of who has banned, in bytes.
pub const BAN_TEXT_BYTES_MAX: usize = 256;
/// Longest name of who is banned, in bytes.
pub const BAN_WHO_BYTES_MAX: usize = 490;

/// By what somebody is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BanKind {
    /// A Client Identifier.
    ClientId,
    /// A User Name.
    Username,
    /// An address or a network.
    Address,
}

impl BanKind {
    /// All, in order.
    pub const ALL: [BanKind; 3] = [BanKind::ClientId, BanKind::Username, BanKind::Address];

    /// Its name, as in the HTTP API of EMQ X.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BanKind::ClientId => "client_id",
            BanKind::Username => "username",
            BanKind::Address => "ip_address",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<BanKind> {
        BanKind::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// Who is banned. Addresses are written in one way only, so that there are no two records of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BanWho {
    kind: BanKind,
    text: Box<str>,
}

impl BanWho {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(kind: BanKind, text: &str) -> Result<BanWho, &'static str> {
        if text.is_empty() || text.len() > BAN_WHO_BYTES_MAX || text.contains('\0') {
            return Err("who is banned has 1 to 490 bytes and no null character");
        }
        let text = match kind {
            BanKind::ClientId | BanKind::Username => text.into(),
            BanKind::Address => Network::parse(text).ok_or("not an address, nor a network as in 10.0.0.0/8")?.text(),
        };
        Ok(BanWho { kind, text })
    }

    /// By what.
    #[must_use]
    pub fn kind(&self) -> BanKind {
        self.kind
    }

    /// The identifier, name, address or network.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key of its record.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.kind.name(), self.text)
    }

    /// Reads [`BanWho::key`].
    #[must_use]
    pub fn of_key(key: &str) -> Option<BanWho> {
        let (kind, text) = key.split_once(':')?;
        BanWho::new(BanKind::of_name(kind)?, text).ok()
    }
}

/// What a record says of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Why, for people.
    pub reason: String,
    /// Who has banned.
    pub by: String,
    /// When it began, in seconds since 1970.
    pub at: u64,
    /// When it ends, in seconds since 1970; none is never.
    pub until: Option<u64>,
}

impl Ban {
    /// Its record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        Put(&mut out).text(&self.reason).text(&self.by).number(self.at);
        Put(&mut out).flag(self.until.is_some()).number(self.until.unwrap_or(0));
        out
    }

    /// Reads [`Ban::encode`].
    ///
    /// # Errors
    /// A field is wrong, or it is of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Ban, InvalidField> {
        let mut take = Take(bytes);
        if take.byte()? != VERSION {
            return Err(InvalidField("a ban of another version"));
        }
        let (reason, by, at) = (take.text()?.to_owned(), take.text()?.to_owned(), take.number()?);
        let (ends, until) = (take.flag()?, take.number()?);
        take.end()?;
        Ok(Ban { reason, by, at, until: ends.then_some(until) })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self, seconds: u64) -> bool {
        self.until.is_some_and(|until| until <= seconds)
    }
}

/// Bans, to be looked at for each CONNECT: a look takes no longer for many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bans {
    clients: BTreeMap<Box<str>, Instant>,
    usernames: BTreeMap<Box<str>, Instant>,
    networks: BTreeMap<Network, Instant>,
    /// Lengths of prefixes in use.
    lengths: BTreeSet<u8>,
}

impl Bans {
    /// Adds one that ends then.
    pub fn add(&mut self, who: &BanWho, until: Instant) {
        match who.kind {
            BanKind::ClientId => drop(self.clients.insert(who.text.clone(), until)),
            BanKind::Username => drop(self.usernames.insert(who.text.clone(), until)),
            BanKind::Address => {
                if let Some(network) = Network::parse(&who.text) {
                    self.lengths.insert(network.length);
                    self.networks.insert(network, until);
                }
            }
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.usernames.is_empty() && self.networks.is_empty()
    }

    /// Whether one of them is of this client. Who has no Client Identifier yet gives an empty one.
    #[must_use]
    pub fn has(&self, now: Instant, client: &str, username: Option<&str>, ip: IpAddr) -> bool {
        let holds = |until: Option<&Instant>| until.is_some_and(|until| now < *until);
        if self.is_empty() {
            return false;
        }
        let address = bits(ip);
        holds(self.clients.get(client))
            || holds(username.and_then(|name| self.usernames.get(name)))
            || self.lengths.iter().any(|length| holds(self.networks.get(&Network::new(address, *length))))
    }
}

/// An address with the bits that count; addresses of IPv4 are in `::ffff:0:0/96`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    bits: u128,
    length: u8,
}

fn bits(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Network {
    fn new(bits: u128, length: u8) -> Network {
        let mask = if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length)) };
        Network { bits: bits & mask, length }
    }

    fn parse(text: &str) -> Option<Network> {
        let (address, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
        let ip: IpAddr = address.parse().ok()?;
        let (most, before) = if ip.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = match length {
            None => most,
            // No sign, and no zero in front.
            Some(text) if text.len() <= 3 && text.bytes().all(|digit| digit.is_ascii_digit()) => {
                text.parse().ok().filter(|length| *length <= most)?
            }
            Some(_) => return None,
        };
        Some(Network::new(bits(ip), before + length))
    }

    fn text(self) -> Box<str> {
        let ip = IpAddr::from(self.bits.to_be_bytes()).to_canonical();
        let (most, before) = if ip.is_ipv4() && self.length >= 96 { (32, 96) } else { (128, 0) };
        let ip = if most == 128 { IpAddr::from(self.bits.to_be_bytes()) } else { ip };
        let length = self.length - before;
        if length == most { ip.to_string().into() } else { format!("{ip}/{length}").into() }
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_written_in_one_way() {
        for (given, written) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1/32", Some("192.0.2.1")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("::ffff:1.2.3.4/64", Some("::/64")),
            ("10.0.0.0/33", None),
            ("10.0.0.0/-1", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("10.0.0", None),
            ("host", None),
            ("", None),
        ] {
            let got = BanWho::new(BanKind::Address, given).ok();
            assert_eq!(got.as_ref().map(BanWho::text), written, "{given}");
            let again = got.as_ref().and_then(|who| BanWho::of_key(&who.key()));
            assert_eq!(again, got, "{given}");
        }
    }

    #[test]
    fn who_is_banned() {
        let mut bans = Bans::default();
        let end = Instant::START + Duration::from_secs(10);
        for (kind, text, until) in [
            (BanKind::ClientId, "c", end),
            (BanKind::Username, "eve", Instant::NEVER),
            (BanKind::Address, "10.0.0.0/8", Instant::NEVER),
            (BanKind::Address, "192.0.2.7", Instant::NEVER),
            (BanKind::Address, "2001:db8::/48", Instant::NEVER),
        ] {
            bans.add(&BanWho::new(kind, text).unwrap(), until);
        }
        let before = Instant::START + Duration::from_secs(9);
        for (now, client, username, address, banned) in [
            (before, "c", None, "198.51.100.1", true),
            (end, "c", None, "198.51.100.1", false),
            (end, "d", Some("eve"), "198.51.100.1", true),
            (end, "eve", Some("c"), "198.51.100.1", false),
            (end, "", None, "10.255.0.1", true),
            (end, "", None, "::ffff:10.255.0.1", true),
            (end, "", None, "11.0.0.1", false),
            (end, "", None, "192.0.2.7", true),
            (end, "", None, "192.0.2.6", false),
            (end, "", None, "2001:db8::5", true),
            (end, "", None, "2001:db8:1::5", false),
        ] {
            assert_eq!(bans.has(now, client, username, ip(address)), banned, "{client} {username:?} {address}");
        }
        assert!(!Bans::default().has(end, "c", Some("eve"), ip("10.0.0.1")));
    }

    #[test]
    fn a_network_of_all_of_ipv4_is_not_all_of_ipv6() {
        let mut bans = Bans::default();
        bans.add(&BanWho::new(BanKind::Address, "0.0.0.0/0").unwrap(), Instant::NEVER);
        assert!(bans.has(Instant::START, "", None, ip("203.0.113.9")));
        assert!(!bans.has(Instant::START, "", None, ip("2001:db8::1")));
    }

    proptest::proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(reason in "\\PC{0,20}", by in "\\PC{0,9}", at: u64, until: Option<u64>) {
            let ban = Ban { reason, by, at, until };
            proptest::prop_assert_eq!(Ban::decode(&ban.encode()), Ok(ban.clone()));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, text in "\\PC{0,30}") {
            let _ = (Ban::decode(&bytes), BanWho::of_key(&text), BanWho::new(BanKind::Address, &text));
        }

        #[test]
        fn a_network_has_what_has_its_prefix(one: u128, other: u128, length in 0_u8..=128) {
            let network = Network::new(one, length);
            let same = length == 0 || (one ^ other) >> (128 - u32::from(length)) == 0;
            proptest::prop_assert_eq!(Network::new(other, length) == network, same);
            proptest::prop_assert_eq!(Network::parse(&network.text()), Some(network));
        }
    }
}
