//! The figures of a recorded run. It ends for them where its consumers begin to leave: what waits then would wait for ever.

use super::told::{For, Told, Watch};
use mem_event::flow::FlowKind;
use mem_event::trace::{Step, Tape};
use mem_event::{Control, Effect, Errno, Input, Outcome, VcpuId, WaitReason};

/// The figures of this trace, whose guest ran under this flow control.
pub fn measure(tape: &mut Tape, flow: FlowKind, ended: String) -> Told {
    let vcpus = tape.header().config.vcpus as usize;
    let mut watch = Watch::new(flow, vcpus, "ns");
    let mut now = 0;
    for number in 1..=tape.len() {
        let Ok(step) = tape.step(number) else { break };
        now = step.time;
        if matches!(step.input, Input::Control(Control::Disable { drain: true, .. }) | Input::Destroy) {
            break;
        }
        see(&mut watch, step);
    }
    watch.end(ended, now)
}

/// What one step shows.
pub fn see(watch: &mut Watch, step: &Step) {
    let now = step.time;
    for effect in &step.effects.list {
        match effect {
            Effect::Requested { request, .. } => watch.put(crate::trace::row::vcpu_of(request).map(|vcpu| vcpu.0)),
            Effect::Lost { request, .. } => watch.lost(request.vcpu.0, now),
            Effect::Wake(vcpu) => watch.wakes(vcpu.0),
            _ => {}
        }
    }
    let full = matches!(step.outcome, Outcome::Retry(Errno::EBUSY) | Outcome::Refused(Errno::EBUSY, _));
    if full && matches!(step.input, Input::Foreign { .. } | Input::Control(Control::Drop { .. } | Control::Pin { .. }))
    {
        watch.refused();
    }
    if let Some(VcpuId(vcpu)) = whose(&step.input) {
        let what = match step.outcome {
            Outcome::Wait(WaitReason::Answer(_)) => Some(For::Answer),
            Outcome::Wait(WaitReason::Slot(_)) => Some(For::Room),
            _ => None,
        };
        watch.waits(vcpu, what, now);
    }
}

fn whose(input: &Input) -> Option<VcpuId> {
    match input {
        Input::Access { vcpu, .. }
        | Input::AccessNosleep { vcpu, .. }
        | Input::CpuEvent { vcpu, .. }
        | Input::Balloon { vcpu, .. } => Some(*vcpu),
        _ => None,
    }
}
