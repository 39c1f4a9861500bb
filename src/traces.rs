//! What is traced for operators, and what has happened to it: a bounded number of records of each trace, the latest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use newtmq_base::WallTime;
use newtmq_mqtt::{OwnedTopicFilter, ReasonCode, TopicFilter};
use newtmq_node::{Event, Traced, Traces, datetime};
use serde_json::{Value, json};

use crate::rt;

/// Traces of a node at a time.
pub const TRACES_MAX: usize = 16;
/// Records of a trace that are kept; the oldest is forgotten first, and counted.
pub const RECORDS_MAX: usize = 1000;

/// The traces of a node: shards write, operators read.
#[derive(Debug, Default)]
pub struct TraceBook(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    traced: Traced,
    started: WallTime,
    /// Records so far, also those that were forgotten.
    count: u64,
    records: VecDeque<Record>,
}

#[derive(Debug)]
struct Record {
    at: WallTime,
    event: Event,
}

impl TraceBook {
    /// Begins a trace, or begins it anew; it says so if there are too many.
    ///
    /// # Errors
    /// There are [`TRACES_MAX`] already.
    pub fn start(&self, traced: Traced) -> Result<WallTime, TooMany> {
        let mut book = self.lock();
        book.retain(|kept| kept.traced != traced);
        if book.len() >= TRACES_MAX {
            return Err(TooMany);
        }
        let started = rt::wall_time();
        book.push(Kept { traced, started, count: 0, records: VecDeque::new() });
        Ok(started)
    }

    /// Ends a trace and forgets its records; with a time only the one that began then. Says if there was one.
    pub fn stop(&self, traced: &Traced, started: Option<WallTime>) -> bool {
        let mut book = self.lock();
        let before = book.len();
        book.retain(|kept| kept.traced != *traced || started.is_some_and(|started| started != kept.started));
        book.len() < before
    }

    /// What shards are to tell of.
    #[must_use]
    pub fn traces(&self) -> Traces {
        Traces::new(self.lock().iter().map(|kept| kept.traced.clone()).collect())
    }

    /// Something has happened that a shard was to tell of.
    pub fn record(&self, event: &Event) {
        let at = rt::wall_time();
        for kept in self.lock().iter_mut().filter(|kept| kept.traced.wants(&event.client, event.topic.as_deref())) {
            kept.count += 1;
            if kept.records.len() >= RECORDS_MAX {
                kept.records.pop_front();
            }
            kept.records.push_back(Record { at, event: event.clone() });
        }
    }

    /// All traces, with how much they have.
    #[must_use]
    pub fn list(&self) -> Value {
        let shown = |kept: &Kept| {
            let (kind, what) = words(&kept.traced);
            json!({
                "kind": kind,
                "what": what,
                "started": datetime(kept.started.0),
                "records": kept.count,
                "forgotten": kept.count - kept.records.len() as u64,
            })
        };
        self.lock().iter().map(shown).collect()
    }

    /// The records of a trace of the node of this name, the oldest first; none if it is not traced.
    #[must_use]
    pub fn show(&self, traced: &Traced, node: &str) -> Option<Value> {
        let book = self.lock();
        let kept = book.iter().find(|kept| kept.traced == *traced)?;
        Some(kept.records.iter().map(|record| record.shown(node)).collect())
    }

    /// The last records of a client or a topic, of whatever trace, the oldest first.
    #[must_use]
    pub fn about(&self, what: &str, node: &str, most: usize) -> Value {
        let book = self.lock();
        let is_of_it = |event: &Event| *event.client == *what || event.topic.as_deref() == Some(what);
        let records = book.iter().flat_map(|kept| &kept.records).filter(|record| is_of_it(&record.event));
        let mut records: Vec<&Record> = records.collect();
        records.sort_by_key(|record| record.at);
        // A record of two traces is there twice.
        records.dedup_by(|one, other| one.at == other.at && one.event == other.event);
        let shown = records.iter().skip(records.len().saturating_sub(most));
        shown.map(|record| record.shown(node)).collect()
    }

    // What was written before a thread panicked is as good as before.
    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn shown(&self, node: &str) -> Value {
        let Event { hook, client, topic, reason, qos, waits, dropped, .. } = &self.event;
        let why = match dropped {
            Some(dropped) => dropped.name().into(),
            None if reason.is_error() || *reason == ReasonCode::NoMatchingSubscribers => reason.to_string(),
            None => String::new(),
        };
        json!({
            "at": self.at.0,
            "time": format!("{}.{:03}", datetime(self.at.0), self.at.0 % 1000),
            "node": node,
            "event": hook.name(),
            "client_id": client,
            "topic": topic,
            "qos": qos.map(|qos| qos as u8),
            "waits": waits,
            "why": why,
        })
    }
}

/// What an operator calls a trace: its kind, and a Client Identifier or a filter.
#[must_use]
pub fn words(traced: &Traced) -> (&'static str, &str) {
    match traced {
        Traced::Client(client) => ("client", client),
        Traced::Topic(filter) => ("topic", filter.as_str()),
    }
}

/// What these words call; none if they are wrong.
#[must_use]
pub fn traced(kind: &str, what: &str) -> Option<Traced> {
    match kind {
        "client" if !what.is_empty() => Some(Traced::Client(what.into())),
        "topic" => Some(Traced::Topic(OwnedTopicFilter::from(TopicFilter::new(what).ok()?))),
        _ => None,
    }
}

/// There are as many traces as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{TRACES_MAX} clients and topics are traced already: stop one")]
pub struct TooMany;

#[cfg(test)]
mod tests {
    use newtmq_mqtt::QoS;
    use newtmq_node::{DropReason, Hook};

    use super::*;

    fn event(client: &str, topic: Option<&str>) -> Event {
        Event {
            hook: Hook::MessageDeliver,
            conn: None,
            client: client.into(),
            topic: topic.map(Into::into),
            reason: ReasonCode::Success,
            qos: Some(QoS::AtLeastOnce),
            waits: true,
            dropped: None,
            traced: true,
        }
    }

    #[test]
    fn records_are_kept_up_to_a_number() {
        let book = TraceBook::default();
        let a = Traced::Client("a".into());
        book.record(&event("a", None));
        assert_eq!(book.show(&a, "n"), None, "nothing is traced");
        book.start(a.clone()).unwrap();
        for _ in 0..RECORDS_MAX + 5 {
            book.record(&event("a", Some("t")));
            book.record(&event("b", Some("t")));
        }
        let list = book.list();
        assert_eq!(list[0]["records"], RECORDS_MAX + 5);
        assert_eq!(list[0]["forgotten"], 5);
        let shown = book.show(&a, "n").unwrap();
        assert_eq!(shown.as_array().unwrap().len(), RECORDS_MAX);
        assert_eq!(shown[0]["event"], "message.deliver");
        assert_eq!((&shown[0]["qos"], &shown[0]["waits"], &shown[0]["why"]), (&json!(1), &json!(true), &json!("")));
    }

    #[test]
    fn why_a_message_was_dropped() {
        let book = TraceBook::default();
        let a = Traced::Client("a".into());
        book.start(a.clone()).unwrap();
        let dropped = Some(DropReason::QueueFull);
        book.record(&Event { hook: Hook::MessageDropped, dropped, ..event("a", Some("t")) });
        book.record(&Event { reason: ReasonCode::NotAuthorized, ..event("a", Some("t")) });
        let shown = book.show(&a, "n").unwrap();
        assert_eq!(shown[0]["why"], "queue_full");
        assert_eq!(shown[1]["why"], ReasonCode::NotAuthorized.to_string());
    }

    #[test]
    fn traces_begin_and_end() {
        let book = TraceBook::default();
        let named = |number: usize| Traced::Client(format!("c{number}").into());
        for number in 0..TRACES_MAX {
            book.start(named(number)).unwrap();
        }
        assert_eq!(book.start(named(99)), Err(TooMany));
        let again = book.start(named(3)).unwrap();
        assert!(!book.stop(&named(3), Some(WallTime(again.0 + 1))), "that was another one");
        assert!(book.stop(&named(3), Some(again)) && !book.stop(&named(3), None));
        assert_eq!(book.list().as_array().unwrap().len(), TRACES_MAX - 1);
    }
}
