//! What a service that is asked by HTTP decides: who may log in, and what clients may do with topics. The answer is given when
//! there is one; no thread waits for it.

use std::net::IpAddr;
use std::sync::Arc;

use newtmq_mqtt::ReasonCode;
use newtmq_node::{AclAction, Grant, Question, Verdict};

use super::Shared;
use super::http::Http;
use crate::driver::Asked;

/// What a request says, by placeholder.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(madsim, expect(dead_code, reason = "simulated nodes ask no service"))]
pub(super) struct Said<'a> {
    pub(super) client: &'a str,
    pub(super) username: &'a str,
    pub(super) password: &'a [u8],
    pub(super) ip: IpAddr,
    /// `1` is to subscribe, `2` to publish, as in EMQ X.
    pub(super) access: &'a str,
    pub(super) topic: &'a str,
}

/// What the service says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(madsim, expect(dead_code, reason = "simulated nodes ask no service"))]
pub(super) enum Decision {
    Yes,
    No,
    /// It does not know.
    Ignore,
    /// It has not said anything.
    Nothing,
}

impl Shared {
    /// Answers, unless a service has a say about the will of who is let in.
    pub(super) fn give(self: &Arc<Self>, asked: Asked, verdict: Verdict) {
        let is_in = match &verdict {
            Verdict::Allow { .. } => true,
            Verdict::Grant(grant) => !grant.superuser && grant.rules.is_none(),
            Verdict::Deny(_) | Verdict::Continue(_) | Verdict::Each(_) => false,
        };
        let has_will = matches!(&*asked.question, Question::Authenticate { will: Some(_), .. });
        let Some(http) = self.http.as_ref().filter(|http| is_in && has_will && http.checks_acl()) else {
            return asked.answer.give(verdict);
        };
        self.beside(http, asked, |_, http, question| async move {
            if will_is_permitted(&http, &question).await { verdict } else { Verdict::Deny(ReasonCode::NotAuthorized) }
        });
    }

    /// A service says whether a client may log in.
    pub(super) fn ask_service(self: &Arc<Self>, asked: Asked) {
        let Some(http) = &self.http else { return asked.answer.give(Verdict::Deny(ReasonCode::NotAuthorized)) };
        self.beside(http, asked, |shared, http, question| async move {
            let Question::Authenticate { peer, client, username, password, .. } = &*question else {
                return Verdict::Deny(ReasonCode::ImplementationSpecificError);
            };
            let (name, ip) = (username.as_deref().unwrap_or(client), peer.ip());
            let password = password.as_deref().unwrap_or_default();
            let username = username.as_deref().unwrap_or_default();
            let said = Said { client, username, password, ip, access: "", topic: "" };
            match http.login(&said).await {
                Decision::Yes => {}
                Decision::No => return shared.outcome(ip, client, name, Err("the service says no")),
                Decision::Ignore => return shared.outcome(ip, client, name, Err("the service does not know it")),
                Decision::Nothing => return Verdict::Deny(ReasonCode::ServerUnavailable),
            }
            let superuser = http.is_superuser(&said).await;
            if !superuser && http.checks_acl() && !will_is_permitted(&http, &question).await {
                return Verdict::Deny(ReasonCode::NotAuthorized);
            }
            match shared.outcome(ip, client, name, Ok(None)) {
                Verdict::Allow { .. } if superuser => Verdict::Grant(Box::new(Grant { superuser, ..Grant::default() })),
                verdict => verdict,
            }
        });
    }

    /// A service says what a client may do with topics.
    pub(super) fn check_acl(self: &Arc<Self>, asked: Asked) {
        let Some(http) = &self.http else { return asked.answer.give(Verdict::Deny(ReasonCode::NotAuthorized)) };
        self.beside(http, asked, |_, http, question| async move { http.acl(&question).await });
    }

    /// Answers when a service has; if too many wait for it, at once.
    fn beside<F>(
        self: &Arc<Self>,
        http: &Arc<Http>,
        asked: Asked,
        work: impl FnOnce(Arc<Shared>, Arc<Http>, Arc<Question>) -> F,
    ) where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let Asked { question, answer, .. } = asked;
        let Some(place) = http.place() else { return answer.give(self.busy()) };
        let work = work(Arc::clone(self), Arc::clone(http), Arc::from(question));
        http.spawn(async move {
            let _place = place;
            answer.give(work.await);
        });
    }
}

async fn will_is_permitted(http: &Http, question: &Question) -> bool {
    let Question::Authenticate { peer, client, username, will: Some(will), .. } = question else { return true };
    let username = username.as_deref().unwrap_or_default();
    let said = Said { client, username, password: b"", ip: peer.ip(), access: "", topic: "" };
    http.may(&said, AclAction::Publish, will).await
}
