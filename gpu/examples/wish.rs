//! Makes one wish true on this machine, and says how it goes in JSON; or refuses, with the reason:
//! `cargo run -p croft-gpu --example wish -- [--plan] [--die-before STEP] '{"wish":"passthrough","address":"0000:41:00.0"}'`.
//!
//! `give_back` in the answer is the wish that undoes this one: keep it, the host alone no longer shows where a function was.
//! `--plan` changes nothing. `--die-before` kills this very program when it comes to that step (from 0), as a power cut or
//! the kernel's memory killer would; wishing the same again must then end well.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use croft_gpu::HostFs;
use croft_gpu::apply::{Access, Applier, ChildProcess, Outcome, Site, Work, helper_main};
use croft_gpu::fabric;
use croft_gpu::host::Host;
use croft_gpu::nvml::{self, NvmlSource};
use croft_gpu::plan::{Owners, Wish, give_back, plan};
use serde_json::json;

/// The argument by which this program starts itself as its own helper.
const HELPER: &str = "device-helper";

struct Arguments {
    wish: Wish,
    only_plan: bool,
    die_before: Option<usize>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, parent] = &words[..]
        && word == HELPER
    {
        return Ok(helper_main(parent.parse()?, Access::host));
    }
    let arguments = arguments(&words)?;
    let fs = HostFs::at("/")?;
    let host = Host::probe(&fs, &NvmlSource::from(nvml::snapshot(None)), &fabric::snapshot(None));
    let owners = Owners::default();
    let planned = plan(&host, &owners, &arguments.wish).and_then(|plan| Ok((plan, give_back(&host, &arguments.wish)?)));
    let (plan, back) = match planned {
        Ok(planned) => planned,
        Err(refusal) => {
            println!("{}", json!({ "refusal": refusal }));
            return Ok(ExitCode::FAILURE);
        }
    };
    if arguments.only_plan {
        println!("{}", json!({ "plan": plan, "give_back": back }));
        return Ok(ExitCode::SUCCESS);
    }
    let applier =
        Applier::new(ChildProcess::new("/proc/self/exe", [HELPER, &std::process::id().to_string()], site()), now);
    let (mut steps, started) = (0, Instant::now());
    let outcome = applier.apply(&plan, &mut |work| {
        if matches!(work, Work::Do { .. }) && arguments.die_before == Some(steps) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        steps += 1;
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", json!({ "plan": plan, "give_back": back, "outcome": outcome, "seconds": seconds }));
    Ok(if let Outcome::Applied { .. } = outcome { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments(words: &[String]) -> Result<Arguments, Box<dyn Error>> {
    const USAGE: &str = "usage: wish [--plan] [--die-before STEP] WISH";
    let (mut wish, mut only_plan, mut die_before) = (None, false, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--plan" => only_plan = true,
            "--die-before" => die_before = Some(words.next().ok_or(USAGE)?.parse()?),
            text => wish = Some(serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))?),
        }
    }
    Ok(Arguments { wish: wish.ok_or(USAGE)?, only_plan, die_before })
}

fn site() -> Site {
    Site {
        root: PathBuf::from("/"),
        simulated: false,
        nvml_library: None,
        fabric_library: None,
        lock_directory: Some(PathBuf::from("/run/croft/devices")),
    }
}

/// Microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a program of its own, that no story moves the time of")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
