//! How a vCPU translates addresses, in its guest or in a guest of that.

use crate::insn::nested::AddressSpace;
use crate::insn::walk::PagingMode;
use crate::qemu::view::View;
use std::sync::Once;

/// What is lost where QEMU does not show by which tables a guest's guest pages.
const UNKNOWN: &str = "a guest's guest: its page tables are not known here; its fetches make no events, and its data accesses come without a \
                       linear address";

/// How a vCPU that pages so itself translates addresses now; `None` in a guest's guest whose tables are not known, which is said once.
pub fn address_space(own: PagingMode, view: &View) -> Option<AddressSpace> {
    let nested = view.nested_paging();
    if nested.is_none() {
        say_unknown();
    }
    nested.map(|nested| AddressSpace { own, nested })
}

/// Says once that a guest's guest runs whose addresses cannot be translated.
pub fn say_unknown() {
    static SAID: Once = Once::new();
    SAID.call_once(|| eprintln!("mem-event: {UNKNOWN}"));
}
