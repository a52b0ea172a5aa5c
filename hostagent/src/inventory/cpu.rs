//! Logical CPUs: which are online, which share a core, and what they call themselves.

use std::collections::{BTreeMap, BTreeSet};

use croft_gpu::{FsError, HostFs, IfPresent};
use croft_proto::v1::CpuCore;

use super::Notes;

/// Above any machine (the kernel's own limit is 8192), and low enough that `0-4294967295` cannot fill the memory.
const MOST: i32 = 65_535;

const CPUINFO: &str = "/proc/cpuinfo";

/// The kernel's list format: `0-3,8,10-11`. An empty text is an empty list.
pub(super) fn parse_list(text: &str) -> Option<BTreeSet<i32>> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().filter(|number| (0..=MOST).contains(number))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Empty, with a note, when nothing tells.
pub(super) fn online(fs: &HostFs, notes: &mut Notes) -> BTreeSet<i32> {
    let listed = fs.parse("/sys/devices/system/cpu/online", "a list of CPUs", parse_list);
    let found = match listed.if_present() {
        Ok(Some(list)) => Ok(list),
        // Without that file: /proc/cpuinfo leaves offline CPUs out too.
        Ok(None) => fs.read(CPUINFO).map(|text| {
            values(&text, "processor")
                .filter_map(|number| number.parse().ok())
                .filter(|n| (0..=MOST).contains(n))
                .collect()
        }),
        Err(error) => Err(error),
    };
    let found = notes.keep("CPUs", found);
    if found.as_ref().is_some_and(BTreeSet::is_empty) {
        notes.add("CPUs", "none is listed as online");
    }
    found.unwrap_or_default()
}

/// The cores of `cpus`, each with its online threads. A CPU whose siblings nobody tells is in no core, with a note: it
/// could not be promised to one instance alone.
pub(super) fn cores(fs: &HostFs, cpus: &BTreeSet<i32>, notes: &mut Notes) -> Vec<CpuCore> {
    let mut cores: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut unread = Vec::new();
    for &cpu in cpus {
        match siblings(fs, cpu) {
            Ok(siblings) => {
                let threads = siblings.intersection(cpus).copied().collect::<Vec<_>>();
                cores.entry(threads[0]).or_insert(threads);
            }
            Err(error) => unread.push((cpu, error)),
        }
    }
    if let Some((cpu, error)) = unread.first() {
        let others = unread.len() - 1;
        notes.add("CPU topology", &format!("CPU {cpu} and {others} others: {}", croft_gpu::chain(error)));
    }
    cores.into_values().map(|cpus| CpuCore { cpus }).collect()
}

/// Contains `cpu` itself.
fn siblings(fs: &HostFs, cpu: i32) -> Result<BTreeSet<i32>, FsError> {
    let read = |file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}");
        fs.parse(&path, "a list of CPUs that has this one", |text| parse_list(text).filter(|list| list.contains(&cpu)))
    };
    match read("core_cpus_list").if_present()? {
        Some(list) => Ok(list),
        // Its name before Linux 5.3.
        None => read("thread_siblings_list"),
    }
}

/// `AMD EPYC 9454 48-Core Processor`. Arm tells numbers only: `implementer 0x41 part 0xd40`.
pub(super) fn model(fs: &HostFs) -> Result<String, FsError> {
    let text = fs.read(CPUINFO)?;
    let first = |key| values(&text, key).next().filter(|value| !value.is_empty()).map(str::to_owned);
    let arm = || Some(format!("implementer {} part {}", first("CPU implementer")?, first("CPU part")?));
    first("model name").or_else(arm).ok_or_else(|| fs.garbage(CPUINFO, "no model name", "a description of CPUs"))
}

/// Of all `key : value` lines with this key.
fn values<'a>(text: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}
