//! What can be done to the nodes of a demo, and how a script says it: `cut 3; wait 10; heal; wait healed; quit`. Nodes are
//! numbered from 1 there, and from 0 in the program.

use std::fmt;
use std::time::Duration;

/// Which ways between nodes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All from and to a node.
    Around(usize),
    /// All from a node: it hears the others, and they do not hear it.
    From(usize),
    /// Both between two nodes.
    Between(usize, usize),
    /// One, from the first to the second.
    OneWay(usize, usize),
}

impl Way {
    /// The single ways, sender first, in a cluster of so many nodes.
    pub fn each(self, nodes: usize) -> Vec<(usize, usize)> {
        let others = |of: usize| (0..nodes).filter(move |other| *other != of);
        match self {
            Way::Around(of) => others(of).flat_map(|other| [(of, other), (other, of)]).collect(),
            Way::From(of) => others(of).map(|other| (of, other)).collect(),
            Way::Between(one, other) => vec![(one, other), (other, one)],
            Way::OneWay(from, to) => vec![(from, to)],
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Around(of) => write!(f, "{}", of + 1),
            Way::From(of) => write!(f, "{}>", of + 1),
            Way::Between(one, other) => write!(f, "{}-{}", one + 1, other + 1),
            Way::OneWay(from, to) => write!(f, "{}>{}", from + 1, to + 1),
        }
    }
}

/// Something that is done to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing passes there any more.
    Cut(Way),
    /// Everything passes again, and every node runs.
    Heal,
    /// The process is stopped where it is (SIGSTOP).
    Pause(usize),
    /// It goes on (SIGCONT).
    Continue(usize),
    /// It is gone at once (SIGKILL).
    Kill(usize),
    /// It stops in order (SIGTERM).
    Stop(usize),
    /// It starts again with its data directory; stopped in order before, if it runs.
    Restart(usize),
    /// As [`Action::Restart`], and is then somewhere else for the other nodes.
    Move(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Cut(way) => write!(f, "cut {way}"),
            Action::Heal => write!(f, "heal"),
            Action::Pause(node) => write!(f, "pause {}", node + 1),
            Action::Continue(node) => write!(f, "continue {}", node + 1),
            Action::Kill(node) => write!(f, "kill {}", node + 1),
            Action::Stop(node) => write!(f, "stop {}", node + 1),
            Action::Restart(node) => write!(f, "restart {}", node + 1),
            Action::Move(node) => write!(f, "move {}", node + 1),
        }
    }
}

/// One step of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Do something.
    Do(Action),
    /// Let some time pass.
    Wait(Duration),
    /// Wait until all is well again.
    WaitHealed,
    /// The end.
    Quit,
}

/// What a script for so many nodes says.
///
/// # Errors
/// In words, which step cannot be.
pub fn parse(text: &str, nodes: usize) -> Result<Vec<Step>, String> {
    let steps = text.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty());
    steps.map(|step| of(step, nodes).ok_or_else(|| format!("`{step}` is no step of a script; {HELP}"))).collect()
}

fn of(step: &str, nodes: usize) -> Option<Step> {
    let mut words = step.split_whitespace();
    let (verb, object) = (words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    let node = |text: &str| text.parse::<usize>().ok().filter(|node| (1..=nodes).contains(node)).map(|node| node - 1);
    let one = || object.and_then(node);
    Some(match (verb, object) {
        ("quit", None) => Step::Quit,
        ("heal", None) => Step::Do(Action::Heal),
        ("wait", Some("healed")) => Step::WaitHealed,
        ("wait", Some(seconds)) => Step::Wait(Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?),
        ("cut", Some(way)) => Step::Do(Action::Cut(way_of(way, node)?)),
        ("pause", _) => Step::Do(Action::Pause(one()?)),
        ("continue", _) => Step::Do(Action::Continue(one()?)),
        ("kill", _) => Step::Do(Action::Kill(one()?)),
        ("stop", _) => Step::Do(Action::Stop(one()?)),
        ("restart", _) => Step::Do(Action::Restart(one()?)),
        ("move", _) => Step::Do(Action::Move(one()?)),
        _ => return None,
    })
}

fn way_of(text: &str, node: impl Fn(&str) -> Option<usize>) -> Option<Way> {
    let two = |one: &str, other: &str| Some((node(one)?, node(other)?)).filter(|(one, other)| one != other);
    if let Some((from, to)) = text.split_once('>') {
        return if to.is_empty() {
            Some(Way::From(node(from)?))
        } else {
            two(from, to).map(|(f, t)| Way::OneWay(f, t))
        };
    }
    match text.split_once('-') {
        Some((one, other)) => two(one, other).map(|(one, other)| Way::Between(one, other)),
        None => node(text).map(Way::Around),
    }
}

/// What a script can say.
pub const HELP: &str = "steps are cut 3, cut 1-3, cut 1>3, cut 3>, pause 2, continue 2, kill 2, stop 2, restart 2, move 2, \
                        heal, wait SECONDS, wait healed, quit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let text = "cut 3; cut 1-2; cut 1>2; cut 2>; pause 1; continue 1; kill 2; stop 2; restart 2; move 3; heal";
        let steps = parse(text, 3).unwrap();
        let told: Vec<String> = steps
            .iter()
            .map(|step| match step {
                Step::Do(action) => action.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told.join("; "), text);
        let waits = parse("wait 1.5\nwait healed ;quit;", 3).unwrap();
        assert_eq!(waits, [Step::Wait(Duration::from_millis(1500)), Step::WaitHealed, Step::Quit]);
    }

    #[test]
    fn no_scripts() {
        for text in
            ["cut", "cut 4", "cut 0", "cut 1-1", "cut 1>4", "cut 1 2", "wait", "wait -1", "kill", "jump 1", "heal 1"]
        {
            assert!(parse(text, 3).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn ways() {
        assert_eq!(Way::Around(2).each(3), [(2, 0), (0, 2), (2, 1), (1, 2)]);
        assert_eq!(Way::From(0).each(3), [(0, 1), (0, 2)]);
        assert_eq!(Way::Between(0, 2).each(3), [(0, 2), (2, 0)]);
        assert_eq!(Way::OneWay(0, 2).each(3), [(0, 2)]);
    }
}
