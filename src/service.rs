//! What a service manager that has started the process is told (`Type=notify` of systemd). Without one nothing happens.

use sd_notify::NotifyState;

use crate::admin::{Admin, Question};

/// Clients are accepted.
pub(crate) fn ready(listening: usize) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("{listening} listeners"))]);
}

/// Clients are let go.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("clients are let go")]);
}

/// Tells the watchdog that the broker lives, as often as it wants to hear it twice; but only as long as every shard answers,
/// so that a process that hangs is started again.
pub(crate) async fn watch(admin: Admin) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(period / 2);
    loop {
        ticks.tick().await;
        match admin.answer_here(Question::Ready).await {
            Ok(_) => tell(&[NotifyState::Watchdog]),
            Err(fault) => tracing::warn!(why = fault.message, "the watchdog is not told that the broker lives"),
        }
    }
}

// Who cannot be told does not listen.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
