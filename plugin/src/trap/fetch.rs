//! Fetches, checked where blocks begin.
//!
//! From which frame QEMU read a block is known when it is translated, and it runs the block for no other: so the check is of that frame,
//! whatever the guest's tables say meanwhile, and a block of a frame that may be executed has none. When a frame loses the right its blocks are
//! dropped (`host/dropping.rs`). Only the page into which a first instruction reaches is looked up, each time.
//!
//! Blocks of a frame that shows another one's memory in a view are checked before each instruction: one that is the same there runs as it is, one that
//! is not is done alone, and told before if it is a breakpoint.

use crate::engine::hypervisor::Hypervisor;
use crate::host::domain_host::Host;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::insn::block_start::BlockStart;
use crate::insn::registers::CodeSize;
use crate::qemu::view::View;
use crate::trap::gate::{Check, Miss, sample};
use crate::trap::{events, wait};
use mem_event::{Gpa, Rights};

/// Before a block's first instruction. Called by the shim.
pub fn before(vcpu: u32, start: &BlockStart, view: &View) -> Go {
    let Some(hypervisor) = Hypervisor::get() else { return Go::Run };
    let Some(vcpu) = hypervisor.host.vcpu(vcpu) else { return Go::Run };
    vcpu.cache.is_checking(&start.fetch);
    if vcpu.trap.is_alone() {
        return Go::Run;
    }
    let is_unknown = view.is_by_api() && start.fetch.code != CodeSize::Bits64;
    if is_unknown || !vcpu.has_business() && start.next.is_none() && is_allowed(&hypervisor.host, vcpu, start, view) {
        return Go::Run;
    }
    vcpu.stand(start.fetch.rip(view), true);
    let go = slowly(hypervisor, vcpu, start, view);
    vcpu.go(go)
}

fn is_allowed(host: &Host, vcpu: &Vcpu, start: &BlockStart, view: &View) -> bool {
    let is_own = |gfn| host.rights.allowed_to(vcpu.id, gfn).contains(Rights::X);
    start.frame.is_none_or(|gfn| is_own(gfn) || host.shows_the_same(vcpu.id, gfn, (start.fetch.rip(view), view)))
}

#[cold]
#[inline(never)]
fn slowly(hypervisor: &Hypervisor, vcpu: &Vcpu, start: &BlockStart, view: &View) -> Go {
    sample(hypervisor, view);
    if vcpu.waiting.is_stopped() && wait::for_engine(hypervisor, vcpu) == Go::Leave
        || vcpu.is_put_elsewhere()
        || events::settle(hypervisor, vcpu, &start.fetch, view) == Go::Leave
    {
        return Go::Leave;
    }
    loop {
        let mut own = Miss::new(hypervisor, vcpu, &start.fetch, view);
        let mut check = own_page(&mut own, start);
        let mut is_alone = own.is_alone();
        if let Some(next) = start.next.as_ref().filter(|_| matches!(check, Check::Pass)) {
            // Anew after each wait: the guest's tables may be others.
            let mut next = Miss::new(hypervisor, vcpu, next, view);
            check = next.step(0);
            is_alone |= next.is_alone();
        }
        match check {
            Check::Again => {}
            Check::Leave => return Go::Leave,
            Check::Pass if is_alone => return alone(hypervisor, vcpu, (start, view)),
            Check::Pass | Check::Fault => return Go::Run,
        }
    }
}

/// The engine lets it do the instruction alone. By its view it need not, where the bytes are the same.
fn alone(hypervisor: &Hypervisor, vcpu: &Vcpu, (start, view): (&BlockStart, &View)) -> Go {
    let rip = start.fetch.rip(view);
    let shown = hypervisor.goes_by_view(vcpu).then(|| hypervisor.host.shown_code(vcpu.id, rip, view)).flatten();
    if shown.is_some_and(|code| code.is_same()) {
        hypervisor.needs_no_turn(vcpu);
        return Go::Run;
    }
    // One that was told and is the guest's is not told again where QEMU has kept its vCPU from it.
    if let Some(kind) = shown.and_then(|code| code.trap()).filter(|_| !vcpu.trap.has_given(rip)) {
        let told = match vcpu.trap.pending_event() {
            // It left its block before this breakpoint, and is back with the answer.
            Some(event) if events::is_trap_at(&event, rip) => events::report(hypervisor, vcpu, event, view, rip),
            _ => events::before(hypervisor, vcpu, kind, view, rip, start.frame.unwrap_or_default()),
        };
        if told == Go::Leave {
            return Go::Leave;
        }
        // With its answer it may go by another view, where it is not there.
        if hypervisor.goes_by_view(vcpu) {
            vcpu.trap.gives(rip);
        }
    }
    Miss::new(hypervisor, vcpu, &start.fetch, view).goes_alone(false)
}

fn own_page(miss: &mut Miss<'_>, start: &BlockStart) -> Check {
    let Some(gfn) = start.frame else { return Check::Pass };
    if miss.shows_the_same(gfn) {
        return Check::Pass;
    }
    let gla = miss.instruction();
    miss.frame(Some(gla), Gpa(gfn.0 << 12 | gla & 0xfff), Rights::X)
}
