//! `minimise`: the shortest sequence of inputs that still shows a trace's difference, or an invariant that breaks.
//!
//! | file | what lives there |
//! |---|---|
//! | [`search`] | the shortest sequence |
//! | [`rust_test`] | the sequence as a test |

pub mod rust_test;
pub mod search;

use self::rust_test::as_test;
use self::search::of_failure;
use super::{not_a_trace, seekable};
use crate::output::print;
use crate::refusal::Refusal;
use clap::Args;
use mem_event::domain::Domain;
use mem_event::trace::{End, Reader, Tape, replay};
use std::io::{BufReader, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// `minimise`
#[derive(Clone, Debug, Args)]
pub struct Minimise {
    /// The trace.
    pub trace: PathBuf,
    /// Where the shortest recording goes that the consumer still fails.
    #[arg(long, value_name = "FILE", requires = "consumer")]
    pub output: Option<PathBuf>,
}

/// `minimise`; 0 with a sequence, 5 where the trace shows nothing.
///
/// # Errors
/// No trace, a damaged one, an output that cannot be written.
pub fn minimise(arguments: &Minimise) -> anyhow::Result<u8> {
    let mut file = seekable(&arguments.trace)?;
    let refused = |end: End| not_a_trace(&arguments.trace, &end);
    // Each seeks before it reads.
    let mut tape = Tape::new(BufReader::new(file.try_clone()?)).map_err(refused)?;
    file.rewind()?;
    let reader = Reader::new(BufReader::new(file)).map_err(refused)?;
    let config = tape.header().config.clone();
    let fresh = || Domain::new(config.clone());
    let mut engine = fresh().map_err(|why| Refusal::usage(why, "name a trace of a run"))?;
    let hook = std::panic::take_hook();
    // What the engine says of its assertions would be said at every attempt.
    std::panic::set_hook(Box::new(|_| ()));
    let failed = catch_unwind(AssertUnwindSafe(|| replay(reader, &mut engine, |_, _| ()).err()));
    let minimal = match failed {
        Ok(failure) => of_failure(&mut tape, failure.as_ref(), &fresh),
        Err(_) => of_failure(&mut tape, None, &fresh),
    };
    std::panic::set_hook(hook);
    match minimal? {
        None => {
            print("the trace replays without a difference, and every invariant holds after each step\n")?;
            Ok(5)
        }
        Some(minimal) => {
            print(&as_test(tape.header(), &minimal))?;
            Ok(0)
        }
    }
}
