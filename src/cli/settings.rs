//! `newtmq check-config`, `config import` and `config-docs`: what is done with a configuration without starting anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Failed, environment, print};
use crate::config::{self, Sources};
use crate::{access, check};

pub(super) fn check_config(file: &Path, json: bool) -> Result<(), Failed> {
    let sources = Sources { file: Some(file.to_owned()), environment: environment(), sets: Vec::new() };
    let result = config::load(&sources);
    let files = result.as_ref().map_or(Ok(()), |loaded| access::check(&loaded.config.access));
    if json {
        let of_files = files.as_ref().err().map(ToString::to_string);
        print(&check::json(file, &result, of_files)).map_err(Failed::runtime)?;
    }
    let loaded = result.map_err(Failed::usage)?;
    files.map_err(Failed::usage)?;
    if json { Ok(()) } else { print(&check::report(file, &loaded)).map_err(Failed::runtime) }
}

/// Writes the files, or the text to standard output; what is different goes to the other one of standard output and error.
pub(super) fn config_import(file: &Path, output: Option<&Path>, force: bool, json: bool) -> Result<(), Failed> {
    let users = output.map_or(PathBuf::from("users"), |output| output.with_extension("users"));
    let result = config::import(file, &users);
    let mut written = Vec::new();
    if let (Ok(import), Some(output)) = (&result, output) {
        let has_users = !import.config.access.users.is_empty();
        for path in [Some(output), has_users.then_some(users.as_path())].into_iter().flatten() {
            if path.exists() && !force {
                return Err(Failed::runtime(anyhow::anyhow!("{}: it is there; --force replaces it", path.display())));
            }
        }
        if has_users {
            let text = access::password_file(&import.config.access.users).map_err(Failed::runtime)?;
            write_file(&users, &text, true).map_err(Failed::runtime)?;
            written.push(users.clone());
        }
        write_file(output, &import.toml, import.has_secrets).map_err(Failed::runtime)?;
        written.push(output.to_owned());
    }
    if json {
        print(&check::import_json(file, &result, &written)).map_err(Failed::runtime)?;
        return result.map(drop).map_err(Failed::usage);
    }
    let import = result.map_err(Failed::usage)?;
    let mut told = String::new();
    for difference in &import.differences {
        told.push_str(&check::told(difference));
        told.push('\n');
    }
    for path in &written {
        told.push_str(&format!("wrote {}\n", path.display()));
    }
    if output.is_some() {
        return print(&told).map_err(Failed::runtime);
    }
    let _ = std::io::stderr().write_all(told.as_bytes());
    print(&import.toml).map_err(Failed::runtime)
}

/// What is secret is for its owner.
fn write_file(path: &Path, text: &str, is_secret: bool) -> anyhow::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mode = if is_secret { 0o600 } else { 0o644 };
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let written = open.and_then(|mut file| {
        if is_secret {
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        file.write_all(text.as_bytes())
    });
    written.with_context(|| path.display().to_string())
}

pub(super) fn config_docs(file: Option<&Path>, migration: bool, sample: bool, table: bool) -> Result<(), Failed> {
    if let (true, Some(file)) = (table, file) {
        return fill_table(file);
    }
    let text = match (migration, sample) {
        (true, _) => config::migration(),
        (false, true) => config::sample(),
        (false, false) => config::markdown(),
    };
    match file {
        Some(file) => std::fs::write(file, text).map_err(Failed::runtime),
        None => print(&text).map_err(Failed::runtime),
    }
}

/// Writes the table of a page anew, from what the program has.
#[cfg(not(madsim))]
fn fill_table(file: &Path) -> Result<(), Failed> {
    use crate::api::docs;
    let page = std::fs::read_to_string(file).map_err(Failed::runtime)?;
    let table = if file.ends_with("ctl.md") { docs::commands() } else { docs::paths() };
    let filled = docs::filled(&page, &table);
    let filled = filled.ok_or_else(|| Failed::usage(anyhow::anyhow!("{} has no place for a table", file.display())))?;
    std::fs::write(file, filled).map_err(Failed::runtime)
}

#[cfg(madsim)]
fn fill_table(_: &Path) -> Result<(), Failed> {
    Ok(())
}
