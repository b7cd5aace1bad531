//! Faults into the consumers' world, as a scenario asks for them.

use super::name::Name;
use super::text::Time;
use mem_event::{Errno, Ring};
use mem_event_server::chaos::{Fault, Kind, Plan, Refusable};
use schemars::JsonSchema;
use serde::Deserialize;

/// What a real Xen or a loaded machine may do to consumers; a right consumer survives all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Chaos {
    /// Faults drawn from this number; the same number gives the same faults.
    pub seed: Option<u64>,
    /// Kinds of faults that the seed makes none of.
    pub without: Vec<Name<Kind>>,
    /// Faults by name.
    pub faults: Vec<ScenarioFault>,
    /// The seed comes from the command line: the sequence is another one than the accepted.
    #[serde(skip)]
    pub is_imposed: bool,
}

/// A fault at one moment. Moments are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "Fault")]
pub enum ScenarioFault {
    /// A call of a consumer is refused, and not carried out.
    Refuse(Refuse),
    /// The notification of a ring's request comes late.
    LateNotification(Timed),
    /// So long after a ring's request comes one notification more than requests.
    SpuriousNotification(Timed),
    /// A ring's responses are taken late, unless the consumer makes a call meanwhile.
    LateResponse(Timed),
    /// The consumer of a ring is killed when a request has been put and not been notified, and started anew.
    Kill(Moment),
}

/// Which call is refused, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "WrittenRefuse")]
#[schemars(with = "WrittenRefuse")]
pub struct Refuse(Fault);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "Refuse")]
struct WrittenRefuse {
    /// The call.
    call: Name<Refusable>,
    /// The first that is refused.
    nth: u64,
    /// How many are, one after the other.
    #[serde(default = "one")]
    times: u64,
    /// The error, one that Xen gives for this call: EBUSY or EAGAIN for `nominate`, EBUSY for `evict`, ENOMEM for the others.
    errno: Name<Errno>,
}

fn one() -> u64 {
    1
}

impl TryFrom<WrittenRefuse> for Refuse {
    type Error = String;

    fn try_from(written: WrittenRefuse) -> Result<Refuse, String> {
        let WrittenRefuse { call: Name(call), nth, times, errno: Name(errno) } = written;
        if !call.errors().contains(&errno) {
            let known: Vec<&str> = call.errors().iter().map(|errno| errno.name()).collect();
            let (name, known) = (call.name(), known.join(" or "));
            return Err(format!("Xen does not refuse `{name}` with {errno} for a while; write {known}"));
        }
        Ok(Refuse(Fault::Refuse { call, nth, times, errno }))
    }
}

/// A ring's request, or the time at which its responses are taken, and how late that is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timed {
    /// The ring.
    ring: Name<Ring>,
    /// Which.
    nth: u64,
    /// How late.
    by: Time,
}

/// A ring's request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Moment {
    /// The ring.
    ring: Name<Ring>,
    /// Which.
    nth: u64,
}

impl Chaos {
    /// Faults by this seed, which is the command line's; those that the scenario names stay.
    pub fn impose(&mut self, seed: u64) {
        (self.seed, self.is_imposed) = (Some(seed), true);
    }

    /// The faults of a run.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let without = self.without.iter().map(|kind| kind.0).collect();
        Plan { seed: self.seed, without, faults: self.faults.iter().map(ScenarioFault::fault).collect() }
    }
}

impl ScenarioFault {
    fn fault(&self) -> Fault {
        match self {
            ScenarioFault::Refuse(Refuse(fault)) => *fault,
            ScenarioFault::LateNotification(Timed { ring, nth, by }) => {
                Fault::LateNotification { ring: ring.0, nth: *nth, by: by.0 }
            }
            ScenarioFault::SpuriousNotification(Timed { ring, nth, by }) => {
                Fault::SpuriousNotification { ring: ring.0, nth: *nth, by: by.0 }
            }
            ScenarioFault::LateResponse(Timed { ring, nth, by }) => {
                Fault::LateResponse { ring: ring.0, nth: *nth, by: by.0 }
            }
            ScenarioFault::Kill(Moment { ring, nth }) => Fault::Kill { ring: ring.0, nth: *nth },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chaos;
    use mem_event_server::chaos::Plan;

    fn read(text: &str) -> Result<Plan, String> {
        toml::from_str::<Chaos>(text).map(|chaos| chaos.plan()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn faults_by_name_are_those_of_the_plan() {
        let text = r#"
            seed = 7
            without = ["kill"]
            faults = [
                { refuse = { call = "evict", nth = 3, errno = "EBUSY" } },
                { late-notification = { ring = "paging", nth = 2, by = "10ms" } },
                { kill = { ring = "access", nth = 4 } },
            ]
        "#;
        let plan = "seed 7;without kill;refuse evict 3 EBUSY 1;late-notification paging 2 10000us;kill access 4";
        assert_eq!(read(text), plan.parse());
        assert_eq!(read(text).unwrap().to_string(), plan);
    }

    #[test]
    fn an_error_that_xen_does_not_give_for_a_call_is_refused_with_those_that_it_gives() {
        let error = read(r#"faults = [{ refuse = { call = "evict", nth = 1, errno = "ENOMEM" } }]"#).unwrap_err();
        assert!(error.contains("`evict` with ENOMEM") && error.contains("write EBUSY"), "{error}");
        assert!(read(r#"faults = [{ refuse = { call = "nominate", nth = 1, errno = "EAGAIN" } }]"#).is_ok());
        assert!(read(r#"faults = [{ refuse = { call = "info", nth = 1, errno = "EBUSY" } }]"#).is_err());
    }
}
