//! The format of the store: a file that says it, and the way from an older one to this one. A newer one is refused before
//! anything is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use newtmq_store::{FORMAT, Opening, WalConfig};

use super::{FileDisk, ReadOnly, StoreError};
use crate::data;

/// The folder of the data directory.
pub const STORE_FOLDER: &str = "store";
/// Says the format, in the folder.
pub const FORMAT_FILE: &str = "FORMAT";
/// Where an upgraded store is made.
const NEW_FOLDER: &str = "store.new";

/// The way from one format to the next.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade {
    /// The older format.
    pub from: u32,
    /// Fills the second folder from the first one, which it leaves as it is.
    pub run: fn(&Path, &Path) -> io::Result<()>,
}

/// Those that this version knows. Format 1 is the first one.
pub const UPGRADES: &[Upgrade] = &[];

/// Whether this version may use the data directory's store. Changes nothing.
///
/// # Errors
/// It is newer, too old, or cannot be read.
pub fn check(data: &Path) -> Result<(), StoreError> {
    let folder = data.join(STORE_FOLDER);
    if !folder.is_dir() {
        return Ok(());
    }
    for format in read(&folder)?.unwrap_or(FORMAT)..FORMAT {
        step(&folder, format, UPGRADES)?;
    }
    let disk = FileDisk::open(&folder).map_err(StoreError::io("open", &folder))?;
    Opening::start(ReadOnly(disk), WalConfig::default()).map(drop).map_err(|error| StoreError::of_open(&folder, error))
}

/// The format that the folder says; none if it says nothing.
fn read(folder: &Path) -> Result<Option<u32>, StoreError> {
    let path = folder.join(FORMAT_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { step: "read", path, source }),
    };
    let format = text.strip_prefix("format = ").and_then(|rest| rest.trim_end().parse().ok());
    match format {
        Some(format) if format > FORMAT => Err(StoreError::Newer { path, format, newest: FORMAT }),
        Some(format) => Ok(Some(format)),
        None => Err(StoreError::Unknown { path, what: "it does not say a format".to_owned() }),
    }
}

fn write(folder: &Path, format: u32) -> Result<(), StoreError> {
    data::replace(folder, FORMAT_FILE, &format!("format = {format}\n")).map_err(StoreError::io("write", folder))
}

/// Makes the store's folder if there is none, and upgrades an older one, which is kept as `store.format-N`.
///
/// # Errors
/// It is newer, too old, or the disk does not work.
pub fn prepare(data: &Path, upgrades: &[Upgrade]) -> Result<PathBuf, StoreError> {
    let folder = data.join(STORE_FOLDER);
    let new = data.join(NEW_FOLDER);
    if !folder.is_dir() {
        if new.join(FORMAT_FILE).is_file() {
            // The old one was put aside already.
            fs::rename(&new, &folder).map_err(StoreError::io("rename", &new))?;
        } else {
            fs::create_dir(&folder).map_err(StoreError::io("create", &folder))?;
            write(&folder, FORMAT)?;
        }
        sync(data)?;
    }
    let Some(mut format) = read(&folder)? else {
        tracing::warn!(folder = %folder.display(), "the store does not say its format; it is taken for this one");
        write(&folder, FORMAT)?;
        return Ok(folder);
    };
    while format < FORMAT {
        let kept = upgrade_one(data, &folder, step(&folder, format, upgrades)?)?;
        tracing::warn!(from = format, to = format + 1, backup = %kept.display(), "the store was upgraded");
        format += 1;
    }
    Ok(folder)
}

/// The way from a format to the next one.
fn step<'a>(folder: &Path, format: u32, upgrades: &'a [Upgrade]) -> Result<&'a Upgrade, StoreError> {
    upgrades.iter().find(|upgrade| upgrade.from == format).ok_or_else(|| {
        let what = format!("format {format} is too old for this version");
        StoreError::Unknown { path: folder.join(FORMAT_FILE), what }
    })
}

/// One step; returns where the old store is kept.
fn upgrade_one(data: &Path, folder: &Path, upgrade: &Upgrade) -> Result<PathBuf, StoreError> {
    let new = data.join(NEW_FOLDER);
    match fs::remove_dir_all(&new) {
        // An earlier attempt was not completed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::Io { step: "remove", path: new, source }),
    }
    fs::create_dir(&new).map_err(StoreError::io("create", &new))?;
    (upgrade.run)(folder, &new).map_err(StoreError::io("upgrade", folder))?;
    for entry in fs::read_dir(&new).map_err(StoreError::io("read", &new))? {
        let path = entry.map_err(StoreError::io("read", &new))?.path();
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &path))?;
    }
    // Last: with it the new one is complete.
    write(&new, upgrade.from + 1)?;
    let name = |again: u32| data.join(format!("{STORE_FOLDER}.format-{}{}", upgrade.from, "+".repeat(again as usize)));
    let kept = (0..).map(name).find(|path| !path.exists()).expect("some name is free");
    fs::rename(folder, &kept).map_err(StoreError::io("rename", folder))?;
    fs::rename(&new, folder).map_err(StoreError::io("rename", &new))?;
    sync(data)?;
    Ok(kept)
}

fn sync(data: &Path) -> Result<(), StoreError> {
    fs::File::open(data).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::Scratch;

    /// A format that never was: one file whose name another version changed.
    const FROM_0: Upgrade = Upgrade {
        from: 0,
        run: |old, new| fs::read(old.join("log")).and_then(|bytes| fs::write(new.join("other"), bytes)),
    };

    fn format_0(name: &str) -> Scratch {
        let scratch = Scratch::new(name);
        let folder = scratch.0.join(STORE_FOLDER);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(FORMAT_FILE), "format = 0\n").unwrap();
        fs::write(folder.join("log"), "what was there").unwrap();
        scratch
    }

    #[test]
    fn a_new_store_says_its_format() {
        let scratch = Scratch::new("format-new");
        fs::create_dir_all(&scratch.0).unwrap();
        let folder = prepare(&scratch.0, &[]).unwrap();
        assert_eq!(read(&folder).unwrap(), Some(FORMAT));
        assert_eq!(prepare(&scratch.0, &[]).unwrap(), folder);
        check(&scratch.0).unwrap();
    }

    #[test]
    fn an_older_store_is_upgraded_and_kept() {
        let scratch = format_0("format-old");
        let folder = prepare(&scratch.0, &[FROM_0]).unwrap();
        assert_eq!(fs::read_to_string(folder.join("other")).unwrap(), "what was there");
        assert_eq!(read(&folder).unwrap(), Some(1));
        let kept = scratch.0.join("store.format-0");
        assert_eq!(fs::read_to_string(kept.join("log")).unwrap(), "what was there");
        assert_eq!(fs::read_to_string(kept.join(FORMAT_FILE)).unwrap(), "format = 0\n");
    }

    #[test]
    fn an_upgrade_goes_on_wherever_it_was_interrupted() {
        // Before the new one was complete.
        let scratch = format_0("format-half");
        fs::create_dir(scratch.0.join(NEW_FOLDER)).unwrap();
        fs::write(scratch.0.join(NEW_FOLDER).join("half"), "").unwrap();
        let folder = prepare(&scratch.0, &[FROM_0]).unwrap();
        assert!(!folder.join("half").exists() && folder.join("other").exists());
        // Between the two renames.
        let scratch = format_0("format-between");
        fs::create_dir(scratch.0.join(NEW_FOLDER)).unwrap();
        (FROM_0.run)(&scratch.0.join(STORE_FOLDER), &scratch.0.join(NEW_FOLDER)).unwrap();
        write(&scratch.0.join(NEW_FOLDER), 1).unwrap();
        fs::rename(scratch.0.join(STORE_FOLDER), scratch.0.join("store.format-0")).unwrap();
        let folder = prepare(&scratch.0, &[FROM_0]).unwrap();
        assert!(folder.join("other").exists() && !scratch.0.join(NEW_FOLDER).exists());
    }

    #[test]
    fn what_is_newer_too_old_or_nothing_is_refused_and_not_touched() {
        for (text, told) in [
            ("format = 2\n", "has format 2, and this version reads up to 1"),
            ("format = 0\n", "format 0 is too old"),
            ("what", "does not say a format"),
        ] {
            let scratch = format_0("format-wrong");
            let file = scratch.0.join(STORE_FOLDER).join(FORMAT_FILE);
            fs::write(&file, text).unwrap();
            let error = prepare(&scratch.0, &[]).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("Nothing was changed"), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
        }
    }
}
