//! The calls that a consumer hands over in shared memory: done by the thread that takes its responses, which holds the engine.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use mem_event::message::{Call, Reply};
use mem_event::{Control, Errno, Gfn, P2mType, Rights};
use mem_event_server::EventChannel;
use mem_event_server::answer;
use mem_event_server::chaos::{self, Refusable};

impl Hypervisor {
    /// What a consumer has handed over until now comes before the calls that it sends from now on.
    pub fn take_calls(&self, channel: &EventChannel) {
        if !channel.has_calls() {
            return;
        }
        let mut engine = self.engine();
        // As with responses: a consumer that lost its ring does nothing any more.
        if self.host.is_current(channel) {
            self.take_calls_held(&mut engine, channel);
        }
    }

    /// The same, by a thread that holds the engine.
    pub(super) fn take_calls_held(&self, engine: &mut Engine, channel: &EventChannel) {
        if !channel.has_calls() {
            return;
        }
        let before = engine.caller();
        engine.serving(channel.connection);
        channel.take_calls(|call| self.carry_out(engine, call));
        engine.serving(before);
    }

    fn carry_out(&self, engine: &mut Engine, call: Call) -> Result<(), Errno> {
        if let Some(errno) = Refusable::of(&call).and_then(|call| self.host.chaos.call(call)) {
            let connection = engine.caller();
            engine.called(connection, &call, &Reply::Refused(errno, chaos::SENTENCE.to_owned()));
            return Err(errno);
        }
        if !engine.arrives(&self.host) {
            engine.settle(&self.host);
        }
        match call {
            Call::Load { gfn, content } => answer::became(engine.load(&self.host, gfn, &content)),
            Call::WriteFrame { gfn, offset, ref bytes } => {
                let written =
                    answer::within(offset, bytes.len()).and_then(|()| self.write_held(engine, gfn, offset, bytes));
                let connection = engine.caller();
                engine.called(connection, &call, &answer::done(written.clone()));
                written.map_err(|(errno, _)| errno)
            }
            Call::Control(control) => self.control_held(engine, control),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What it takes away from other vCPUs is in force for their fetches and steps where they begin their next block.
    fn control_held(&self, engine: &mut Engine, mut control: Control) -> Result<(), Errno> {
        if let Err((errno, sentence)) = self.admit(engine, &control) {
            return answer::became(engine.refuse(control, errno, sentence));
        }
        let opened = if let Control::SetAccess { first, count, .. } = control { Some((first, count)) } else { None };
        let outcome = if let Control::SetAccess { .. } | Control::SetViewAccess { .. } = control {
            loop {
                if let Some(outcome) = engine.set_access(&self.host, &mut control) {
                    break outcome;
                }
            }
        } else {
            let outcome = engine.control(&self.host, control, None);
            engine.arm(&self.host);
            outcome
        };
        answer::became(outcome)?;
        if let Some((first, count)) = opened {
            (first.0..first.0 + count).map(Gfn).for_each(|gfn| engine.opens(&self.host, gfn));
        }
        Ok(())
    }
}

impl Engine {
    /// A page that is open again is mapped at once: the vCPU that is answered touches it next, and would stop in the kernel for it. Who stands on
    /// the page already is let go with its answer.
    fn opens(&self, host: &Host, gfn: Gfn) {
        let is_plain = self.domain.p2m_type(gfn) == P2mType::RamRw && self.domain.is_held(gfn);
        if is_plain && host.rights.allowed(gfn).contains(Rights::R) && !self.stopped.is_touched(gfn) {
            host.map(gfn);
        }
    }
}
