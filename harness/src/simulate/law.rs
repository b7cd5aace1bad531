//! How long something takes: a law of chance, drawn from a seed.

use super::amount::time;
use crate::refusal::Refusal;
use crate::trace::row::duration;
use rand_distr::{Distribution, Exp1, LogNormal};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a user may write.
const FORMS: &str = "write a time (2us), exp:MEAN, uniform:FROM..TO, lognormal:MEAN,DEVIATION (1 is as much as the mean) or file:PATH (a time a line)";
/// No draw is longer: an hour.
const LONGEST: f64 = 3.6e12;

/// A law.
#[derive(Clone, Debug, PartialEq)]
pub enum Law {
    /// Always the same, in nanoseconds.
    Constant(u64),
    /// Exponential, with this mean in nanoseconds.
    Exponential(f64),
    /// Any from the first to the second, both included.
    Uniform(u64, u64),
    /// Lognormal.
    LogNormal {
        /// Its mean in nanoseconds.
        mean: f64,
        /// Its standard deviation, as a part of the mean.
        deviation: f64,
        /// The same as what is drawn from.
        normal: LogNormal<f64>,
    },
    /// One of what was seen, each as likely.
    Empirical {
        /// What was seen, in nanoseconds.
        seen: Arc<[u64]>,
        /// Each is multiplied by this.
        factor: f64,
    },
}

impl Law {
    /// What was seen, each as likely.
    ///
    /// # Errors
    /// Nothing was seen.
    pub fn of(seen: Vec<u64>, whence: &str) -> Result<Law, Refusal> {
        if seen.is_empty() {
            return Err(Refusal::usage(format!("{whence} has no times"), "give at least one"));
        }
        Ok(Law::Empirical { seen: seen.into(), factor: 1.0 })
    }

    /// The mean in nanoseconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Law::Constant(time) => *time as f64,
            Law::Exponential(mean) | Law::LogNormal { mean, .. } => *mean,
            Law::Uniform(from, to) => (*from as f64 + *to as f64) / 2.0,
            Law::Empirical { seen, factor } => {
                seen.iter().map(|time| *time as f64).sum::<f64>() / seen.len() as f64 * factor
            }
        }
    }

    /// The law of the same form with another mean.
    #[must_use]
    pub fn with_mean(&self, mean: u64) -> Law {
        let old = self.mean();
        if old == 0.0 {
            return Law::Constant(mean);
        }
        let of_old = mean as f64 / old;
        match self {
            Law::Constant(_) => Law::Constant(mean),
            Law::Exponential(_) => Law::Exponential(mean as f64),
            Law::Uniform(from, to) => Law::Uniform(whole(*from as f64 * of_old), whole(*to as f64 * of_old)),
            Law::LogNormal { deviation, normal, .. } => log_normal(mean as f64, *deviation).unwrap_or(Law::LogNormal {
                mean: mean as f64,
                deviation: *deviation,
                normal: *normal,
            }),
            Law::Empirical { seen, factor } => Law::Empirical { seen: seen.clone(), factor: factor * of_old },
        }
    }

    /// The next time, in nanoseconds.
    #[inline]
    pub fn draw(&self, random: &mut Xoshiro256PlusPlus) -> u64 {
        match self {
            Law::Constant(time) => *time,
            Law::Exponential(mean) => {
                let unit: f64 = Exp1.sample(random);
                whole(unit * mean)
            }
            Law::Uniform(from, to) => from + below(random, to - from + 1),
            Law::LogNormal { normal, .. } => whole(normal.sample(random)),
            Law::Empirical { seen, factor } => {
                let at = usize::try_from(below(random, seen.len() as u64)).unwrap_or(0);
                whole(seen[at] as f64 * factor)
            }
        }
    }
}

/// A number below the end, which is not 0.
#[inline]
pub fn below(random: &mut Xoshiro256PlusPlus, end: u64) -> u64 {
    // The upper half of the product: the bias is below one in 2^64 / end.
    let product = u128::from(random.next_u64()) * u128::from(end);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// A number from 0 to 1, 1 not included.
#[inline]
pub fn share(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[inline]
fn whole(time: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and an hour")]
    let whole = (time.clamp(0.0, LONGEST) + 0.5) as u64;
    whole
}

fn log_normal(mean: f64, deviation: f64) -> Option<Law> {
    LogNormal::from_mean_cv(mean, deviation).ok().map(|normal| Law::LogNormal { mean, deviation, normal })
}

impl FromStr for Law {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Law, Refusal> {
        let wrong = |why: &str| Refusal::usage(format!("the times {text:?}: {why}"), FORMS);
        let part =
            |part: &str| time(part).ok_or_else(|| wrong(&format!("{part:?} is no time with a unit (ns, us, ms, s)")));
        let Some((form, rest)) = text.split_once(':') else { return Ok(Law::Constant(part(text)?)) };
        match form {
            "constant" => Ok(Law::Constant(part(rest)?)),
            "exp" | "exponential" => Ok(Law::Exponential(part(rest)? as f64)),
            "uniform" => {
                let (from, to) = rest.split_once("..").ok_or_else(|| wrong("there is no .. between two times"))?;
                let (from, to) = (part(from)?, part(to)?);
                if from > to {
                    return Err(wrong("the first time is the longer one"));
                }
                Ok(Law::Uniform(from, to))
            }
            "lognormal" => {
                let (mean, deviation) =
                    rest.split_once(',').ok_or_else(|| wrong("there is no deviation after a comma"))?;
                let mean = part(mean)? as f64;
                let deviation = deviation.parse().ok().filter(|it| (0.0..=100.0).contains(it));
                let deviation = deviation.ok_or_else(|| wrong("the deviation is no number from 0 to 100"))?;
                log_normal(mean, deviation).ok_or_else(|| wrong("there is no such law"))
            }
            "file" => Law::of(lines(rest)?, rest),
            _ => Err(wrong(&format!("there is no law {form:?}"))),
        }
    }
}

/// A time a line; empty lines and those that begin with `#` say nothing.
fn lines(path: &str) -> Result<Vec<u64>, Refusal> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Refusal::usage(format!("cannot read the times in {path}: {error}"), "name a file with a time a line")
    })?;
    let said = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    said.map(|(at, line)| {
        let wrong = || {
            Refusal::usage(
                format!("{path}, line {}: {line:?} is no time", at + 1),
                "write 250ns, 2us, 1.5ms or 1s on each line",
            )
        };
        time(line.trim()).ok_or_else(wrong)
    })
    .collect()
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and an hour")]
        let mean = duration(self.mean() as u64);
        match self {
            Law::Constant(_) => write!(f, "{mean}"),
            Law::Exponential(_) => write!(f, "exponential, mean {mean}"),
            Law::Uniform(from, to) => write!(f, "{} to {}", duration(*from), duration(*to)),
            Law::LogNormal { deviation, .. } => write!(f, "lognormal, mean {mean}, deviation {deviation}"),
            Law::Empirical { seen, .. } => write!(f, "one of {} that were seen, mean {mean}", seen.len()),
        }
    }
}
