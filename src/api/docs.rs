//! Writes the tables of `docs/http-api.md` and `docs/ctl.md` from those of the program.

use std::fmt::Write as _;

use super::openapi::OPEN;
use super::routes::{NOT_YET, ROUTES};
use crate::admin;

/// What stands before and after a table in a page.
const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->\n";

/// The page with its table as the program has it; none if it has no place for one.
#[must_use]
pub fn filled(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// Every path of the HTTP API.
#[must_use]
pub fn paths() -> String {
    let mut out = "\n| path | here | what |\n|---|---|---|\n".to_owned();
    for route in ROUTES {
        let page = if route.paged { " `?_page=&_limit=`" } else { "" };
        let _ = writeln!(
            out,
            "| `{} /api/v3{}`{page} | {} | {} |",
            route.method,
            route.path,
            status(route.differs),
            route.about
        );
    }
    for (path, what) in NOT_YET {
        let _ = writeln!(out, "| `/api/v3/{path}` | not yet | {what} |");
    }
    for (path, about, _) in OPEN {
        let _ = writeln!(out, "| `GET {path}` | works, without an application | {about} |");
    }
    out.push('\n');
    out
}

/// Every command of `newtmq ctl`.
#[must_use]
pub fn commands() -> String {
    let mut out = "\n| command | here | what |\n|---|---|---|\n".to_owned();
    for row in admin::ROWS {
        let arguments: String = row.arguments.iter().map(|name| format!(" {}", name.to_uppercase())).collect();
        let here = match row.does {
            admin::Does::NotYet => "not yet".to_owned(),
            admin::Does::Asks(..) | admin::Does::Cluster | admin::Does::Watches => status(row.differs),
        };
        let _ = writeln!(out, "| `{}{arguments}` | {here} | {} |", row.path, row.about);
    }
    out.push('\n');
    out
}

fn status(differs: &str) -> String {
    if differs.is_empty() { "works".to_owned() } else { format!("differs: {differs}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Fault;

    #[test]
    fn every_code_is_told() {
        let text = include_str!("../../docs/http-api.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| 1")?.split_once(" | "));
        let used: Vec<String> =
            rows.filter(|(_, rest)| !rest.starts_with('|')).map(|(code, _)| format!("1{code}")).collect();
        let codes = [Fault::RPC, Fault::OTHER, Fault::MISSING, Fault::TYPE, Fault::JSON, Fault::OFFLINE, Fault::TOPIC];
        assert_eq!(used, codes.map(|code| code.to_string()));
    }

    #[test]
    fn the_pages_are_what_the_tables_say() {
        for (page, table) in [("ctl.md", commands()), ("http-api.md", paths())] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
            let text = std::fs::read_to_string(path).unwrap();
            let why = "run `cargo run -- config-docs --table docs/PAGE` and review the difference";
            assert!(filled(&text, &table).unwrap() == text, "docs/{page}: {why}");
        }
    }
}
