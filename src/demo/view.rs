//! How a demo is shown: a screen, a line for each change, or a line of JSON.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ledger::{Counts, Lost};
use super::node::Process;
use super::script::Action;
use super::stage::{News, Stage, word};

/// What has passed each second.
#[derive(Debug, Default)]
pub struct Rates {
    samples: VecDeque<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    /// By node: messages confirmed and delivered there.
    by_node: Vec<(u64, u64)>,
    /// Between all nodes.
    bytes: u64,
}

impl Rates {
    /// Looks at the counts.
    pub fn sample(&mut self, stage: &Stage, now: Instant) {
        let (by_node, bytes) = (stage.load.ledger.by_node.clone(), stage.relays.bytes());
        self.samples.push_back(Sample { at: now, by_node, bytes });
        while self.samples.len() > 2 && self.samples[1].at + Duration::from_secs(1) <= now {
            self.samples.pop_front();
        }
    }

    /// A second, by node: confirmed and delivered; and bytes between all nodes.
    pub fn each_second(&self, nodes: usize) -> (Vec<(u64, u64)>, u64) {
        let (Some(from), Some(to)) = (self.samples.front(), self.samples.back()) else {
            return (vec![(0, 0); nodes], 0);
        };
        let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
        let rate = |was: u64, is: u64| if seconds > 0.0 { ((is - was) as f64 / seconds).round() as u64 } else { 0 };
        let both = from.by_node.iter().zip(&to.by_node);
        (both.map(|(was, is)| (rate(was.0, is.0), rate(was.1, is.1))).collect(), rate(from.bytes, to.bytes))
    }
}

/// The screen, line by line.
pub fn screen(stage: &Stage, rates: &Rates, selected: usize, told: &VecDeque<String>, now: Instant) -> Vec<String> {
    let mut lines = vec![headline(stage, now), String::new()];
    let nodes = stage.nodes.len();
    let sees: String = (1..=nodes).map(|node| format!("{:<9}", format!("sees {node}"))).collect();
    lines.push(format!("{DIM}  node   process  role     {sees}entries  clients  in/s   out/s  MQTT{PLAIN}"));
    let (each, bytes) = rates.each_second(nodes);
    for (node, (confirmed, delivered)) in each.into_iter().enumerate() {
        lines.push(row(stage, node, node == selected, confirmed, delivered));
    }
    lines.push(String::new());
    lines.push(format!("  ways   {}   {:.1} kB/s between nodes", cuts(stage), bytes as f64 / 1000.0));
    let Counts { sent, confirmed, refused, delivered, across, again, lost, disordered, excused } =
        stage.load.ledger.counts;
    let waiting = stage.load.ledger.undecided();
    lines.push(format!(
        "  sent   {sent}, confirmed {confirmed}, refused {refused}; delivered {delivered}, {across} of them between nodes{}",
        stage.load.ledger.slowest().map(|took| format!(", the slowest in {} ms", took.as_millis())).unwrap_or_default()
    ));
    let bad = if lost + disordered > 0 { RED } else { GREEN };
    lines.push(format!(
        "  owed   {bad}lost {lost}, out of order {disordered}{PLAIN}; under way {waiting}, again {again}, not owed {excused}, clients dropped {}",
        stage.load.dropped
    ));
    lines.push(String::new());
    lines.extend(told.iter().map(|line| format!("  {DIM}{line}{PLAIN}")));
    lines.push(String::new());
    lines.push(format!("  {BOLD}1-{nodes}{PLAIN} pick  {BOLD}c{PLAIN} cut off  {BOLD}o{PLAIN} cut one way  {BOLD}p{PLAIN} pause/continue  {BOLD}k{PLAIN} kill -9  {BOLD}r{PLAIN} restart  {BOLD}m{PLAIN} move  {BOLD}h{PLAIN} heal all  {BOLD}q{PLAIN} quit"));
    lines
}

fn headline(stage: &Stage, now: Instant) -> String {
    let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
    let state = match stage.fault {
        _ if stage.is_healed => format!("{GREEN}all is well{PLAIN}"),
        None => format!("{YELLOW}starting, {:.1} s{PLAIN}", seconds(stage.touched)),
        Some(fault) if stage.is_repaired() => {
            format!("{YELLOW}healing, {:.1} s; {:.1} s since the fault{PLAIN}", seconds(stage.touched), seconds(fault))
        }
        Some(fault) => format!("{RED}{:.1} s since the fault{PLAIN}", seconds(fault)),
    };
    format!("{BOLD}NewtMQ{PLAIN}  {} nodes  {state}", stage.nodes.len())
}

fn row(stage: &Stage, node: usize, selected: bool, confirmed: u64, delivered: u64) -> String {
    let process = stage.nodes[node].process();
    let (ready, clients) = stage.load.at(node);
    let sight = stage.sights[node].as_ref().filter(|_| process != Process::Gone);
    let leads = sight.is_some_and(|sight| sight.leader == Some(node));
    let role = match sight.map(|sight| sight.peers[node].role.as_str()) {
        Some("voter") if leads => "leader",
        Some("") | None => "-",
        Some(role) => role,
    };
    let colour = if process == Process::Running { PLAIN } else { RED };
    let mut out = format!(
        "{}{BOLD}{:<7}{PLAIN}{colour}{:<9}{PLAIN}{role:<9}",
        if selected { "> " } else { "  " },
        format!("node{}", node + 1),
        process.word()
    );
    for peer in 0..stage.nodes.len() {
        let what = sight.map_or("?", |sight| if peer == node { "-" } else { word(&sight.peers[peer]) });
        let colour = if matches!(what, "open" | "-") { GREEN } else { RED };
        let _ = write!(out, "{colour}{what:<9}{PLAIN}");
    }
    let entries: u64 = sight.map_or(0, |sight| sight.peers.iter().map(|peer| peer.entries).sum());
    let mqtt = stage.nodes[node].spec.mqtt;
    let clients = format!("{ready}/{clients}");
    let _ = write!(out, "{entries:<9}{clients:<9}{confirmed:<7}{delivered:<7}{mqtt}");
    out
}

fn cuts(stage: &Stage) -> String {
    let count = stage.nodes.len();
    let mut cut = Vec::new();
    for from in 0..count {
        for to in 0..count {
            let (one, other) = (stage.relays.is_cut(from, to), stage.relays.is_cut(to, from));
            if one && other && from < to {
                cut.push(format!("{}-{}", from + 1, to + 1));
            } else if one && !other {
                cut.push(format!("{}>{}", from + 1, to + 1));
            }
        }
    }
    if cut.is_empty() { format!("{GREEN}all open{PLAIN}") } else { format!("{RED}cut {}{PLAIN}", cut.join(" ")) }
}

/// A change, for people.
pub fn line(news: &News) -> String {
    match news {
        News::Did(action) => format!("--- {action}"),
        News::Ended { node, how } => format!("node{} has ended: {how}", node + 1),
        News::Leader { node, leader: Some(leader) } => format!("node{}: node{} leads", node + 1, leader + 1),
        News::Leader { node, leader: None } => format!("node{}: nobody leads", node + 1),
        News::Sees { node, peer, what } => format!("node{}: node{} is {what}", node + 1, peer + 1),
        News::Healed { after_fault: None, after_repair } => format!("all is well after {}", seconds(*after_repair)),
        News::Healed { after_fault: Some(fault), after_repair } => {
            format!("healed {} after the repair, {} after the fault", seconds(*after_repair), seconds(*fault))
        }
        News::Lost(Lost { publisher, subscriber, number, sent, confirmed }) => format!(
            "LOST: message {number} of publisher {} at node{}, sent {} and confirmed {} ago, did not come to subscriber {} at node{}",
            publisher.0 + 1,
            publisher.1 + 1,
            seconds(*sent),
            seconds(*confirmed),
            subscriber.0 + 1,
            subscriber.1 + 1
        ),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A change, for programs.
pub fn json(news: &News) -> Value {
    match news {
        News::Did(action) => json!({ "event": "did", "action": action.to_string() }),
        News::Ended { node, how } => json!({ "event": "ended", "node": node + 1, "how": how }),
        News::Leader { node, leader } => {
            json!({ "event": "leader", "node": node + 1, "leader": leader.map(|leader| leader + 1) })
        }
        News::Sees { node, peer, what } => json!({ "event": "sees", "node": node + 1, "peer": peer + 1, "as": what }),
        News::Healed { after_fault, after_repair } => json!({
            "event": "healed",
            "after_fault_s": after_fault.map(|time| time.as_secs_f64()),
            "after_repair_s": after_repair.as_secs_f64(),
        }),
        News::Lost(Lost { publisher, subscriber, number, sent, confirmed }) => json!({
            "event": "lost", "number": number, "publisher": publisher.0 + 1, "from_node": publisher.1 + 1,
            "subscriber": subscriber.0 + 1, "to_node": subscriber.1 + 1,
            "sent_s_ago": sent.as_secs_f64(), "confirmed_s_ago": confirmed.as_secs_f64(),
        }),
    }
}

/// The counts, for programs.
pub fn counts_json(stage: &Stage) -> Value {
    let Counts { sent, confirmed, refused, delivered, across, again, lost, disordered, excused } =
        stage.load.ledger.counts;
    json!({
        "sent": sent, "confirmed": confirmed, "refused": refused, "delivered": delivered, "across": across,
        "again": again, "lost": lost, "disordered": disordered, "not_owed": excused, "dropped": stage.load.dropped,
        "under_way": stage.load.ledger.undecided(),
    })
}

/// The counts, for people.
pub fn counts_line(stage: &Stage) -> String {
    let Counts { sent, confirmed, delivered, across, lost, disordered, .. } = stage.load.ledger.counts;
    format!(
        "{sent} messages sent, {confirmed} confirmed, {delivered} delivered ({across} between nodes), {lost} lost, {disordered} out of order"
    )
}

/// Something that a key asks for, of the node that is picked.
pub fn action_of(key: u8, node: usize, stage: &Stage) -> Option<Action> {
    Some(match key {
        b'c' if stage.is_alone(node) => Action::Heal,
        b'c' => Action::Cut(super::script::Way::Around(node)),
        b'o' => Action::Cut(super::script::Way::From(node)),
        b'p' if stage.nodes[node].process() == Process::Paused => Action::Continue(node),
        b'p' => Action::Pause(node),
        b'k' => Action::Kill(node),
        b'r' => Action::Restart(node),
        b'm' => Action::Move(node),
        b'h' => Action::Heal,
        _ => return None,
    })
}

const PLAIN: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let second = Duration::from_millis(1250);
        let all = [
            News::Did(Action::Kill(1)),
            News::Ended { node: 0, how: "exit status: 3".to_owned() },
            News::Leader { node: 0, leader: Some(2) },
            News::Leader { node: 0, leader: None },
            News::Sees { node: 1, peer: 2, what: "down" },
            News::Healed { after_fault: None, after_repair: second },
            News::Healed { after_fault: Some(second * 2), after_repair: second },
            News::Lost(Lost {
                publisher: (0, 0),
                subscriber: (3, 1),
                number: 7,
                sent: second * 4,
                confirmed: second * 3,
            }),
        ];
        let told: Vec<String> = all.iter().map(|news| format!("{}\n  {}", line(news), json(news))).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
