//! The proof of the direct view: what is read in place is compared with what the plugin API says.

use super::layout;
use super::register::{Register, read_register};
use super::source::{self, ViewCheck};
use super::view::{self, HF_CS64, HF_LMA, HF_PE, View};
use crate::insn::registers::Registers as _;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a comparison shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "accesses may have been judged by wrong registers"]
pub enum Proof {
    /// Nothing that speaks against the view, as far as the API tells anything.
    Holds,
    /// The view is not what the API says, and nothing was judged by it: registers are read through the API from now on. Says
    /// which register differs.
    UseApi(String),
    /// It is not, and nothing else is allowed, or accesses were judged by it.
    Wrong {
        /// Which register differs, and where.
        what: String,
        /// Whether the view had proven itself before.
        was_proven: bool,
    },
}

/// Comparisons that make a proof.
const COMPARISONS: u32 = 64;

static AGREED: AtomicU32 = AtomicU32::new(0);

/// At the start of a block: remembers where this vCPU's state is, and compares the view with the API as long as it is unproven.
pub fn check(vcpu: u32, view: &View) -> Proof {
    view::remember(vcpu, view);
    if ViewCheck::now() == ViewCheck::Unproven { sample(view) } else { Proof::Holds }
}

/// Compares the view with the API once, where the API tells anything here.
pub fn sample(view: &View) -> Proof {
    if view.is_by_api() || read_register(Register::RIP).is_none() {
        return Proof::Holds;
    }
    choose_layout(view);
    match difference(view) {
        None => {
            if AGREED.fetch_add(1, Ordering::Relaxed) + 1 == COMPARISONS {
                let _ = source::becomes(ViewCheck::Proven);
            }
            Proof::Holds
        }
        Some(what) => differs(view, what),
    }
}

/// Where QEMU's tables did not tell it: the layout in which what the API knows behind the general registers is where it is.
fn choose_layout(view: &View) {
    let holds =
        |register, place, mask: u64| read_register(register).is_some_and(|api| api & mask == view.u64_at(place) & mask);
    layout::choose(|candidate| {
        holds(Register::RIP, layout::EIP.place_in(candidate), 0xffff_ffff)
            && [(Register::CR0, 0), (Register::CR3, 3), (Register::CR4, 4)]
                .into_iter()
                .all(|(register, number)| holds(register, layout::control(number).place_in(candidate), u64::MAX))
            && (0..6).all(|number| {
                let place = layout::segment(usize::from(number)).place_in(candidate);
                holds(Register::selector(number), place, 0xffff)
            })
    });
}

fn differs(view: &View, what: String) -> Proof {
    if source::gives_way() && source::becomes(ViewCheck::Api) {
        Proof::UseApi(what)
    } else if ViewCheck::now() == ViewCheck::Api {
        Proof::Holds
    } else {
        let rip = view.instruction_pointer();
        Proof::Wrong { what: format!("{what}, rip {rip:#x}"), was_proven: ViewCheck::now() == ViewCheck::Proven }
    }
}

/// The first register in which the view and the API differ, or that the API does not know.
fn difference(view: &View) -> Option<String> {
    // Outside of 64-bit code the API shows the low halves only, and zeros for R8 to R15, which keep what 64-bit code left in them.
    let (mask, count) = if view.flags() & HF_CS64 != 0 { (u64::MAX, 16) } else { (0xffff_ffff, 8) };
    let wrong = source::falsified();
    let general = (0..count).map(|n| (Register::general(n), view.general(n) ^ wrong, mask));
    let rip = std::iter::once((Register::RIP, view.u64_behind(layout::EIP), mask));
    let selectors = (0..6).map(|n| (Register::selector(n), u64::from(view.selector(n)), 0xffff));
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    let control = [(Register::CR0, 0), (Register::CR3, 3), (Register::CR4, 4)]
        .into_iter()
        .map(|(register, number)| (register, view.control(number), u64::MAX));
    let modes = [
        (Register::CR0, bit(view.flags() & HF_PE != 0, 1), 1u64),
        (Register::EFER, bit(view.flags() & HF_LMA != 0, 1 << 10), 1 << 10),
    ];
    general.chain(rip).chain(selectors).chain(control).chain(modes).find_map(|(register, in_place, mask)| {
        match read_register(register) {
            Some(api) if api & mask == in_place & mask => None,
            Some(api) => Some(format!("{}: {in_place:#x} in place, {api:#x} by the API", register.name())),
            None => Some(format!("{}: not known to the API", register.name())),
        }
    })
}
