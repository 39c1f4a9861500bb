//! What of a client is kept with its session: topic ids, the will, and whether it sleeps. With it a client goes on at any
//! gateway of the cluster.

use newtmq_base::{InvalidField, Put, Take};
use newtmq_mqtt::{QoS, TopicName};

use crate::io::Will;
use crate::registry::Registry;

/// No record is longer; what does not fit is not kept, the newest topic ids first.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// First byte of a record: its form.
const FORM: u8 = 1;

/// A record, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) keep_alive: u16,
    /// 0 if the client is not asleep.
    pub(crate) sleep: u16,
    pub(crate) will: Option<Will>,
    pub(crate) registry: Registry,
}

/// Writes what is kept.
pub(crate) fn encode(keep_alive: u16, sleep: u16, will: Option<&Will>, registry: &Registry) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = Put(&mut bytes);
    put.byte(FORM).number(u64::from(keep_alive)).number(u64::from(sleep)).flag(will.is_some());
    if let Some(will) = will {
        put.text(&will.topic).bytes(&will.payload).byte(will.qos as u8).flag(will.retain);
    }
    put.number(registry.predefined().len() as u64);
    for id in registry.predefined() {
        put.number(u64::from(*id));
    }
    for (name, told, refused) in registry.iter() {
        if bytes.len() + name.len() + 4 > RECORD_BYTES_MAX {
            break;
        }
        Put(&mut bytes).byte(u8::from(told) | u8::from(refused) << 1).text(name);
    }
    bytes
}

/// Reads it. Wrong bytes give an error.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, InvalidField> {
    let mut take = Take(bytes);
    if take.byte()? != FORM {
        return Err(InvalidField("a form that is not known"));
    }
    let mut record = Record { keep_alive: take.number16()?, sleep: take.number16()?, ..Record::default() };
    if take.flag()? {
        let topic = topic_name(take.text()?)?;
        let payload = take.bytes()?.into();
        let qos = QoS::from_bits(take.byte()?).ok_or(InvalidField("a QoS above 2"))?;
        record.will = Some(Will { topic, payload, qos, retain: take.flag()? });
    }
    for _ in 0..take.count()? {
        record.registry.use_predefined(take.number16()?);
    }
    while !take.0.is_empty() {
        let flags = take.byte()?;
        let name = topic_name(take.text()?)?;
        let known = record.registry.len();
        let id = record.registry.assign(&name, u16::MAX).ok_or(InvalidField("too many topics"))?;
        if record.registry.len() == known {
            return Err(InvalidField("a topic with two ids"));
        }
        record.registry.set_told(id, flags & 1 != 0);
        if flags & 2 != 0 {
            record.registry.refuse(id);
        }
    }
    Ok(record)
}

fn topic_name(text: &str) -> Result<Box<str>, InvalidField> {
    TopicName::new(text).map(|_| text.into()).map_err(|_| InvalidField("no Topic Name"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_comes_back(
            numbers: (u16, u16),
            will in proptest::option::of(("[a-z/]{1,9}", vec(any::<u8>(), 0..9), 0..3u8, any::<bool>())),
            predefined in vec(any::<u16>(), 0..9),
            names in vec(("[a-z/]{1,4}", 0..3u8), 0..20),
        ) {
            let will = will.map(|(topic, payload, qos, retain)| {
                Will { topic: topic.into(), payload: payload.into(), qos: QoS::from_bits(qos).unwrap(), retain }
            });
            let mut registry = Registry::default();
            for id in predefined {
                registry.use_predefined(id);
            }
            for (name, state) in names {
                let id = registry.assign(&name, 100).unwrap();
                match state {
                    0 => {}
                    1 => { registry.set_told(id, true); }
                    _ => registry.refuse(id),
                }
            }
            let record = Record { keep_alive: numbers.0, sleep: numbers.1, will, registry };
            let bytes = encode(record.keep_alive, record.sleep, record.will.as_ref(), &record.registry);
            prop_assert_eq!(decode(&bytes), Ok(record));
            for len in 0..bytes.len() {
                let _ = decode(&bytes[..len]);
            }
        }

        #[test]
        fn wrong_bytes_are_safe(bytes in vec(0..40u8, 0..60)) {
            let _ = decode(&[&[FORM], &*bytes].concat());
        }
    }
}
