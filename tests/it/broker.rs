//! A broker as its own process, and whatever else a test runs: started, watched line by line, gone at the end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For anything that has to happen. Far more than it takes: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The program under test.
pub const NEWTMQ: &str = env!("CARGO_BIN_EXE_newtmq");

/// Calls `ready` until it gives something.
pub fn wait_until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "still waiting for {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// `newtmq` with nothing of the caller's environment that could change what it does.
pub fn newtmq() -> Command {
    clean(Command::new(NEWTMQ))
}

/// Has other nodes come in, and the HTTP API asked, on free ports.
fn any_peer_port(command: &mut Command) {
    command
        .env("NEWTMQ_NODE__LISTEN", "127.0.0.1:0")
        .env("NEWTMQ_API__BIND", "127.0.0.1:0")
        .env("NEWTMQ_DASHBOARD__BIND", "127.0.0.1:0");
}

/// Gives the listeners that exist without a configuration free ports.
pub fn any_port(command: &mut Command) {
    for listener in ["TCP__EXTERNAL", "TCP__INTERNAL", "WS__EXTERNAL"] {
        command.env(format!("NEWTMQ_LISTENER__{listener}__BIND"), "127.0.0.1:0");
    }
    any_peer_port(command);
}

/// A command without the caller's environment.
pub fn clean(mut command: Command) -> Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}

/// A process whose output is read as it comes. Killed when it is dropped.
pub struct Process {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Process::spawn(command)
    }

    /// With standard output and error as the command has them.
    pub fn spawn(mut command: Command) -> Process {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().map_or_else(|| Lines::of(std::io::empty()), Lines::of);
        let stderr = child.stderr.take().map_or_else(|| Lines::of(std::io::empty()), Lines::of);
        Process { child, stdout, stderr }
    }

    /// What comes from anything else.
    pub fn lines_of(stream: impl Read + Send + 'static) -> Lines {
        Lines::of(stream)
    }

    /// Waits until it has a handler for a signal, and would not just die of it.
    pub fn handles(&self, signal: Signal) {
        wait_until("the signal's handler", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            (caught >> (signal.as_raw() - 1) & 1 == 1).then_some(())
        });
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the process to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- standard output\n{}\n--- standard error\n{}", self.stdout.text(), self.stderr.text());
        }
    }
}

/// What a stream has brought so far.
#[derive(Clone)]
pub struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Lines {
        let shared = Arc::new((Mutex::new(Collected::default()), Condvar::new()));
        let lines = Lines(Arc::clone(&shared));
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                shared.0.lock().unwrap().lines.push(text);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().ended = true;
            shared.1.notify_all();
        });
        lines
    }

    /// Waits for a line, perhaps one that is there already.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let (mutex, changed) = &*self.0;
        let unseen = |read: &mut Collected| !read.ended && !read.lines.iter().any(|line| wanted(line));
        let (read, _) = changed.wait_timeout_while(mutex.lock().unwrap(), DEADLINE, unseen).unwrap();
        let found = read.lines.iter().find(|line| wanted(line)).cloned();
        // A panic with the lock held would poison it for what is shown then.
        drop(read);
        found.unwrap_or_else(|| panic!("no line with {what} in:\n{}", self.text()))
    }

    /// All of it, once the stream has ended.
    pub fn to_end(&self) -> String {
        let (mutex, changed) = &*self.0;
        let (read, _) = changed.wait_timeout_while(mutex.lock().unwrap(), DEADLINE, |read| !read.ended).unwrap();
        assert!(read.ended, "the stream has not ended");
        read.lines.join("\n")
    }

    /// What there is.
    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    /// How many lines have this.
    pub fn count(&self, with: &str) -> usize {
        self.0.0.lock().unwrap().lines.iter().filter(|line| line.contains(with)).count()
    }
}

/// A broker that has told its address.
pub struct Broker {
    pub process: Process,
    pub address: SocketAddr,
    /// The start message.
    pub started: serde_json::Value,
}

impl Broker {
    /// `newtmq run` with these `--set`s.
    pub fn start(sets: &[&str]) -> Broker {
        Broker::of(newtmq(), sets, &[])
    }

    /// With more arguments, and perhaps through another program.
    pub fn of(mut command: Command, sets: &[&str], arguments: &[&str]) -> Broker {
        any_peer_port(&mut command);
        command.args(["run", "--json", "--set", "listener.tcp.external.bind=127.0.0.1:0"]).args(arguments);
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        Broker::from(Process::start(command))
    }

    /// With the listeners `ssl.t` and `wss.t`, and the certificate in the folder `certs`. Tells in its log who connects.
    pub fn with_tls(scratch: &Scratch, more: &[&str]) -> Broker {
        let certificate = format!("certfile={}", scratch.file("certs/cert.pem"));
        let key = format!("keyfile={}", scratch.file("certs/key.pem"));
        let mut sets = Vec::new();
        for kind in ["ssl", "wss"] {
            sets.push(format!("listener.{kind}.t.bind=127.0.0.1:0"));
            sets.extend([&certificate, &key].map(|file| format!("listener.{kind}.t.{file}")));
        }
        sets.extend(more.iter().map(|set| (*set).to_owned()));
        Broker::of(newtmq(), &sets.iter().map(String::as_str).collect::<Vec<_>>(), &["--log", "debug"])
    }

    /// Waits for the start message.
    pub fn from(process: Process) -> Broker {
        let line = process.stdout.wait_for("\"event\":\"started\"", |line| line.contains("\"event\":\"started\""));
        let started: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address: SocketAddr = started["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
        assert_ne!(address.port(), 0);
        Broker { process, address, started }
    }

    /// The address of a listener, by protocol and name.
    pub fn address_of(&self, protocol: &str, name: &str) -> SocketAddr {
        let listeners = self.started["listeners"].as_array().unwrap();
        let found = listeners.iter().find(|l| l["protocol"] == protocol && l["name"] == name);
        found.expect("it listens there")["address"].as_str().unwrap().parse().unwrap()
    }

    /// At the end of a test: it lives, and nothing happened that may not happen.
    pub fn stays_well(mut self) {
        assert!(self.process.is_running());
        self.assert_log_is_clean();
    }

    /// Nothing of what the log may never have.
    pub fn assert_log_is_clean(&self) {
        let log = self.process.stderr.text();
        for bad in ["\"level\":\"ERROR\"", "panicked"] {
            assert!(!log.contains(bad), "{log}");
        }
    }
}

/// A directory of its own for a test, gone afterwards.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What a file or folder is called from anywhere.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Makes certificates for development into a folder.
    pub fn certificates(&self, folder: &str, arguments: &[&str]) {
        let mut command = newtmq();
        command.args(["cert", "dev", "--dir", &self.file(folder)]).args(arguments);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(0), "{}", process.stderr.text());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
