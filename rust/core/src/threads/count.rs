//! How many threads there should be.

use crate::{Error, Result};

/// More than any machine has use for.
const MAX_THREADS: usize = 1 << 16;

/// The number of threads to use unless somebody says otherwise.
///
/// `BERTFAST_NUM_THREADS`, else `OMP_NUM_THREADS`, else the physical cores in the process's affinity mask, at most
/// its cgroup's CPU quota (rounded up). Values that are not positive numbers are ignored, and none is more than
/// [`MAX_THREADS`].
pub fn default_threads() -> usize {
    let from_environment = ["BERTFAST_NUM_THREADS", "OMP_NUM_THREADS"].into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        value.trim().parse::<usize>().ok().filter(|n| *n > 0).map(|n| n.min(MAX_THREADS))
    });
    from_environment.unwrap_or_else(|| {
        // Respects the affinity mask and the quotas of cgroups v1 and v2.
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(available, |cores| available.min(cores).max(1))
    })
}

/// What a caller says of threads: `None` if no limit is given.
///
/// # Errors
/// [`Error::Value`] for a limit of 0.
pub fn thread_limit(threads: Option<usize>) -> Result<Option<usize>> {
    match threads {
        Some(0) => Err(Error::Value("num_threads: expected at least 1, got 0".into())),
        other => Ok(other),
    }
}

/// Physical cores among the CPUs that this process may run on: hyperthreads of one core count once.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let set = super::cores::affinity()?;
    let mut cores = std::collections::BTreeSet::new();
    for cpu in 0..libc::CPU_SETSIZE as usize {
        // SAFETY: `cpu` is below the set's size.
        if unsafe { libc::CPU_ISSET(cpu, &set) } {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            cores.insert(std::fs::read_to_string(path).ok()?);
        }
    }
    Some(cores.len()).filter(|n| *n > 0)
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}
