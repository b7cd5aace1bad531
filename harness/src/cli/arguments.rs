//! The command line as the user writes it.

use super::save::Save;
use crate::flow::command::FlowOptions;
use crate::machine::qemu::Gate;
use crate::output::Color;
use crate::pages::command::PagesOptions;
use crate::run::status::Status;
use crate::scenario::Contents;
use crate::scenario::looking::{BreakBy, Pointer};
use crate::scenario::settings::{BuiltIn, PagerSettings};
use crate::simulate::command::Simulate;
use crate::step::StepOptions;
use crate::trace::compare::Diff;
use crate::trace::explain::command::Explain;
use crate::trace::export::Export;
use crate::trace::minimise::Minimise;
use crate::trace::show::Show;
use crate::trial::command::{Manner, UnderTest};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mem_event::spin::Spin;
use std::ffi::OsString;
use std::path::PathBuf;
use xen::version::Version;

/// Xen's mem_event under plain QEMU: boot a guest, watch and page its memory, keep the sequence, replay it.
#[derive(Debug, Parser)]
#[command(
    name = "mem-event",
    version,
    after_help = "Exit codes: 0 success, 2 usage, 3 skip (cannot run here), 4 error, 5 failure, 6 crash."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When differences and `step` are coloured; `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "WHEN", hide_possible_values = true)]
    pub color: Color,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check what this machine has and lacks.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The QEMU to look at, and what the plugin can do in it; by default qemu-system-x86_64 in PATH.
        #[arg(long, value_name = "PATH")]
        qemu: Option<PathBuf>,
    },
    /// List the built-in guests and scenarios.
    List,
    /// Boot a guest with its consumers.
    Run(Box<Run>),
    /// Boot a guest up to some point and save its machine, for runs and scenarios to start from.
    Save(Box<Save>),
    /// Join a plugin in a QEMU that is running; SIGINT leaves it again.
    Attach(Box<Attach>),
    /// Tell which pages a guest touches, how, when and by which function: a table, and a heat map of frames and time.
    Pages(Pages),
    /// Say who waits for what in a QEMU that is running, and free it of what a dead consumer has left behind.
    Status(Status),
    /// Be a consumer: for `run --consumer`, or beside a plugin that runs.
    Consumer {
        /// Which.
        #[command(subcommand)]
        consumer: BuiltIn,
        /// The plugin's socket, where no ring was handed over.
        #[arg(long, value_name = "SOCKET", global = true)]
        socket: Option<PathBuf>,
    },
    /// Show the steps of a trace as a table.
    Show(Show),
    /// Say what is wrong with whom in a trace, with the steps that show it.
    Explain(Explain),
    /// Compare two traces by what they mean.
    Diff(Diff),
    /// A trace for other programs, or as a page to read.
    Export(Export),
    /// A scenario, or a recorded run's events, under each of the four flow controls, side by side.
    Flow(FlowOptions),
    /// The shortest sequence of inputs that still shows a trace's difference, as a test; or the shortest recording that a consumer still fails.
    Minimise {
        /// Which.
        #[command(flatten)]
        minimise: Minimise,
        /// By whom: without it the engine's own difference is shown.
        #[command(flatten)]
        under_test: UnderTest,
    },
    /// Run scenarios against their snapshots.
    Test(crate::suite::command::Test),
    /// Begin a scenario with a guest of its own, and perhaps a consumer of your own, in a new folder.
    New(New),
    /// Start a tool of Xen's, as Debian packages it, against plugins in QEMUs that are running.
    Xen(Xen),
    /// Be the xenstore of some domains; `xen` starts it.
    #[command(hide = true)]
    Xenstore(Xenstore),
    /// Rings' flow control in virtual time: many vCPUs, slots and consumers, by this engine's policy and three that Xen had or was offered.
    Simulate(Box<Simulate>),
    /// Write what a package has for shells and for readers.
    #[command(hide = true)]
    Package(Package),
    /// Walk through a trace in the terminal, with the engine as it was after each step.
    Step(StepOptions),
    /// Replay a trace through a fresh engine and compare every effect; or serve its requests to a consumer and compare what that does.
    Replay {
        /// The trace; `-` for the standard input.
        trace: PathBuf,
        /// Compare every outcome, effect and state; it does so in any case.
        #[arg(long)]
        verify: bool,
        /// Print each request and answer with the number of its step.
        #[arg(long, conflicts_with = "consumer")]
        sequence: bool,
        /// The symbols of the Linux that the guest ran, as of `show`.
        #[arg(long, value_name = "FILE", conflicts_with = "consumer")]
        symbols: Option<PathBuf>,
        /// Let gdb stop at the trace's events, forwards and back, by its remote protocol; at 127.0.0.1:1234 without a value.
        #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:1234",
            conflicts_with_all = ["consumer", "sequence", "verify", "symbols"])]
        gdb: Option<String>,
        /// By whom: without it the engine alone is compared.
        #[command(flatten)]
        under_test: UnderTest,
        /// How.
        #[command(flatten)]
        manner: Manner,
    },
}

/// What the consumers do.
#[derive(Debug, Default, Args)]
pub struct ConsumerOptions {
    /// Frames to watch, and the accesses that stop: r, w, x or several (or Xen's rx2rw, n2rwx). A range is frames (0x100..0x110), addresses
    /// (gpa:0x1000-0x1fff), a symbol of the guest (NAME, NAME+0x1000) or ram, all of its memory. After its event a page gets all rights.
    #[arg(long, value_name = "RANGE=r|w|x")]
    pub watch: Vec<String>,
    /// The symbols of the Linux that the guest runs: its vmlinux, bzImage, System.map or output of /proc/kallsyms, or `guest` for the table
    /// that the guest holds itself. `run` takes those of the image that it boots. RANGE may then be kernel:NAME (or gla:0xffffffff81000000).
    #[arg(long, value_name = "FILE|guest", help_heading = "Looking into the guest")]
    pub symbols: Option<String>,
    /// Tell each time that the guest's program comes here: kernel:NAME, a symbol of the guest, gla:ADDRESS or gpa:ADDRESS.
    #[arg(long = "break", value_name = "PLACE", help_heading = "Looking into the guest")]
    pub breaks: Vec<String>,
    /// By what the guest's program breaks: an instruction put there (INT3), or its frame, where each instruction is then an event.
    #[arg(long, value_enum, default_value_t, requires = "breaks", help_heading = "Looking into the guest")]
    pub break_by: BreakBy,
    /// Tell the text that a register points to at each break; with =TEXT only the breaks at which it holds that.
    #[arg(long, value_name = "REGISTER[=TEXT]", requires = "breaks", help_heading = "Looking into the guest")]
    pub string: Vec<Pointer>,
    /// Tell with each event which process of the guest's Linux runs.
    #[arg(long, help_heading = "Looking into the guest")]
    pub process: bool,
    /// End when so many breaks were told.
    #[arg(long, value_name = "N", requires = "breaks", value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Looking into the guest")]
    pub count: Option<u64>,
    /// Tell the next N instructions of each vCPU one by one; `attach` leaves then.
    #[arg(long, value_name = "N", conflicts_with = "breaks", help_heading = "Looking into the guest")]
    pub step: Option<u64>,
    /// CPU events to tell: cr0, cr3, cr4, msr or msr:NUMBER, int3, debug, interrupt, single-step, cpuid, descriptor, guest-request, io, xcr0.
    #[arg(long, value_name = "EVENT,…", value_delimiter = ',', help_heading = "Looking into the guest")]
    pub monitor: Vec<String>,
    /// Frames to page out before the guest starts.
    #[arg(long, value_name = "RANGE", conflicts_with = "paging_target")]
    pub page_out: Vec<String>,
    /// Hold the guest to this much memory.
    #[arg(long, value_name = "SIZE")]
    pub paging_target: Option<String>,
    #[command(flatten, next_help_heading = "Pager")]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub pager: PagerSettings,
    /// How long it may take (500ms, 60s, 5m).
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// How long consumers, and with `run` stopped vCPUs too, poll before they sleep: auto, off or microseconds.
    #[arg(long, value_name = "TIME", default_value_t)]
    pub spin: Spin,
    /// Events and summary as lines of JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the whole sequence at the end, without clocks.
    #[arg(long)]
    pub sequence: bool,
}

/// `run`
#[derive(Debug, Default, Args)]
pub struct Run {
    /// A built-in guest, an ELF file with a PVH entry, or `linux`. A built-in guest without --watch, --page-out,
    /// --paging-target or --xen-tool runs its scenario.
    pub guest: String,
    /// Start from a machine that `mem-event save` saved, and not from its boot.
    #[arg(long, value_name = "saved:NAME")]
    pub from: Option<String>,
    /// Number of vCPUs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub vcpus: Option<u32>,
    /// The guest's memory (512M, 2G).
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub consumers: ConsumerOptions,
    /// Start a consumer of your own, with rings (access, paging, sharing; a layout flags16, flags32 or vm_event7 and a number
    /// of slots may follow) that are enabled and handed over: docs/protocol.md. Such a ring is not served by this program.
    #[arg(long, value_name = "[RING[:LAYOUT[:SLOTS]],…=]CMD")]
    pub consumer: Vec<String>,
    /// What stops accesses: a check before every memory instruction, the host's MMU, or (`auto`) the latter where kernel and
    /// consumers allow; the summary says which and why.
    #[arg(long, value_enum, default_value_t)]
    pub gate: Gate,
    /// Faults into the consumers' world, drawn from this number: docs/faults.md.
    #[arg(long, value_name = "SEED")]
    pub chaos: Option<u64>,
    /// A tool of Xen's as a consumer, as behind `mem-event xen --`: "xen-access 1 write"; may be given several times.
    #[arg(long, value_name = "CMD")]
    pub xen_tool: Vec<String>,
    /// A further argument for the plugin, as in `registers=api`; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub plugin: Vec<String>,
    /// Keep the record of the run as a trace.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Whether frames must come back with the contents that they were evicted with (`check`), or the pager changes them on purpose (`own`);
    /// by default as the scenario says.
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub contents: Option<Contents>,
    /// How large the record may grow; it ends there, and the run goes on. 1 GiB by default.
    #[arg(long, value_name = "SIZE")]
    pub trace_limit: Option<String>,
    /// Record what consumers read of frames too, and not digests alone.
    #[arg(long)]
    pub record_reads: bool,
    /// The QEMU to use; by default qemu-system-x86_64 in PATH.
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// Let a debugger in by QEMU's own stub: tcp:127.0.0.1:1234 without a value, else an address as QEMU's -gdb takes it.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "tcp:127.0.0.1:1234")]
    pub gdb: Option<OsString>,
    /// Print what the guest writes on its serial port, at the end.
    #[arg(long)]
    pub console: bool,
    /// Tell which pages the guest touches, from its entry on: see `mem-event pages`.
    #[arg(long, conflicts_with = "watch", help_heading = "Which pages are touched")]
    pub pages: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub touched: PagesOptions,
    /// Further arguments for QEMU.
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub extra: Vec<OsString>,
}

/// `new`
#[derive(Debug, Args)]
pub struct New {
    /// The folder, whose last part is the name: small letters, digits, underscores.
    pub folder: PathBuf,
    /// With a pager that the scenario tests: a worked example, to be changed.
    #[arg(long, group = "consumer")]
    pub pager: bool,
    /// The same with an access listener.
    #[arg(long, group = "consumer")]
    pub listener: bool,
    /// What the consumer is written in.
    #[arg(long, value_enum, default_value_t, requires = "consumer")]
    pub language: Language,
}

/// What a consumer is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// C, with Xen's public headers.
    C,
    /// Rust, with the sources of the crates mem-event and mem-event-client.
    Rust,
    /// Python, with its standard library alone.
    #[default]
    Python,
}

/// `xen`
#[derive(Debug, Args)]
pub struct Xen {
    /// A domain of the tool's: its number, from 1 on, the plugin's socket (its argument socket=PATH), and a name.
    #[arg(long = "domain", value_name = "N=SOCKET[,NAME]", required = true)]
    pub domains: Vec<String>,
    /// Make answers on the paging ring whole that have another version, as xenpaging's have.
    #[arg(long)]
    pub repair_xenpaging: bool,
    /// The release of Xen that the tool finds, 4.17 to 4.20; that of the tool, where its folder names it, else 4.17.
    #[arg(long = "xen", value_name = "VERSION")]
    pub version: Option<Version>,
    /// The tool, found in PATH or where Debian keeps Xen's, /usr/lib/xen-*/bin; and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// `package`
#[derive(Debug, Args)]
pub struct Package {
    /// The prefix that is made: `share/man/man1`, and the completions where each shell looks for them.
    pub prefix: PathBuf,
}

/// `xenstore`
#[derive(Debug, Args)]
pub struct Xenstore {
    /// Where the store is.
    pub socket: PathBuf,
    /// Its domains, as for `xen`.
    #[arg(long = "domain", value_name = "N=SOCKET[,NAME]")]
    pub domains: Vec<String>,
    /// The socket is there already, as the standard input.
    #[arg(long)]
    pub listening: bool,
}

/// `attach`
#[derive(Debug, Default, Args)]
pub struct Attach {
    /// The plugin's socket (its argument socket=PATH).
    pub socket: PathBuf,
    /// The guest's ELF, for symbols.
    #[arg(long, value_name = "ELF")]
    pub guest: Option<PathBuf>,
    /// Record from here on, until the machine is left, as a trace.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Do what this scenario does at its start, with its consumers; its guest and its machine are those that are there.
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Start a consumer of your own, as of `run`; it is ended when the machine is left.
    #[arg(long, value_name = "[RING[:LAYOUT[:SLOTS]],…=]CMD", conflicts_with = "pages")]
    pub consumer: Vec<String>,
    /// Tell which pages the guest touches while this is attached: see `mem-event pages`.
    #[arg(long, conflicts_with_all = ["watch", "scenario"], help_heading = "Which pages are touched")]
    pub pages: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub touched: PagesOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub consumers: ConsumerOptions,
}

/// `pages`
#[derive(Debug, Args)]
pub struct Pages {
    /// A built-in guest, an image or `linux`, which is run; or the plugin's socket in a QEMU that is running.
    #[arg(value_name = "GUEST|SOCKET")]
    pub subject: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub touched: PagesOptions,
    /// The symbols of the Linux that the guest runs, as of `run`; `linux` tells its own.
    #[arg(long, value_name = "FILE|guest")]
    pub symbols: Option<String>,
    /// How long it may take (500ms, 60s, 5m). A machine that is attached to is left then, or by Ctrl-C.
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// Number of vCPUs of a guest that is run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub vcpus: Option<u32>,
    /// The memory of a guest that is run (512M, 2G).
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// The ELF of a guest that is attached to, for symbols.
    #[arg(long, value_name = "ELF")]
    pub guest: Option<PathBuf>,
    /// Keep the record as a trace.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Pages and summary as lines of JSON.
    #[arg(long)]
    pub json: bool,
}
