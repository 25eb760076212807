use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What a process and its children have used so far. Linux only: other systems have no `/proc`.
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Bytes; of a process with children (Postgres) the sum of what each has for itself.
    pub(crate) peak_memory: u64,
}

/// Linux reports times in hundredths of a second to every program (`USER_HZ`, proc(5)).
const TICK: Duration = Duration::from_millis(10);

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let children = children(pid)?;
        let mut cpu = cpu(pid)?;
        for child in &children {
            // It may just have ended; then its time is its parent's.
            cpu += self::cpu(*child).unwrap_or_default();
        }
        let peak_memory = if children.is_empty() {
            memory(pid, "VmHWM")?
        } else {
            children.iter().filter_map(|child| memory(*child, "RssAnon").ok()).sum()
        };
        Ok(Self { cpu, peak_memory })
    }
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).context("figures need Linux' /proc")?;
    Ok(list.split_whitespace().filter_map(|child| child.parse().ok()).collect())
}

/// User and system time of a process and of its children that have ended: fields 14 to 17 of proc_pid_stat(5).
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, a name in parentheses, may hold anything.
    let (_, behind_name) = stat.rsplit_once(')').context("a stat line")?;
    let ticks = behind_name.split_whitespace().skip(11).take(4).map(str::parse::<u32>);
    Ok(TICK * ticks.sum::<Result<u32, _>>()?)
}

fn memory(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).context("a memory field")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
