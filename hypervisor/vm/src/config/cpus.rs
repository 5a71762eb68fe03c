//! `cpu` with `sched` and `runmask`.

use super::{Limits, Reader};
use alloc::format;
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{Scheduling, SchedulingPolicy, Value};
use types::{CpuId, CpuSet, MAX_CPUS, MAX_VCPUS};

/// How one vCPU is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// 1 to 255, higher is more urgent.
    pub priority: u8,
    /// Among threads of one priority.
    pub policy: CpuPolicy,
    /// Physical CPUs it may run on; `None` for all.
    pub runmask: Option<CpuSet>,
}

/// What happens among threads of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuPolicy {
    /// They take turns.
    RoundRobin,
    /// Each runs until it waits.
    Fifo,
}

/// What `cpu` alone means (facts 7.1).
const DEFAULT: CpuConfig = CpuConfig { priority: 10, policy: CpuPolicy::RoundRobin, runmask: None };

pub(super) fn read(reader: &mut Reader<'_>, limits: Limits) -> Vec<CpuConfig> {
    let mut cpus = Vec::new();
    for statement in reader.all(Keyword::Cpu) {
        if cpus.len() >= MAX_VCPUS {
            reader.error(statement.span, format!("more than {MAX_VCPUS} vCPUs"), "");
            break;
        }
        let mut cpu = DEFAULT;
        if let Some(Value::Scheduling(Scheduling { priority, policy })) =
            statement.setting(Keyword::Sched).map(qvmconf::Setting::value)
        {
            cpu.priority = *priority;
            cpu.policy = match policy {
                SchedulingPolicy::Fifo => CpuPolicy::Fifo,
                SchedulingPolicy::RoundRobin | SchedulingPolicy::Other => CpuPolicy::RoundRobin,
            };
        }
        if let Some(setting) = statement.setting(Keyword::Runmask)
            && let Value::Cpus(list) = setting.value()
        {
            let count = limits.cpus.unwrap_or(MAX_CPUS);
            let mut set = CpuSet::EMPTY;
            for number in list {
                if usize::from(*number) >= count {
                    let message = format!("the host has no CPU {number}");
                    let hint = format!("its CPUs are 0 to {}", count.saturating_sub(1));
                    reader.error(setting.value_span(), message, &hint);
                }
                set.insert(CpuId(*number));
            }
            cpu.runmask = Some(set);
        }
        cpus.push(cpu);
    }
    if cpus.is_empty() {
        cpus.push(DEFAULT);
    }
    cpus
}
