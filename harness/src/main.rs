//! The command `mem-event`.

use clap::Parser;
use harness::cli::arguments::{Cli, Command};
use harness::cli::{command, new, package, pages, save, xen, xenstore};
use harness::machine::doctor;
use harness::refusal::Refusal;
use harness::run::status;
use harness::trace::replay;
use harness::{flow, simulate, step, suite, trace, trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        Command::Doctor { json, qemu } => doctor::doctor(*json, qemu.as_deref()),
        Command::List => command::list(),
        Command::Run(arguments) => command::run(arguments),
        Command::Save(arguments) => save::save(arguments),
        Command::Attach(arguments) => command::attach(arguments),
        Command::Pages(arguments) => pages::pages(arguments),
        Command::Status(arguments) => status::status(arguments),
        Command::Diff(arguments) => trace::compare::compare(arguments),
        Command::Explain(arguments) => trace::explain::command::explain(arguments),
        Command::Flow(arguments) => flow::command::flow(arguments),
        Command::Export(arguments) => trace::export::export(arguments),
        Command::Minimise { minimise, under_test } if under_test.consumer.is_some() => {
            trial::minimise::minimise(&minimise.trace, under_test, minimise.output.as_deref())
        }
        Command::Minimise { minimise, .. } => trace::minimise::minimise(minimise),
        Command::Consumer { consumer, socket } => command::consumer(consumer, socket.as_deref()),
        Command::Show(arguments) => trace::show::show(arguments),
        Command::Test(arguments) => suite::command::test(arguments, cli.color),
        Command::New(arguments) => new::new(arguments),
        Command::Package(arguments) => package::package(arguments),
        Command::Xen(arguments) => xen::xen(arguments),
        Command::Xenstore(arguments) => xenstore::xenstore(arguments),
        Command::Simulate(arguments) => simulate::command::simulate(arguments),
        Command::Step(arguments) => step::step(arguments, cli.color),
        Command::Replay { trace: file, under_test, manner, .. } if under_test.consumer.is_some() => {
            trial::command::replay(file, under_test, manner)
        }
        Command::Replay { trace: file, gdb: Some(address), .. } => trace::gdb::serve(file, address),
        Command::Replay { trace: file, sequence, symbols, .. } => replay::replay(file, *sequence, symbols.as_deref()),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => match Refusal::of(&error) {
            Some(refusal) => {
                match &refusal.shown {
                    Some(shown) => eprintln!("{shown}"),
                    None => eprintln!("mem-event: {}\n  remedy: {}", refusal.what, refusal.remedy),
                }
                ExitCode::from(refusal.exit_code())
            }
            None => {
                eprintln!("mem-event: {error:#}");
                ExitCode::from(4)
            }
        },
    }
}
