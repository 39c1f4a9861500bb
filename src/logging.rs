//! Logs: lines on standard error, for people on a terminal and as JSON for programs.
//!
//! Passwords, authentication data, payloads and will messages are never logged at any level; log a Client Identifier, a topic or
//! a length instead.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Starts logging for the whole process. `json` is what `auto` becomes even on a terminal. `RUST_LOG`, if it is set,
/// takes the place of the level.
///
/// # Errors
/// `RUST_LOG` cannot be read, or logging has been started before.
pub fn init(log: &Log, json: bool) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).map_err(|error| anyhow::anyhow!("{}: {error}", EnvFilter::DEFAULT_ENV))?
        }
        _ => EnvFilter::new(log.level.word()),
    };
    let terminal = std::io::stderr().is_terminal();
    // Whoever reads the log may go away, as in `newtmq 2>&1 | head`. Telling that on standard error, too, would panic.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    if is_json(log.format, terminal, json) {
        lines.json().flatten_event(true).finish().try_init()?;
    } else {
        let colour = terminal && crate::banner::wants_colour();
        lines.with_ansi(colour).with_target(false).finish().try_init()?;
    }
    Ok(())
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
