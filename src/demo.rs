//! `newtmq demo cluster`: some nodes on this machine in one command, each a process of its own, with clients that send
//! messages through all of them, and ways to cut, pause and kill nodes and to watch how they heal. It is a user of the broker
//! as any other: what it knows it has from `newtmq ctl` and from its clients.

pub mod ledger;
pub mod load;
pub mod node;
pub mod relay;
pub mod script;
pub mod sight;
pub mod stage;
pub mod terminal;
pub mod view;

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::rt::{self, ReloadSignals, StopSignals};
use script::Step;
use stage::{News, Stage};
use terminal::Terminal;
use view::Rates;

/// What is shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// Publishers, and as many subscribers, at each.
    pub clients: usize,
    /// Messages a second of each publisher.
    pub rate: u32,
    /// What is done; without it keys say so.
    pub script: Option<Vec<Step>>,
    /// Lines of JSON.
    pub json: bool,
    /// Everything is written there and kept.
    pub folder: Option<PathBuf>,
}

/// Shows it until its end. Says whether all was well: nothing that was owed was lost, and what was waited for came.
///
/// # Errors
/// The operating system's.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let stopped = stop_flag()?;
    let stage = Stage::start(options.nodes, options.clients, options.rate, options.folder.as_deref())?;
    let terminal =
        if options.json || options.script.is_some() { None } else { Terminal::take().context("the terminal")? };
    let mut show = Show {
        stage,
        terminal,
        json: options.json,
        begun: Instant::now(),
        told: VecDeque::new(),
        rates: Rates::default(),
        selected: 0,
        stopped,
        at: Instant::now(),
    };
    show.introduce();
    let steps = options.script.clone().map(VecDeque::from);
    let good = show.play(steps)?;
    Ok(show.end(good))
}

/// Set once a signal wants it to end.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let wait = async {
            let (mut stop, mut hang_up) = (StopSignals::new()?, ReloadSignals::new()?);
            let _ = ready.send(());
            tokio::select! {
                biased;
                _ = stop.next() => {}
                () = hang_up.next() => {}
            }
            flag.store(true, Ordering::SeqCst);
            std::io::Result::Ok(())
        };
        drop(rt::block_on(wait));
    });
    is_ready.recv().context("listen for signals")?;
    Ok(stopped)
}

/// A demo and how it is shown.
struct Show {
    stage: Stage,
    terminal: Option<Terminal>,
    json: bool,
    begun: Instant,
    told: VecDeque<String>,
    rates: Rates,
    selected: usize,
    stopped: Arc<AtomicBool>,
    /// When it was looked at as a whole.
    at: Instant,
}

impl Show {
    fn introduce(&mut self) {
        if self.terminal.is_some() {
            return;
        }
        for (at, node) in self.stage.nodes.iter().enumerate() {
            if self.json {
                let log = node.spec.log.display().to_string();
                self.print(&serde_json::json!({ "event": "started", "node": at + 1, "mqtt": node.spec.mqtt.to_string(), "log": log }).to_string());
            } else {
                self.print(&format!("node{} listens on mqtt://{}", at + 1, node.spec.mqtt));
            }
        }
    }

    fn print(&self, line: &str) {
        // Nobody may be reading it.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn tell(&mut self, news: &News) {
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.json {
            let mut value = view::json(news);
            value["at_s"] = seconds.into();
            self.print(&value.to_string());
            return;
        }
        let line = format!("{seconds:7.1}  {}", view::line(news));
        if self.terminal.is_none() {
            self.print(&line);
        }
        self.told.push_back(line);
        while self.told.len() > LINES_KEPT {
            self.told.pop_front();
        }
    }

    /// Everything goes on for a moment.
    fn turn(&mut self) -> anyhow::Result<()> {
        let (now, mut news) = (Instant::now(), Vec::new());
        self.stage.turn(now, &mut news);
        if now >= self.at {
            self.at = now + REVIEW;
            self.stage.review(now, &mut news).context("start a node")?;
            self.rates.sample(&self.stage, now);
        }
        news.iter().for_each(|news| self.tell(news));
        if let Some(terminal) = &self.terminal
            && self.at == now + REVIEW
        {
            terminal.show(&view::screen(&self.stage, &self.rates, self.selected, &self.told, now));
        }
        thread::sleep(PAUSE);
        Ok(())
    }

    fn act(&mut self, action: script::Action) -> anyhow::Result<()> {
        let mut news = Vec::new();
        self.stage.act(action, &mut news).with_context(|| action.to_string())?;
        news.iter().for_each(|news| self.tell(news));
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Waits until all is well. False if that takes too long, a signal ends it, or a process has ended by itself.
    fn wait_healed(&mut self) -> anyhow::Result<bool> {
        let until = Instant::now() + HEAL_MAX;
        while !self.stage.is_healed {
            if self.is_stopped() || self.stage.is_broken || Instant::now() > until {
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    fn play(&mut self, steps: Option<VecDeque<Step>>) -> anyhow::Result<bool> {
        let Some(steps) = steps else { return self.play_keys().map(|()| true) };
        // Nothing can be learned of a cluster that is not there yet.
        if !self.wait_healed()? {
            return Ok(false);
        }
        for step in steps {
            match step {
                Step::Do(action) => self.act(action)?,
                Step::Wait(time) => {
                    let until = Instant::now() + time;
                    while Instant::now() < until && !self.is_stopped() {
                        self.turn()?;
                    }
                }
                Step::WaitHealed => {
                    if !self.wait_healed()? {
                        return Ok(false);
                    }
                }
                Step::Quit => break,
            }
            if self.is_stopped() {
                return Ok(false);
            }
        }
        self.settle()
    }

    /// What is under way comes to its end, if everything runs. Says whether it did.
    fn settle(&mut self) -> anyhow::Result<bool> {
        self.stage.load.end_publishing();
        let until = Instant::now() + SETTLE_MAX;
        while self.stage.is_repaired() && self.stage.load.ledger.undecided() > 0 {
            if self.is_stopped() || Instant::now() > until {
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    fn play_keys(&mut self) -> anyhow::Result<()> {
        while !self.is_stopped() {
            while let Some(key) = self.terminal.as_ref().and_then(Terminal::key) {
                match key {
                    b'q' | CTRL_C => return Ok(()),
                    b'1'..=b'9' if usize::from(key - b'1') < self.stage.nodes.len() => {
                        self.selected = usize::from(key - b'1');
                    }
                    _ => {
                        if let Some(action) = view::action_of(key, self.selected, &self.stage) {
                            self.act(action)?;
                        }
                    }
                }
            }
            self.turn()?;
        }
        Ok(())
    }

    fn end(mut self, good: bool) -> bool {
        self.terminal = None;
        self.stage.load.ledger.settle(Instant::now());
        let counts = self.stage.load.ledger.counts;
        let good = good && counts.lost == 0 && counts.disordered == 0;
        if self.json {
            let mut value = view::counts_json(&self.stage);
            (value["event"], value["ok"]) = ("end".into(), good.into());
            self.print(&value.to_string());
        } else {
            self.print(&view::counts_line(&self.stage));
        }
        if !good && !self.is_stopped() {
            for node in 0..self.stage.nodes.len() {
                eprintln!("--- the end of the log of node{}\n{}", node + 1, self.stage.log_of(node, LOG_LINES));
            }
        }
        good
    }
}

/// How often everything is looked at.
const REVIEW: Duration = Duration::from_millis(100);
/// From one turn to the next.
const PAUSE: Duration = Duration::from_millis(2);
/// It never takes so long.
const HEAL_MAX: Duration = Duration::from_secs(120);
const SETTLE_MAX: Duration = Duration::from_secs(20);
const LINES_KEPT: usize = 10;
const LOG_LINES: usize = 20;
/// In a terminal that gives every key.
const CTRL_C: u8 = 3;
