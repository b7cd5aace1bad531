//! When what a call took away is in force: fetches that may not be made any more, and what is monitored, are checked from its reply on.
//!
//! Blocks that lack the check are dropped by each vCPU for itself, before it begins another block. So the reply waits until each has, or is in
//! no block that it would go on with: one that waits in its callback leaves it, and so does one that stands in the kernel, before it runs
//! another instruction (`engine/settle.rs`). Neither has to have its answer first, which may be the caller's own.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::host::instrumentation;
use crate::host::patience::Patience;
use crate::host::vcpu::Vcpu;
use crate::qemu::{current, internals, outside};
use mem_event::{Control, Rights};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Between two looks, once it has taken as long as [`SOON`].
const PAUSE: Duration = Duration::from_micros(20);
/// So long the core is only offered to others between two looks: most vCPUs have passed by then, and a timer adds more than the pause itself.
const SOON: Duration = Duration::from_micros(200);
/// As long a vCPU may take that leaves the kernel, or its callback, several times over. One that has not passed by then and whose thread sleeps,
/// while another one stands that cannot leave, or a device does, waits for that one: for QEMU's lock, or to let it pass. It is told to leave its
/// block. One whose thread is about to run is waited for, however long the machine keeps it from that,
/// until it has run for so long.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a call takes away that is in force only when blocks are gone. Data rights are by the host's MMU.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken {
    /// Nothing.
    Nothing,
    /// The right to execute frames.
    Fetches,
    /// That instructions pass unseen.
    Silence,
}

impl Taken {
    /// By this call.
    pub fn by(control: &Control) -> Taken {
        match control {
            Control::SetAccess { access, .. }
            | Control::SetViewAccess { access, .. }
            | Control::SetViewDefault { access, .. }
                if !access.rights().contains(Rights::X) =>
            {
                Taken::Fetches
            }
            Control::SetViews { .. }
            | Control::SwitchView { .. }
            | Control::SwitchVcpuView { .. }
            | Control::ChangeGfn { .. } => Taken::Fetches,
            Control::Monitor { .. } | Control::SingleStep { .. } => Taken::Silence,
            _ => Taken::Nothing,
        }
    }
}

impl Hypervisor {
    /// Waits until what a call took away is in force. In the service thread, and with the engine free.
    pub(super) fn until_in_force(&self, taken: Taken) {
        let is_switch = match taken {
            Taken::Nothing => return,
            Taken::Fetches => !internals::can_drop(),
            Taken::Silence => true,
        };
        let (begun, mut patience) = (Instant::now(), Patience::of(PATIENCE));
        while !self.is_in_force(is_switch) {
            // A vCPU may wait for this very thread to explain where it stopped.
            self.take_faults();
            self.have_them_leave();
            let is_in_the_way = self.host.anything_waits() || self.host.anything_is_stopped();
            if is_in_the_way && patience.is_over(|| self.still_in_their_blocks(is_switch)) {
                return;
            }
            between_looks(begun);
        }
    }

    /// The vCPUs that are still to leave their blocks.
    fn still_in_their_blocks(&self, is_switch: bool) -> Vec<&Vcpu> {
        let engine = self.engine();
        let are_due = self.host.vcpus.iter().filter(|vcpu| is_due(vcpu, is_switch));
        are_due.filter(|vcpu| !engine.is_out(vcpu)).collect()
    }

    /// Waits until no vCPU runs. One that stands where it cannot leave runs nothing until it has its answer.
    pub(super) fn until_paused(&self) {
        let begun = Instant::now();
        let mut told = begun;
        while !self.is_in_force(false) {
            self.take_faults();
            self.have_them_leave();
            if told.elapsed() > PATIENCE {
                told = Instant::now();
                self.host.vcpus.iter().for_each(|vcpu| _ = outside::later(vcpu.id.0, || {}));
            }
            between_looks(begun);
        }
    }

    /// `is_switch`: all blocks are to be gone, not those of some frames alone. A vCPU that halts, or that QEMU stopped, is in no block, and does
    /// what it was told before it begins one: when, nobody knows, for QEMU may miss to wake it for that.
    fn is_in_force(&self, is_switch: bool) -> bool {
        !self.host.vcpus.iter().any(|vcpu| is_due(vcpu, is_switch)) || self.still_in_their_blocks(is_switch).is_empty()
    }

    /// The faults that are there to be read.
    pub(super) fn take_faults(&self) {
        if let Some(userfault) = self.host.memory.opened_userfault() {
            // As in the service's round: the next look tries again.
            let _ = userfault.faults(|fault| {
                self.fault(fault);
            });
        }
    }
}

/// Between two looks of a wait that has begun then.
pub(super) fn between_looks(begun: Instant) {
    if begun.elapsed() < SOON { std::thread::yield_now() } else { std::thread::sleep(PAUSE) }
}

/// Whether a vCPU may be in a block that it must leave.
fn is_due(vcpu: &Vcpu, is_switch: bool) -> bool {
    let runs = vcpu.has_started() && vcpu.waiting.is_busy();
    runs && (is_switch && instrumentation::is_flushing() || outside::is_due(vcpu.id.0))
}

impl Engine {
    /// Whether the vCPU is in no block that it would go on with: it waits, or its thread runs another one.
    fn is_out(&self, vcpu: &Vcpu) -> bool {
        // Its work was queued before, and its thread looks for some after it has said whose turn it is.
        fence(Ordering::SeqCst);
        !current::may_run(vcpu.id.0) || vcpu.waits_in_callback() || self.stopped.stands(vcpu.id)
    }
}
