//! What processes and the machine use, from /proc.

use std::fs;

use anyhow::Context;

/// Clock ticks per second in /proc. The kernel's USER_HZ, which is 100 on every Linux we run on.
const TICKS: f64 = 100.0;

/// CPU seconds (user and system, all threads) that a process has used: `utime + stime` of
/// /proc/PID/stat, so in steps of 10 ms.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name may hold spaces and parentheses; what follows the last one is plain (proc(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).context("no ticks in /proc");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Resident memory of a process in KiB.
pub(crate) fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).context("no number in VmRSS")
}

/// CPU seconds that all processors were busy since the machine started, stolen time included.
pub(crate) fn machine_busy() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no /proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, ticks)| ticks);
    Ok(busy.sum::<f64>() / TICKS)
}
