//! What the process measures of itself. The system's word enters, series of the recorder leave; when asked, never before.

use std::time::Instant;

use metrics::{Unit, describe_gauge, gauge};

pub const BUILD: &str = "quad_build_info";
pub const UPTIME: &str = "quad_uptime_seconds";
pub const MEMORY: &str = "quad_memory_resident_bytes";

/// Says what each metric means; call it once, after the recorder is installed.
pub fn describe() {
    describe_gauge!(BUILD, Unit::Count, "1, with the version of the program");
    describe_gauge!(UPTIME, Unit::Seconds, "Time since the process started");
    describe_gauge!(MEMORY, Unit::Bytes, "Memory of the process that is in RAM");
}

/// Sets all of them; called when the metrics are asked for.
pub fn observe(started: Instant) {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(UPTIME).set(started.elapsed().as_secs_f64());
    if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        gauge!(MEMORY).set(bytes as f64);
    }
}

/// `VmRSS` of Linux's `/proc/<pid>/status`, which is in KiB whatever the page size.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_system() {
        assert_eq!(resident_bytes("Name:\tquad\nVmRSS:\t   12 kB\nRssAnon:\t 4 kB\n"), Some(12 * 1024));
        assert_eq!(resident_bytes("Name:\tquad\n"), None);
    }
}
