//! A small fuzzer that runs on stable, for tests: bytes that somebody else chooses, at each place where such bytes are read.
//!
//! Inputs are mutated from a corpus; an input whose result has a new *shape* (the result's text without its digits) joins the
//! corpus. That stands for coverage, which needs a compiler of its own: an error of another wording, a reply of another kind, a
//! sequence of other outcomes is another path through the code under test.
//!
//! A target is a function from bytes to what was understood, as text. It fails by a panic, and by taking longer than
//! [`LONGEST`] for one input; either ends the test with the input in hexadecimal. A plain run does a fixed number of rounds from a
//! fixed seed.
//!
//! - `MEM_EVENT_FUZZ_SECONDS=900` runs each target so long, from a seed of the clock (or `MEM_EVENT_FUZZ_SEED`).
//! - `MEM_EVENT_FUZZ_INPUT=<hex>` runs the named input only; a failure prints it.
//!
//! | file | what lives there |
//! |---|---|
//! | [`mutate`] | how an input is made from others |
//! | [`watchdog`] | what becomes of an input that hangs |

pub mod mutate;
pub mod random;
pub mod watchdog;

pub use random::Random;

use mutate::Mutator;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime};
use watchdog::Watchdog;

/// An input that takes longer hangs.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Inputs that are kept to be mutated.
const CORPUS: usize = 20_000;

/// What is fuzzed, and with what.
#[derive(Debug)]
pub struct Target {
    /// Its name, for what is printed.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something to the target and are put in now and then.
    pub words: Vec<Vec<u8>>,
    /// Bytes in the longest input.
    pub longest: usize,
    /// Inputs of a plain run.
    pub rounds: u64,
}

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Inputs.
    pub inputs: u64,
    /// Shapes of results.
    pub shapes: usize,
}

/// How long, and from which seed.
struct Plan {
    seconds: Option<u64>,
    seed: u64,
}

impl Target {
    /// A target whose inputs are at most 8 KiB long.
    #[must_use]
    pub fn new(name: &'static str, seeds: Vec<Vec<u8>>, rounds: u64) -> Target {
        Target { name, seeds, words: Vec::new(), longest: 1 << 13, rounds }
    }

    /// Runs the target on the seeds and on mutations of them. The target returns what it understood, as text.
    ///
    /// # Panics
    /// The target did, or a variable of the environment is no number.
    pub fn run(self, mut look: impl FnMut(&[u8]) -> String) -> Ran {
        let Target { name, seeds, words, longest, rounds } = self;
        if let Some(input) = variable("INPUT") {
            println!("{}", look(&from_hex(&input)));
            return Ran { inputs: 1, shapes: 1 };
        }
        let Plan { seconds, seed } = plan();
        let watchdog = Watchdog::start(name, LONGEST);
        let mut shape_of = |bytes: &[u8]| {
            watchdog.begins(bytes);
            let understood = catch_unwind(AssertUnwindSafe(|| look(bytes)));
            watchdog.ends();
            shape(&understood.unwrap_or_else(|panic| {
                eprintln!("{name} fails for MEM_EVENT_FUZZ_INPUT={}", hex(bytes));
                resume_unwind(panic)
            }))
        };
        let mut shapes: HashSet<u64> = seeds.iter().map(|bytes| shape_of(bytes)).collect();
        let (start, mut mutator) = (Instant::now(), Mutator::new(Random(seed), words, longest));
        let (mut corpus, mut inputs) = (seeds, 0);
        while seconds.map_or(inputs < rounds, |seconds| start.elapsed() < Duration::from_secs(seconds)) {
            let bytes = mutator.next(&corpus);
            if shapes.insert(shape_of(&bytes)) && corpus.len() < CORPUS {
                corpus.push(bytes);
            }
            inputs += 1;
        }
        let (took, kept, shapes) = (start.elapsed().as_secs_f64(), corpus.len(), shapes.len());
        println!("{name}: {inputs} inputs in {took:.1} s, seed {seed}, {shapes} shapes, corpus {kept}");
        Ran { inputs, shapes }
    }
}

fn plan() -> Plan {
    let number = |name| variable(name).map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}")));
    let seconds = number("SECONDS");
    let clock =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
    let fresh = || if seconds.is_some() { clock() } else { 0x5eed };
    Plan { seconds, seed: number("SEED").unwrap_or_else(fresh).max(1) }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("MEM_EVENT_FUZZ_{name}")).ok()
}

fn shape(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.bytes().filter(|byte| !byte.is_ascii_digit()).for_each(|byte| byte.hash(&mut hasher));
    hasher.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16);
    text.as_bytes()
        .chunks(2)
        .map(|two| pair(two).unwrap_or_else(|_| panic!("{two:?} is no hexadecimal byte")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn an_input_that_leads_further_is_kept_and_mutated() {
        // Each letter that is right is another shape; all of them by chance would take 2^32 inputs.
        let right = |bytes: &[u8]| bytes.iter().zip(b"mean").take_while(|(is, due)| is == due).count();
        let ran = Target::new("four letters", vec![b"....".to_vec()], 200_000).run(|bytes| ".".repeat(right(bytes)));
        assert_eq!(ran.shapes, 5);
    }

    #[test]
    #[should_panic(expected = "the code under test")]
    fn a_panic_of_the_target_ends_the_run() {
        let _ = Target::new("a panic", vec![vec![0]], 100_000).run(|bytes| {
            assert!(bytes.first() != Some(&7), "the code under test");
            String::new()
        });
    }
}
