//! What is in the folder of a store that is being built.

use super::manifest::FileRecord;
use super::sink::record_of;
use super::{MANIFEST, TOKENIZER, TOKENS};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How far a store that is not finished has come.
pub(super) const JOURNAL: &str = "journal.json";

/// What a process that ended while it replaced a file leaves.
const LEFTOVERS: [&str; 2] = ["journal.json.new", "manifest.json.new"];

/// That a folder may be written to: it has nothing that would be lost.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    let error = |why: String| Error::Corpus(format!("{}: {why}", folder.display()));
    if folder.join(MANIFEST).exists() {
        return Err(error("is a finished corpus already".to_owned()));
    }
    if !folder.exists() || folder.join(JOURNAL).exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        // A writer takes its lock before it begins.
        let is_lock = || name == TOKENS && entry.metadata().is_ok_and(|file| file.len() == 0);
        if name != TOKENIZER && !LEFTOVERS.iter().any(|left| name == *left) && !is_lock() {
            return Err(error(format!("expected an empty folder, found {}", name.display())));
        }
    }
    Ok(())
}

/// What a manifest says of the files in `tokenizer/`.
pub(super) fn tokenizer_files(folder: &Path) -> Result<BTreeMap<String, FileRecord>> {
    let folder = folder.join(TOKENIZER);
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
        let entry = entry.map_err(Error::io(&folder))?;
        let path = entry.path();
        let is_file = path.metadata().map_err(Error::io(&path))?.is_file();
        match entry.file_name().to_str().filter(|_| is_file) {
            Some(name) => {
                files.insert(format!("{TOKENIZER}/{name}"), record_of(&path, &mut |_| Ok(()))?);
            }
            None => return Err(Error::Corpus(format!("{}: expected a file", path.display()))),
        }
    }
    Ok(files)
}

/// The last of so many offsets and one.
pub(super) fn last_offset(path: &Path, count: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    let mut file = File::open(path).map_err(Error::io(path))?;
    file.seek(SeekFrom::Start(count * 8))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(Error::io(path))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Removes what another process left when it ended.
pub(super) fn remove_leftovers(folder: &Path) -> Result<()> {
    for path in LEFTOVERS.map(|name| folder.join(name)).iter().filter(|path| path.exists()) {
        std::fs::remove_file(path).map_err(Error::io(path))?;
    }
    Ok(())
}
