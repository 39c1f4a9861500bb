//! The alarms that are raised, and those that were.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use newtmq_node::datetime;
use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It may become worse.
    Warning,
    /// Something does not work.
    Critical,
}

impl Severity {
    /// As EMQ X calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Something that is wrong, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What it is about: a word, and after a `/` whom.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in words, as it was when it was raised.
    pub message: String,
    /// When, in milliseconds since 1970.
    pub raised_at: u64,
    /// When it was over.
    pub cleared_at: Option<u64>,
}

impl Alarm {
    /// The word.
    #[must_use]
    pub fn title(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "severity": self.severity.name(),
            "title": self.title(),
            "summary": self.message,
            "ts": self.raised_at / 1000,
            "raised_at": datetime(self.raised_at),
            "cleared_at": self.cleared_at.map(datetime),
            "lasted_ms": self.cleared_at.map(|at| at.saturating_sub(self.raised_at)),
        })
    }
}

/// What is different from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is wrong.
    Raised(Alarm),
    /// It is over.
    Cleared(Alarm),
}

/// All of a node.
#[derive(Debug, Default)]
pub struct Board(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    raised: BTreeMap<String, Alarm>,
    /// The newest first.
    over: VecDeque<Alarm>,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is raised.
    #[must_use]
    pub fn is_raised(&self, id: &str) -> bool {
        self.inner().raised.contains_key(id)
    }

    /// Raises it, or clears it; what is so already stays as it is.
    pub fn set(&self, id: &str, now: u64, state: Option<(Severity, String)>) -> Option<Change> {
        let mut inner = self.inner();
        match state {
            Some((severity, message)) => {
                if inner.raised.contains_key(id) {
                    return None;
                }
                let alarm = Alarm { id: id.to_owned(), severity, message, raised_at: now, cleared_at: None };
                inner.raised.insert(id.to_owned(), alarm.clone());
                Some(Change::Raised(alarm))
            }
            None => {
                let mut alarm = inner.raised.remove(id)?;
                alarm.cleared_at = Some(now);
                inner.over.truncate(OVER_MAX - 1);
                inner.over.push_front(alarm.clone());
                Some(Change::Cleared(alarm))
            }
        }
    }

    /// Those that are raised, by id.
    #[must_use]
    pub fn raised(&self) -> Vec<Alarm> {
        self.inner().raised.values().cloned().collect()
    }

    /// Those that were, the newest first.
    #[must_use]
    pub fn over(&self) -> Vec<Alarm> {
        self.inner().over.iter().cloned().collect()
    }
}

/// Alarms that are over and still known; the oldest are forgotten.
const OVER_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_of_once_and_its_end_once() {
        let board = Board::default();
        let state = || Some((Severity::Warning, "little".to_owned()));
        assert!(matches!(board.set("disk", 1000, state()), Some(Change::Raised(alarm)) if alarm.raised_at == 1000));
        assert_eq!(board.set("disk", 2000, Some((Severity::Warning, "less".to_owned()))), None);
        assert_eq!((board.raised().len(), board.is_raised("disk"), board.is_raised("memory")), (1, true, false));
        assert!(matches!(board.set("disk", 3500, None), Some(Change::Cleared(_))));
        assert_eq!(board.set("disk", 4000, None), None);
        assert!(board.raised().is_empty());
        let told = board.over()[0].json();
        assert_eq!((&told["summary"], &told["lasted_ms"]), (&json!("little"), &json!(2500)));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let board = Board::default();
        for n in 0..OVER_MAX + 10 {
            let id = format!("node_down/{n}");
            board.set(&id, 0, Some((Severity::Critical, String::new())));
            board.set(&id, 1, None);
        }
        let over = board.over();
        assert_eq!((over.len(), over[0].id.as_str(), over[0].title()), (OVER_MAX, "node_down/109", "node_down"));
    }
}
