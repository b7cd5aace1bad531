//! Many simulations, in which one number is varied.

use super::amount::{count, time};
use super::arrival::Arrival;
use super::figures::{Figures, simulate};
use super::law::Law;
use super::settings::Settings;
use crate::refusal::{Refusal, nearest};
use crate::trace::row::duration;
use mem_event::flow::FlowKind;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Values of one sweep at most.
const MOST: usize = 1000;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    Part,
    Time,
}

/// What can be varied.
const NAMES: [(&str, Unit); 17] = [
    ("vcpus", Unit::Count),
    ("rings", Unit::Count),
    ("slots", Unit::Count),
    ("foreign", Unit::Count),
    ("consumers", Unit::Count),
    ("batch", Unit::Count),
    ("tries", Unit::Count),
    ("seed", Unit::Count),
    ("loss", Unit::Part),
    ("notices", Unit::Part),
    ("drops", Unit::Part),
    ("think", Unit::Time),
    ("foreign-think", Unit::Time),
    ("prepare", Unit::Time),
    ("service", Unit::Time),
    ("wake", Unit::Time),
    ("signal", Unit::Time),
];

/// A name and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// What is varied.
    pub name: &'static str,
    unit: Unit,
    /// Its values; times in nanoseconds.
    pub values: Vec<f64>,
}

impl Sweep {
    /// The settings with each of the values.
    ///
    /// # Errors
    /// A value that is out of its range.
    pub fn points(&self, settings: &Settings) -> Result<Vec<Settings>, Refusal> {
        self.values.iter().map(|value| self.at(settings, *value)).collect()
    }

    fn at(&self, settings: &Settings, value: f64) -> Result<Settings, Refusal> {
        let mut point = settings.clone();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was read as a whole number or a time"
        )]
        let whole = value as u64;
        let number = u32::try_from(whole).unwrap_or(u32::MAX);
        let law = |law: &Law| law.with_mean(whole);
        match self.name {
            "vcpus" => point.vcpus = number,
            "rings" => point.rings = number,
            "slots" => point.slots = number,
            "foreign" => point.foreign = number,
            "consumers" => point.consumers = number,
            "batch" => point.batch = number,
            "tries" => point.tries = number,
            "seed" => point.seed = whole,
            "loss" => point.loss = value,
            "notices" => point.notices = value,
            "drops" => point.drops = value,
            "think" => match &point.think {
                Arrival::Law(of) => point.think = Arrival::Law(law(of)),
                Arrival::Recorded(_) => {
                    let remedy = "give --think a law, or sweep something else";
                    return Err(Refusal::usage("the trace says how long vCPUs work: think cannot be swept", remedy));
                }
            },
            "foreign-think" => point.foreign_think = law(&point.foreign_think),
            "prepare" => point.prepare = law(&point.prepare),
            "service" => point.service = law(&point.service),
            "wake" => point.wake = law(&point.wake),
            _ => point.signal = law(&point.signal),
        }
        point.check()?;
        Ok(point)
    }

    /// A value as people read it.
    #[must_use]
    pub fn shown(&self, value: f64) -> String {
        match self.unit {
            Unit::Count | Unit::Part => value.to_string(),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was read as a time")]
            Unit::Time => duration(value as u64),
        }
    }
}

impl FromStr for Sweep {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Sweep, Refusal> {
        let forms = "write NAME=FROM..TO (doubling), NAME=FROM..TO+STEP, NAME=FROM..TO*FACTOR or NAME=VALUE,VALUE,…";
        let wrong = |why: String| Refusal::usage(format!("the sweep {text:?}: {why}"), forms);
        let (name, values) = text.split_once('=').ok_or_else(|| wrong("there is no =".into()))?;
        let Some((name, unit)) = NAMES.into_iter().find(|(known, _)| *known == name) else {
            let known = NAMES.map(|(known, _)| known);
            let meant = nearest(name, known).first().map(|near| format!("did you mean {near}? ")).unwrap_or_default();
            return Err(Refusal::usage(
                format!("the sweep {text:?}: there is no {name:?} to vary"),
                format!("{meant}there are {}", known.join(", ")),
            ));
        };
        let value = |text: &str| value(unit, text).ok_or_else(|| wrong(format!("{text:?} is no {}", kind(unit))));
        let values = match values.split_once("..") {
            None => values.split(',').map(|text| value(text.trim())).collect::<Result<Vec<f64>, Refusal>>()?,
            Some((from, rest)) => {
                let from = value(from)?;
                let (to, next): (&str, Next) = if let Some((to, step)) = rest.split_once('+') {
                    (to, Next::Plus(value(step)?))
                } else if let Some((to, factor)) = rest.split_once('*') {
                    (to, Next::Times(factor.parse().map_err(|_| wrong(format!("{factor:?} is no factor")))?))
                } else {
                    (rest, Next::Times(2.0))
                };
                range(from, value(to)?, next, unit).map_err(wrong)?
            }
        };
        if values.len() > MOST {
            return Err(wrong(format!("{} values are more than {MOST}", values.len())));
        }
        Ok(Sweep { name, unit, values })
    }
}

enum Next {
    Plus(f64),
    Times(f64),
}

/// From one value to another, which is the last in any case.
fn range(from: f64, to: f64, next: Next, unit: Unit) -> Result<Vec<f64>, String> {
    if from > to {
        return Err("the first value is the greater one".into());
    }
    match next {
        Next::Plus(step) if step <= 0.0 => return Err("the step is nothing".into()),
        Next::Times(factor) if !(factor.is_finite() && factor > 1.0) => return Err("the factor is not above 1".into()),
        Next::Times(_) if from <= 0.0 => return Err("no factor leads away from 0; give a step".into()),
        _ => {}
    }
    let mut values = Vec::new();
    let mut at = from;
    while at < to && values.len() <= MOST {
        values.push(at);
        let further = match next {
            // Counted anew each time, so that no error adds up.
            Next::Plus(step) => from + step * values.len() as f64,
            Next::Times(factor) => at * factor,
        };
        at = match unit {
            Unit::Part => further,
            Unit::Count | Unit::Time => further.round().max(at + 1.0),
        };
    }
    values.push(to);
    Ok(values)
}

fn value(unit: Unit, text: &str) -> Option<f64> {
    match unit {
        Unit::Count => count(text).map(|count| count as f64),
        Unit::Time => time(text).map(|time| time as f64),
        Unit::Part => text.parse().ok().filter(|part| (0.0..=1.0).contains(part)),
    }
}

fn kind(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "whole number",
        Unit::Part => "part, from 0 to 1",
        Unit::Time => "time with a unit (ns, us, ms, s)",
    }
}

/// Each of the settings under each of the policies, on all cores; in the order of settings and policies, whichever core was faster.
#[must_use]
pub fn simulate_all(points: &[Settings], policies: &[FlowKind], done: impl Fn(usize) + Sync) -> Vec<Figures> {
    let jobs: Vec<(&Settings, FlowKind)> =
        points.iter().flat_map(|point| policies.iter().map(move |kind| (point, *kind))).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(vec![None; jobs.len()]));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((settings, kind)) = jobs.get(at) else { return };
            let figures = simulate(settings, *kind);
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results[at] = Some(figures);
            done(results.iter().flatten().count());
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    std::thread::scope(|scope| {
        (1..cores).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::Sweep;

    fn values(text: &str) -> Vec<f64> {
        text.parse::<Sweep>().unwrap_or_else(|refusal| panic!("{refusal}")).values
    }

    #[test]
    fn a_sweep_doubles_steps_multiplies_or_lists() {
        assert_eq!(values("vcpus=1..10"), [1.0, 2.0, 4.0, 8.0, 10.0]);
        assert_eq!(values("slots=8..20+4"), [8.0, 12.0, 16.0, 20.0]);
        assert_eq!(values("vcpus=1..4*1.1"), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(values("service=1us..2us+500ns"), [1_000.0, 1_500.0, 2_000.0]);
        assert_eq!(values("loss=0..0.2+0.1"), [0.0, 0.1, 0.2]);
        assert_eq!(values("batch=1,8,3"), [1.0, 8.0, 3.0]);
        assert_eq!(values("vcpus=7..7"), [7.0]);
    }

    #[test]
    fn a_sweep_that_is_none_says_why() {
        for (text, why) in [
            ("vcpus", "there is no ="),
            ("vcpu=1..8", "did you mean vcpus?"),
            ("vcpus=8..1", "greater"),
            ("vcpus=0..8", "give a step"),
            ("vcpus=1..8*1", "not above 1"),
            ("vcpus=1..8+0", "nothing"),
            ("vcpus=1..1us", "is no whole number"),
            ("service=1..8", "is no time with a unit"),
            ("loss=0.5,2", "is no part"),
            ("seed=1..100000+1", "more than 1000"),
            ("vcpus=", "is no whole number"),
        ] {
            let refusal = text.parse::<Sweep>().expect_err(text);
            assert!(refusal.to_string().contains(why), "{text}: {refusal}");
        }
    }
}
