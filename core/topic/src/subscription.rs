//! One subscription as matching sees it: who, with which options, under which identifier.

use core::fmt;
use core::num::NonZeroU32;

use newtmq_mqtt::QoS;

/// A session's key in the slab of its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriberId(pub u32);

/// A subscription without its filter. Twelve bytes, because the cache of matches copies it (section 3.8.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Whose subscription it is.
    pub subscriber: SubscriberId,
    /// The Subscription Identifier (section 3.8.2.1.2); 0 means that there is none.
    pub identifier: u32,
    options: u8,
}

const _: () = assert!(size_of::<Subscription>() == 12);

/// Subscribers from here on are not sessions: the other places that have subscribers of a filter are kept beside them.
pub(crate) const FIRST_PLACE: u32 = 1 << 31;

/// Another place that has subscribers of a filter, with a number that the owner of the table gives it; less than 2^16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PlaceId(pub u16);

impl PlaceId {
    /// How a place stands among the subscribers of a filter.
    pub(crate) fn as_subscription(self) -> Subscription {
        Subscription::new(SubscriberId(FIRST_PLACE + u32::from(self.0)), QoS::AtMostOnce, false, false, None)
    }

    /// The place behind a subscriber, if it is one.
    pub(crate) fn of(subscriber: SubscriberId) -> Option<PlaceId> {
        let number = subscriber.0.checked_sub(FIRST_PLACE)?;
        Some(PlaceId(u16::try_from(number).expect("made from a place's number")))
    }
}

const QOS_MASK: u8 = 0b0011;
const NO_LOCAL: u8 = 0b0100;
const RETAIN_AS_PUBLISHED: u8 = 0b1000;

impl Subscription {
    /// Packs the options that matter after the SUBSCRIBE; Retain Handling does not.
    #[must_use]
    pub fn new(
        subscriber: SubscriberId,
        qos: QoS,
        no_local: bool,
        retain_as_published: bool,
        identifier: Option<NonZeroU32>,
    ) -> Subscription {
        let qos = match qos {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce => 1,
            QoS::ExactlyOnce => 2,
        };
        let no_local = if no_local { NO_LOCAL } else { 0 };
        let retain_as_published = if retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        Subscription {
            subscriber,
            identifier: identifier.map_or(0, NonZeroU32::get),
            options: qos | no_local | retain_as_published,
        }
    }

    /// The maximum QoS granted.
    #[must_use]
    #[inline]
    pub fn qos(self) -> QoS {
        match self.options & QOS_MASK {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// Whether the subscriber's own publishes are kept from it [MQTT-3.8.3-3].
    #[must_use]
    #[inline]
    pub fn no_local(self) -> bool {
        self.options & NO_LOCAL != 0
    }

    /// Whether the RETAIN flag is forwarded as published (section 3.8.3.1).
    #[must_use]
    #[inline]
    pub fn retain_as_published(self) -> bool {
        self.options & RETAIN_AS_PUBLISHED != 0
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("subscriber", &self.subscriber.0)
            .field("identifier", &self.identifier)
            .field("qos", &self.qos())
            .field("no_local", &self.no_local())
            .field("retain_as_published", &self.retain_as_published())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{SubscriberId, Subscription};
    use core::num::NonZeroU32;
    use newtmq_mqtt::QoS;

    #[test]
    fn options_survive_packing() {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for bits in 0..4 {
                let (no_local, as_published) = (bits & 1 != 0, bits & 2 != 0);
                let s = Subscription::new(SubscriberId(7), qos, no_local, as_published, NonZeroU32::new(9));
                assert_eq!((s.qos(), s.no_local(), s.retain_as_published()), (qos, no_local, as_published));
                assert_eq!((s.subscriber, s.identifier), (SubscriberId(7), 9));
            }
        }
        let plain = Subscription::new(SubscriberId(0), QoS::AtMostOnce, false, false, None);
        assert_eq!(plain.identifier, 0);
    }
}
