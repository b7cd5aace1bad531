//! What clients ask for: control operations, rings that begin, consumers that are gone. What this host or these arguments cannot
//! do is refused here; everything else is the engine's to judge.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::in_force::Taken;
use crate::engine::step::{Beside, Engine};
use crate::host::domain_host::Host;
use crate::memory::map::MemoryMap;
use mem_event::message::{Call, Reply};
use mem_event::{AccessType, Control, Errno, Gfn, Input, Outcome, Rights, ViewId};

impl Engine {
    /// A control operation that is admitted, with the content of a page-in.
    pub fn control(&mut self, host: &Host, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        let beside = Beside { content: content.as_deref(), ..Beside::NOTHING };
        let outcome = self.step_with(host, Input::Control(control), beside);
        self.arrives(host);
        self.done(host, outcome)
    }

    /// A page-in that was handed over: its answer may have come with it.
    pub fn load(&mut self, host: &Host, gfn: Gfn, content: &[u8]) -> Outcome {
        let beside = Beside { content: Some(content), ..Beside::NOTHING };
        let outcome = self.step_with(host, Input::Control(Control::Prep { gfn, buffer: true }), beside);
        self.done(host, outcome)
    }

    fn done(&mut self, host: &Host, outcome: Outcome) -> Outcome {
        let failed = !self.failures.is_empty();
        self.settle(host);
        if failed {
            return Outcome::Refused(
                Errno::EFAULT,
                "the content could not be written into the guest's memory".to_owned(),
            );
        }
        outcome
    }

    /// A control operation that does not come to a step, for the trace.
    pub fn refuse(&mut self, control: Control, errno: Errno, sentence: String) -> Outcome {
        let connection = self.caller();
        self.called(connection, &Call::Control(control), &Reply::Refused(errno, sentence.clone()));
        Outcome::Refused(errno, sentence)
    }

    /// The rights of a span of frames. Nothing where more are left, which are the control operation's then.
    pub fn set_access(&mut self, host: &Host, control: &mut Control) -> Option<Outcome> {
        let outcome = self.step(host, Input::Control(control.clone()));
        self.settle(host);
        if let Control::SetAccess { access, .. } | Control::SetViewAccess { access, .. } = control
            && access.rights() != Rights::RWX
        {
            self.arm(host);
        }
        if let Outcome::Value(done) = outcome
            && let Some(rest) = control.after(done)
        {
            *control = rest;
            return None;
        }
        Some(outcome)
    }
}

impl Hypervisor {
    /// A control operation of a connection, with the content of a page-in.
    pub fn control(&self, connection: u32, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        let mut engine = self.engine_for(connection);
        if let Err((errno, sentence)) = self.admit(&mut engine, &control) {
            return engine.refuse(control, errno, sentence);
        }
        drop(engine);
        if let Control::Inject { vcpu, vector, .. } = control
            && let Err((errno, sentence)) = self.can_inject(vcpu, vector)
        {
            return self.engine_for(connection).refuse(control, errno, sentence);
        }
        let taken = Taken::by(&control);
        if let Control::SetAccess { .. } | Control::SetViewAccess { .. } = control {
            let outcome = self.set_access(connection, control);
            self.until_in_force(taken);
            return outcome;
        }
        let mut engine = self.engine_for(connection);
        if let Control::Share { source, client, .. } = control
            && let Err((errno, sentence)) = self.can_share(&engine, source, client)
        {
            return engine.refuse(control, errno, sentence);
        }
        let (of_all, changed) = (default_of(&control), changed_frame(&control));
        let outcome = engine.control(&self.host, control, content);
        if let Some((view, access)) = of_all
            && let Some(view) = view.or_else(|| made(&outcome))
        {
            engine.spares_window(&self.host, view, access);
        }
        engine.arm(&self.host);
        if let Some(gfn) = changed.filter(|_| outcome == Outcome::Proceed) {
            self.host.checks_each_of(gfn);
        }
        drop(engine);
        self.until_in_force(taken);
        outcome
    }

    /// In spans, between which vCPUs get their turn (XSA-89).
    fn set_access(&self, connection: u32, mut control: Control) -> Outcome {
        loop {
            if let Some(outcome) = self.engine_for(connection).set_access(&self.host, &mut control) {
                return outcome;
            }
        }
    }
}

impl Engine {
    /// A view's default is of all frames. Those where accesses cannot be trapped keep all rights.
    fn spares_window(&mut self, host: &Host, view: ViewId, access: AccessType) {
        let window = MemoryMap::window();
        let end = window.end.min(host.rights.frames());
        if access.rights() != Rights::RWX && window.start < end {
            let (first, count, access) = (Gfn(window.start), end - window.start, AccessType::Rwx);
            let _ = self.step(host, Input::Control(Control::SetViewAccess { view, first, count, access }));
        }
    }
}

/// The default that a call gives a view; which, if it is there already.
fn default_of(control: &Control) -> Option<(Option<ViewId>, AccessType)> {
    match control {
        Control::CreateView { access } => Some((None, *access)),
        Control::SetViewDefault { view, access } if *view != ViewId::HOST => Some((Some(*view), *access)),
        _ => None,
    }
}

/// The frame that shows another one's memory from this call on.
fn changed_frame(control: &Control) -> Option<Gfn> {
    match control {
        Control::ChangeGfn { old, new, .. } if *new != Gfn::INVALID => Some(*old),
        _ => None,
    }
}

/// The view that a call has made.
fn made(outcome: &Outcome) -> Option<ViewId> {
    match outcome {
        Outcome::Value(number) => u16::try_from(*number).ok().map(ViewId),
        _ => None,
    }
}
