//! A consumer under test against a recording: its process is started as `run` starts it, the engine serves the recorded requests, and
//! there is no QEMU, no guest and no userfaultfd.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | one trial from start to end |
//! | [`script`], [`whose`], [`replies`] | a recording as what is to be done again; whose call was whose; what calls were answered |
//! | [`schedule`], [`pick`], [`choices`] | which input comes next; among which a seed chooses; what it chooses |
//! | [`engine`], [`contents`] | the live engine; what frames hold |
//! | [`exchange`], [`compare`], [`fault`] | requests with their answers; differences; what is wrong whatever was recorded |
//! | [`ordered`] | what a pager was ordered to evict |
//! | [`stage`], [`serve`] | the domain as the control socket sees it; the thread that serves it |
//! | [`minimise`] | the shortest recording that a consumer still fails |
//! | [`command`] | the command line's part |

pub mod choices;
pub mod command;
pub mod compare;
pub mod contents;
pub mod engine;
pub mod exchange;
pub mod fault;
pub mod minimise;
pub mod ordered;
pub mod pick;
pub mod replies;
pub mod schedule;
pub mod script;
pub mod serve;
pub mod stage;
pub mod whose;

use self::choices::Choices;
use self::compare::Difference;
use self::engine::Engine;
use self::fault::Fault;
use self::schedule::Schedule;
use self::script::Script;
use self::serve::{Said, Server};
use self::stage::Stage;
use crate::consumers::external::Running;
use crate::guest::symbols::Symbols;
use crate::machine::folder::RunFolder;
use crate::scenario::Scenario;
use crate::scenario::external::External;
use crate::toolstack::faults;
use anyhow::Context;
use mem_event::Ring;
use mem_event_server::chaos::{Kind, Plan};
use mem_event_server::{Chaos, Listener};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// How long a consumer may take to say that it is ready.
const START: Duration = Duration::from_secs(60);

/// How a trial is done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The command, with the rings that are handed over to it.
    pub consumer: Option<External>,
    /// The rings under test: those, or the one that it enables.
    pub rings: Vec<Ring>,
    /// Recorded time is divided by this; none for as fast as it goes.
    pub speed: Option<f64>,
    /// What a seed changes.
    pub chaos: Option<u64>,
    /// How long an answer may take.
    pub patience: Duration,
    /// The guest's ELF, for the consumer's symbols.
    pub guest: Option<PathBuf>,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What is wrong whatever was recorded, with its sentence.
    pub fault: Option<(Fault, String)>,
    /// The first difference.
    pub difference: Option<Difference>,
    /// How many there are.
    pub differences: u64,
    /// Requests answered.
    pub answers: usize,
    /// Steps of the live engine.
    pub steps: u64,
    /// What is to be said once.
    pub notes: Vec<String>,
    /// The steps up to the fault, as a table.
    pub before: String,
}

impl Tried {
    /// Whether the consumer did all that the recorded one did, or what is as right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.fault.is_none() && self.difference.is_none()
    }

    /// What kind of failure it is: two of one kind show the same. None of a success.
    #[must_use]
    pub fn kind(&self) -> Option<&'static str> {
        let difference = self.difference.as_ref().map(|difference| difference.kind);
        self.fault.as_ref().map(|(fault, _)| fault.kind()).or(difference)
    }
}

/// One trial of a consumer; the live run is recorded into a file if one is named.
///
/// # Errors
/// The consumer cannot be started, or the trace cannot be written.
pub fn run(script: &Script, options: &Options, trace: Option<&Path>) -> anyhow::Result<Tried> {
    let external = external_of(options)?;
    let rings = &options.rings;
    let symbols = Symbols::of_trace(&script.header);
    let folder = RunFolder::create()?;
    let socket = folder.file("socket");
    let listener = Listener::bind(&socket).map_err(anyhow::Error::msg)?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let (says, said) = channel();
    let server = Server::new(listener, bell.try_clone()?, said, options.patience);
    let engine = Engine::new(script, rings, trace)?;
    let schedule = Schedule::new(&script.items, &script.waiting, options.speed, options.chaos.map(Choices::new));
    let (tell, told) = channel();
    // It fails where nobody hears of faults any more.
    let chaos = Chaos::new(faults_of(options), move |fault| drop(tell.send(fault.to_string())));
    let mut stage = Stage::new(engine, schedule, (script, &symbols), chaos);
    let mut scenario = Scenario::bare(&script.header.guest);
    scenario.folder = Some(std::env::current_dir()?);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&mut stage));
        // From this thread, which outlives the process: the kernel ends the process with the thread that started it.
        let started = Running::start(&socket, &external, &scenario, options.guest.as_deref());
        let started = started.and_then(|mut running| {
            running.wait_until_ready(Instant::now() + START)?;
            Ok(running)
        });
        let begun = match &started {
            Ok(running) => Said::Go {
                ended: running.wait_for().context("it has ended")?.try_clone_to_owned()?,
                orders: running.orders().map(|orders| orders.try_clone_to_owned()).transpose()?,
            },
            Err(_) => Said::Stop,
        };
        say(&says, begun, &bell);
        let served = serving.join().map_err(|_| anyhow::anyhow!("the thread that serves the consumer failed"))?;
        let mut running = started?;
        served?;
        anyhow::Ok(running.finish()?)
    })
    .and_then(|ended| finish(stage, ended, &symbols))
    .map(|mut tried| {
        tried.notes.extend(options.chaos.map(|seed| faults::counted(told.try_iter(), Some(seed))));
        tried
    })
}

fn say(says: &Sender<Said>, what: Said, bell: &OwnedFd) {
    // It fails where the server has ended already.
    let _ = says.send(what);
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

fn finish(mut stage: Stage<'_>, ended: Option<String>, symbols: &Symbols) -> anyhow::Result<Tried> {
    let written = stage.engine.end_trace();
    written.map_err(|why| anyhow::anyhow!("the trace cannot be written: {why}"))?;
    let mut fault = stage.engine.fault.take();
    match (ended, &mut fault) {
        // How it ended says more than that it did.
        (Some(how), Some(Fault::Ended { how: place })) => *place = how,
        (Some(how), None) => fault = Some(Fault::Ended { how }),
        _ => {}
    }
    let comparison = &stage.comparison;
    let mut notes: Vec<String> = stage.engine.notes.values().cloned().collect();
    if comparison.other_frames > 0 {
        notes.push(format!(
            "{} page-ins are of frames that the recorded pager had not evicted",
            comparison.other_frames
        ));
    }
    if stage.schedule.makes_other_calls() {
        notes.push(
            "the consumer makes other calls of its own accord than the recorded one; the guest did not wait for them"
                .into(),
        );
    }
    let answers = stage.engine.exchanges.all.iter().filter(|exchange| exchange.answer.is_some()).count();
    Ok(Tried {
        before: stage.engine.recent.table(symbols),
        fault: fault.map(|fault| (fault.clone(), fault.sentence(symbols))),
        difference: comparison.first.clone(),
        differences: comparison.count,
        answers,
        steps: stage.engine.steps,
        notes,
    })
}

/// What is done to the consumer by its seed, which kills it nowhere: what the successor finds would be another recording.
fn faults_of(options: &Options) -> Plan {
    options.chaos.map_or(Plan::none(), |seed| Plan { seed: Some(seed), without: vec![Kind::Kill], ..Plan::none() })
}

/// The consumer; under chaos its rings have few slots.
fn external_of(options: &Options) -> anyhow::Result<External> {
    let mut external = options.consumer.clone().context("no consumer is named")?;
    if let Some(seed) = options.chaos {
        let mut choices = Choices::new(!seed);
        for ring in external.rings.iter_mut().filter(|ring| ring.slots == 0) {
            ring.slots = choices.slots();
            ring.layout.get_or_insert_default();
        }
    }
    Ok(external)
}

/// The rings that are handed over to it.
#[must_use]
pub fn rings_of(external: &External) -> Vec<Ring> {
    external.rings.iter().map(|handed| handed.ring).collect()
}
