//! `cpu` with `sched`, `runmask`, `cluster` and `partition`.

use super::{Groups, Limits, Reader, SYSTEM_PARTITION};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{Scheduling, SchedulingPolicy, Setting, SporadicServer, Statement, Value, nearest};
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
    /// The adaptive partition whose time it uses, by its place in [`Groups`].
    pub partition: usize,
}

/// What happens among threads of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuPolicy {
    /// They take turns.
    RoundRobin,
    /// Each runs until it waits.
    Fifo,
    /// As FIFO, and at that priority for so much time in each period only.
    Sporadic(SporadicServer),
}

impl From<SchedulingPolicy> for CpuPolicy {
    fn from(policy: SchedulingPolicy) -> Self {
        match policy {
            SchedulingPolicy::Fifo => Self::Fifo,
            SchedulingPolicy::Sporadic(server) => Self::Sporadic(server),
            SchedulingPolicy::RoundRobin | SchedulingPolicy::Other => Self::RoundRobin,
        }
    }
}

/// What `cpu` alone means.
const DEFAULT: CpuConfig =
    CpuConfig { priority: 10, policy: CpuPolicy::RoundRobin, runmask: None, partition: SYSTEM_PARTITION };

pub(super) fn read(reader: &mut Reader<'_>, limits: Limits<'_>) -> Vec<CpuConfig> {
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
            cpu.policy = (*policy).into();
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
        if let Some(groups) = limits.groups {
            group(reader, statement, groups, limits.cpus, &mut cpu);
        }
        if let (Some(one), Some(other)) = (statement.setting(Keyword::Runmask), statement.setting(Keyword::Cluster)) {
            let message = "`runmask` and `cluster` both say where it runs";
            reader.conflict(other.span, message, one.span, "the other one");
        }
        cpus.push(cpu);
    }
    if cpus.is_empty() {
        cpus.push(DEFAULT);
    }
    cpus
}

/// `cluster` and `partition`: names that the host has.
fn group(reader: &mut Reader<'_>, statement: &Statement, groups: &Groups, count: Option<usize>, cpu: &mut CpuConfig) {
    let name = |setting: &Setting| match setting.value() {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    };
    if let Some((setting, name)) = statement.setting(Keyword::Cluster).and_then(|it| Some((it, name(it)?))) {
        cpu.runmask = groups.cluster(&name, count.unwrap_or(MAX_CPUS));
        if cpu.runmask.is_none() {
            let hint = known(&name, groups.clusters());
            reader.error(setting.value_span(), format!("the host has no cluster `{name}`"), &hint);
        }
    }
    if let Some((setting, name)) = statement.setting(Keyword::Partition).and_then(|it| Some((it, name(it)?))) {
        match groups.partition(&name) {
            Some(partition) => cpu.partition = partition,
            None => {
                let hint = known(&name, groups.partitions());
                reader.error(setting.value_span(), format!("there is no adaptive partition `{name}`"), &hint);
            }
        }
    }
}

/// Which names there are, the one that may have been meant first.
fn known<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let list = names.clone().collect::<Vec<_>>().join(", ");
    match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`? There are {list}"),
        None => format!("there are {list}"),
    }
}
