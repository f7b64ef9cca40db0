//! Files of a store as they are written: appended to, and hashed on the way.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
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
    /// A file that must not exist.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, file, hash: Sha256::new(), bytes: 0 })
    }

    /// A file whose first bytes are those of `record`; what is behind them is cut off. One of no bytes may not exist yet.
    ///
    /// `lock` refuses a file that another writer has.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Corpus` if it is shorter or has other bytes; what `step` returns, which is called now and then
    /// with the number of bytes that were read.
    pub(super) fn resume(
        path: PathBuf,
        record: &FileRecord,
        lock: bool,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let io = |error| Error::io(&path)(error);
        let damaged = |why: String| Error::Corpus(format!("{}: {why}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(record.bytes == 0).truncate(false);
        let mut file = options.open(&path).map_err(io)?;
        if lock && matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return Err(damaged("another process is writing it".to_owned()));
        }
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

/// Bits end to end: those of a byte that is not full yet wait for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bits {
    /// The first `used` bits of it.
    pub(super) waiting: u8,
    /// Below 8.
    pub(super) used: u32,
}

impl Bits {
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
    let mut other = path.as_os_str().to_owned();
    other.push(".new");
    let other = PathBuf::from(other);
    let mut file = File::create(&other).map_err(Error::io(&other))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(Error::io(&other))?;
    std::fs::rename(&other, path).map_err(Error::io(path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
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
