//! When a vCPU makes its next event, counted from the moment it runs again: by a law, or as it was in a recorded run.

use super::law::{Law, below};
use crate::trace::row::duration;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::fmt;
use std::sync::Arc;

/// Where the times between events come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// Drawn from a law.
    Law(Law),
    /// Those of the recorded vCPUs: of each the time until its first event, then those from its being woken to its next event, one after
    /// another and again. There may be more vCPUs than were recorded.
    Recorded(Arc<[Vec<u64>]>),
}

impl Arrival {
    /// The mean time in nanoseconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Arrival::Law(law) => law.mean(),
            Arrival::Recorded(vcpus) => {
                let times: Vec<f64> =
                    vcpus.iter().flat_map(|times| times.iter().skip(1)).map(|time| *time as f64).collect();
                times.iter().sum::<f64>() / times.len().max(1) as f64
            }
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrival::Law(law) => law.fmt(f),
            Arrival::Recorded(vcpus) => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of times")]
                let mean = duration(self.mean() as u64);
                write!(f, "as {} recorded ones did, {mean} on the average,", vcpus.len())
            }
        }
    }
}

/// How far each vCPU is.
#[derive(Debug)]
pub struct Arrivals {
    arrival: Arrival,
    places: Vec<usize>,
}

impl Arrivals {
    /// All at their beginnings. A vCPU beyond those that were recorded does what one of them did from a place of its own on: else both
    /// would do the same at the same time.
    #[must_use]
    pub fn new(arrival: &Arrival, vcpus: u32, random: &mut Xoshiro256PlusPlus) -> Arrivals {
        let place = |vcpu: usize, recorded: &[Vec<u64>]| match recorded.get(vcpu) {
            Some(_) => 0,
            None => usize::try_from(below(random, recorded[vcpu % recorded.len()].len() as u64)).unwrap_or(0),
        };
        let places = match arrival {
            Arrival::Law(_) => Vec::new(),
            Arrival::Recorded(recorded) => {
                let mut place = place;
                (0..vcpus as usize).map(|vcpu| place(vcpu, recorded)).collect()
            }
        };
        Arrivals { arrival: arrival.clone(), places }
    }

    /// The time until this vCPU's next event.
    #[inline]
    pub fn next(&mut self, vcpu: u32, random: &mut Xoshiro256PlusPlus) -> u64 {
        match &self.arrival {
            Arrival::Law(law) => law.draw(random),
            Arrival::Recorded(recorded) => {
                let times = &recorded[vcpu as usize % recorded.len()];
                let place = &mut self.places[vcpu as usize];
                let time = times[*place];
                // The first is when it began, and it begins but once.
                *place = if *place + 1 < times.len() { *place + 1 } else { 1.min(times.len() - 1) };
                time
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Arrivals};
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    #[test]
    fn a_recorded_vcpu_does_what_it_did_and_a_further_one_what_one_of_them_did() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let recorded = Arrival::Recorded(vec![vec![1, 2, 3], vec![7]].into());
        let mut arrivals = Arrivals::new(&recorded, 4, &mut random);
        let mut times = |vcpu| (0..4).map(|_| arrivals.next(vcpu, &mut random)).collect::<Vec<u64>>();
        assert_eq!((times(0), times(1), times(3)), (vec![1, 2, 3, 2], vec![7; 4], vec![7; 4]));
        let of_the_third = times(2);
        assert!(of_the_third[1] == of_the_third[3] && of_the_third.iter().all(|time| (1..=3).contains(time)));
    }
}
