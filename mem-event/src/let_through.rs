//! Who may do an instruction alone, and until when.

use crate::answer::Answer;
use crate::cpu_events::CpuEventKind;
use crate::domain::Domain;
use crate::effect::Outcome;
use crate::emulation::Emulation;
use crate::errno::Errno;
use crate::event::Flags;
use crate::input::Access;
use crate::number::{Gfn, VcpuId};
use crate::registers::WORDS;
use crate::rights::Rights;
use crate::vcpu::Breakpoint;

impl Domain {
    /// What a vCPU may do alone, if anything.
    #[must_use]
    pub fn emulation(&self, vcpu: VcpuId) -> Option<&Emulation> {
        self.vcpus.get(vcpu.0 as usize)?.emulation.as_deref()
    }

    /// A response with EMULATE to the event that stopped a vCPU, as `vm_event_emulate_check` has it. What stopped a vCPU that the same response puts
    /// elsewhere is over.
    pub(crate) fn emulates(&mut self, vcpu: VcpuId, answer: &Answer, is_vm_event: bool, is_elsewhere: bool) {
        // The older layouts have no room for data, and no flags that ask for them.
        let data = answer.data.as_deref().unwrap_or(&[0; WORDS]);
        let it = &self.vcpus[vcpu.0 as usize];
        let emulation = match it.reported {
            _ if is_elsewhere => None,
            None => {
                let (gfn, rights) = (it.stopped_on, it.stopped_for);
                // As in Xen nothing is emulated that the rights allow by now (`p2m_mem_access_emulate_check`).
                let is_forbidden = !self.p2m.get_in(it.view, gfn).access.rights().contains(rights);
                let is_asked = is_forbidden && (!is_vm_event || answer.is_violation);
                is_asked.then(|| Emulation::new((it.stopped_at, gfn, rights), answer.flags, data))
            }
            Some(event) if is_vm_event && answer.cpu_event == Some(event.kind) => {
                let emulation = Emulation::new((event.rip.0, Gfn::INVALID, Rights::NONE), answer.flags, data);
                match event.kind {
                    CpuEventKind::Int3 if answer.flags.contains(Flags::SET_EMUL_INSN_DATA) => {
                        if emulation.code.is_none() {
                            // Xen's emulator then does the instruction that memory holds, and that raises the guest's exception.
                            self.vcpu(vcpu).breakpoint = Breakpoint::Injected;
                            return;
                        }
                        Some(emulation)
                    }
                    // Without more it is executed as it is. Of code Xen takes none here: what it has is an earlier answer's.
                    CpuEventKind::Descriptor if emulation.code.is_none() && emulation.is_other() => Some(emulation),
                    _ => None,
                }
            }
            Some(_) => None,
        };
        self.vcpu(vcpu).emulation = emulation.map(Box::new);
    }

    /// Whether this is the instruction that the vCPU may do alone, by an answer. Another one that asks ends it.
    pub(crate) fn is_let_through(&mut self, vcpu: VcpuId, rip: u64) -> bool {
        let emulation = &mut self.vcpu(vcpu).emulation;
        emulation.take_if(|it| it.rip != rip);
        emulation.as_ref().is_some_and(|it| !it.by_view)
    }

    /// An access is allowed: if it is the one that was asked for, the grant is needed no more.
    pub(crate) fn is_allowed_by_now(&mut self, vcpu: VcpuId, access: &Access) {
        self.vcpu(vcpu).emulation.take_if(|it| it.gfn == access.gfn && access.rights.contains(it.rights));
    }

    /// `Input::Emulated`.
    pub(crate) fn emulated(&mut self, vcpu: VcpuId) -> Outcome {
        let Some(it) = self.vcpus.get_mut(vcpu.0 as usize) else {
            return Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}"));
        };
        it.emulation = None;
        Outcome::Proceed
    }
}
