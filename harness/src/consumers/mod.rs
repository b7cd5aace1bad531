//! The consumers of one domain, served by one thread: the pager, the listener, the out-of-memory helper, and the toolstack
//! that acts at checkpoints.

mod acts;
pub mod external;
pub mod faulty;
pub mod helper;
pub mod listener;
pub mod pagefile;
pub mod pager;
pub mod policy;
pub mod recent;
pub mod solo;
pub mod watcher;

use self::external::{Running, program};
use self::listener::Listener;
use self::pager::{Figures, Pager};
use crate::guest::symbols::Symbols;
use crate::scenario::{Act, At, Name, Role, Roles, Scenario};
use crate::toolstack::transcript::{Point, Record};
use crate::toolstack::{self, log::Log};
use anyhow::Context;
use mem_event::message::{Call, DeviceReport, Notice, Standing, VcpuReport};
use mem_event::spin::Spin;
use mem_event::{AccessType, Control, Gfn, Gpa, NoConsumer, Ring, VcpuId};
use mem_event_client::channel::Channel;
use mem_event_client::socket::Client;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// All consumers of a domain.
#[derive(Debug)]
pub struct Consumers {
    toolstack: Client,
    socket: PathBuf,
    scenario: Scenario,
    pager: Option<Pager>,
    listener: Option<Listener>,
    helper: Option<Channel>,
    external: Vec<Running>,
    /// How long rings are looked at before the thread sleeps.
    pub spin: Spin,
    /// For each step of the scenario, whether it was reached.
    reached: Vec<bool>,
    /// Rings whose consumers of this program take nothing for now.
    held: Vec<Ring>,
}

/// Starts the consumers that are processes of their own, and waits until each is ready.
fn start_external(socket: &Path, scenario: &Scenario, guest: Option<&Path>) -> anyhow::Result<Vec<Running>> {
    let mut external = scenario.consumers.external.clone();
    for consumer in &scenario.consumers.process {
        external.push(consumer.external(&program()?)?);
    }
    let start = |external| Running::start(socket, external, scenario, guest);
    let mut running = external.iter().map(start).collect::<anyhow::Result<Vec<Running>>>()?;
    let deadline = Instant::now() + scenario.deadline.0;
    running.iter_mut().try_for_each(|one| one.wait_until_ready(deadline))?;
    Ok(running)
}

impl Consumers {
    /// Connects, enables the rings that the scenario wants, and does what it does at the start.
    ///
    /// # Errors
    /// The plugin refuses something.
    pub fn enable(
        socket: &Path,
        scenario: &Scenario,
        guest: Option<&Path>,
        log: &mut Log<'_>,
    ) -> anyhow::Result<Consumers> {
        let mut toolstack = Client::connect(socket)?;
        toolstack.values(&Call::Subscribe)?;
        for ring in Ring::ALL {
            let policy = scenario.rings.of(ring).no_consumer.0;
            if policy != NoConsumer::default() {
                toolstack.values(&Call::Control(Control::SetNoConsumer { ring, policy }))?;
            }
        }
        let mut consumers = Consumers {
            toolstack,
            socket: socket.to_owned(),
            scenario: scenario.clone(),
            pager: None,
            listener: None,
            helper: None,
            external: Vec::new(),
            spin: Spin::Auto,
            reached: vec![false; scenario.steps.len()],
            held: Vec::new(),
        };
        let Roles { listener, pager, .. } = &scenario.consumers;
        let wanted = [
            (Role::Listener, listener.is_some()),
            (Role::Pager, pager.is_some()),
            (Role::Helper, scenario.target().is_some() || scenario.consumers.helper.is_some()),
        ];
        for (role, wanted) in wanted {
            if wanted && !scenario.is_external(role.ring()) {
                consumers.join(role)?;
            }
        }
        consumers.external = start_external(socket, scenario, guest)?;
        consumers.carry_out(&scenario.start, log)?;
        Ok(consumers)
    }

    /// Holds the guest to the scenario's target from now on.
    ///
    /// # Errors
    /// The plugin refuses, or the page file cannot be written.
    pub fn hold_to_target(&mut self, scenario: &Scenario) -> anyhow::Result<()> {
        match (&mut self.pager, scenario.target()) {
            (Some(pager), Some(target)) => pager.hold_to(target),
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, acts: &[Act], log: &mut Log<'_>) -> anyhow::Result<Vec<String>> {
        let mut texts = Vec::with_capacity(acts.len());
        for one in acts {
            let done = match self.act_on_consumers(one, log)? {
                Some(done) => done,
                None => toolstack::carry_out(one, &mut self.toolstack, log.symbols)?,
            };
            log.failures.extend(done.failure);
            texts.push(done.text);
        }
        Ok(texts)
    }

    /// Whether the ring's consumer is not held.
    fn goes_on(&self, ring: Ring) -> bool {
        !self.held.contains(&ring)
    }

    /// Whether a request waits on a ring; looks at memory only.
    #[must_use]
    pub fn is_pending(&mut self) -> bool {
        self.channels().any(|channel| channel.is_pending())
    }

    /// From now on the rings are looked at again and again.
    pub fn look(&mut self) {
        self.channels().for_each(Channel::looks);
    }

    /// Nobody looks any more; whether a request came meanwhile.
    #[must_use = "a request that came meanwhile may not be signalled"]
    pub fn sleep(&mut self) -> bool {
        // Each of them, also after one where a request came.
        self.channels().filter_map(|channel| channel.sleeps().then_some(())).count() > 0
    }

    /// The rings of the consumers that are not held.
    fn channels(&mut self) -> impl Iterator<Item = &mut Channel> {
        let held = &self.held;
        let goes_on = |ring| !held.contains(&ring);
        let pager = self.pager.as_mut().filter(|_| goes_on(Ring::Paging)).map(Pager::channel);
        let listener = self.listener.as_mut().filter(|_| goes_on(Ring::Access)).map(Listener::channel);
        [pager, listener, self.helper.as_mut().filter(|_| goes_on(Ring::Sharing))].into_iter().flatten()
    }

    /// Serves every request that waits. Whether there was one.
    ///
    /// # Errors
    /// The connection ended, or a consumer cannot do its part.
    pub fn serve(&mut self, log: &mut Log<'_>) -> anyhow::Result<bool> {
        let seen = Instant::now();
        let mut busy = false;
        while self.goes_on(Ring::Paging)
            && let Some(request) = self.pager.as_mut().and_then(Pager::take)
        {
            busy = true;
            let served = self.pager.as_mut().map(|pager| pager.serve(&request)).transpose()?.unwrap_or_default();
            let (ring, response, done) = (Ring::Paging, served.answered.then(|| request.answer()), served.done);
            log.add(Record::Event { ring, request, done, response, wait: seen.elapsed() });
        }
        while self.goes_on(Ring::Sharing)
            && let Some(request) = self.helper.as_mut().and_then(Channel::take)
        {
            busy = true;
            let done = self.relieve(&request)?;
            let (ring, response) = (Ring::Sharing, Some(request.answer()));
            log.add(Record::Event { ring, request, done, response, wait: seen.elapsed() });
        }
        if self.goes_on(Ring::Access)
            && let Some(listener) = &mut self.listener
        {
            while let Some(request) = listener.take() {
                busy = true;
                let handled = listener.serve(&request, log.symbols)?;
                log.failures.extend(handled.failures);
                let (ring, response, done) = (Ring::Access, handled.response, handled.done);
                log.add(Record::Event { ring, request, done, response, wait: seen.elapsed() });
            }
        }
        self.note(log);
        Ok(busy)
    }

    /// No frame was found: the helper raises the budget, or the pager evicts others; then it is answered.
    fn relieve(&mut self, request: &mem_event::Request) -> anyhow::Result<Vec<String>> {
        let helper = self.helper.as_mut().context("no helper")?;
        let done = match (&self.scenario.consumers.helper, &mut self.pager) {
            (Some(settings), _) => {
                helper::raise(&mut helper.client, settings)?;
                vec![format!("raise the budget by {} frames", settings.frames)]
            }
            (None, Some(pager)) => {
                let evicted = pager.relieve(request.gfn)?;
                (evicted > 0).then(|| "evict others".into()).into_iter().collect()
            }
            (None, None) => Vec::new(),
        };
        helper.answer(&request.answer());
        helper.kick()?;
        Ok(done)
    }

    /// Takes the notices that are here: checkpoints are acted upon and released.
    ///
    /// # Errors
    /// As [`Consumers::serve`].
    pub fn hear(&mut self, scenario: &Scenario, log: &mut Log<'_>) -> anyhow::Result<()> {
        while let Some(notice) = self.toolstack.notice()? {
            match notice {
                Notice::Crashed(why) => log.crash = Some(why),
                Notice::Checkpoint { vcpu, number, arguments } => {
                    self.step(scenario, vcpu, Point::Number(number), arguments, log)?;
                }
                Notice::Place { vcpu, gpa, arguments } => {
                    self.step(scenario, vcpu, Point::Place(gpa), arguments, log)?;
                }
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        scenario: &Scenario,
        vcpu: VcpuId,
        at: Point,
        arguments: [u64; 3],
        log: &mut Log<'_>,
    ) -> anyhow::Result<()> {
        // What the vCPU did before it came here comes first, also where it did not wait for an answer.
        self.serve(log)?;
        let mut done = Vec::new();
        for (index, step) in scenario.steps.iter().enumerate() {
            if at.is(&step.at, log.symbols) && step.vcpu.is_none_or(|only| only == vcpu.0) {
                done.extend(self.carry_out(&step.acts, log)?);
                self.reached[index] = true;
            }
        }
        log.add(Record::Checkpoint { vcpu, at, arguments, done });
        self.toolstack.values(&Call::Release { vcpu })?;
        Ok(())
    }

    /// The checkpoints and places that the scenario waits for and the guest did not reach.
    #[must_use]
    pub fn not_reached<'a>(&self, scenario: &'a Scenario) -> Vec<&'a At> {
        let missed = scenario.steps.iter().zip(&self.reached).filter(|(_, reached)| !**reached);
        missed.map(|(step, _)| &step.at).collect()
    }

    /// Whether the plugin closed the connection.
    #[must_use]
    pub fn have_lost_the_domain(&self) -> bool {
        self.toolstack.has_ended()
    }

    /// What becomes readable when there is something to do.
    pub fn wait_for(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let rings = [
            self.pager.as_ref().map(AsFd::as_fd),
            self.listener.as_ref().map(AsFd::as_fd),
            self.helper.as_ref().map(AsFd::as_fd),
        ];
        let external = self.external.iter().filter_map(Running::wait_for);
        rings.into_iter().flatten().chain(external).chain([self.toolstack.as_fd()])
    }

    /// How a consumer that is a process of its own has failed, if one has.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn fault(&mut self) -> anyhow::Result<Option<String>> {
        for one in &mut self.external {
            if let Some(fault) = one.fault()? {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }

    /// The domain has ended; so do the processes. What is wrong with how they did.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn finish(&mut self) -> anyhow::Result<Vec<String>> {
        let faults = self.external.iter_mut().filter_map(|one| one.finish().transpose());
        faults.collect()
    }

    /// What the pager has to say besides.
    fn note(&mut self, log: &mut Log<'_>) {
        if let Some(pager) = &mut self.pager {
            log.notes.append(&mut pager.notes);
            log.notes.extend(pager.faults.iter().cloned());
            log.failures.append(&mut pager.faults);
        }
    }

    /// Forgets the signals of those rings whose descriptors, in the order of [`Consumers::wait_for`], were readable.
    pub fn clear_signals(&mut self, readable: &[bool]) {
        let mut readable = readable.iter();
        if let Some(pager) = self.pager.as_mut().filter(|_| readable.next() == Some(&true)) {
            pager.clear_signal();
        }
        if let Some(listener) = self.listener.as_mut().filter(|_| readable.next() == Some(&true)) {
            listener.clear_signal();
        }
        if let Some(helper) = self.helper.as_mut().filter(|_| readable.next() == Some(&true)) {
            helper.clear_signal();
        }
    }

    /// What the pager did.
    #[must_use]
    pub fn paged(&self) -> Figures {
        self.pager.as_ref().map(|pager| pager.figures).unwrap_or_default()
    }

    /// Who waits for what, for whom, and for how long, in words; empty when all vCPUs and devices go on.
    ///
    /// # Errors
    /// The plugin does not tell.
    pub fn sleepers(&mut self, symbols: &Symbols) -> anyhow::Result<Vec<String>> {
        let vcpus = self.toolstack.vcpus()?;
        let devices = self.toolstack.devices()?;
        let vcpus = vcpus.iter().enumerate();
        let vcpus = vcpus.filter_map(|(vcpu, report)| Some(format!("vCPU {vcpu} {}", self.waits(report, symbols)?)));
        let devices = devices.iter().map(|DeviceReport { gfn, waited }| {
            format!("a device waits {:.1} s for frame {}", f64::from(*waited) / 1000.0, named(*gfn, symbols))
        });
        Ok(vcpus.chain(devices).collect())
    }

    /// The trace ends in order, whatever becomes of QEMU.
    pub fn end_trace(&mut self) {
        // A plugin that does not answer has none to end.
        let _ = self.toolstack.values(&Call::EndTrace);
    }

    /// Whether a vCPU or a device waits for anything, as far as the plugin tells.
    pub fn anybody_waits(&mut self) -> bool {
        self.sleepers(&Symbols::default()).is_ok_and(|sleepers| !sleepers.is_empty())
    }

    fn waits(&self, report: &VcpuReport, symbols: &Symbols) -> Option<String> {
        let what = match report.standing {
            Standing::Running => return None,
            Standing::Answer => "an answer",
            Standing::Slot => "a slot",
            Standing::Consumer => "a consumer",
            Standing::Frame => "a frame within the budget",
            Standing::Checkpoint => "its release from a checkpoint",
        };
        let mut text = format!("waits {:.1} s for {what}", f64::from(report.waited) / 1000.0);
        if let Some(ring) = report.ring {
            text += &format!(" on the {ring} ring");
            if let Some(gfn) = report.frame {
                text += &format!(" about frame {}", named(gfn, symbols));
            }
            text += &format!(", from {}", self.whose(ring));
        }
        Some(text)
    }

    /// Who serves a ring, in words.
    fn whose(&self, ring: Ring) -> String {
        let own = match ring {
            Ring::Paging => self.pager.is_some(),
            Ring::Access => self.listener.is_some(),
            Ring::Sharing => self.helper.is_some(),
        };
        let name = Role::of(ring);
        match self.external.iter().find(|one| one.has(ring)) {
            _ if own && self.held.contains(&ring) => format!("this program's {name}, which is held"),
            _ if own => format!("this program's {name}"),
            Some(process) => process.to_string(),
            None => "nobody that this program knows".into(),
        }
    }

    /// Leaves a domain that goes on: watched pages get all rights, paged-out ones come back, the rings end.
    ///
    /// # Errors
    /// The connection ended.
    pub fn leave(mut self, scenario: &Scenario, log: &mut Log<'_>) -> anyhow::Result<()> {
        for act in &scenario.start {
            if let Act::Watch { frames, .. } | Act::SetAccess { frames, .. } = act {
                let open = Act::SetAccess { frames: frames.clone(), access: Name(AccessType::Rwx) };
                self.carry_out(&[open], log)?;
            }
        }
        self.serve(log)?;
        self.listener.take().map(Listener::finish).transpose()?;
        self.pager.take().map(Pager::finish).transpose()?;
        if self.helper.is_some() {
            self.toolstack.values(&Call::Control(Control::Disable { ring: Ring::Sharing, drain: true }))?;
        }
        Ok(())
    }
}

/// A frame, with the name of what lies there.
fn named(gfn: Gfn, symbols: &Symbols) -> String {
    let name = symbols.name(Gpa(gfn.0 << 12)).map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{gfn}{name}")
}
