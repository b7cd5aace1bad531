//! What is done when the registers in place prove to be others than the plugin API says.

use crate::engine::hypervisor::Hypervisor;
use crate::host::instrumentation;
use crate::qemu::internals;
use crate::qemu::proof::Proof;

/// What is not checked where registers are read through the API.
pub const BY_API: &str = "registers are read through the plugin API: only flat 64-bit code is checked before it runs, of a repeated \
                          instruction only the first step; what else touches a watched page meets the host's MMU and is \
                          reported without a linear address, and its fetches are not checked";

/// Acts on what a comparison showed.
pub fn act_on(hypervisor: &Hypervisor, proof: Proof) {
    match proof {
        Proof::Holds => {}
        Proof::UseApi(what) => reads_by_api(hypervisor, &what),
        Proof::Wrong { what, was_proven } => view_is_wrong(hypervisor, &what, was_proven),
    }
}

/// The view of the registers in place did not prove itself: from now on they are read through the API.
fn reads_by_api(hypervisor: &Hypervisor, what: &str) {
    if !hypervisor.host.has_gate() {
        // Nothing is checked; arrivals at checkpoints are told apart by what the API says from here on.
        return;
    }
    let can_flush = internals::can_flush();
    let is_callback = hypervisor.host.has_callback_gate();
    let goes_on = is_callback || can_flush && hypervisor.host.gate.give_way();
    if !goes_on {
        hypervisor.fail(&format!(
            "QEMU's registers cannot be read in place here ({what}), which gate=mmu needs; take gate=callback"
        ));
    }
    if !can_flush {
        hypervisor.fail(&format!("QEMU's registers cannot be read in place here ({what}); take registers=api"));
    }
    eprintln!("mem-event: QEMU's registers cannot be read in place here ({what}); {BY_API}");
    if !is_callback {
        eprintln!("mem-event: gate=auto takes gate=callback from here on: gate=mmu reads registers in place");
        instrumentation::notes_become_checks();
    }
    // What was translated so far has checks that read in place.
    instrumentation::renew();
}

/// What is read in place is not what the API says, and nothing else is allowed, or accesses were judged by it already.
fn view_is_wrong(hypervisor: &Hypervisor, what: &str, was_proven: bool) {
    hypervisor.fail(&if was_proven {
        format!(
            "QEMU's registers in place have become wrong ({what}): what was checked lately may be wrong; the run ends"
        )
    } else {
        format!(
            "registers=direct: QEMU's registers cannot be read in place here ({what}); take registers=auto or registers=api"
        )
    });
}
