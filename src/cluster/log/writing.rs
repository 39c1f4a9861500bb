//! Who writes the log of the cluster: a thread of its own, or a task in the simulator, which has no others.

#[cfg(not(madsim))]
use super::LogError;
use super::{BATCH_MAX, IDLE, Log, Store};
use crate::cluster::driver::Event;

#[cfg(not(madsim))]
mod imp {
    use std::io;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread;
    use std::time::Duration;

    use tokio::sync::mpsc::Sender;

    use super::{BATCH_MAX, Event, IDLE, Log, LogError, Store};

    /// Takes records.
    pub type Stores = mpsc::Sender<Store>;
    /// Who writes them.
    pub type Writing = thread::JoinHandle<()>;

    impl Log {
        /// Writes records from here on. `events` is told the number of the last record that is durable; of the first error,
        /// after which nothing is written any more, that.
        ///
        /// # Errors
        /// The thread cannot be started.
        pub fn start(mut self, events: Sender<Event>) -> io::Result<(Stores, Writing)> {
            let (sender, records) = mpsc::channel::<Store>();
            // Without a driver nobody waits for it.
            let told = move |stored| drop(events.blocking_send(Event::Stored(stored)));
            let body = move || {
                while let Some(batch) = next_batch(&records) {
                    let Some(last) = batch.last().map(|store| store.number) else { continue };
                    match self.write_while_full(&batch) {
                        Ok(()) => told(Ok(last)),
                        Err(error) => return told(Err(error)),
                    }
                }
            };
            let thread = thread::Builder::new().name("cluster-log".to_owned()).spawn(body)?;
            Ok((sender, thread))
        }

        /// Waits as long as the disk is full.
        fn write_while_full(&mut self, batch: &[Store]) -> Result<(), LogError> {
            let mut told = false;
            loop {
                match self.write(batch) {
                    Ok(()) => {
                        if told {
                            tracing::info!("the log of the cluster can be written again");
                        }
                        return Ok(());
                    }
                    Err(error) if error.is_full() => {
                        if !std::mem::replace(&mut told, true) {
                            let error = format!("{:#}", anyhow::Error::from(error));
                            tracing::warn!(
                                error,
                                "the log of the cluster cannot be written; trying again until it can"
                            );
                        }
                        self.cut()?;
                        thread::sleep(FULL_PAUSE);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// All that has come, once somebody waits for some of it or nothing comes for a while. None when nobody can send any
    /// more.
    fn next_batch(records: &mpsc::Receiver<Store>) -> Option<Vec<Store>> {
        let mut batch = vec![records.recv().ok()?];
        loop {
            batch.extend(records.try_iter().take(BATCH_MAX));
            if batch.len() >= BATCH_MAX || batch.iter().any(|store| store.sync) {
                return Some(batch);
            }
            match records.recv_timeout(IDLE) {
                Ok(store) => batch.push(store),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Some(batch),
            }
        }
    }

    const FULL_PAUSE: Duration = Duration::from_secs(1);
}

#[cfg(madsim)]
mod imp {
    use std::io;

    use tokio::sync::mpsc::{self, Sender};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::{BATCH_MAX, Event, IDLE, Log, Store};

    /// Takes records.
    pub type Stores = mpsc::UnboundedSender<Store>;
    /// Who writes them.
    pub type Writing = JoinHandle<()>;

    impl Log {
        /// Writes records from here on. `events` is told the number of the last record that is durable. What waits for a sync
        /// is lost with the node.
        ///
        /// # Errors
        /// None.
        pub fn start(mut self, events: Sender<Event>) -> io::Result<(Stores, Writing)> {
            let (sender, mut records) = mpsc::unbounded_channel::<Store>();
            let body = async move {
                while let Some(batch) = next_batch(&mut records).await {
                    let Some(last) = batch.last().map(|store| store.number) else { continue };
                    newtmq_simnet::Disk::sync_time().await;
                    let stored = self.write(&batch).map(|()| last);
                    let failed = stored.is_err();
                    // Without a driver nobody waits for it.
                    let _ = events.send(Event::Stored(stored)).await;
                    if failed {
                        return;
                    }
                }
            };
            Ok((sender, tokio::spawn(body)))
        }
    }

    /// As that of the thread.
    async fn next_batch(records: &mut mpsc::UnboundedReceiver<Store>) -> Option<Vec<Store>> {
        let mut batch = vec![records.recv().await?];
        loop {
            while batch.len() < BATCH_MAX
                && let Ok(store) = records.try_recv()
            {
                batch.push(store);
            }
            if batch.len() >= BATCH_MAX || batch.iter().any(|store| store.sync) {
                return Some(batch);
            }
            match timeout(IDLE, records.recv()).await {
                Ok(Some(store)) => batch.push(store),
                Ok(None) | Err(_) => return Some(batch),
            }
        }
    }
}

pub use imp::{Stores, Writing};
