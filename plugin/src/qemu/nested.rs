//! What QEMU's CPU state says of a guest's guest (SVM).

use super::fields::Field;
use super::view::{HF_CPL, HF_PE, View};
use crate::insn::walk::PagingMode;

/// EFER.SVME, and whether a guest's guest runs.
const HF_SVME: u32 = 1 << 20;
const HF_GUEST: u32 = 1 << 21;
/// Of the other flags: paging is nested.
const HF2_NPT: u64 = 1 << 6;

impl View {
    /// Whether a guest's guest runs (SVM). The API cannot tell.
    pub fn runs_nested(&self) -> bool {
        self.flags() & HF_GUEST != 0
    }

    /// Whether this code may use control blocks of SVM: else it faults, or leaves the guest's guest, before it touches one.
    pub fn may_use_control_blocks(&self) -> bool {
        self.flags() & (HF_SVME | HF_PE | HF_GUEST | HF_CPL) == HF_SVME | HF_PE
    }

    /// The page in which `vmrun` keeps its own state while a guest's guest runs; `None` where that is not known.
    pub fn host_state(&self) -> Option<u64> {
        self.field(Field::HostState)
    }

    /// By which tables the physical addresses of a guest's guest are translated, if one runs whose paging is nested; `None` where that is
    /// not known.
    pub fn nested_paging(&self) -> Option<Option<PagingMode>> {
        /// QEMU's bits for PAE, long mode, NX, PSE and five levels, each with the register's bit that it stands for.
        const CR4: [(u64, u64); 3] = [(1, 1 << 5), (1 << 3, 1 << 4), (1 << 4, 1 << 12)];
        const EFER: [(u64, u64); 2] = [(1 << 1, 1 << 10), (1 << 2, 1 << 11)];
        const PAGED: u64 = 1 | 1 << 31;
        if !self.runs_nested() || self.field(Field::MoreFlags)? & HF2_NPT == 0 {
            return Some(None);
        }
        let (cr3, shape) = (self.field(Field::NestedRoot)?, self.field(Field::NestedShape)?);
        let bits = |pairs: &[(u64, u64)]| pairs.iter().filter(|(bit, _)| shape & bit != 0).map(|(_, bit)| bit).sum();
        Some(Some(PagingMode { cr0: PAGED, cr3, cr4: bits(&CR4), efer: bits(&EFER) }))
    }
}
