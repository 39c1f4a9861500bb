//! What an examination of the cluster has found, for people and programs.

use newtmq_node::{Examination, Finding, Severity};
use serde_json::{Value, json};

use super::CTL_VERSION as VERSION;
use super::admin::status_json;

/// As `newtmq ctl` tells it. It is not well if anything is an error or a warning.
pub(crate) fn told(said: &Examination) -> Value {
    let bad = said.findings.iter().filter(|finding| finding.severity < Severity::Notice).count();
    let mut lines = vec![head(said, bad)];
    for finding in &said.findings {
        lines.push(format!("{}: {finding}.", finding.severity.name()));
        lines.push(format!("    {}.", finding.advice));
    }
    let findings: Vec<Value> = said.findings.iter().map(finding_json).collect();
    let mut data = status_json(&said.status);
    data["findings"] = findings.into();
    data["answered"] = said.charts.keys().map(|node| format!("{:016x}", node.0)).collect();
    json!({ "version": VERSION, "ok": bad == 0, "lines": lines, "data": data })
}

fn head(said: &Examination, bad: usize) -> String {
    let (answered, members) = (said.charts.len(), said.status.nodes.len().max(1));
    let verdict = match bad {
        0 => "all is well".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        _ => format!("{bad} things are wrong"),
    };
    let name = &said.status.name;
    format!("Cluster {name:?}: {answered} of {members} members have answered, {verdict}.")
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.name(),
        "kind": finding.kind,
        "what": finding.what,
        "advice": finding.advice,
    })
}

#[cfg(test)]
mod tests {
    use newtmq_node::ClusterStatus;

    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let status = ClusterStatus {
            name: "c".into(),
            is_member: true,
            leader: None,
            term: 1,
            applied: 1,
            features: (1, 1),
            unready: None,
            nodes: Vec::new(),
        };
        let finding = |severity, kind| Finding { severity, kind, what: "it is so".into(), advice: "do that" };
        let said = |findings| told(&Examination { status: status.clone(), charts: Default::default(), findings });
        let well = said(vec![finding(Severity::Notice, "behind")]);
        assert_eq!(well["ok"], true);
        assert_eq!(
            well["lines"],
            json!(["Cluster \"c\": 0 of 1 members have answered, all is well.", "notice: it is so.", "    do that."])
        );
        let ill = said(vec![finding(Severity::Error, "down"), finding(Severity::Warning, "relayed")]);
        assert_eq!((&ill["ok"], &ill["data"]["findings"][0]["kind"]), (&json!(false), &json!("down")));
        assert_eq!(ill["lines"][0], "Cluster \"c\": 0 of 1 members have answered, 2 things are wrong.");
    }
}
