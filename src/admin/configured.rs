//! What this node is configured with, for operators to look at, without secrets.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::Admin;
use super::question::{Answer, Fault};
use crate::config::{self, AclDenyAction, AclNomatch};

impl Admin {
    /// Each key with the value that holds.
    pub(super) fn configs(&self) -> Value {
        match self.0.holds.get() {
            Some(holds) => {
                let holds = holds.read().unwrap_or_else(PoisonError::into_inner);
                config::effective(&holds.1, &holds.0).into()
            }
            None => config::effective(&Default::default(), &self.0.facts.config).into(),
        }
    }

    /// Files take their time.
    #[cfg(not(madsim))]
    pub(super) async fn access_beside(&self) -> Result<Answer, Fault> {
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || own.access()).await;
        done.map(Answer::of).map_err(|_| Fault::stopping())
    }

    /// Simulated nodes are asked by nobody.
    #[cfg(madsim)]
    pub(super) async fn access_beside(&self) -> Result<Answer, Fault> {
        Ok(Answer::of(self.access()))
    }

    fn access(&self) -> Value {
        let access = match self.0.holds.get() {
            Some(holds) => holds.read().unwrap_or_else(PoisonError::into_inner).0.access.clone(),
            None => self.0.facts.config.access.clone(),
        };
        let mut users: Vec<Value> =
            access.users.iter().map(|(name, _)| json!({ "name": name, "from": "a plugin's file" })).collect();
        let text = access.password_file.as_deref().map(text);
        if let Some(Ok(text)) = &text {
            // `NAME:HASH`; nothing behind the name is told.
            let names =
                text.lines().filter(|line| !line.starts_with(['#', '!'])).filter_map(|line| line.split_once(':'));
            users.extend(names.take(USERS_MAX).map(|(name, _)| json!({ "name": name, "from": "password_file" })));
        }
        let rules = access.acl_file.as_deref().map(rules);
        let words = |found: &Option<Result<Vec<String>, String>>| found.as_ref().and_then(|found| found.clone().err());
        json!({
            "allow_anonymous": access.allow_anonymous,
            "password_file": access.password_file,
            "password_file_error": text.and_then(Result::err),
            "users": users,
            "acl_file": access.acl_file,
            "acl_file_error": words(&rules),
            "rules": rules.and_then(Result::ok).unwrap_or_default(),
            "acl_nomatch": match access.acl_nomatch { AclNomatch::Allow => "allow", AclNomatch::Deny => "deny" },
            "acl_deny_action": match access.acl_deny_action {
                AclDenyAction::Ignore => "ignore",
                AclDenyAction::Disconnect => "disconnect",
            },
        })
    }

    /// Simulated nodes are asked by nobody.
    #[cfg(madsim)]
    pub(super) async fn cluster_status(&self) -> Result<Answer, Fault> {
        Err(Fault::stopping())
    }

    /// Simulated nodes are asked by nobody.
    #[cfg(madsim)]
    pub(super) async fn doctor(&self) -> Result<Answer, Fault> {
        Err(Fault::stopping())
    }
}

/// Lines of a file of rules, without comments.
fn rules(file: &Path) -> Result<Vec<String>, String> {
    let lines = text(file)?;
    let of = lines.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.trim_start().starts_with('%'));
    Ok(of.take(RULES_MAX).map(str::to_owned).collect())
}

fn text(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    match File::open(file).and_then(|open| open.take(FILE_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// What of a file is read to be shown.
const FILE_MAX: u64 = 4 << 20;
/// Users that are shown.
const USERS_MAX: usize = 10_000;
/// Lines of rules that are shown.
const RULES_MAX: usize = 2000;
