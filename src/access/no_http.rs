//! Simulated nodes ask no service.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use newtmq_node::{AclAction, Question, Verdict};

use crate::config::AuthHttp as Config;

/// Nobody.
#[derive(Debug)]
pub(super) struct Http(Infallible);

#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "nobody is asked")]
pub(super) struct Said<'a> {
    pub(super) client: &'a str,
    pub(super) username: &'a str,
    pub(super) password: &'a [u8],
    pub(super) ip: IpAddr,
    pub(super) access: &'a str,
    pub(super) topic: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(dead_code, reason = "nobody says anything")]
pub(super) enum Decision {
    Yes,
    No,
    Ignore,
    Nothing,
}

impl Http {
    pub(super) fn new(_: &Config) -> Option<Arc<Http>> {
        None
    }

    pub(super) fn authenticates(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn checks_acl(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn place(&self) -> Option<()> {
        match self.0 {}
    }

    pub(super) fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {
        match self.0 {}
    }

    pub(super) async fn login(&self, _: &Said<'_>) -> Decision {
        match self.0 {}
    }

    pub(super) async fn is_superuser(&self, _: &Said<'_>) -> bool {
        match self.0 {}
    }

    pub(super) async fn may(&self, _: &Said<'_>, _: AclAction, _: &str) -> bool {
        match self.0 {}
    }

    pub(super) async fn acl(&self, _: &Question) -> Verdict {
        match self.0 {}
    }
}
