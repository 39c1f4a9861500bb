//! Logs: lines on standard error, for people on a terminal and as JSON for programs.
//!
//! Passwords, authentication data, payloads and will messages are never logged at any level; log a Client Identifier, a topic or
//! a length instead.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat, LogLevel};

/// Sets the level while the process runs.
#[derive(Clone, Default)]
pub struct LevelSwitch(Option<Arc<Set>>);

type Set = dyn Fn(LogLevel) -> anyhow::Result<()> + Send + Sync;

impl LevelSwitch {
    /// From here on; not if `RUST_LOG` says what is logged.
    pub fn set(&self, level: LogLevel) {
        if let Some(Err(error)) = self.0.as_ref().map(|set| set(level)) {
            tracing::error!("the level of the log stays as it was: {error:#}");
        }
    }
}

impl std::fmt::Debug for LevelSwitch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LevelSwitch(..)")
    }
}

/// Starts logging for the whole process. `json` is what `auto` becomes even on a terminal. `RUST_LOG`, if it is set,
/// takes the place of the level.
///
/// # Errors
/// `RUST_LOG` cannot be read, or logging has been started before.
pub fn init(log: &Log, json: bool) -> anyhow::Result<LevelSwitch> {
    let mut is_fixed = true;
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).map_err(|error| anyhow::anyhow!("{}: {error}", EnvFilter::DEFAULT_ENV))?
        }
        _ => {
            is_fixed = false;
            EnvFilter::new(log.level.word())
        }
    };
    let terminal = std::io::stderr().is_terminal();
    // Whoever reads the log may go away, as in `newtmq 2>&1 | head`. Telling that on standard error, too, would panic.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let set: Arc<Set> = if is_json(log.format, terminal, json) {
        let lines = lines.json().flatten_event(true).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        Arc::new(move |level: LogLevel| Ok(handle.reload(EnvFilter::new(level.word()))?))
    } else {
        let colour = terminal && crate::banner::wants_colour();
        let lines = lines.with_ansi(colour).with_target(false).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.finish().try_init()?;
        Arc::new(move |level: LogLevel| Ok(handle.reload(EnvFilter::new(level.word()))?))
    };
    Ok(LevelSwitch((!is_fixed).then_some(set)))
}

fn is_json(format: LogFormat, terminal: bool, json: bool) -> bool {
    match format {
        LogFormat::Auto => json || !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_pretty_on_a_terminal_only() {
        for (format, terminal, json, want) in [
            (LogFormat::Auto, true, false, false),
            (LogFormat::Auto, false, false, true),
            (LogFormat::Auto, true, true, true),
            (LogFormat::Pretty, false, true, false),
            (LogFormat::Json, true, false, true),
        ] {
            assert_eq!(is_json(format, terminal, json), want, "{format:?} {terminal} {json}");
        }
    }
}
