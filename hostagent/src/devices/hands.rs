//! Carrying out plans, through helper processes that can be given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use croft_gpu::apply::{Applier, Carried, ChildProcess, Ending, Executor, Left, Outcome, StepError, TakenBack, Work};
use croft_gpu::plan::Plan;

use super::config::Config;
use super::helper::Errand;
use crate::clock::Clock;
use crate::crash;
use crate::tasks::Tasks;

#[derive(Debug, Clone)]
pub(super) struct Hands {
    applier: Arc<Applier>,
    told_to_stop: Arc<AtomicBool>,
}

impl Hands {
    pub(super) fn new(config: &Config, clock: Clock, tasks: Tasks) -> Self {
        let (program, arguments) = config.command(Errand::Step);
        let mut child = ChildProcess::new(program, arguments, config.site.clone());
        if let Some(kill) = config.kill {
            child = child.with_kill(kill);
        }
        if let Some(cgroups) = &config.cgroups {
            child = child.with_cgroups(cgroups);
        }
        let told_to_stop = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&told_to_stop);
        let mut applier = Applier::new(WhileAlive { child, tasks }, move || clock.wall().0)
            .until(move || stop.load(Ordering::Relaxed));
        if let Some(longest) = config.longest_step {
            applier = applier.with_deadlines(move |step| step.deadline().min(longest));
        }
        Self { applier: Arc::new(applier), told_to_stop }
    }

    /// From now on a plan ends after the step in hand, and is taken back.
    pub(super) fn stop(&self) {
        self.told_to_stop.store(true, Ordering::Relaxed);
    }

    /// Takes as long as the steps' deadlines add up to, at the worst.
    pub(super) async fn apply(&self, plan: Plan) -> Outcome {
        let applier = Arc::clone(&self.applier);
        let work = move || {
            let outcome = applier.apply(&plan, &mut |_| crash::point("agent.device_step.before"));
            crash::point("agent.device_plan.after");
            outcome
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            // The runtime is going down, and with it whoever would hear of this.
            Err(_) => std::future::pending().await,
        }
    }

    /// Undoes what an earlier plan left.
    pub(super) async fn take_back(&self, left: Vec<Left>) -> TakenBack {
        let applier = Arc::clone(&self.applier);
        match tokio::task::spawn_blocking(move || applier.take_back(left, &mut |_| {})).await {
            Ok(taken) => taken,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Nothing is written for an agent that was killed, though its threads live on for a moment.
struct WhileAlive {
    child: ChildProcess,
    tasks: Tasks,
}

impl Executor for WhileAlive {
    fn carry_out(&self, work: &Work, deadline: Duration) -> Carried {
        match self.tasks.alive() {
            Some(_alive) => self.child.carry_out(work, deadline),
            None => Carried { found: None, ending: Ending::Failed(StepError::new("the agent was killed")) },
        }
    }
}
