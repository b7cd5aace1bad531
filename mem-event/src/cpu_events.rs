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

            /// Whether it is a write to a control or a model-specific register: it may change nothing, and an answer can keep it from
            /// happening (`DENY`).
            #[must_use]
            pub const fn is_write(self) -> bool {
                self.has_old_value() || matches!(self, CpuEventKind::Msr)
            }
        }
    };
}

// The plugin raises them before an instruction, in `trap/gate` and `trap/events`.
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
}
