//! All consumers of one domain, those of this program and those in processes of their own, and the toolstack that acts at
//! checkpoints.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | a domain's consumers from its start to its end |
//! | [`in_process`] | those of this program, served by one thread |
//! | [`external`], [`solo`] | a process of its own as this program sees it; a built-in consumer as such a process |
//! | `acts`, `restart`, [`sleepers`] | acts carried out; consumers killed, started anew, held; who waits for what |
//! | [`pager`], [`pagefile`], [`loads`], [`calls`], [`policy`], [`recent`], [`resident`], [`countdown`], [`figures`] | the pager |
//! | [`listener`], [`looking`], [`breaks`], [`watcher`] | a listener by a scenario's rules; what it does besides; where the guest breaks; a listener with one treatment for all |
//! | `ending` | a ring that ends in order |
//! | [`touches`] | a listener that finds which pages a guest touches |
//! | [`helper`], [`faulty`] | the out-of-memory helper; consumers that misbehave |

mod acts;
pub mod breaks;
pub mod calls;
pub mod countdown;
mod ending;
pub mod external;
pub mod faulty;
pub mod figures;
pub mod helper;
pub mod in_process;
pub mod listener;
pub mod loads;
pub mod looking;
mod open_page;
pub mod pagefile;
pub mod pager;
pub mod policy;
pub mod recent;
pub mod resident;
mod restart;
mod room;
pub mod sleepers;
pub mod solo;
pub mod touches;
pub mod watcher;

use self::external::{Running, program};
use self::in_process::InProcess;
use crate::guest::symbols::Symbols;
use crate::scenario::external::External;
use crate::scenario::{Act, MemoryAct, Name, Place, Role, Roles, Scenario};
use crate::toolstack::log::Log;
use crate::toolstack::transcript::{Point, is_at};
use mem_event::message::{Call, Notice};
use mem_event::spin::Spin;
use mem_event::{AccessType, Control, FlowKind, NoConsumer, Ring, VcpuId};
use mem_event_client::Order;
use mem_event_client::socket::Client;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// All consumers of a domain.
#[derive(Debug)]
pub struct Consumers {
    toolstack: Client,
    /// Those of this program.
    pub in_process: InProcess,
    external: Vec<Running>,
    /// How each of these was started.
    started: Vec<External>,
    socket: PathBuf,
    /// The guest's ELF.
    guest: Option<PathBuf>,
    /// How long rings are polled before the thread sleeps.
    pub spin: Spin,
    /// QEMU has said that it ends.
    pub ended_in_order: bool,
    /// For each step of the scenario, whether it was reached.
    reached: Vec<bool>,
}

/// Starts the consumers that are processes of their own, and waits until each is ready.
fn start_external(
    socket: &Path,
    scenario: &Scenario,
    guest: Option<&Path>,
) -> anyhow::Result<(Vec<External>, Vec<Running>)> {
    let mut external = scenario.consumers.external.clone();
    for consumer in &scenario.consumers.process {
        external.push(consumer.external(&program()?)?);
    }
    for tool in &scenario.consumers.xen {
        external.push(tool.external(&program()?));
    }
    for (number, consumer) in (1..).zip(&mut external) {
        let rings: String = consumer.rings.iter().map(|handed| format!("-{}", handed.ring)).collect();
        consumer.words =
            scenario.consumers.words.as_ref().map(|folder| folder.join(format!("consumer-{number}{rings}")));
    }
    let start = |external| Running::start(socket, external, scenario, guest);
    let mut running = external.iter().map(start).collect::<anyhow::Result<Vec<Running>>>()?;
    let deadline = Instant::now() + scenario.deadline.0;
    running.iter_mut().try_for_each(|one| one.wait_until_ready(deadline))?;
    Ok((external, running))
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
        log.is_own(toolstack.number());
        toolstack.values(&Call::Subscribe)?;
        for ring in Ring::ALL {
            let policy = scenario.rings.of(ring).no_consumer.0;
            if policy != NoConsumer::default() {
                toolstack.values(&Call::Control(Control::SetNoConsumer { ring, policy }))?;
            }
            let flow = scenario.rings.of(ring).flow.0;
            if flow != FlowKind::default() {
                toolstack.values(&Call::Control(Control::SetFlow { ring, flow }))?;
            }
        }
        let mut consumers = Consumers {
            toolstack,
            in_process: InProcess::new(socket, scenario),
            external: Vec::new(),
            started: Vec::new(),
            socket: socket.to_owned(),
            guest: guest.map(Path::to_owned),
            spin: Spin::Auto,
            ended_in_order: false,
            reached: vec![false; scenario.steps.len()],
        };
        let Roles { listener, pager, .. } = &scenario.consumers;
        let wanted = [
            (Role::Listener, listener.is_some()),
            (Role::Pager, pager.is_some()),
            (Role::Helper, scenario.target().is_some() || scenario.consumers.helper.is_some()),
        ];
        for (role, wanted) in wanted {
            if wanted && !scenario.is_external(role.ring()) {
                consumers.in_process.join(role)?;
            }
        }
        (consumers.started, consumers.external) = start_external(socket, scenario, guest)?;
        consumers.tell_whose(log);
        let is_later = |act: &Act| act.memory().and_then(MemoryAct::place).is_some_and(Place::is_linear);
        let start: Vec<Act> = scenario.start.iter().filter(|act| !is_later(act)).cloned().collect();
        consumers.carry_out(&start, scenario, log, false)?;
        Ok(consumers)
    }

    /// The listener looks for the guest's kernel, and does what waits for it: at once where the guest runs, else when it has booted.
    ///
    /// # Errors
    /// The plugin refuses, or no such kernel runs.
    pub fn look(&mut self, is_running: bool, log: &Log<'_>) -> anyhow::Result<()> {
        let Some(listener) = self.in_process.listener() else { return Ok(()) };
        listener.begin_touches(is_running)?;
        let (looking, client) = listener.looking();
        if is_running {
            looking.look_now(client, log.symbols)
        } else {
            looking.wait_for_the_kernel(client, log.symbols)
        }
    }

    /// Carries acts out; noted, each stands in the sequence by the scenario's words.
    fn carry_out(
        &mut self,
        acts: &[Act],
        scenario: &Scenario,
        log: &mut Log<'_>,
        are_noted: bool,
    ) -> anyhow::Result<()> {
        for one in acts {
            let done = match self.act_on_process(one, scenario)? {
                Some(done) => done,
                None => acts::carry_out(one, &mut self.toolstack, &mut self.in_process, &self.external, log)?,
            };
            log.failures.extend(done.failure);
            self.tell_whose(log);
            if are_noted {
                self.toolstack.note(&done.text)?;
            }
        }
        Ok(())
    }

    /// Which connections are this program's own.
    fn tell_whose(&self, log: &mut Log<'_>) {
        self.in_process.connections().iter().for_each(|connection| log.is_own(*connection));
    }

    /// Holds the guest to the target from now on, where the scenario has one: the pager, here or in a process of its own.
    ///
    /// # Errors
    /// The plugin or the process refuses, or the page file cannot be written.
    pub fn hold_to_target(&mut self, scenario: &Scenario) -> anyhow::Result<()> {
        let Some(bytes) = scenario.target() else { return Ok(()) };
        acts::order(Order::target(bytes), &mut self.toolstack, &mut self.in_process, &self.external).map(drop)
    }

    /// Takes the notices that are here: checkpoints are acted upon and released.
    ///
    /// # Errors
    /// As [`InProcess::serve`].
    pub fn hear(&mut self, scenario: &Scenario, log: &mut Log<'_>) -> anyhow::Result<()> {
        while let Some(notice) = self.toolstack.notice()? {
            match notice {
                Notice::Crashed(why) => log.crash = Some(why),
                Notice::Ended => self.ended_in_order = true,
                Notice::Kill(ring) => self.restart(ring, scenario, log)?,
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
        self.in_process.serve(log)?;
        for (index, step) in scenario.steps.iter().enumerate() {
            if is_at(at, &step.at, log.symbols) && step.vcpu.is_none_or(|only| only == vcpu.0) {
                self.carry_out(&step.acts, scenario, log, true)?;
                self.reached[index] = true;
            }
        }
        log.stopped(at, arguments);
        self.toolstack.values(&Call::Release { vcpu })?;
        Ok(())
    }

    /// The first of the checkpoints and places that the scenario waits for and the guest did not come to, in words.
    #[must_use]
    pub fn not_reached(&mut self, scenario: &Scenario) -> Option<String> {
        let missed = scenario.steps.iter().zip(&self.reached).find(|(_, reached)| !**reached);
        let missed = missed.map(|(step, _)| format!("{} was never reached", step.at));
        missed.or_else(|| self.in_process.listener()?.looking().0.still_waits())
    }

    /// Whether the plugin closed the connection.
    #[must_use]
    pub fn have_lost_the_domain(&self) -> bool {
        self.toolstack.has_ended()
    }

    /// What becomes readable when there is something to do.
    pub fn wait_for(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let external = self.external.iter().filter_map(Running::wait_for);
        self.in_process.wait_for().chain(external).chain([self.toolstack.as_fd()])
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

    /// Who waits for what, for whom, and for how long, in words; empty when all vCPUs and devices go on.
    ///
    /// # Errors
    /// The plugin does not tell.
    pub fn sleepers(&mut self, symbols: &Symbols) -> anyhow::Result<Vec<String>> {
        let (vcpus, devices) = (self.toolstack.vcpus()?, self.toolstack.devices()?);
        let whose = |ring| self.whose(ring);
        let vcpus = vcpus.iter().enumerate();
        let vcpus =
            vcpus.filter_map(|(vcpu, report)| Some(format!("vCPU {vcpu} {}", sleepers::vcpu(report, whose, symbols)?)));
        Ok(vcpus.chain(devices.iter().map(|report| sleepers::device(report, symbols))).collect())
    }

    /// Who serves a ring, in words.
    fn whose(&self, ring: Ring) -> String {
        let process = || self.external.iter().find(|one| one.has(ring)).map(Running::to_string);
        self.in_process.name(ring).or_else(process).unwrap_or_else(|| "nobody that this program knows".into())
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

    /// Leaves a domain that goes on: watched pages get all rights, paged-out ones come back, the rings end.
    ///
    /// # Errors
    /// The connection ended.
    pub fn leave(mut self, scenario: &Scenario, log: &mut Log<'_>) -> anyhow::Result<()> {
        for act in &scenario.start {
            if let Act::Memory(MemoryAct::Watch { frames, .. } | MemoryAct::SetAccess { frames, .. }) = act {
                let open = MemoryAct::SetAccess {
                    frames: frames.clone(),
                    access: Name(AccessType::Rwx),
                    view: None,
                    refused: None,
                };
                self.carry_out(&[open.into()], scenario, log, false)?;
            }
        }
        if self.in_process.leave(log)? {
            self.toolstack.values(&Call::Control(Control::Disable { ring: Ring::Sharing, drain: true }))?;
        }
        Ok(())
    }
}
