//! The processes of a demo: each node is this program with `run`, and is gone when its [`Node`] is dropped.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::SOCKET_FILE;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It runs, as far as is known.
    Running,
    /// It was stopped where it was.
    Paused,
    /// It was told to end.
    Ending,
    /// It is not there.
    Gone,
}

impl Process {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Process::Running => "running",
            Process::Paused => "paused",
            Process::Ending => "ending",
            Process::Gone => "gone",
        }
    }
}

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// This program.
    pub program: PathBuf,
    /// Its name for people.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// Where it listens for other nodes.
    pub listen: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Where it listens for clients.
    pub mqtt: SocketAddr,
    /// Where the nodes were at first.
    pub seeds: Vec<SocketAddr>,
    /// Lets the others in.
    pub cookie: String,
    /// Its shards.
    pub shards: u16,
    /// What starts the program, such as `ip netns exec NAME`; mostly nothing.
    pub before: Vec<String>,
    /// What is set besides.
    pub sets: Vec<String>,
    /// What the log tells, in place of `info`.
    pub filter: Option<String>,
}

/// A node of a demo.
#[derive(Debug)]
pub struct Node {
    /// How it is started next.
    pub spec: Spec,
    child: Option<Child>,
    process: Process,
    end_by: Instant,
}

impl Node {
    /// Starts it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(spec: Spec) -> io::Result<Node> {
        fs::create_dir_all(&spec.data)?;
        let mut node = Node { spec, child: None, process: Process::Gone, end_by: Instant::now() };
        node.start_again()?;
        Ok(node)
    }

    /// What its process does.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Where `newtmq ctl` asks it.
    pub fn socket(&self) -> PathBuf {
        self.spec.data.join(SOCKET_FILE)
    }

    /// Starts it if it is not there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start_again(&mut self) -> io::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let Spec { program, name, data, log, listen, advertise, mqtt, seeds, cookie, shards, before, sets, filter } =
            &self.spec;
        let log = File::options().create(true).append(true).open(log)?;
        let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
        let mut command = match before.split_first() {
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_clear().env("NEWTMQ_NODE__COOKIE", cookie);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(filter.as_ref().map(|filter| ("RUST_LOG", filter)));
        command.args([
            "run",
            "--ends-with-parent",
            "--json",
            "--log",
            "info",
            "--shards",
            &shards.to_string(),
            "--data",
        ]);
        command.arg(data);
        for set in [
            format!("node.name={name}"),
            format!("node.listen={listen}"),
            format!("node.advertise={advertise}"),
            "cluster.name=demo".to_owned(),
            "api.bind=none".to_owned(),
            "dashboard.bind=none".to_owned(),
            "cluster.discovery=static".to_owned(),
            format!("cluster.static.seeds={}", seeds.join(",")),
            format!("listener.tcp.external.bind={mqtt}"),
        ] {
            command.args(["--set", &set]);
        }
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        // A group of its own: what a terminal sends to the demo is not for it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn()?);
        self.process = Process::Running;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // It may be gone, and not yet be known to be.
        let _ = self.child.as_ref().map(|child| kill_process(Pid::from_child(child), signal));
    }

    /// Stops it where it is.
    pub fn pause(&mut self) {
        if self.process == Process::Running {
            self.signal(Signal::STOP);
            self.process = Process::Paused;
        }
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        if self.process == Process::Paused {
            self.signal(Signal::CONT);
            self.process = Process::Running;
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.process = Process::Gone;
    }

    /// Tells it to end in order (SIGTERM); [`Node::ended`] says when it has.
    pub fn stop(&mut self) {
        self.go_on();
        if self.process == Process::Running {
            self.signal(Signal::TERM);
            self.process = Process::Ending;
            self.end_by = Instant::now() + STOP_MAX;
        }
    }

    /// How it has ended, once, if it was not killed. One that takes too long is killed.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.process == Process::Ending && self.end_by < Instant::now() {
            self.signal(Signal::KILL);
        }
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.process = Process::Gone;
        Some(status)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

const STOP_MAX: Duration = Duration::from_secs(8);
