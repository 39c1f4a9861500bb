//! How the process ends: the exit codes that scripts and service managers rely on.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::access::FileError;

/// The exit codes of every `newtmq` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to do.
    Success = 0,
    /// It failed while it ran, or its data directory cannot be used.
    Failure = 1,
    /// The arguments or the configuration are wrong; nothing was started.
    Usage = 2,
    /// An address cannot be listened on, mostly because another process does.
    Listen = 3,
    /// `newtmq data` found that something is damaged or missing.
    Damaged = 4,
    /// `newtmq ctl` found no broker that answers.
    NoBroker = 5,
    /// `newtmq ctl` knows the command, but this version does not do it.
    NotYet = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An address cannot be listened on. The environment's fault; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("{listener} cannot listen on {address}{}", advice(.source))]
pub struct CannotListen {
    /// The listener's full name.
    pub listener: String,
    /// Its address.
    pub address: SocketAddr,
    /// What the operating system says.
    pub source: io::Error,
}

impl Exit {
    /// The code for an error that ended `run`.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Exit {
        let cannot_listen = error.chain().any(|cause| {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            cause.is::<CannotListen>()
                || matches!(kind, Some(io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable))
        });
        if error.chain().any(|cause| cause.is::<FileError>()) {
            return Exit::Usage;
        }
        if cannot_listen { Exit::Listen } else { Exit::Failure }
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => " (stop the process that has it, or set another port)",
        io::ErrorKind::AddrNotAvailable => " (this machine has no such address)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn in_use() -> CannotListen {
        let address = SocketAddr::from(([127, 0, 0, 1], 1883));
        CannotListen { listener: "listener.tcp.external".to_owned(), address, source: io::ErrorKind::AddrInUse.into() }
    }

    #[test]
    fn an_address_in_use_is_code_3_however_it_is_wrapped() {
        let plain = anyhow::Error::from(io::Error::from(io::ErrorKind::AddrInUse));
        assert_eq!(Exit::of(&plain), Exit::Listen);
        assert_eq!(Exit::of(&Err::<(), _>(in_use()).context("start").unwrap_err()), Exit::Listen);
        assert_eq!(Exit::of(&anyhow::anyhow!("disk full")), Exit::Failure);
    }

    #[test]
    fn it_says_what_to_do() {
        insta::assert_snapshot!(format!("{:#}", anyhow::Error::from(in_use())), @"listener.tcp.external cannot listen on 127.0.0.1:1883 (stop the process that has it, or set another port): address in use");
    }
}
