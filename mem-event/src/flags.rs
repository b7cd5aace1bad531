//! The flags of requests and responses.

use bincode::{Decode, Encode};
use std::fmt;

/// The flags of a request or response, with the bit numbers of `MEM_EVENT_FLAG_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct Flags(pub u32);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// The vCPU of the event is stopped until a response carries this flag too.
    pub const VCPU_PAUSED: Flags = Flags(1 << 0);
    /// The frame is gone; forget its content.
    pub const DROP_PAGE: Flags = Flags(1 << 1);
    /// The frame was touched between nominate and evict: eviction will fail.
    pub const EVICT_FAIL: Flags = Flags(1 << 2);
    /// The accessor is no vCPU of the domain.
    pub const FOREIGN: Flags = Flags(1 << 3);
    /// A response that only gives its slot back.
    pub const DUMMY: Flags = Flags(1 << 4);
    /// A response that asks for the instruction to be emulated (Xen 4.5 on): once, whatever the rights say.
    pub const EMULATE: Flags = Flags(1 << 5);
    /// The same without letting its writes through.
    pub const EMULATE_NOWRITE: Flags = Flags(1 << 6);
    /// A response that turns single step over for its vCPU (`vm_event` only; bit 4 there).
    pub const TOGGLE_SINGLESTEP: Flags = Flags(1 << 20);
    /// A response that keeps the register's write from happening that its event told of (`vm_event` only; bit 6 there).
    pub const DENY: Flags = Flags(1 << 22);
    /// A response that sets its vCPU's registers (`vm_event` only; bit 8 there).
    pub const SET_REGISTERS: Flags = Flags(1 << 24);
    /// A response that has the next interrupt or exception told that its vCPU gets (`vm_event` only; bit 10 there).
    pub const GET_NEXT_INTERRUPT: Flags = Flags(1 << 26);
    /// A response that has its vCPU do one step, unreported, and go by another view then (`vm_event` only; bit 11 there).
    pub const FAST_SINGLESTEP: Flags = Flags(1 << 27);

    /// Where a domain has views: a request tells its vCPU's, a response switches its vCPU to another (`vm_event` only; bit 7 there).
    pub const ALTERNATE_P2M: Flags = Flags(1 << 23);
    /// A response whose data the emulated instruction reads (`vm_event` only; bit 5 there).
    pub const SET_EMUL_READ_DATA: Flags = Flags(1 << 21);
    /// A response whose data are the emulated instruction (`vm_event` only; bit 9 there).
    pub const SET_EMUL_INSN_DATA: Flags = Flags(1 << 25);

    /// All flags with their names.
    pub const NAMES: [(Flags, &'static str); 15] = [
        (Flags::VCPU_PAUSED, "VCPU_PAUSED"),
        (Flags::DROP_PAGE, "DROP_PAGE"),
        (Flags::EVICT_FAIL, "EVICT_FAIL"),
        (Flags::FOREIGN, "FOREIGN"),
        (Flags::DUMMY, "DUMMY"),
        (Flags::EMULATE, "EMULATE"),
        (Flags::EMULATE_NOWRITE, "EMULATE_NOWRITE"),
        (Flags::TOGGLE_SINGLESTEP, "TOGGLE_SINGLESTEP"),
        (Flags::DENY, "DENY"),
        (Flags::SET_REGISTERS, "SET_REGISTERS"),
        (Flags::GET_NEXT_INTERRUPT, "GET_NEXT_INTERRUPT"),
        (Flags::FAST_SINGLESTEP, "FAST_SINGLESTEP"),
        (Flags::ALTERNATE_P2M, "ALTERNATE_P2M"),
        (Flags::SET_EMUL_READ_DATA, "SET_EMUL_READ_DATA"),
        (Flags::SET_EMUL_INSN_DATA, "SET_EMUL_INSN_DATA"),
    ];

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (flag, name) in Flags::NAMES {
            if rest & flag.0 != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !flag.0;
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}
