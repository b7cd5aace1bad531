//! What a vCPU was doing when the host's MMU stopped it on a page.
//!
//! The memory instruction that the vCPU stands in, with the registers as they stand (QEMU writes them back before every access to
//! guest memory), explains most touches to the byte: its operand's linear address, walked through the guest's tables, gives
//! the touched address. Which one it is the check that ran last says, or QEMU's unwinding, or a note where that does not prove
//! itself ([`crate::host::witness`]). Else the page may be the one that the vCPU fetches code from, which QEMU reads when it translates.
//! What neither explains is the processor's own doing: the walk of page tables, accessed and dirty bits, an interrupt's frame,
//! a descriptor. It is reported without a linear address.
//!
//! Or it is a device's: some do their DMA in the thread of the vCPU that wrote to their register. While the instruction does
//! I/O, what is at none of the places that the processor uses by itself ([`crate::host::implicit_access`]) is foreign.

use crate::host::domain_host::Host;
use crate::host::implicit_access::ImplicitAccess;
use crate::host::instruction;
use crate::host::nested::address_space;
use crate::host::parts::{self, Part};
use crate::host::processor::Processor;
use crate::host::touch::{FrameFault, StoppedAccess, Toucher};
use crate::host::vcpu::Vcpu;
use crate::host::witness::{self, Standing};
use crate::insn::nested::AddressSpace;
use crate::insn::recipe::{Recipe, Touch};
use crate::insn::walk::{Addressed, Judged, PagingMode};
use crate::memory::file_tables::{FileTables, KeptTables};
use crate::memory::userfault::UffdFault;
use crate::qemu::leaving;
use crate::qemu::unwinding::{Doing, Place};
use crate::qemu::view::{self, View};
use crate::qemu::{api, current};
use mem_event::message::Stays;
use mem_event::{Access, AccessSource, Gfn, Gla, Gpa, Rights, VcpuId};
use std::borrow::Cow;

/// The access that a thread is stopped by in the kernel; `None` where it is no guest memory, or what the kernel told is old: the thread was woken
/// since, and if it stops again, that is told anew.
pub fn stopped_access(host: &Host, UffdFault { address, write, thread, .. }: UffdFault) -> Option<StoppedAccess> {
    let gfn = host.memory.frame_at(address)?;
    let toucher = host.vcpu_of_thread(thread).map_or(Toucher::Foreign, |vcpu| Toucher::Vcpu(vcpu.id));
    explain(host, toucher, FrameFault { gfn, offset: (address & 0xfff) as u16, write })
}

/// Where a vCPU that stands in the kernel may leave its block from.
///
/// # Errors
/// Going back to its instruction would not be as if nothing had been done.
pub fn place_to_leave(host: &Host, vcpu: &Vcpu, fault: FrameFault) -> Result<(Place, View), Stays> {
    let mut place = vcpu.place().filter(Place::is_in_qemu).ok_or(Stays::InNoAccess)?;
    let view = leaving::view_of(vcpu.id.0).ok_or(Stays::InNoAccess)?;
    let space = address_space(view.paging_mode(), &view).ok_or(Stays::InNoAccess)?;
    let explainer = Explainer::new(host, space, view, fault);
    let recipe = explainer.at(place).ok_or(Stays::InNoAccess)?;
    explainer.has_done_nothing(&recipe)?;
    // One that cannot be read may look into tables too.
    let gla = instruction::address(&view, place.page_offset);
    let subject = instruction::subject(host, &view, space, gla).ok_or(Stays::Tables)?;
    if subject.uses_tables() {
        return Err(Stays::Tables);
    }
    if host.vcpus.len() > 1 && !current::runs_all() && subject.is_locked() && explainer.is_unaligned(&recipe) {
        // QEMU runs it alone, in an exclusive section.
        place.sections = 0;
    }
    Ok((place, view))
}

/// The parts of what the instruction touches that a vCPU stands in in the kernel; none where that is not known.
pub fn parts(host: &Host, vcpu: &Vcpu, fault: FrameFault) -> Vec<Part> {
    let found = || {
        let place = vcpu.place()?;
        let view = leaving::view_of(vcpu.id.0)?;
        let space = address_space(view.paging_mode(), &view)?;
        let recipe = Explainer::new(host, space, view, fault).at(place)?;
        Some(parts::of(host, &view, space, &recipe))
    };
    found().unwrap_or_default()
}

/// The frame that a vCPU which stands in the kernel has its stack's top in.
pub fn stack_of(host: &Host, vcpu: &Vcpu) -> Option<Gfn> {
    let view = view::view_of(vcpu.id.0)?;
    let space = address_space(view.paging_mode(), &view)?;
    let memory = FileTables(&host.memory);
    let gpa = space.translate(&Addressed(&memory, view.physical_addresses()), view.stack(), Judged::NOT).ok()?;
    Some(gpa.gfn())
}

/// Whose access touched the page, given whose thread it was, and what to ask the engine; `None` where the thread was woken since.
fn explain(host: &Host, toucher: Toucher, fault: FrameFault) -> Option<StoppedAccess> {
    let unexplained = Access {
        gfn: fault.gfn,
        offset: fault.offset,
        gla: None,
        rights: if fault.write { Rights::W } else { Rights::R },
        source: AccessSource::Processor,
        rip: 0,
    };
    let plain = StoppedAccess { toucher, fault, access: unexplained, ahead: None };
    let Toucher::Vcpu(id) = toucher else { return Some(plain) };
    if !host.has_gate() {
        return Some(plain);
    }
    let Some((vcpu, view)) = host.vcpu(id.0).zip(view::view_of(id.0)) else { return Some(plain) };
    let Some(space) = address_space(paging_mode(host, vcpu, &view), &view) else { return Some(plain) };
    let explainer = Explainer::new(host, space, view, fault);
    let recipe = explainer.current(vcpu)?;
    let recipe = recipe.as_deref();
    if let Some((recipe, access)) = recipe.and_then(|recipe| Some((recipe, explainer.by_operand(recipe)?))) {
        return Some(StoppedAccess { access, ahead: explainer.comes_first(id, recipe, access), ..plain });
    }
    if let Some(access) = explainer.by_fetch() {
        return Some(StoppedAccess { access, ..plain });
    }
    if recipe.is_some_and(|recipe| explainer.is_foreign(recipe)) {
        return Some(StoppedAccess { toucher: Toucher::Foreign, ..plain });
    }
    Some(StoppedAccess { access: explainer.by_processor(recipe, unexplained), ..plain })
}

/// How the vCPU walks page tables now: its gate's last miss says, or the state in place.
fn paging_mode(host: &Host, vcpu: &Vcpu, view: &View) -> PagingMode {
    if host.has_callback_gate() && !view.runs_nested() { vcpu.trap.paging_mode() } else { view.paging_mode() }
}

struct Explainer<'a> {
    host: &'a Host,
    tables: KeptTables<'a>,
    space: AddressSpace,
    view: View,
    fault: FrameFault,
}

impl<'a> Explainer<'a> {
    fn new(host: &'a Host, space: AddressSpace, view: View, fault: FrameFault) -> Explainer<'a> {
        Explainer { host, tables: KeptTables::new(&host.memory), space, view, fault }
    }

    /// The memory instruction that the vCPU stands in, if it is one: the one whose check came last, or that unwinding tells, or that was noted last.
    /// `None` where its thread was woken since.
    fn current<'r>(&self, vcpu: &'r Vcpu) -> Option<Option<Cow<'r, Recipe>>> {
        if self.host.has_callback_gate() {
            return Some(api::current_recipe(vcpu.cache).map(Cow::Borrowed));
        }
        let noted = || api::noted_recipe(vcpu.id.0);
        if Standing::now() == Standing::Refuted {
            return Some(noted().map(Cow::Borrowed));
        }
        // In this order: a vCPU that was let go on meanwhile, with another one's touch of the page, stands where the place says.
        let place = match vcpu.doing() {
            Doing::Stands(place) => place,
            Doing::Calls => None,
            Doing::Runs | Doing::Waits => return None,
        };
        let unwound = place.and_then(|place| self.at(place));
        if Standing::now() == Standing::Proven {
            return Some(unwound.map(Cow::Owned));
        }
        let noted = noted();
        let explains = |recipe: &Recipe| self.by_operand(recipe).is_some();
        let is_explained = noted.is_some_and(explains) || unwound.as_ref().is_some_and(explains);
        // One that is not foreseen to touch memory notes nothing: what is noted is an earlier one.
        // Nor is one that the vCPU came to since it was asked for its place.
        let is_same = noted.map(|noted| noted.page_offset) == place.map(|place| place.page_offset);
        let stands_still = is_same || vcpu.place() == place;
        witness::compare(noted, place.filter(|_| unwound.is_some()), is_explained && stands_still);
        Some(noted.map(Cow::Borrowed))
    }

    /// The instruction at the place that unwinding told.
    fn at(&self, place: Place) -> Option<Recipe> {
        instruction::read(self.host, &self.tables, &self.view, self.space, place.page_offset)
    }

    /// The instruction does I/O, and the processor itself has no business with the touched byte.
    fn is_foreign(&self, recipe: &Recipe) -> bool {
        self.does_io(recipe) && !self.is_implicit(recipe)
    }

    /// It uses a port, or what it touches is no memory.
    fn does_io(&self, recipe: &Recipe) -> bool {
        let is_memory = |gla| self.translate(gla).is_none_or(|gpa| self.host.memory.offset(gpa.gfn()).is_some());
        recipe.special.is_port_io() || self.operands(recipe).any(|touch| touch.size > 0 && !is_memory(touch.gla))
    }

    fn is_implicit(&self, recipe: &Recipe) -> bool {
        let implicit = self.implicit();
        let addresses = self.addresses(recipe).chain(self.fetched());
        implicit.is_stack() || implicit.is_in_a_table() || implicit.is_walked(addresses)
    }

    fn implicit(&self) -> ImplicitAccess<'_> {
        ImplicitAccess { tables: &self.tables, space: self.space, view: self.view, fault: self.fault }
    }

    fn addresses<'r>(&'r self, recipe: &'r Recipe) -> impl Iterator<Item = u64> + 'r {
        self.operands(recipe).map(|touch| touch.gla)
    }

    /// The pages that the vCPU fetches from.
    fn fetched(&self) -> [u64; 2] {
        let rip = self.view.linear_instruction_pointer();
        [rip, (rip | 0xfff).wrapping_add(1)]
    }

    /// The processor's own doing: the walk for an operand, which is the instruction's; the walk for anything else, or something else, which
    /// is done where a block ends, and there the instruction pointer is right.
    fn by_processor(&self, recipe: Option<&Recipe>, access: Access) -> Access {
        let implicit = self.implicit();
        if let Some(recipe) = recipe
            && implicit.is_walked_for(self.addresses(recipe))
        {
            return Access { source: AccessSource::PageWalk, rip: recipe.rip(&self.view), ..access };
        }
        let is_walk = implicit.is_walked(self.fetched().into_iter());
        let source = if is_walk { AccessSource::PageWalk } else { AccessSource::Processor };
        Access { source, rip: self.view.linear_instruction_pointer(), ..access }
    }

    /// Of a repetition QEMU has written back the registers of the step that it is at.
    fn operands<'r>(&'r self, recipe: &'r Recipe) -> impl Iterator<Item = Touch> + 'r {
        let processor = Processor { view: &self.view, memory: &self.host.memory };
        (0..recipe.operands.len()).map(move |number| recipe.touch(&processor, number, 0))
    }

    /// Whether the instruction can begin anew where it was stopped: on an operand before which it writes nothing, and of what it writes, on the
    /// first byte.
    fn has_done_nothing(&self, recipe: &Recipe) -> Result<(), Stays> {
        if self.does_io(recipe) {
            return Err(Stays::Device);
        }
        let is_first = |touch: &Touch| self.fault.offset == (touch.gla & 0xfff) as u16;
        for touch in self.operands(recipe).filter(|touch| touch.size > 0) {
            if self.covers(recipe, &touch).is_some() {
                return if !self.fault.write || is_first(&touch) { Ok(()) } else { Err(Stays::Written) };
            }
            if touch.rights.contains(Rights::W) {
                return Err(Stays::Written);
            }
        }
        Err(Stays::InNoAccess)
    }

    /// Whether an operand does not lie at a multiple of its size.
    fn is_unaligned(&self, recipe: &Recipe) -> bool {
        self.operands(recipe).any(|touch| touch.size > 0 && !touch.gla.is_multiple_of(touch.size.into()))
    }

    /// An operand of the instruction that is about to run covers the touched byte.
    fn by_operand(&self, recipe: &Recipe) -> Option<Access> {
        self.operands(recipe).find_map(|touch| self.covers(recipe, &touch).map(|gla| self.on_page(recipe, touch, gla)))
    }

    /// What the instruction touches before, and may not: QEMU does it in another order. As at the check, all of it must be allowed at once.
    fn comes_first(&self, vcpu: VcpuId, recipe: &Recipe, access: Access) -> Option<Access> {
        if recipe.operands.len() < 2 {
            return None;
        }
        let before = |part: &Part| Some(Gla(part.gla)) != access.gla;
        let parts = parts::of(self.host, &self.view, self.space, recipe).into_iter().take_while(before);
        let is_missing = |part: &Part| {
            let gpa = Gpa(part.gfn.0 << 12 | u64::from(part.offset));
            part.gfn != access.gfn && !self.host.allows(vcpu, gpa, part.rights)
        };
        parts.into_iter().find(is_missing).map(|part| part.access(access.rip))
    }

    /// The linear address of the touched byte, where it is one of the operand's. An unaligned operand whose page it does not know yet QEMU reads out of
    /// sixteen bytes, from the eight on in which it begins: the first byte of these is touched for the operand's.
    fn covers(&self, recipe: &Recipe, touch: &Touch) -> Option<u64> {
        let (touched, begins) = (u64::from(self.fault.offset), touch.gla & 0xfff);
        let is_read_around = !self.fault.write && touched == begins & !7;
        let into = if is_read_around { 0 } else { touched.wrapping_sub(begins) & 0xfff };
        let covers = into < u64::from(touch.size) && touch.rights.contains(self.wanted());
        let gla = recipe.linear(touch.gla.wrapping_add(into));
        (covers && self.reaches(gla)).then_some(gla)
    }

    /// The event as the check before the instruction would have made it: where the operand begins on this page.
    fn on_page(&self, recipe: &Recipe, touch: Touch, gla: u64) -> Access {
        let begins = if touch.gla >> 12 == gla >> 12 { touch.gla } else { gla & !0xfff };
        Access {
            gfn: self.fault.gfn,
            offset: (begins & 0xfff) as u16,
            gla: Some(Gla(begins)),
            rights: touch.rights,
            source: AccessSource::Instruction,
            rip: recipe.rip(&self.view),
        }
    }

    /// QEMU reads the code that the vCPU goes on with.
    fn by_fetch(&self) -> Option<Access> {
        if self.fault.write {
            return None;
        }
        let rip = self.view.linear_instruction_pointer();
        let next = (rip & !0xfff).wrapping_add(0x1000);
        let gla = [rip, next].into_iter().find(|gla| self.reaches(*gla))?;
        Some(Access {
            gfn: self.fault.gfn,
            offset: (gla & 0xfff) as u16,
            gla: Some(Gla(gla)),
            rights: Rights::X,
            source: AccessSource::Instruction,
            rip,
        })
    }

    fn wanted(&self) -> Rights {
        if self.fault.write { Rights::W } else { Rights::R }
    }

    /// Whether the guest's tables lead this address to the touched frame. What the tables allow was judged before, or will be.
    fn reaches(&self, gla: u64) -> bool {
        self.translate(gla).is_some_and(|gpa| gpa.gfn() == self.fault.gfn)
    }

    fn translate(&self, gla: u64) -> Option<Gpa> {
        self.space.translate(&Addressed(&self.tables, self.view.physical_addresses()), gla, Judged::NOT).ok()
    }
}
