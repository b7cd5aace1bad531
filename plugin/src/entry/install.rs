//! Beginning and end: installation, the first vCPU, QEMU's exit.

use crate::arguments::{self, Arguments, Gate};
use crate::engine::hypervisor::Hypervisor;
use crate::engine::{stepped, turn};
use crate::fatal;
use crate::host::witness::{self, Course};
use crate::host::{changed_code, instrumentation};
use crate::memory::command_line::CommandLine;
use crate::memory::{machine, unsupported, userfault};
use crate::qemu::source::{self, Falsify, Source};
use crate::qemu::{self, capabilities, current, declared, internals, leaving, outside, passing, view};
use crate::service::thread;
use crate::trap::{delivery, proof, translate, verify};
use mem_event::VcpuId;
use mem_event::message::Notice;
use mem_event_server::Listener;
use std::ffi::OsString;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What installation leaves for the first vCPU: by then guest memory exists.
struct Prepared {
    arguments: Arguments,
    vcpus: u32,
    listener: Mutex<Option<Listener>>,
}

/// What QEMU says of itself at installation.
#[derive(Debug)]
pub struct Facts {
    /// Whether a whole machine is emulated.
    pub system: bool,
    /// The emulated architecture.
    pub target: String,
    /// The most vCPUs there can be.
    pub vcpus: u32,
}

static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// What `mem-event doctor` asks; a plugin that only answers is not loaded.
fn probed(word: &OsString) -> Option<String> {
    match word.to_str()?.strip_prefix("probe=")? {
        "all" => {
            let lacks = |row: &str, found: Result<(), String>| format!("\n{row}\t{}", found.err().unwrap_or_default());
            let kernel = lacks("userfaultfd", userfault::right()) + &lacks("gate-mmu", userfault::probe());
            let rows = capabilities::ALL.iter().map(|row| format!("\ncapability\t{row}"));
            Some(format!("speaks version {} of the plugin API{kernel}{}", declared::spoken(), rows.collect::<String>()))
        }
        _ => None,
    }
}

/// Takes the arguments, makes the socket, registers callbacks.
///
/// # Errors
/// A sentence; QEMU then refuses to start.
pub fn install(facts: &Facts, words: &[OsString]) -> Result<(), String> {
    if !facts.system || facts.target != "x86_64" {
        return Err(format!("this plugin plays the hypervisor of an x86_64 machine, not of {}", facts.target));
    }
    if let [word] = words
        && let Some(answer) = probed(word)
    {
        return Err(answer);
    }
    unsupported::refuse(&CommandLine::of_this_process())?;
    let mut arguments = Arguments::parse(words)?;
    source::choose(arguments.registers, arguments.falsify);
    if arguments.gate == Gate::Auto {
        let means = || userfault::probe().and_then(|()| capabilities::of_the_mmu());
        let (gate, why) = arguments::choose_gate(arguments.registers, means);
        eprintln!("mem-event: gate=auto takes gate={}: {why}", gate.name());
        arguments.gives_way = gate == Gate::Mmu;
        arguments.gate = gate;
    }
    if arguments.registers == Source::Api && arguments.gate != Gate::None {
        eprintln!("mem-event: {}", proof::BY_API);
    }
    leaving::install(arguments.signal)?;
    internals::call_at_reset(machine_is_reset);
    internals::call_at_start(machine_goes_on);
    passing::ask(translate::wants, translate::copies);
    qemu::delivery::listen(delivery::before);
    let listener = Listener::bind(&arguments.socket)?;
    fatal::owns_socket(arguments.socket.clone());
    let always_looks = arguments.checkpoints || !arguments.breakpoints.is_empty();
    let verify = if arguments.verify { instrumentation::VERIFY } else { 0 };
    let possible = match arguments.gate {
        Gate::None => 0,
        Gate::Callback => instrumentation::ACCESS | instrumentation::EVENTS | instrumentation::EXECUTE,
        _ => instrumentation::NOTE | instrumentation::EVENTS | instrumentation::EXECUTE,
    };
    let course = match arguments.falsify {
        Falsify::Notes => Course::Trusts,
        Falsify::Enough => Course::Goes,
        _ => Course::Proves,
    };
    let always = if arguments.gate == Gate::None { 0 } else { verify };
    let prepared = Prepared { arguments, vcpus: facts.vcpus, listener: Mutex::new(Some(listener)) };
    PREPARED.set(prepared).map_err(|_| "the plugin is loaded twice")?;
    if PREPARED.get().is_some_and(|prepared| prepared.arguments.gate == Gate::Mmu) {
        witness::begin(course);
    }
    instrumentation::begin(always, possible, always_looks);
    Ok(())
}

/// The machine is reset, or gets a state that was saved.
fn machine_is_reset() {
    if let Some(hypervisor) = Hypervisor::get() {
        hypervisor.is_reset();
    }
    machine_goes_on();
}

/// The machine begins, or goes on: of vCPUs that have threads of their own QEMU tells that too ([`vcpu_is_busy`]), of others it does not.
fn machine_goes_on() {
    if let Some(hypervisor) = Hypervisor::get().filter(|_| current::runs_all()) {
        let started = hypervisor.host.vcpus.iter().filter(|vcpu| vcpu.has_started());
        started.for_each(|vcpu| hypervisor.goes_on(vcpu.id));
    }
}

/// A vCPU's thread begins. The first one finds guest memory and starts the domain.
pub fn vcpu_started(index: u32) {
    current::begins(index);
    leaving::begin(index);
    let Some(prepared) = PREPARED.get() else { return };
    if let Err(lack) = passing::tells_apart(index) {
        let sentence = format!(
            "one thread runs all vCPUs (thread=single, or -icount), and {lack}; take thread=multi, or one vCPU"
        );
        fatal::end_run(Hypervisor::get().map(|hypervisor| &hypervisor.host), &sentence);
    }
    let listener = prepared.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(listener) = listener {
        let started = machine::find_memory()
            .and_then(|memory| Hypervisor::start(&prepared.arguments, prepared.vcpus, memory))
            .and_then(|hypervisor| thread::start(hypervisor, listener));
        if let Err(sentence) = started {
            fatal::end_run(None, &sentence);
        }
    }
    if let Some(vcpu) = Hypervisor::get().and_then(|hypervisor| hypervisor.host.vcpu(index)) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        vcpu.thread.store(thread, std::sync::atomic::Ordering::Release);
        vcpu.waiting.set_busy(true);
    }
    if let Some(hypervisor) = Hypervisor::get() {
        hypervisor.goes_on(VcpuId(index));
        stepped::has_its_blocks(VcpuId(index));
    }
}

/// A vCPU was unplugged, and its thread is over. Another one may come in its place.
pub fn vcpu_ended(index: u32) {
    view::forget(index);
    outside::forget(index);
    if let Some(hypervisor) = Hypervisor::get() {
        hypervisor.vcpu_ended(index);
    }
}

/// A vCPU halts, or goes on.
pub fn vcpu_is_busy(index: u32, busy: bool) {
    if let Some(vcpu) = Hypervisor::get().and_then(|hypervisor| hypervisor.host.vcpu(index)) {
        vcpu.waiting.set_busy(busy);
    }
    if let Some(hypervisor) = Hypervisor::get().filter(|_| busy) {
        hypervisor.goes_on(VcpuId(index));
    }
}

/// QEMU ends.
pub fn ended() {
    match translate::unchecked() {
        0 => {}
        blocks => eprintln!(
            "mem-event: {blocks} translated blocks were not checked: the API does not show that they are 64-bit code"
        ),
    }
    match changed_code::changes() {
        0 => {}
        changes => eprintln!(
            "mem-event: code: consumers changed bytes {changes} times; {} blocks were translated while there was something to check",
            translate::translations()
        ),
    }
    for (name, count) in translate::unforeseen() {
        eprintln!(
            "mem-event: {count} translated {name} instructions touch memory that was not checked (vector indices)"
        );
    }
    if PREPARED.get().is_some_and(|prepared| prepared.arguments.verify) {
        eprint!("mem-event: {}", verify::report());
    }
    match leaving::all_times() {
        0 => {}
        times => eprintln!("mem-event: vCPUs left their blocks {times} times to leave the kernel"),
    }
    if let Some(report) = turn::told() {
        eprintln!("mem-event: {report}");
    }
    for report in passing::reports() {
        eprintln!("mem-event: {report}");
    }
    if let Some(report) = witness::report() {
        eprintln!("mem-event: {report}");
    }
    if let Some(hypervisor) = Hypervisor::get() {
        hypervisor.end();
        hypervisor.host.subscribers.notify(&Notice::Ended);
    }
    fatal::remove_socket();
}
