//! A cluster, a host and a guest that do what they like, beside the machine.

use super::*;
use crate::id::{ImageUid, InstanceUid};
use crate::instance::machine::State;
use crate::instance::{CloudInit, Cpu, Disk, Exit, ExitKind, Intent, Restart, Spec, Status};
use crate::join::machine::without::Without;
use crate::meta::{Labels, Meta};
use crate::placement::{Placement, Policy};

pub const OURS: &str = "croft://acme/1";
pub const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// What the cluster answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Obliges,
    Away,
    /// It answers, and does not do this.
    Refuses(Verb),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Token,
    Forget,
    Change,
    Evict,
    Delete,
}

#[derive(Debug, Clone)]
pub struct World {
    pub instance: Instance,
    pub seen: Seen,
    pub mood: Mood,
    away_since: Option<Timestamp>,
    pub seed_has_token: bool,
    /// The kubelet has its own certificate and needs no token any more.
    pub certificate: bool,
    /// The guest, as its host has it: it runs, or how it ended and at which counter.
    runs: bool,
    ended: Option<(ExitKind, i64)>,
    pub now: Timestamp,
}

impl World {
    pub fn new() -> Self {
        let seen = Seen { since: START, ..Seen::default() };
        Self {
            instance: instance(),
            seen,
            mood: Mood::Obliges,
            away_since: None,
            seed_has_token: false,
            certificate: false,
            runs: false,
            ended: None,
            now: START,
        }
    }

    pub fn node(&self) -> &Node {
        self.instance.node.as_ref().unwrap()
    }

    pub fn phase(&self) -> Phase {
        self.node().phase
    }

    pub fn guest(&self) -> Guest {
        Guest::of(&self.instance)
    }

    pub fn runs(&self) -> bool {
        self.runs
    }

    /// As the store does it with every row that it writes.
    fn write(&mut self, change: impl FnOnce(&mut Instance, Timestamp)) {
        change(&mut self.instance, self.now);
        let before = self.node().power_told;
        tell_power(&mut self.instance);
        let (node, told) = (self.node(), self.node().power_told);
        assert_eq!((told.power, told.generation), power_told(&self.instance), "said twice, it is the same: {self:?}");
        if before.power == Power::Stopped && told.power == Power::Running {
            let with_token = node.phase == Phase::Booting && self.seed_has_token;
            let joined = node.phase == Phase::Joined && self.seen.node.is_some();
            assert!(wanted(&self.instance) && !node.lost && (with_token || joined), "told to run: {self:?}");
        }
        if !wanted(&self.instance) && told.power == Power::Running {
            assert_eq!(told, before, "what is not wanted is told nothing new but to stop: {self:?}");
        }
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Node)) {
        self.write(|instance, _| change(instance.node.as_mut().unwrap()));
    }

    fn enter(&mut self, phase: Phase) {
        self.write(|instance, now| instance.node.as_mut().unwrap().enter(phase, now));
    }

    pub fn power(&mut self, power: Power) {
        self.write(|instance, _| {
            instance.intent.power = power;
            instance.intent.power_generation += 1;
        });
    }

    pub fn delete(&mut self, force: bool) {
        self.write(|instance, now| {
            instance.meta.delete_time = Some(now);
            instance.intent.delete_force = force;
        });
    }

    pub fn fence(&mut self) {
        (self.runs, self.ended, self.certificate) = (false, None, false);
        self.write(|instance, now| {
            instance.placement = None;
            instance.status.observed = None;
            instance.node.as_mut().unwrap().lose(now);
        });
    }

    pub fn end(&mut self, kind: ExitKind) {
        if self.runs {
            (self.runs, self.ended) = (false, Some((kind, self.node().power_told.generation)));
        }
        self.report();
    }

    pub fn look(&self) -> Vec<Act> {
        next(self.node(), self.guest(), OURS, &self.seen, self.now)
    }

    fn refuses(&self, act: &Act) -> bool {
        let verb = match act {
            Act::Token(_) => Verb::Token,
            Act::Forget => Verb::Forget,
            Act::Dress | Act::Cordon | Act::Uncordon | Act::OutOfService(_) => Verb::Change,
            Act::Evict => Verb::Evict,
            Act::DeleteNode => Verb::Delete,
            Act::Drains(_) | Act::Enter(..) => return false,
        };
        self.mood == Mood::Refuses(verb)
    }

    fn carry_out(&mut self, act: &Act) {
        let there = self.seen.node.as_mut();
        match act {
            Act::Token(until) => {
                (self.seen.token, self.seed_has_token) = (true, true);
                self.change(|node| node.token = Some(Token { id: "abcdef".into(), expire_time: *until }));
            }
            Act::Forget => {
                (self.seen.token, self.seed_has_token) = (false, false);
                self.change(|node| node.token = None);
            }
            Act::Dress => there.unwrap().dressed = true,
            Act::Cordon => there.unwrap().cordoned = true,
            Act::Uncordon => there.unwrap().cordoned = false,
            Act::OutOfService(on) => there.unwrap().out_of_service = *on,
            Act::Evict => self.seen.pods = self.seen.pods.saturating_sub(usize::from(self.seen.blocked_by.is_empty())),
            Act::Drains(way) => {
                let since = self.now;
                self.change(|node| node.drain = Some(Drain { since, way: *way }));
            }
            Act::DeleteNode => {
                let told = self.node().drain.is_some_and(|drain| drain.is_over(self.now));
                let leaving = self.phase() == Phase::Leaving;
                let forced = self.guest().forced;
                assert!(!leaving || self.seen.pods == 0 || told || forced, "pods were thrown out: {self:?}");
                (self.seen.node, self.seen.pods) = (None, 0);
            }
            Act::Enter(phase, _) => self.enter(*phase),
        }
    }

    fn go_without(&mut self, step: Option<Without>) {
        match step {
            None => {}
            Some(Without::Enter(phase)) => self.enter(phase),
            Some(Without::Drains(way)) => self.carry_out(&Act::Drains(way)),
            Some(Without::Release) => self.change(|node| node.released = true),
            // What is left is told to its user.
            Some(Without::Abandon) => {
                self.enter(Phase::Left);
                self.seed_has_token = false;
                self.change(|node| node.token = None);
            }
        }
    }

    /// The host does what it is told, the kubelet what it can.
    pub fn live(&mut self) {
        if self.instance.placement.is_none() && wanted(&self.instance) {
            self.instance.placement =
                Some(Placement { host: "h2".into(), pins: Vec::new(), devices: Vec::new(), parked: None });
        }
        self.host();
        let may_ask = self.seed_has_token && self.seen.token;
        let gates = gates(self.phase());
        if self.runs && gates.register && (self.certificate || may_ask) && self.seen.node.is_none() {
            self.certificate = true;
            self.seen.node = Some(there(OURS));
        }
    }

    fn host(&mut self) {
        if self.instance.placement.is_none() {
            return;
        }
        let (power, generation) = power_told(&self.instance);
        let rests = self.ended.is_some_and(|(kind, of)| kind == ExitKind::GuestPoweroff && of >= generation);
        match power {
            Power::Stopped => (self.runs, self.ended) = (false, None),
            Power::Running if !self.runs && !rests => (self.runs, self.ended) = (true, None),
            Power::Running => {}
        }
        self.report();
    }

    fn report(&mut self) {
        if self.instance.placement.is_none() {
            return;
        }
        let start = self.instance.status.observed.take().filter(|seen| seen.phase == GuestPhase::Running);
        let exit = self.ended.map(|(kind, _)| Exit { kind, time: self.now, message: String::new() });
        self.instance.status.observed = Some(Observed {
            generation: 1,
            phase: if self.runs { GuestPhase::Running } else { GuestPhase::Off },
            reason: String::new(),
            message: String::new(),
            conditions: Vec::new(),
            addresses: Vec::new(),
            exit,
            start_time: self.runs.then(|| start.and_then(|seen| seen.start_time).unwrap_or(self.now)),
            restart_count: 0,
            power_generation: self.node().power_told.generation,
            reboot_generation: 0,
            reset_generation: 0,
            disk_generation: 0,
            attached_devices: Vec::new(),
            released_devices: Vec::new(),
        });
    }

    pub fn pass(&mut self) {
        if self.mood == Mood::Away {
            let since = *self.away_since.get_or_insert(self.now);
            self.go_without(without::away(self.node(), self.guest(), since, self.now));
        } else {
            if self.away_since.take().is_some() {
                self.seen.since = self.now;
            }
            for act in self.look() {
                if self.refuses(&act) {
                    self.go_without(without::refused(self.node(), self.guest(), self.now));
                    break;
                }
                self.carry_out(&act);
            }
        }
        self.now = self.now.plus(Duration::from_secs(5));
    }

    /// Nobody interferes any more.
    pub fn settle(&mut self) {
        for _ in 0..900 {
            self.live();
            self.pass();
        }
    }
}

pub fn there(provider_id: &str) -> SeenNode {
    let provider_id = provider_id.to_owned();
    SeenNode { provider_id, ready: true, dressed: false, cordoned: false, out_of_service: false }
}

fn instance() -> Instance {
    let uid = InstanceUid::new(START);
    let node = Node::new("n".into(), Phase::Waiting, START);
    Instance {
        uid,
        tenant: "acme".into(),
        id: "n".into(),
        meta: Meta::new(uid.to_string(), Labels::new(), Labels::new(), START),
        spec: Spec {
            vcpus: 2,
            memory_mib: 1024,
            image: "images/node".into(),
            image_uid: ImageUid::new(START),
            disks: vec![Disk { size_gib: 10 }],
            interfaces: Vec::new(),
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Labels::new(),
            policy: Policy::Spread,
            devices: Vec::new(),
            node: None,
        },
        intent: Intent::first(Power::Running, Restart::OnFailure, Duration::from_secs(90)),
        placement: Some(Placement { host: "h1".into(), pins: Vec::new(), devices: Vec::new(), parked: None }),
        node: Some(node),
        status: Status::first(State::Pending, START),
    }
}
