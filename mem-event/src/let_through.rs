//! Who may do an instruction alone, and until when.

use crate::channel::Answer;
use crate::cpu_events::CpuEventKind;
use crate::domain::Domain;
use crate::effect::Outcome;
use crate::emulation::Emulation;
use crate::errno::Errno;
use crate::event::Flags;
use crate::input::{Access, CpuEvent};
use crate::number::{Gfn, VcpuId};
use crate::registers::WORDS;
use crate::rights::Rights;

impl Domain {
    /// What a vCPU may do alone, if anything.
    #[must_use]
    pub fn emulation(&self, vcpu: VcpuId) -> Option<&Emulation> {
        self.vcpus.get(vcpu.0 as usize)?.emulation.as_deref()
    }

    /// A response to a violation: what is asked for with it. As in Xen nothing is emulated that the rights allow by now
    /// (`p2m_mem_access_emulate_check`).
    pub(crate) fn emulates(&mut self, vcpu: VcpuId, flags: Flags, data: Option<&[u64; WORDS]>) {
        let it = &self.vcpus[vcpu.0 as usize];
        let (gfn, rights) = (it.stopped_on, it.stopped_for);
        let is_asked =
            flags.contains(Flags::EMULATE) && !self.p2m.get_in(it.view, gfn).access.rights().contains(rights);
        let emulation = is_asked.then(|| {
            // The older layouts have no room for data, and no flags that ask for them.
            Box::new(Emulation::new((it.stopped_at, gfn, rights), flags, data.unwrap_or(&[0; WORDS])))
        });
        self.vcpu(vcpu).emulation = emulation;
    }

    /// A response to a breakpoint that brings the instruction which the vCPU does in its place, as `vm_event_emulate_check` has it.
    pub(crate) fn emulates_breakpoint(&mut self, vcpu: VcpuId, event: &CpuEvent, answer: &Answer) {
        if event.kind == CpuEventKind::Int3 && answer.flags.contains(Flags::SET_EMUL_INSN_DATA) {
            let data = answer.data.as_deref().unwrap_or(&[0; WORDS]);
            self.vcpu(vcpu).emulation =
                Some(Box::new(Emulation::new((event.rip.0, Gfn::INVALID, Rights::NONE), answer.flags, data)));
        }
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
