//! The command `mem-event`.

use clap::Parser;
use harness::cli::arguments::{Cli, Command};
use harness::cli::{command, new};
use harness::machine::doctor;
use harness::refusal::Refusal;
use harness::run::status;
use harness::trace::replay;
use harness::{step, suite, trace};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        Command::Doctor { json } => doctor::doctor(*json),
        Command::List => command::list(),
        Command::Run(arguments) => command::run(arguments),
        Command::Attach(arguments) => command::attach(arguments),
        Command::Status(arguments) => status::status(arguments),
        Command::Diff(arguments) => trace::compare::compare(arguments),
        Command::Export(arguments) => trace::export::export(arguments),
        Command::Minimise(arguments) => trace::minimise::minimise(arguments),
        Command::Consumer { consumer, socket } => command::consumer(consumer, socket.as_deref()),
        Command::Show(arguments) => trace::show::show(arguments),
        Command::Test(arguments) => suite::command::test(arguments, cli.color),
        Command::New(arguments) => new::new(arguments),
        Command::Step(arguments) => step::step(arguments, cli.color),
        Command::Replay { trace: file, sequence, .. } => replay::replay(file, *sequence),
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
