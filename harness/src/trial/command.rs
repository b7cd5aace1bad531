//! `replay --consumer` on the command line.

use super::script::{self, Script};
use super::{Options, Tried, rings_of};
use crate::output::print;
use crate::refusal::Refusal;
use crate::scenario::amount::time;
use crate::scenario::external::{External, HandedRing};
use crate::trace::{REMEDY, not_a_trace, open};
use anyhow::Context;
use clap::Args;
use mem_event::trace::{Player, PlayerError, Tape};
use mem_event::{Control, Input, Ring};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

/// A consumer under test, and how it is tried.
#[derive(Clone, Debug, Args)]
pub struct UnderTest {
    /// The consumer under test: the recorded requests go to this command, written as for `run`.
    #[arg(long, value_name = "[RINGS=]CMD")]
    pub consumer: Option<String>,
    /// How long an answer may take before it counts as lost.
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "consumer")]
    pub patience: String,
    /// The guest's ELF, handed over for symbols as `run` does it.
    #[arg(long, value_name = "ELF", requires = "consumer")]
    pub guest: Option<PathBuf>,
}

/// How often and how fast a recording is done again.
#[derive(Clone, Debug, Args)]
pub struct Manner {
    /// Write what happened as a new trace.
    #[arg(long, value_name = "FILE", requires = "consumer")]
    pub accept: Option<PathBuf>,
    /// In so many times the recorded speed; without it as fast as the consumer answers.
    #[arg(long, value_name = "FACTOR", requires = "consumer")]
    pub speed: Option<f64>,
    /// So many times, or until it fails.
    #[arg(long, value_name = "TIMES", default_value_t = 1, requires = "consumer")]
    pub repeat: u64,
    /// Delays requests, puts those of different vCPUs into another order, and leaves rings few slots, as this seed has it.
    #[arg(long, value_name = "SEED", requires = "consumer", conflicts_with = "accept")]
    pub chaos: Option<u64>,
}

impl UnderTest {
    /// The options of a trial; none without a consumer.
    ///
    /// # Errors
    /// An option is none.
    pub fn options(&self) -> Result<Option<Options>, Refusal> {
        let Some(text) = &self.consumer else { return Ok(None) };
        let consumer = External::parse(text)?;
        let patience = time(&self.patience)?;
        let guest = self.guest.as_deref().map(std::path::absolute).transpose();
        let guest =
            guest.map_err(|error| Refusal::usage(format!("the guest's path is none: {error}"), "name a file"))?;
        Ok(Some(Options { consumer: Some(consumer), patience, guest, ..Options::default() }))
    }
}

/// Reads the recording for the consumer of these options, which may name no rings: then they are the only one that was recorded.
///
/// # Errors
/// No trace, a damaged one, or one that does not fit the consumer.
pub fn script(path: &Path, options: &mut Options) -> anyhow::Result<Script> {
    let mut tape = open(path)?;
    let external = options.consumer.as_mut().context("no consumer is named")?;
    let recorded = enabled(&mut tape)?;
    let find = |ring: Ring| recorded.iter().find(|handed| handed.ring == ring);
    if let Some(ring) = rings_of(external).into_iter().find(|ring| find(*ring).is_none()) {
        let names: Vec<String> = recorded.iter().map(|handed| handed.ring.to_string()).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(" and ") };
        let what = format!("{} holds no {ring} ring; its rings: {names}", path.display());
        return Err(Refusal::usage(what, "name a recording of a run with such a ring").into());
    }
    let rings = match (rings_of(external), recorded.as_slice()) {
        (rings, _) if !rings.is_empty() => rings,
        (_, [handed]) => vec![handed.ring],
        _ => {
            let what = format!("{} holds several rings, and the consumer is given none", path.display());
            return Err(Refusal::usage(what, "name those of the consumer: --consumer access=CMD").into());
        }
    };
    // As they were recorded, where nothing else is said.
    for handed in external.rings.iter_mut().filter(|handed| handed.layout.is_none()) {
        *handed = find(handed.ring).copied().unwrap_or(*handed);
    }
    options.rings.clone_from(&rings);
    read(tape, path, &rings)
}

/// As [`script()`], for these rings.
///
/// # Errors
/// The trace does not replay.
pub fn read<R: Read + Seek>(tape: Tape<R>, path: &Path, rings: &[Ring]) -> anyhow::Result<Script> {
    let end = tape.end().clone();
    if !end.is_whole() {
        eprintln!("mem-event: {}: {end}; what is before that is replayed", path.display());
    }
    let refused = |error: PlayerError| match error {
        PlayerError::End(end) => not_a_trace(path, &end),
        other => Refusal::usage(format!("{}: {other}", path.display()), REMEDY),
    };
    let player = Player::new(tape).map_err(refused)?;
    Ok(script::read(player, rings).map_err(refused)?)
}

/// The rings that were enabled, each as it was first.
fn enabled<R: Read + Seek>(tape: &mut Tape<R>) -> anyhow::Result<Vec<HandedRing>> {
    let mut rings: Vec<HandedRing> = Vec::new();
    for number in 1..=tape.len() {
        if let Input::Control(Control::Enable { ring, layout, slots }) = tape.step(number)?.input
            && rings.iter().all(|other| other.ring != ring)
        {
            rings.push(HandedRing { ring, layout: Some(layout), slots });
        }
    }
    Ok(rings)
}

/// `replay --consumer`; 0 where the consumer is right, 5 where it is not.
///
/// # Errors
/// No trace, a damaged one, a consumer that cannot be started.
pub fn replay(path: &Path, under_test: &UnderTest, manner: &Manner) -> anyhow::Result<u8> {
    let Some(mut options) = under_test.options()? else { return Ok(2) };
    if manner.speed.is_some_and(|speed| !speed.is_finite() || speed <= 0.0) {
        return Err(
            Refusal::usage("a speed that is none", "give a number above 0: --speed 1 is the recorded speed").into()
        );
    }
    (options.speed, options.chaos) = (manner.speed, manner.chaos);
    let script = script(path, &mut options)?;
    for time in 1..=manner.repeat.max(1) {
        let tried = super::run(&script, &options, manner.accept.as_deref())?;
        let accepted = manner.accept.is_some() && tried.fault.is_none();
        if time == manner.repeat.max(1) || !tried.is_right() {
            print(&report(&script, &tried, (time, manner)))?;
        }
        if !tried.is_right() {
            return Ok(if accepted { 0 } else { 5 });
        }
    }
    Ok(0)
}

/// What came of it, in lines for people.
#[must_use]
pub fn report(script: &Script, tried: &Tried, (time, manner): (u64, &Manner)) -> String {
    let header = &script.header;
    let due = script.exchanges.all.iter().filter(|exchange| exchange.answer.is_some()).count();
    let mut text = format!("guest {}, {} vCPUs; {} steps", header.guest, header.config.vcpus, tried.steps);
    text += &format!(", {} answers where {due} were recorded\n", tried.answers);
    tried.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    if let Some(seed) = manner.chaos {
        text += &format!("note: answers are not compared, as seed {seed} changes the order of requests\n");
    }
    if let Some((_, sentence)) = &tried.fault {
        text += &format!("the last steps:\n{}\nfailure: {sentence}\n", tried.before);
    }
    // What came before a fault may have led to it; what came with it says less than the fault does.
    let at = tried.fault.as_ref().map_or(u64::MAX, |_| tried.steps);
    if let Some(difference) = tried.difference.as_ref().filter(|difference| difference.step < at) {
        text += &format!("{difference}");
        if tried.differences > 1 {
            text += &format!("{} differences in all; this is the first\n", tried.differences);
        }
    }
    if !tried.is_right() && manner.repeat > 1 {
        text += &format!("it failed the {time}. of {} times\n", manner.repeat);
    }
    match &manner.accept {
        Some(path) if tried.fault.is_none() => text += &format!("written: {}\n", path.display()),
        _ if tried.is_right() => text += "no difference\n",
        _ => {}
    }
    text
}
