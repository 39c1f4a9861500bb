//! Simulated nodes ask no service.

use std::convert::Infallible;
use std::sync::Arc;

use newtmq_node::{AclAction, Question, Verdict};

use super::service::{Decision, Said};
use crate::config::AuthHttp as Config;

/// Nobody.
#[derive(Debug)]
pub(super) struct Http(Infallible);

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
