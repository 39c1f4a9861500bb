//! Who gets a publish: subscriptions by topic filter, shared subscription groups, the cache of matches, and the index
//! of retained messages.
//!
//! This crate owns the matching rules of MQTT 5.0 section 4.7 and the membership of shared subscriptions (section
//! 4.8.2). It never holds a message, a session or a queue: subscribers are the numbers that the shard gave, and
//! retained messages are values of the caller that know their topic.

mod cache;
mod crowd;
mod exact;
mod group;
mod retained;
mod subscription;
mod table;
mod trie;

pub use cache::{Matched, Memo};
pub use group::{Fit, GroupKey, PICK_SCAN_MEMBERS_MAX, Pick, PickStrategy, SharedGroup};
pub use retained::{RetainedCursor, RetainedIndex, RetainedValue};
pub use subscription::{PlaceId, SubscriberId, Subscription};
pub use table::{Holder, SubscriptionTable, TableEntry};
