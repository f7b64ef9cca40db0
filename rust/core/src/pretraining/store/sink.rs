//! Files of a store as they are written: appended to, and hashed on the way.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::manifest::FileRecord;

/// Bytes between two looks at whether to go on.
pub(super) const STEP: usize = 4 << 20;

/// A file that grows.
#[derive(Debug)]
pub(super) struct Sink {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Sink {
    /// A file that must not exist, and that no other process may take away.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        lock(&file, &path)?;
        Ok(Self { path, file, hash: Sha256::new(), bytes: 0 })
    }

    /// A file whose first bytes are those of `record`; what is behind them is cut off. One of no bytes may not exist yet.
    ///
    /// `locked` is the file if it has been opened already.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Corpus` if it is shorter or has other bytes; what `step` returns, which is called now and then
    /// with the number of bytes that were read.
    pub(super) fn resume(
        path: PathBuf,
        record: &FileRecord,
        locked: Option<File>,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let io = |error| Error::io(&path)(error);
        let damaged = |why: String| Error::Corpus(format!("{}: {why}", path.display()));
        let mut file = match locked {
            Some(file) => file,
            None => open(&path, record.bytes == 0).map_err(io)?,
        };
        let found = file.metadata().map_err(io)?.len();
        if found < record.bytes {
            return Err(damaged(format!(
                "damaged: expected {} bytes at least, those before the last checkpoint, found {found}",
                record.bytes
            )));
        }
        file.set_len(record.bytes).map_err(io)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; STEP.min(record.bytes as usize)];
        let mut left = record.bytes;
        while left > 0 {
            let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact(&mut buffer[..len]).map_err(io)?;
            hash.update(&buffer[..len]);
            left -= len as u64;
            step(len as u64)?;
        }
        let sha256 = hex(hash.clone());
        if sha256 != record.sha256 {
            return Err(damaged(format!(
                "damaged: expected the SHA-256 {} of its first {} bytes, as at the last checkpoint, got {sha256}",
                record.sha256, record.bytes
            )));
        }
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self { path, file, hash, bytes: record.bytes })
    }

    /// Puts bytes behind the others.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes sure that they are on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }

    /// What has been written.
    pub(super) fn record(&self) -> FileRecord {
        FileRecord { bytes: self.bytes, sha256: hex(self.hash.clone()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path, create: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)
}

/// Opens a file, or makes it, for this writer alone.
///
/// # Errors
/// `Error::Corpus` if another one has it; `Error::Io`.
pub(super) fn open_locked(path: &Path) -> Result<File> {
    loop {
        let file = open(path, true).map_err(Error::io(path))?;
        lock(&file, path)?;
        // Whoever had the lock before may have removed the file, and this is what was there.
        if is_at(&file, path).map_err(Error::io(path))? {
            return Ok(file);
        }
    }
}

/// File systems without locks are taken as they are.
fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::Corpus(format!("{}: another process is writing it", path.display())))
        }
        _ => Ok(()),
    }
}

/// Whether a path leads to an open file.
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let open = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (open.dev(), open.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    // What is open cannot be removed there.
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        Ok(true)
    }
}

/// Bits end to end: those of a byte that is not full yet wait for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bits {
    /// The first `used` bits of it.
    pub(super) waiting: u8,
    /// Below 8.
    pub(super) used: u32,
}

impl Bits {
    /// Puts bits from anywhere in `bytes` behind the others, as [`Self::append`] does.
    pub(super) fn append_from(&mut self, bytes: &[u8], bits: Range<u64>, out: &mut Vec<u8>) {
        let (bytes, shift) = (&bytes[(bits.start / 8) as usize..], bits.start % 8);
        let count = bits.end - bits.start;
        // What is left of the first byte brings the rest to the beginning of one.
        let head = count.min((8 - shift) % 8);
        if head > 0 {
            self.append(&[bytes[0] >> shift], head, out);
        }
        if count > head {
            self.append(&bytes[usize::from(head > 0)..], count - head, out);
        }
    }

    /// Puts the first `count` bits of `bytes` behind the others; `out` gets the bytes that are full.
    pub(super) fn append(&mut self, bytes: &[u8], count: u64, out: &mut Vec<u8>) {
        let whole = &bytes[..(count / 8) as usize];
        if self.used == 0 {
            out.extend_from_slice(whole);
        } else {
            for byte in whole {
                out.push(self.waiting | byte << self.used);
                self.waiting = byte >> (8 - self.used);
            }
        }
        let rest = (count % 8) as u32;
        if rest > 0 {
            let last = bytes[whole.len()] & ((1 << rest) - 1);
            let both = u16::from(self.waiting) | u16::from(last) << self.used;
            self.used += rest;
            let [low, high] = both.to_le_bytes();
            if self.used >= 8 {
                out.push(low);
                (self.waiting, self.used) = (high, self.used - 8);
            } else {
                self.waiting = low;
            }
        }
    }
}

/// The 64 digits of a SHA-256.
pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a manifest says of a file that lies there.
pub(super) fn record_of(path: &Path, step: &mut dyn FnMut(u64) -> Result<()>) -> Result<FileRecord> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = match file.read(&mut buffer) {
            Ok(0) => return Ok(FileRecord { bytes, sha256: hex(hash) }),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(path)(error)),
        };
        hash.update(&buffer[..len]);
        bytes += len as u64;
        step(len as u64)?;
    }
}

/// Puts a file in place of one that may be there, so that at any time one of the two is, whole.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    prepare(path, contents)?;
    put_in_place(path)
}

/// The first half of [`replace`]: the file is on the disk, under a name of its own.
pub(super) fn prepare(path: &Path, contents: &[u8]) -> Result<()> {
    let other = prepared(path);
    let mut file = File::create(&other).map_err(Error::io(&other))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(Error::io(&other))
}

/// The second half.
pub(super) fn put_in_place(path: &Path) -> Result<()> {
    std::fs::rename(prepared(path), path).map_err(Error::io(path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// What a file is called until it is in its place.
pub(super) fn prepared(path: &Path) -> PathBuf {
    let mut other = path.as_os_str().to_owned();
    other.push(".new");
    other.into()
}

/// Makes sure that the names in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    // Only Unix opens folders.
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_stay_in_order(parts in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..40), 0..20)) {
            let pack = |bits: &[bool]| -> Vec<u8> {
                let byte = |bits: &[bool]| (0..).zip(bits).map(|(i, bit)| u8::from(*bit) << i).sum();
                bits.chunks(8).map(byte).collect()
            };
            let (mut bits, mut out) = (Bits::default(), Vec::new());
            for part in &parts {
                let mut bytes = pack(part);
                // Behind the last bit is anything.
                if let (Some(last), 1..) = (bytes.last_mut(), part.len() % 8) {
                    *last |= 0xff << (part.len() % 8);
                }
                bits.append(&bytes, part.len() as u64, &mut out);
            }
            if bits.used > 0 {
                out.push(bits.waiting);
            }
            prop_assert_eq!(out, pack(&parts.concat()));
        }
    }

    proptest! {
        #[test]
        fn bits_from_anywhere(bytes in prop::collection::vec(any::<u8>(), 1..20), cuts in any::<[prop::sample::Index; 3]>()) {
            let len = bytes.len() as u64 * 8;
            let mut cuts = cuts.map(|cut| cut.index(len as usize + 1) as u64);
            cuts.sort_unstable();
            let (mut bits, mut out) = (Bits::default(), Vec::new());
            for range in [0..cuts[0], cuts[0]..cuts[1], cuts[1]..cuts[2], cuts[2]..len] {
                bits.append_from(&bytes, range, &mut out);
            }
            prop_assert_eq!((out, bits), (bytes, Bits::default()));
        }
    }

    #[test]
    fn sums_are_those_of_the_standard() {
        let path = std::env::temp_dir().join(format!("bertfast-sink-{}", std::process::id()));
        let mut sink = Sink::create(path.clone()).unwrap();
        sink.write(b"a").unwrap();
        sink.write(b"bc").unwrap();
        // The example of FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sink.record(), FileRecord { bytes: 3, sha256: expected.to_owned() });
        assert_eq!(record_of(&path, &mut |_| Ok(())).unwrap(), sink.record());
        assert!(matches!(Sink::create(path.clone()), Err(Error::Io { .. })));
        std::fs::remove_file(path).unwrap();
    }
}
