//! What of a kind of CPU event the tool asked for. The plugin reports a kind whole; Xen can leave bits of a control register
//! out, and reports single model-specific registers.

use crate::layout::record::Record;
use crate::layout::vm_event;
use mem_event::wire::vm_event::Slot;
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// CR0, CR3, CR4: the bits whose change alone is no event, while the register is reported.
    pub ctrlregs: [Option<u64>; 3],
    /// Model-specific registers, and of each whether only changes are reported.
    pub msrs: BTreeMap<u32, bool>,
}

impl Filter {
    /// Whether a request is for the tool.
    #[must_use]
    pub fn wants(&self, slot: &Slot) -> bool {
        let request = Record::of_words(slot);
        match request.get(vm_event::REASON) {
            vm_event::REASON_WRITE_CTRLREG => {
                let changed = request.get(vm_event::CTRLREG_NEW) ^ request.get(vm_event::CTRLREG_OLD);
                let register = self.ctrlregs.get(request.get(vm_event::CTRLREG_INDEX) as usize);
                register.copied().flatten().is_none_or(|ignored| changed & !ignored != 0)
            }
            vm_event::REASON_MOV_TO_MSR => {
                let Ok(msr) = u32::try_from(request.get(vm_event::MSR)) else { return true };
                let changes = request.get(vm_event::MSR_NEW) != request.get(vm_event::MSR_OLD);
                self.msrs.is_empty() || self.msrs.get(&msr).is_some_and(|changes_only| changes || !changes_only)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use mem_event::wire::vm_event;
    use mem_event::{Cpu, Event, Flags, Request, VcpuId};

    fn wants(filter: &Filter, cpu: Cpu) -> bool {
        let request = Request { flags: Flags::VCPU_PAUSED, vcpu: VcpuId(0), event: Event::Cpu(cpu) };
        filter.wants(&vm_event::request(&request, None))
    }

    #[test]
    fn a_write_that_changes_only_bits_that_are_ignored_is_no_event() {
        let filter = Filter { ctrlregs: [None, None, Some(0x80)], ..Filter::default() };
        assert!(!wants(&filter, Cpu::Cr4 { new: 0xa0, old: 0x20 }));
        assert!(wants(&filter, Cpu::Cr4 { new: 0xa4, old: 0x20 }));
        assert!(wants(&filter, Cpu::Cr0 { new: 0x80, old: 0 }), "a register without a mask is reported");
    }

    #[test]
    fn only_the_registers_that_were_asked_for_are_reported() {
        let filter = Filter { msrs: [(0xc000_0080, false), (0xc000_0081, true)].into(), ..Filter::default() };
        assert!(wants(&filter, Cpu::Msr { msr: 0xc000_0080, new: 1, old: 1 }));
        assert!(!wants(&filter, Cpu::Msr { msr: 0xc000_0081, new: 1, old: 1 }), "it changes nothing");
        assert!(wants(&filter, Cpu::Msr { msr: 0xc000_0081, new: 2, old: 1 }));
        assert!(!wants(&filter, Cpu::Msr { msr: 0x174, new: 2, old: 1 }));
    }
}
