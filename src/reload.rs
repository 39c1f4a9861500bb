//! What is read again while the broker runs, when SIGHUP asks for it.

use std::sync::Arc;

use newtmq_node::AdminCommand;
use tokio::sync::mpsc;

use crate::access::Access;
use crate::net::certs::Context;
use crate::rt::ReloadSignals;

/// Something that can be read again. What was in use stays until the new one is found to be right.
pub trait Reload: Send + Sync {
    /// For the log: what it is.
    fn name(&self) -> String;

    /// Reads it again. What the shards have to know of it is a command.
    ///
    /// # Errors
    /// What is there is not right; nothing has changed.
    fn reload(&self) -> anyhow::Result<Option<AdminCommand>>;
}

impl Reload for Context {
    fn name(&self) -> String {
        format!("certificates of {}", self.listener())
    }

    fn reload(&self) -> anyhow::Result<Option<AdminCommand>> {
        Context::reload(self)?;
        Ok(None)
    }
}

impl Reload for Access {
    fn name(&self) -> String {
        "files of users and rules".to_owned()
    }

    fn reload(&self) -> anyhow::Result<Option<AdminCommand>> {
        let rules = Access::reload(self)?;
        Ok(Some(AdminCommand::SetAccess(Box::new(rules))))
    }
}

/// Reloads at each signal, one after the other. A failure is told and changes nothing.
pub async fn on_signal(mut signals: ReloadSignals, all: Vec<Arc<dyn Reload>>, commands: mpsc::Sender<AdminCommand>) {
    loop {
        signals.next().await;
        for one in &all {
            match one.reload() {
                Ok(command) => {
                    if let Some(command) = command
                        && commands.send(command).await.is_err()
                    {
                        return;
                    }
                    tracing::info!("read the {} again", one.name());
                }
                Err(error) => tracing::error!("the {} stay as they were read before: {error:#}", one.name()),
            }
        }
    }
}
