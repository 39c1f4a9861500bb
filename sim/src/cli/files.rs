//! Scenario files: finding, reading and saving them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use newtmq_sim::shrink::shape;
use newtmq_sim::{Check, Scenario};

/// The repository.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

/// Where files are.
pub(crate) fn folder() -> PathBuf {
    root().join("scenarios")
}

/// Every scenario file in a folder, sorted by path.
pub(crate) fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as messages show it: from the repository on if it is in it.
pub(crate) fn shown(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    absolute.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Reads a file; the error is for people.
pub(crate) fn read(path: &Path) -> Result<Scenario, String> {
    let name = shown(path);
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    Scenario::parse(&name, &text).map_err(|problems| problems.to_string())
}

/// The folder below `scenarios/`.
pub(crate) fn family(path: &Path) -> String {
    let inside = path.strip_prefix(folder()).ok().and_then(Path::parent);
    inside.map(|family| family.display().to_string()).unwrap_or_default()
}

/// Scenarios that a swarm found, each shape once.
pub(crate) struct Found {
    folder: PathBuf,
    shapes: BTreeSet<u64>,
}

impl Found {
    /// With those that are saved already.
    pub(crate) fn open() -> Found {
        let folder = folder().join("found");
        let shapes = all(&folder).iter().filter_map(|path| read(path).ok()).map(|scenario| shape(&scenario)).collect();
        Found { folder, shapes }
    }

    /// Saves a scenario, and tells where; nothing if there is one of its shape.
    pub(crate) fn save(&mut self, scenario: &Scenario, check: Check) -> Result<Option<String>, String> {
        let shape = shape(scenario);
        if !self.shapes.insert(shape) {
            return Ok(None);
        }
        let path = self.folder.join(format!("{}-{:08x}.toml", check.name().to_lowercase(), shape >> 32));
        write(&path, &scenario.to_toml())?;
        Ok(Some(shown(&path)))
    }
}

/// Writes a file and the folder that it is in.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}

/// The commit that is checked out, with `+` if there are changes.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) if changed => format!("{commit}+"),
        Some(commit) => commit,
        None => "unknown".into(),
    }
}
