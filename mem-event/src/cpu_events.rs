//! The kinds of CPU events: a table with one row a kind. The compiler names the places that must say what becomes of a new one.

use crate::table::table;

/// Makes [`CpuEventKind`] of rows `Variant = number "name", reason MEM_EVENT_REASON, old value BOOL`.
macro_rules! cpu_events {
    ($($(#[$doc:meta])* $variant:ident = $number:tt $name:literal, reason $reason:literal, old value $old:literal;)+) => {
        table! {
            /// A kind of CPU event, on the access ring.
            #[derive(PartialOrd, Ord)]
            pub enum CpuEventKind { $($(#[$doc])* $variant = $number $name),+ }
        }

        impl CpuEventKind {
            /// The vector of the trap that it tells of: an answer in the layout of `vm_event` gives it to the guest only where it was injected.
            #[must_use]
            pub const fn trap(self) -> Option<u8> {
                match self {
                    CpuEventKind::Int3 => Some(3),
                    CpuEventKind::Debug => Some(1),
                    _ => None,
                }
            }

            /// Whether it tells of something that is about to be delivered to the guest: where nobody is there to be told it is the guest's, as in Xen.
            #[must_use]
            pub const fn is_delivery(self) -> bool {
                self.trap().is_some() || matches!(self, CpuEventKind::Interrupt)
            }

            /// `MEM_EVENT_REASON_*`: the number in the field `reason` of the 40-byte layouts; of what `mem_event` never had, `vm_event`'s.
            pub(crate) const fn reason_number(self) -> u8 {
                match self { $(CpuEventKind::$variant => $reason),+ }
            }

            /// The kind with this number in the field `reason`.
            #[inline(always)]
            pub(crate) const fn from_reason_number(number: u32) -> Option<CpuEventKind> {
                match number {
                    $($reason => Some(CpuEventKind::$variant),)+
                    _ => None,
                }
            }

            /// Whether a write that changes nothing is none: of the control registers. One of a model-specific register is always told.
            #[must_use]
            pub const fn has_old_value(self) -> bool {
                match self { $(CpuEventKind::$variant => $old),+ }
            }

            /// Whether an answer can keep it from happening (`DENY`): a write to a control or a model-specific register, but for XCR0, as in Xen.
            #[must_use]
            pub const fn can_be_denied(self) -> bool {
                self.is_write() && !matches!(self, CpuEventKind::Xcr0)
            }

            /// Whether an answer can have its instruction done in another way (`EMULATE`), as in Xen.
            #[must_use]
            pub const fn may_be_emulated(self) -> bool {
                matches!(self, CpuEventKind::Int3 | CpuEventKind::Descriptor)
            }

            /// Whether it is a write to a control or a model-specific register, which may change nothing.
            #[must_use]
            pub const fn is_write(self) -> bool {
                self.has_old_value() || matches!(self, CpuEventKind::Msr)
            }
        }
    };
}

// The plugin raises them before an instruction, in `trap/gate` and `trap/events`, or before a delivery, in `trap/delivery`.
cpu_events! {
    /// CR0 is about to be written; raised before the instruction.
    Cr0 = 0 "cr0", reason 2, old value true;
    /// CR3 is about to be written; raised before the instruction.
    Cr3 = 1 "cr3", reason 3, old value true;
    /// CR4 is about to be written; raised before the instruction.
    Cr4 = 2 "cr4", reason 4, old value true;
    /// A model-specific register is about to be written; raised before the instruction.
    Msr = 3 "msr", reason 7, old value false;
    /// A breakpoint instruction is about to be delivered; raised before it.
    Int3 = 4 "int3", reason 5, old value false;
    /// One instruction was executed; raised before the next one.
    SingleStep = 5 "single-step", reason 6, old value false;
    /// `cpuid` is about to be executed; raised before the instruction.
    Cpuid = 6 "cpuid", reason 10, old value false;
    /// The register of a descriptor table, or the task's, is about to be stored or loaded; raised before the instruction.
    Descriptor = 7 "descriptor", reason 13, old value false;
    /// The guest asks for an event (`HVMOP_guest_request_vm_event`); raised before its call.
    GuestRequest = 8 "guest-request", reason 8, old value false;
    /// A port is about to be read or written; raised before the instruction.
    Io = 9 "io", reason 16, old value false;
    /// XCR0 is about to be written; raised before the instruction.
    Xcr0 = 10 "xcr0", reason 17, old value true;
    /// A debug exception is about to be delivered: by `int1`, raised before the instruction; by RFLAGS.TF or the debug registers, raised before
    /// its delivery.
    Debug = 11 "debug", reason 9, old value false;
    /// An interrupt or exception is about to be delivered; raised before that.
    Interrupt = 12 "interrupt", reason 12, old value false;
}

table! {
    /// A register that holds where descriptors are (`VM_EVENT_DESC_*`).
    pub enum DescriptorTable {
        /// IDTR: `sidt`, `lidt`.
        Idtr = 1 "idtr",
        /// GDTR: `sgdt`, `lgdt`.
        Gdtr = 2 "gdtr",
        /// LDTR: `sldt`, `lldt`.
        Ldtr = 3 "ldtr",
        /// TR: `str`, `ltr`.
        Tr = 4 "tr",
    }
}

/// Above the bits that name the table: it is loaded.
const LOADED: u32 = 4;

impl DescriptorTable {
    /// The table and whether it is loaded, as one number.
    #[must_use]
    pub const fn packed(self, is_loaded: bool) -> u32 {
        (self as u32 - 1) | if is_loaded { LOADED } else { 0 }
    }

    /// The other way round; of other numbers the low bits count.
    pub(crate) const fn unpacked(number: u32) -> (DescriptorTable, bool) {
        (DescriptorTable::ALL[(number & 3) as usize], number & LOADED != 0)
    }
}

/// What is done with a port, as one number: how many bytes, whether it is read, whether by a string instruction.
#[must_use]
pub const fn packed_port_access(bytes: u8, is_read: bool, is_string: bool) -> u32 {
    bytes as u32 | (is_read as u32) << 8 | (is_string as u32) << 9
}

/// The other way round.
pub(crate) const fn unpacked_port_access(number: u32) -> (u8, bool, bool) {
    ((number & 0xff) as u8, number >> 8 & 1 != 0, number >> 9 & 1 != 0)
}
