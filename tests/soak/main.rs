//! A soak: thousands of clients of mixed behaviour against a broker that runs, for as long as one likes.
//!
//! ```sh
//! cargo run --release --example soak -- --port 1883 --clients 5000 --minutes 6 --pid $(pidof newtmq)
//! ```
//!
//! Each pair of a publisher and a subscriber checks that nothing is missing, doubled or out of order; the others make
//! trouble. A line every 10 s; the exit status is 0 if nothing was wrong and 1 otherwise.
#![allow(clippy::print_stdout, reason = "it is a program")]

#[cfg(not(madsim))]
mod client;
#[cfg(not(madsim))]
mod roles;

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    use clap::Parser as _;
    let options = run::Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run::soak(options))
}

#[cfg(not(madsim))]
mod run {
    use std::net::SocketAddr;
    use std::process::ExitCode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use crate::roles;

    /// Thousands of clients of mixed behaviour against a broker.
    #[derive(Debug, clap::Parser)]
    pub struct Options {
        /// Address of the broker.
        #[arg(long, default_value = "127.0.0.1")]
        host: std::net::IpAddr,
        /// Its port for MQTT over TCP.
        #[arg(long, default_value_t = 1883)]
        port: u16,
        /// How many clients.
        #[arg(long, default_value_t = 5000)]
        clients: u32,
        /// For how long.
        #[arg(long, default_value_t = 6.0)]
        minutes: f64,
        /// The broker's process, to watch its memory.
        #[arg(long)]
        pid: Option<u32>,
        /// What the clients' choices come from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    }

    /// What all clients share.
    #[derive(Debug)]
    pub struct Shared {
        pub address: SocketAddr,
        pub stop: AtomicBool,
        pub connected: AtomicU64,
        pub connects: AtomicU64,
        pub sent: AtomicU64,
        pub received: AtomicU64,
        pub errors: AtomicU64,
    }

    impl Shared {
        pub fn stopped(&self) -> bool {
            self.stop.load(Relaxed)
        }

        /// Something is wrong. The first ones are told.
        pub fn error(&self, what: &str) {
            if self.errors.fetch_add(1, Relaxed) < 20 {
                println!("WRONG: {what}");
            }
        }
    }

    fn resident_kb(pid: u32) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    pub async fn soak(options: Options) -> ExitCode {
        let shared = Arc::new(Shared {
            address: SocketAddr::new(options.host, options.port),
            stop: AtomicBool::new(false),
            connected: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        });
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(options.minutes * 60.0);
        let mut tasks = Vec::new();
        for index in 0..options.clients {
            tasks.push(tokio::spawn(roles::play(index, options.seed, Arc::clone(&shared))));
            if index % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let (mut early, mut last) = (None, 0);
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let resident = options.pid.and_then(resident_kb).unwrap_or(0);
            // The first minute fills queues and caches.
            if early.is_none() && start.elapsed() > Duration::from_secs(60) {
                early = Some(resident);
            }
            last = resident;
            let count = |counter: &AtomicU64| counter.load(Relaxed);
            println!(
                "{:4} s  connected {}  connects {}  sent {}  received {}  wrong {}  broker {} MB",
                start.elapsed().as_secs(),
                count(&shared.connected),
                count(&shared.connects),
                count(&shared.sent),
                count(&shared.received),
                count(&shared.errors),
                resident / 1024
            );
        }
        shared.stop.store(true, Relaxed);
        for task in tasks {
            if !matches!(tokio::time::timeout(Duration::from_secs(30), task).await, Ok(Ok(()))) {
                shared.error("a client did not end");
            }
        }
        let errors = shared.errors.load(Relaxed);
        println!(
            "{errors} wrong; broker {} MB after a minute, {} MB at the end",
            early.unwrap_or(0) / 1024,
            last / 1024
        );
        if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
