//! One MQTT session as a pure state machine: subscriptions, in-flight messages both ways, the queue, the will.
//!
//! Every durable change is [`Session::apply`] of an [`Op`]; what is left (what was handed to the connection, and how
//! many of it may be outstanding) is rebuilt when a client resumes. The session knows no socket, no topic table and no
//! other session; who may do what is decided before it is asked.

mod flow;
mod message;
mod op;
mod queue;
mod record;
mod restore;
mod session;
mod subscriptions;

pub use flow::{OVERDUE_TICKS, Outgoing, OutgoingKind};
pub use message::{Message, MessageId, MessageParts, remaining_expiry, unstretched};
pub use op::{AckKind, Applied, Dropped, Op};
pub use queue::{Delivery, Identifiers};
pub use record::{DeliveryRecord, HintRecord, InvalidRecord, Receivers, Record, SessionId, SnapshotRecord, WillRecord};
pub use restore::{Missing, Restored, RestoredForward, Restoring, Whereabouts};
pub use session::{Session, SessionLimits, Will};
pub use subscriptions::{SubscriptionEntry, Subscriptions};
