//! Mountpoints and names of clients: what a zone says of the topics and the Client Identifiers of its clients.
//!
//! A mountpoint goes in front of every topic and filter that a client writes, and is taken off every topic that it gets.
//! Subscriptions, retained messages, queues and share groups know mounted topics only.

use newtmq_base::ConnId;
use newtmq_mqtt::{Connect, DecodeError, ErrorKind, OwnedTopicFilter, ReasonCode, TopicFilter, TopicName};

use super::Shard;
use crate::conn::{Conn, Feature};

/// Longest topic, in bytes [MQTT-4.7.3-3].
const TOPIC_BYTES_MAX: usize = 65_535;

/// The topic as the client knows it. One that is not below the mountpoint stays as it is: a filter `#` also matches the
/// mountpoint's own last level, and a session may have subscriptions from another zone.
pub(crate) fn unmounted<'a>(c: &Conn, topic: &'a [u8]) -> &'a [u8] {
    let mount = c.rare.as_ref().and_then(|rare| rare.mount.as_deref()).unwrap_or("");
    // A topic is never empty [MQTT-4.7.3-1].
    topic.strip_prefix(mount.as_bytes()).filter(|rest| !rest.is_empty()).unwrap_or(topic)
}

impl Shard {
    /// The identifier that a client goes by: with `use_username_as_clientid` its User Name, if it has one.
    pub(crate) fn client_id_of<'a>(&self, conn: ConnId, connect: &Connect<'a>) -> &'a str {
        let zone = self.conn(conn).map(|c| &self.config.zones[usize::from(c.zone)]);
        match connect.username {
            Some(username) if !username.is_empty() && zone.is_some_and(|zone| zone.use_username_as_clientid) => {
                username
            }
            Some(_) | None => connect.client_id,
        }
    }

    /// Gives the connection its zone's mountpoint: `%c` is the Client Identifier, `%u` the User Name. Without one `%u`
    /// stays, as in EMQ X.
    pub(crate) fn mount(&mut self, conn: ConnId, client: &str, connect: &Connect<'_>) -> Result<(), ReasonCode> {
        let Some(c) = self.conn(conn) else { return Ok(()) };
        let mountpoint = &self.config.zones[usize::from(c.zone)].mountpoint;
        if mountpoint.is_empty() {
            return Ok(());
        }
        // A wildcard in a name would let the client read what belongs to others.
        let wild = |name: &str| name.contains(['+', '#']);
        if mountpoint.contains("%c") && wild(client) {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if mountpoint.contains("%u") && connect.username.is_some_and(wild) {
            return Err(ReasonCode::BadUserNameOrPassword);
        }
        let mount = put_in(mountpoint, client, connect.username);
        // `$share/…` in front of a filter would be a shared subscription to what belongs to others, and `$SYS/…` is the
        // server's.
        if mount.starts_with('$') && !mountpoint.starts_with('$') {
            let by_client = mountpoint.starts_with("%c");
            let reason =
                if by_client { ReasonCode::ClientIdentifierNotValid } else { ReasonCode::BadUserNameOrPassword };
            return Err(reason);
        }
        let will = connect.will.as_ref().map_or(0, |will| will.topic.as_str().len());
        if mount.len() + will.max(1) > TOPIC_BYTES_MAX {
            return Err(ReasonCode::TopicNameInvalid);
        }
        let c = self.live(conn);
        c.features.add(Feature::Mounted);
        c.rare().mount = Some(mount.into());
        Ok(())
    }

    fn mountpoint(&self, conn: ConnId) -> Option<&str> {
        self.conn(conn).filter(|c| c.features.has(Feature::Mounted))?.rare.as_ref()?.mount.as_deref()
    }

    /// The topic that a client's topic stands for; `None` if it stands for itself.
    pub(crate) fn mounted_topic(&self, conn: ConnId, topic: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
        let Some(mount) = self.mountpoint(conn) else { return Ok(None) };
        if mount.len() + topic.len() > TOPIC_BYTES_MAX {
            return Err(DecodeError::new(ErrorKind::TopicNameInvalid, "too long with its mountpoint"));
        }
        Ok(Some([mount.as_bytes(), topic].concat()))
    }

    /// The same for who is told of a message, whatever its length.
    pub(crate) fn mounted_name(&self, conn: ConnId, topic: TopicName<'_>) -> Box<str> {
        [self.mountpoint(conn).unwrap_or(""), topic.as_str()].concat().into()
    }

    /// The filter that a client's filter stands for; of a shared subscription the group stays in front.
    pub(crate) fn mounted_filter(&self, conn: ConnId, filter: TopicFilter<'_>) -> Option<OwnedTopicFilter> {
        let Some(mount) = self.mountpoint(conn) else { return Some(filter.into()) };
        let share = filter.as_str().strip_suffix(filter.filter()).unwrap_or("");
        let text = [share, mount, filter.filter()].concat();
        // All that can be wrong with it is its length.
        TopicFilter::new(&text).ok().map(OwnedTopicFilter::from)
    }
}

/// The placeholders replaced. What a name brings along is not looked at again.
fn put_in(mountpoint: &str, client: &str, username: Option<&str>) -> String {
    let mut mount = String::with_capacity(mountpoint.len() + client.len());
    let mut rest = mountpoint;
    while let Some(at) = rest.find('%') {
        mount.push_str(&rest[..at]);
        let name = match &rest.as_bytes()[at + 1..] {
            [b'c', ..] => Some(client),
            [b'u', ..] => username,
            _ => None,
        };
        match name {
            Some(name) => {
                mount.push_str(name);
                rest = &rest[at + 2..];
            }
            None => {
                mount.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    mount.push_str(rest);
    mount
}

#[cfg(test)]
mod tests {
    use super::put_in;

    #[test]
    fn placeholders() {
        for (mountpoint, client, username, expected) in [
            ("dev/%c/", "a", None, "dev/a/"),
            ("%u/%c/%u/", "a", Some("b"), "b/a/b/"),
            ("%u/%c/", "a", None, "%u/a/"),
            ("%c%u", "%u", Some("%c"), "%u%c"),
            ("100%/%d%", "a", None, "100%/%d%"),
        ] {
            assert_eq!(put_in(mountpoint, client, username), expected, "{mountpoint}");
        }
    }
}
