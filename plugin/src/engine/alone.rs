//! Instructions that are let through alone: the vCPU leaves its block, QEMU runs one instruction of it while no other vCPU runs, and the
//! instruction's frames are open for just that long.
//!
//! The grant is the engine's, and an instruction spends it only by running. QEMU may run nothing instead, and an interrupt that cannot be
//! inhibited may have put the vCPU elsewhere: then it goes on as it would have, comes to its instruction, and asks again.
//!
//! Of what the instruction touches its operands are opened before; what else it meets (page tables, descriptors) is opened when it stops there.
//! Where a vCPU cannot leave its block, or QEMU has no means, the frame is open until that vCPU's block ends, to all.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::leave;
use crate::engine::step::Engine;
use crate::engine::turn::{Came, Turn};
use crate::host::domain_host::{Host, report};
use crate::host::instruction::LONGEST;
use crate::host::nested::address_space;
use crate::host::parts::{self, Part};
use crate::host::swapped::Swapped;
use crate::host::touch::{FrameFault, Toucher};
use crate::host::vcpu::Vcpu;
use crate::host::{explain, instruction};
use crate::insn::nested::AddressSpace;
use crate::insn::recipe::Recipe;
use crate::memory::file_tables::FileTables;
use crate::qemu::view::View;
use crate::qemu::{alone, internals, leaving, outside, raising};
use mem_event::message::Over;
use mem_event::{Access, Emulation, Gfn, Input, Outcome, P2mType, Rights, VcpuId};
use std::sync::Once;

/// A repeated instruction does so many steps alone at most before it asks again.
const MOST_STEPS: u32 = 4096;

/// Has a vCPU that is about to leave its block, or is told to, do its instruction alone; says whether it can.
fn queue(host: &Host, vcpu: VcpuId) -> bool {
    let is_queued = alone::is_there() && outside::while_no_other_runs(vcpu.0, move || turn(vcpu));
    if is_queued {
        // Those that wait are in their blocks, and its turn begins when they are out.
        host.vcpus.iter().filter(|other| other.id != vcpu && other.waits_in_callback()).for_each(Vcpu::wake);
    }
    is_queued
}

/// In the vCPU's thread, while no other vCPU runs.
fn turn(vcpu: VcpuId) {
    let Some(hypervisor) = Hypervisor::get() else { return };
    let Some((it, view)) = hypervisor.host.vcpu(vcpu.0).zip(leaving::view_of(vcpu.0)) else { return };
    let space = address_space(view.paging_mode(), &view);
    let Some((space, emulation)) = space.and_then(|space| Some((space, hypervisor.may_turn(it, &view)?))) else {
        return Came::Elsewhere.counts();
    };
    let code = swap_code(&hypervisor.host, vcpu, (&view, space), &emulation);
    let came = Instruction { hypervisor, vcpu: it, view, space, emulation: &emulation }.runs();
    if let Some((code, bytes)) = code {
        code.back(&hypervisor.host);
        drop_blocks(&bytes);
    }
    hypervisor.has_turned(it, came == Came::Ran);
    came.counts();
}

impl Hypervisor {
    /// A vCPU that is in its callback, and about to leave its block, is to do its instruction alone; says whether it can.
    pub fn queues_alone(&self, vcpu: &Vcpu) -> bool {
        let is_queued = queue(&self.host, vcpu.id);
        if is_queued {
            self.have_them_leave();
        }
        is_queued
    }

    /// How vCPUs get over a breakpoint: they leave their block before it, or not.
    pub fn over_breakpoints(&self) -> Over {
        match (internals::can_leave(), alone::is_there()) {
            (false, _) => Over::Delivered,
            (true, false) => Over::FetchedAgain,
            (true, true) => Over::Brought,
        }
    }

    /// What the vCPU may do at the instruction that it is at, and that it is the one which does.
    fn may_turn(&self, vcpu: &Vcpu, view: &View) -> Option<Emulation> {
        let mut engine = self.engine();
        // It has left where it stood, if it did.
        engine.stands_no_more(&self.host, vcpu.id);
        engine.settle(&self.host);
        let is_free = !alone::is_stopped(vcpu.id.0) && !raising::is_raised(vcpu.id.0);
        let may = is_free && engine.domain.waiting(vcpu.id).is_none();
        let emulation =
            engine.domain.emulation(vcpu.id).filter(|it| may && it.rip == view.linear_instruction_pointer());
        let emulation = emulation.cloned()?;
        engine.turn = Some(Turn { vcpu: vcpu.id, open: Vec::new() });
        Some(emulation)
    }

    fn has_turned(&self, vcpu: &Vcpu, has_run: bool) {
        let mut engine = self.engine();
        for gfn in engine.turn.take().into_iter().flat_map(|turn| turn.open) {
            engine.close(&self.host, gfn);
        }
        vcpu.waiting.set_busy(true);
        if has_run {
            vcpu.trap.has_met_what_was_given();
            let _ = engine.step(&self.host, Input::Emulated { vcpu: vcpu.id });
        }
        engine.settle(&self.host);
    }
}

/// The instruction that a vCPU does alone.
struct Instruction<'a> {
    hypervisor: &'static Hypervisor,
    vcpu: &'a Vcpu,
    view: View,
    space: AddressSpace,
    emulation: &'a Emulation,
}

impl Instruction<'_> {
    /// Of a repeated one the steps are done that stay on the frames of its first: on others it makes another event.
    fn runs(&self) -> Came {
        let host = &self.hypervisor.host;
        let recipe = instruction::read(
            host,
            &FileTables(&host.memory),
            &self.view,
            self.space,
            (self.emulation.rip & 0xfff) as u16,
        );
        let parts = |recipe: &Recipe| parts::of(host, &self.view, self.space, recipe);
        let first = recipe.as_ref().map(parts).unwrap_or_default();
        if !self.hypervisor.opens(self.vcpu.id, self.emulation, &first) {
            return Came::Unready;
        }
        let repeated = recipe.as_ref().filter(|recipe| recipe.repeat.is_some());
        let mut ahead = first.clone();
        for _ in 0..MOST_STEPS {
            if !self.once(&ahead, repeated.is_some()) {
                return Came::Kept;
            }
            let Some(recipe) = repeated.filter(|_| self.is_still_there()) else { return Came::Ran };
            ahead = parts(recipe);
            if ahead.iter().any(|part| first.iter().all(|other| other.gfn != part.gfn)) {
                return Came::Ran;
            }
        }
        Came::Kept
    }

    fn is_still_there(&self) -> bool {
        self.view.linear_instruction_pointer() == self.emulation.rip && !raising::is_raised(self.vcpu.id.0)
    }

    /// Says whether it, or a step of it, ran.
    fn once(&self, parts: &[Part], is_repeated: bool) -> bool {
        let host = &self.hypervisor.host;
        if is_repeated {
            // QEMU then does one step.
            leaving::without_interrupts(&self.view);
        }
        let swapped = match self.emulation.by_view {
            true => Swapped::by_view(host, self.vcpu.id, parts),
            false => Swapped::data(host, self.emulation, parts),
        };
        let before = parts::progress(&self.view);
        self.vcpu.trap.set_alone(true);
        alone::one_instruction(self.vcpu.id.0, &self.view);
        self.vcpu.trap.set_alone(false);
        swapped.back(host);
        before != parts::progress(&self.view) || raising::is_raised(self.vcpu.id.0)
    }
}

impl Hypervisor {
    /// Opens the frames that an instruction will touch; says whether it may touch all of them.
    fn opens(&self, vcpu: VcpuId, emulation: &Emulation, parts: &[Part]) -> bool {
        let mut engine = self.engine();
        if !parts.iter().all(|part| engine.is_there(part) && may_touch(&self.host, vcpu, emulation, part)) {
            return false;
        }
        // What may not be read is not mapped at all.
        let is_mapped_for = |part: &Part| self.host.rights.allowed(part.gfn).contains(part.rights.union(Rights::R));
        for part in parts.iter().filter(|part| !is_mapped_for(part)) {
            engine.open(&self.host, part.gfn);
        }
        true
    }
}

impl Engine {
    /// Whether a frame can be touched without anybody being asked for it.
    fn is_there(&self, part: &Part) -> bool {
        let kind = self.domain.p2m_type(part.gfn);
        let must_part = kind == P2mType::RamShared && part.rights.contains(Rights::W);
        self.domain.is_held(part.gfn) && !kind.is_paging() && !must_part
    }

    /// The frame is open to the vCPU that does an instruction alone. Who else sleeps on it goes on sleeping.
    fn open(&mut self, host: &Host, gfn: Gfn) {
        let Some(turn) = &mut self.turn else { return };
        if !turn.open.contains(&gfn) {
            turn.open.push(gfn);
        }
        // Again, where it was closed meanwhile, by rights that were taken or by a translation's end.
        report("open", gfn, host.memory.open(gfn));
    }

    /// The frame has its own rights again.
    pub(super) fn close(&self, host: &Host, gfn: Gfn) {
        if self.turn.as_ref().is_some_and(|turn| turn.open.contains(&gfn)) {
            // When the turn is over.
            return;
        }
        let is_there = self.domain.is_held(gfn) && !self.domain.p2m_type(gfn).is_paging();
        if is_there && host.rights.allowed(gfn).contains(Rights::R) && !self.stopped.is_touched(gfn) {
            host.map(gfn);
        } else {
            host.hide(gfn);
        }
    }

    /// Whether this vCPU does its instruction alone now.
    pub(super) fn has_turn(&self, vcpu: VcpuId) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.vcpu == vcpu)
    }

    /// The engine lets a vCPU that stands in the kernel do its instruction alone.
    pub(super) fn lets_through(&mut self, host: &Host, vcpu: VcpuId, fault: FrameFault) {
        if self.has_turn(vcpu) {
            // It does, and met this on its way. No other vCPU stands there: all are out of their blocks.
            self.open(host, fault.gfn);
            let _ = self.stopped.forget(vcpu);
            return report("open", fault.gfn, host.memory.wake(fault.gfn));
        }
        let Some(it) = host.vcpu(vcpu.0) else { return };
        if let Some(other) = self.asks_ahead(host, it, fault) {
            return self.stopped.asks_ahead(vcpu, other);
        }
        if !self.leaves_alone(host, it, fault) {
            self.opens_to_all(host, it, fault);
        } else if self.lets_go(host, fault.gfn) {
            // Others had their answers and waited for this one's; its turn begins when they are out of their blocks.
            host.map(fault.gfn);
        }
    }

    /// Something else that the instruction touches and that is not there, or forbidden: it is asked for while the machine runs.
    fn asks_ahead(&mut self, host: &Host, vcpu: &Vcpu, fault: FrameFault) -> Option<Access> {
        let emulation = self.domain.emulation(vcpu.id)?;
        let rip = emulation.rip;
        let is_missing = |part: &Part| !self.is_there(part) || !may_touch(host, vcpu.id, emulation, part);
        let missing: Vec<Part> = explain::parts(host, vcpu, fault).into_iter().filter(is_missing).collect();
        missing.iter().map(|part| part.access(rip)).find(|access| {
            let outcome = self.step(host, Input::Access { vcpu: vcpu.id, access: *access });
            matches!(outcome, Outcome::Wait(_))
        })
    }

    fn leaves_alone(&mut self, host: &Host, vcpu: &Vcpu, fault: FrameFault) -> bool {
        if !leaving::is_there() || self.stopped.stays(vcpu.id).is_some() {
            return false;
        }
        let Some((_, told)) = self.stopped.stand_of(vcpu.id) else { return false };
        if let Some(left) = told {
            // It is on its way out already.
            if queue(host, vcpu.id) {
                self.stopped.moves(vcpu.id, left);
                return true;
            }
            leaving::take_back(vcpu.id.0);
            return self.stopped.asks_when_back(vcpu.id, leaving::times(vcpu.id.0));
        }
        let Ok((place, view)) = explain::place_to_leave(host, vcpu, fault) else { return false };
        // In this order: it must not come back before there is something to do.
        if !queue(host, vcpu.id) {
            return false;
        }
        self.stopped.moves(vcpu.id, leaving::times(vcpu.id.0));
        leave::tell(vcpu, &place, &view);
        true
    }

    /// It goes on where it stands, and the frame is open until its block ends.
    fn opens_to_all(&mut self, host: &Host, vcpu: &Vcpu, fault: FrameFault) {
        Came::InItsBlock.counts();
        self.says_what_is_plain(host, vcpu.id);
        let _ = self.step(host, Input::Emulated { vcpu: vcpu.id });
        self.stopped.answered(Toucher::Vcpu(vcpu.id), fault);
        self.lend(host, vcpu, fault.gfn);
        if self.lets_go(host, fault.gfn) {
            report("open", fault.gfn, host.memory.restore(fault.gfn, true));
        }
    }
}

impl Engine {
    /// What a vCPU was to do with other content it does as it is, in its block: a line says so once.
    pub(super) fn says_what_is_plain(&self, host: &Host, vcpu: VcpuId) {
        static SAID: Once = Once::new();
        let shows_other = |it: &Emulation| it.by_view && host.rights.shown_to(vcpu, it.gfn).is_some();
        let is_other = |it: &Emulation| it.is_other() || shows_other(it);
        if self.domain.emulation(vcpu).is_some_and(is_other) {
            SAID.call_once(|| {
                eprintln!(
                    "mem-event: vCPU {vcpu} cannot leave its block for an instruction that was to run alone with other content: it ran as it is"
                );
            });
        }
    }
}

/// An answer lets an instruction touch all that it touches, a view what the view allows.
fn may_touch(host: &Host, vcpu: VcpuId, emulation: &Emulation, part: &Part) -> bool {
    !emulation.by_view || host.is_allowed_by_view(vcpu, part.gfn, part.rights)
}

/// Bytes of RAM, at a host address.
type HostBytes = (u64, u64);

/// The instruction consists of other bytes for now: those of the answer, or those that its vCPU's view shows.
fn swap_code(
    host: &Host,
    vcpu: VcpuId,
    (view, space): (&View, AddressSpace),
    emulation: &Emulation,
) -> Option<(Swapped, Vec<HostBytes>)> {
    let shown = emulation.by_view.then(|| host.shown_code(vcpu, emulation.rip, view)).flatten();
    let code = match (&emulation.code, &shown) {
        (Some(code), _) => instruction::one(&code[..LONGEST], emulation.rip, view.code_size()?)?,
        (None, Some(shown)) if !shown.is_same() => shown.bytes(),
        _ => return None,
    };
    let frames = instruction::frames(host, view, space, emulation.rip, code);
    let swapped = Swapped::code(host, &frames);
    let place = |(gfn, offset, bytes): &(Gfn, u16, &[u8])| {
        Some((host.memory.host_address(*gfn)? + u64::from(*offset), bytes.len() as u64))
    };
    let bytes: Vec<HostBytes> = frames.iter().filter_map(place).collect();
    drop_blocks(&bytes);
    Some((swapped, bytes))
}

/// Of these bytes; here and at once.
fn drop_blocks(bytes: &[HostBytes]) {
    for (address, length) in bytes {
        if let Some(ram) = internals::ram_address(*address) {
            internals::drop_blocks(ram..=ram + length - 1);
        }
    }
}
