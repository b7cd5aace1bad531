//! The kinds of faults, each as one line of text: `refuse evict 3 EBUSY 1`.

use mem_event::message::Call;
use mem_event::{Control, Errno, Ring};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Makes [`Refusable`] of rows `Variant "name" => errors`.
macro_rules! refusable {
    ($($(#[$doc:meta])* $variant:ident $name:literal => [$($errno:ident),+];)+) => {
        /// A call that Xen, or the kernel under a toolstack, may refuse at any time though nothing is wrong with it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusable { $($(#[$doc])* $variant),+ }

        impl Refusable {
            /// All of them.
            pub const ALL: [Refusable; [$($name),+].len()] = [$(Refusable::$variant),+];

            /// The call's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Refusable::$variant => $name),+ }
            }

            /// The errors with which it may be refused.
            #[must_use]
            pub const fn errors(self) -> &'static [Errno] {
                match self { $(Refusable::$variant => &[$(Errno::$errno),+]),+ }
            }
        }
    };
}

refusable! {
    /// `p2m_mem_paging_nominate`: EBUSY while anybody holds a reference to the frame, which a device or another domain may do at any
    /// time; the first version (2009 to 2011) said EAGAIN.
    Nominate "nominate" => [EBUSY, EAGAIN];
    /// `p2m_mem_paging_evict`: EBUSY while anybody holds a reference.
    Evict "evict" => [EBUSY];
    /// `p2m_mem_paging_prep`: ENOMEM while the host has no free frame; also of contents that are handed over.
    Load "load" => [ENOMEM];
    /// `p2m_set_mem_access`: ENOMEM while there is no frame for the p2m's own tables.
    SetAccess "set-access" => [ENOMEM];
    /// A foreign mapping: Linux says ENOMEM to a toolstack whose `mmap` finds no memory for its page tables.
    Pin "pin" => [ENOMEM];
    /// The same, to read.
    ReadFrame "read-frame" => [ENOMEM];
    /// The same, to write.
    WriteFrame "write-frame" => [ENOMEM];
}

impl Refusable {
    /// Which of them a call is.
    #[must_use]
    pub fn of(call: &Call) -> Option<Refusable> {
        Some(match call {
            Call::Control(Control::Nominate { .. }) => Refusable::Nominate,
            Call::Control(Control::Evict { .. }) => Refusable::Evict,
            Call::Control(Control::SetAccess { .. }) => Refusable::SetAccess,
            Call::Control(Control::Pin { .. }) | Call::Map { .. } => Refusable::Pin,
            Call::Load { .. } => Refusable::Load,
            Call::ReadFrame { .. } => Refusable::ReadFrame,
            Call::WriteFrame { .. } => Refusable::WriteFrame,
            _ => return None,
        })
    }
}

/// One fault, at one moment. Moments of a kind are counted from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A consumer's call is refused and not carried out: the `nth` of its kind, and the calls of this kind that follow, as many as `times`
    /// says.
    Refuse {
        /// Which.
        call: Refusable,
        /// The first.
        nth: u64,
        /// How many; at least 1.
        times: u64,
        /// With what.
        errno: Errno,
    },
    /// The notification of the `nth` request of a ring comes late: a loaded machine delivers an event channel's interrupt when it comes to it.
    LateNotification {
        /// The ring.
        ring: Ring,
        /// The request.
        nth: u64,
        /// How late.
        by: Duration,
    },
    /// So long after the `nth` request of a ring comes one notification more than requests: event channels promise no less than one.
    SpuriousNotification {
        /// The ring.
        ring: Ring,
        /// The request.
        nth: u64,
        /// How much later.
        by: Duration,
    },
    /// The responses that are there when the engine comes to a ring for the `nth` time are taken late, unless the consumer makes a call
    /// meanwhile: a vCPU that may go on waits for a core.
    LateResponse {
        /// The ring.
        ring: Ring,
        /// At which time.
        nth: u64,
        /// How late.
        by: Duration,
    },
    /// The consumer of a ring is killed when the `nth` request has been put and not been notified; a successor is started. The kernel kills
    /// whom it likes when memory is short.
    Kill {
        /// The ring.
        ring: Ring,
        /// The request.
        nth: u64,
    },
}

/// The kinds of faults, for a plan that leaves some out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Fault::Refuse`]
    Refuse,
    /// [`Fault::LateNotification`]
    LateNotification,
    /// [`Fault::SpuriousNotification`]
    SpuriousNotification,
    /// [`Fault::LateResponse`]
    LateResponse,
    /// [`Fault::Kill`]
    Kill,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::Refuse, Kind::LateNotification, Kind::SpuriousNotification, Kind::LateResponse, Kind::Kill];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Refuse => "refuse",
            Kind::LateNotification => "late-notification",
            Kind::SpuriousNotification => "spurious-notification",
            Kind::LateResponse => "late-response",
            Kind::Kill => "kill",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut timed = |kind: Kind, ring: Ring, nth: u64, by: Duration| {
            write!(f, "{} {ring} {nth} {}us", kind.name(), by.as_micros())
        };
        match *self {
            Fault::LateNotification { ring, nth, by } => timed(Kind::LateNotification, ring, nth, by),
            Fault::SpuriousNotification { ring, nth, by } => timed(Kind::SpuriousNotification, ring, nth, by),
            Fault::LateResponse { ring, nth, by } => timed(Kind::LateResponse, ring, nth, by),
            Fault::Refuse { call, nth, times, errno } => {
                write!(f, "refuse {} {nth} {} {times}", call.name(), errno.name())
            }
            Fault::Kill { ring, nth } => write!(f, "kill {ring} {nth}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let fault = match *words {
            ["refuse", call, nth, errno, times] => refuse(call, nth, errno, times),
            [kind, ring, nth, by] => timed(kind, ring, nth, by),
            ["kill", ring, nth] => ring_of(ring).zip(nth.parse().ok()).map(|(ring, nth)| Fault::Kill { ring, nth }),
            _ => None,
        };
        fault.ok_or_else(|| {
            format!(
                "{text:?} is no fault; write refuse CALL NTH ERRNO TIMES, late-notification RING NTH MICROSECONDSus, \
                 spurious-notification and late-response likewise, or kill RING NTH"
            )
        })
    }
}

fn ring_of(name: &str) -> Option<Ring> {
    Ring::ALL.into_iter().find(|ring| ring.name() == name)
}

fn refuse(call: &str, nth: &str, errno: &str, times: &str) -> Option<Fault> {
    let call = Refusable::ALL.into_iter().find(|known| known.name() == call)?;
    let errno = *call.errors().iter().find(|known| known.name() == errno)?;
    Some(Fault::Refuse { call, nth: nth.parse().ok()?, times: times.parse().ok()?, errno })
}

fn timed(kind: &str, ring: &str, nth: &str, by: &str) -> Option<Fault> {
    let (ring, nth) = (ring_of(ring)?, nth.parse().ok()?);
    let by = Duration::from_micros(by.strip_suffix("us")?.parse().ok()?);
    match Kind::ALL.into_iter().find(|known| known.name() == kind)? {
        Kind::LateNotification => Some(Fault::LateNotification { ring, nth, by }),
        Kind::SpuriousNotification => Some(Fault::SpuriousNotification { ring, nth, by }),
        Kind::LateResponse => Some(Fault::LateResponse { ring, nth, by }),
        Kind::Refuse | Kind::Kill => None,
    }
}
