//! A domain without a guest, as the control socket sees it.

use super::compare::Comparison;
use super::engine::Engine;
use super::fault::Fault;
use super::replies::Replies;
use super::schedule::{Progress, Schedule};
use super::script::Script;
use crate::guest::symbols::Symbols;
use mem_event::message::{
    Call, DeviceReport, Info, MonitorReport, Notice, Reply, RingReport, Space, VcpuReport, VcpuState,
};
use mem_event::multicall::Multicall;
use mem_event::registers::Context;
use mem_event::trace::Remark;
use mem_event::trace::remark::{Answer, Asked};
use mem_event::{Control, Domain, Errno, Gfn, Gla, Gpa, Input, Layout, Outcome, P2mType, Ring, VcpuId, With};
use mem_event_server::chaos::{self, Refusable};
use mem_event_server::hypercalls::Refusal;
use mem_event_server::{Chaos, EventChannel, Hypercalls, Subscribers, answer, reports};
use rustix::fd::OwnedFd;
use std::sync::Arc;

/// The engine, what is done with it, and what is found.
pub struct Stage<'a> {
    /// The engine.
    pub engine: Engine,
    /// What comes next.
    pub schedule: Schedule<'a>,
    /// What was found.
    pub comparison: Comparison,
    /// Whether the guest runs: before, consumers start.
    pub running: bool,
    /// What stood in the way last.
    pub progress: Progress,
    /// Recorded replies that are still to come.
    replies: Replies,
    /// The recording.
    script: &'a Script,
    symbols: &'a Symbols,
    /// What is done to the consumer. Then answers are not compared.
    chaos: Chaos,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl<'a> Stage<'a> {
    /// Before the consumer is there.
    #[must_use]
    pub fn new(
        engine: Engine,
        schedule: Schedule<'a>,
        (script, symbols): (&'a Script, &'a Symbols),
        chaos: Chaos,
    ) -> Stage<'a> {
        Stage {
            engine,
            schedule,
            comparison: Comparison::with(&script.exchanges),
            running: false,
            progress: Progress::Consumer,
            replies: script.replies.clone(),
            script,
            symbols,
            chaos,
        }
    }

    /// Goes on as far as it may, and signals the consumers.
    pub fn advance(&mut self) {
        if self.running {
            self.progress = self.schedule.advance(&mut self.engine);
        }
        if self.chaos.is_none() {
            self.comparison.look(&mut self.engine, self.script, self.symbols);
        }
        self.signal();
    }

    fn signal(&mut self) {
        for ring in std::mem::take(&mut self.engine.signals) {
            let Some(channel) = self.engine.channel(ring) else { continue };
            let is_now =
                matches!(channel.put_with_fault(&self.chaos), None | Some(chaos::Fault::SpuriousNotification { .. }));
            if is_now && channel.pollers.must_signal() {
                channel.signal();
            }
        }
    }

    /// The run is over: what did not come.
    pub fn end(&mut self) {
        if self.chaos.is_none() && self.engine.fault.is_none() {
            self.comparison.end(&self.engine, self.script, self.symbols);
        }
        let _ = self.engine.subscribers.notify(&Notice::Ended);
        // Their connections end with the domain.
        self.engine.subscribers = Subscribers::default();
    }

    /// What the consumer did before it made a call comes before it.
    pub fn catch_up(&mut self) {
        for ring in Ring::ALL {
            if let Some(channel) = self.engine.channel(ring).cloned() {
                self.take_responses(&channel);
            }
        }
    }

    fn carry_out(&mut self, control: &Control, content: Option<&[u8]>) -> Outcome {
        // Rights in spans, as the plugin sets them.
        let mut control = control.clone();
        loop {
            let outcome = self.engine.step_with(&Input::Control(control.clone()), With::NOTHING, content);
            let Outcome::Value(done) = outcome else { return outcome };
            let Some(rest) = control.after(done) else { return outcome };
            control = rest;
        }
    }

    fn has_content(&self, gfn: Gfn) -> Result<(), Refusal> {
        let domain = &self.engine.domain;
        if domain.p2m_type(gfn) == P2mType::MmioDm {
            Err((Errno::EINVAL, format!("frame {gfn} is no RAM")))
        } else if !domain.is_held(gfn) {
            Err((Errno::ENOENT, format!("frame {gfn} has no content here: it is paged out")))
        } else {
            Ok(())
        }
    }

    /// The calls that a consumer has handed over.
    fn take_handed(&mut self, channel: &EventChannel) {
        self.engine.caller = channel.connection;
        channel.take_calls(|call| self.handed(channel.connection, call));
        self.engine.caller = 0;
    }

    fn handed(&mut self, connection: u32, call: Call) -> Result<(), Errno> {
        if let Some(errno) = Refusable::of(&call).and_then(|call| self.chaos.call(call)) {
            self.called(connection, &call, &Reply::Refused(errno, chaos::SENTENCE.to_owned()));
            return Err(errno);
        }
        let (control, content) = match call {
            Call::Load { gfn, content } => (Control::Prep { gfn, buffer: true }, Some(content)),
            Call::Control(control) => (control, None),
            Call::WriteFrame { gfn, offset, ref bytes } => {
                let written = answer::within(offset, bytes.len()).and_then(|()| self.has_content(gfn));
                if written.is_ok() {
                    self.engine.contents.write(gfn, offset, bytes);
                }
                self.called(connection, &call, &answer::done(written.clone()));
                return written.map_err(|(errno, _)| errno);
            }
            _ => return Err(Errno::EINVAL),
        };
        answer::became(self.carry_out(&control, content.as_deref()))?;
        self.schedule.called(&control);
        Ok(())
    }

    /// More answers than requests: said before a further request makes room for them.
    fn too_many(&mut self, channel: &EventChannel, due: u32, more: u32) {
        let with = With { until: Some(due), ..With::NOTHING };
        let _ = self.engine.step_with(&Input::Kick { ring: channel.ring }, with, None);
        let last = self.engine.exchanges.last_answered(channel.ring).cloned();
        let step = self.engine.steps;
        self.engine.fail(Fault::TooMany { ring: channel.ring, more, step, last });
        self.advance();
    }

    fn domain(&mut self) -> &Domain {
        self.catch_up();
        &self.engine.domain
    }
}

impl Hypercalls for Stage<'_> {
    fn is_current(&self, channel: &EventChannel) -> bool {
        self.engine.channel(channel.ring).is_some_and(|current| std::ptr::eq(&**current, channel))
    }

    fn control(&mut self, connection: u32, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        self.catch_up();
        self.engine.caller = connection;
        let outcome = self.carry_out(&control, content.as_deref());
        self.engine.caller = 0;
        if !matches!(outcome, Outcome::Refused(..) | Outcome::Retry(_)) {
            self.schedule.called(&control);
        }
        self.advance();
        outcome
    }

    fn enable(
        &mut self,
        control: Control,
        ring: Ring,
        (connection, process): (u32, u32),
    ) -> Result<(Arc<EventChannel>, [OwnedFd; 3]), Refusal> {
        let io = |error: std::io::Error| (Errno::ENOMEM, format!("no ring page or event channel: {error}"));
        let carries = matches!(control, Control::Enable { ring: Ring::Access, layout: Layout::VmEvent7, .. });
        if carries && !self.script.has_registers() {
            self.engine
                .note("registers", || "the requests carry no registers: the recording does not hold them".into());
        }
        let (memory, page, calls) = Multicall::create(ring).map_err(io)?;
        page.init();
        let (channel, [to_consumer, to_engine]) =
            EventChannel::new(ring, (connection, process), page.clone(), calls).map_err(io)?;
        self.engine.caller = connection;
        let outcome = self.engine.step_with(&Input::Control(control), With::page(&page), None);
        self.engine.caller = 0;
        match outcome {
            Outcome::Refused(errno, sentence) => Err((errno, sentence)),
            _ => {
                let channel = Arc::new(channel);
                self.engine.set_channel(ring, Some(Arc::clone(&channel)));
                channel.signal();
                self.advance();
                Ok((channel, [memory, to_consumer, to_engine]))
            }
        }
    }

    fn consumer_lost(&mut self, channel: &Arc<EventChannel>) {
        if self.is_current(channel) {
            self.engine.set_channel(channel.ring, None);
            let _ = self.engine.step(&Input::ConsumerLost { ring: channel.ring });
        }
    }

    /// One at a time: what the guest does after an answer comes before the next one.
    fn take_responses(&mut self, channel: &EventChannel) {
        if self.engine.channel(channel.ring).is_some_and(|current| current.takes_later(&self.chaos)) {
            return;
        }
        while self.is_current(channel) && self.engine.fault.is_none() {
            let Some(counters) = self.engine.domain.ring(channel.ring).counters else { return };
            let responses = channel.pollers.responses();
            // After the index: what was handed over before these responses is seen.
            self.take_handed(channel);
            let pending = responses.wrapping_sub(counters.rsp_cons);
            if pending == 0 {
                return channel.pollers.polled(responses);
            }
            let out = counters.req_prod_pvt.wrapping_sub(counters.rsp_cons);
            if pending > out && pending <= out + counters.slots {
                return self.too_many(channel, counters.rsp_cons.wrapping_add(out), pending - out);
            }
            let until = if pending > out { responses } else { counters.rsp_cons.wrapping_add(1) };
            let with = With { until: Some(until), ..With::NOTHING };
            self.engine.caller = channel.connection;
            let _ = self.engine.step_with(&Input::Kick { ring: channel.ring }, with, None);
            self.engine.caller = 0;
            channel.pollers.polled(until);
            self.advance();
        }
    }

    fn take_calls(&mut self, channel: &EventChannel) {
        self.take_responses(channel);
    }

    fn subscribe(&mut self, client: &Arc<OwnedFd>) {
        self.engine.subscribers.add(Arc::clone(client));
    }

    fn unsubscribe(&mut self, client: &Arc<OwnedFd>) {
        if self.engine.subscribers.remove(client) {
            self.schedule.release_all();
        }
    }

    fn at_checkpoint(&mut self, vcpu: VcpuId) -> Result<(), Refusal> {
        self.catch_up();
        if u64::from(vcpu.0) >= self.engine.domain.info().vcpus {
            Err((Errno::ESRCH, format!("no vCPU {vcpu}")))
        } else if self.schedule.is_stopped(vcpu) {
            Ok(())
        } else {
            Err((Errno::EINVAL, format!("vCPU {vcpu} is at no checkpoint")))
        }
    }

    fn release(&mut self, vcpu: VcpuId) {
        self.schedule.release(vcpu);
        self.advance();
    }

    fn end_trace(&mut self) {}

    fn registers(&mut self, vcpu: VcpuId) -> Result<Context, Refusal> {
        self.catch_up();
        self.replies.registers(vcpu)
    }

    fn translate(&mut self, space: Space, address: Gla) -> Result<Gpa, Refusal> {
        self.catch_up();
        self.replies.translation(space, address)
    }

    fn read(&mut self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> Result<(), Refusal> {
        self.catch_up();
        self.has_content(gfn)?;
        let call = Call::ReadFrame { gfn, offset, len: u16::try_from(bytes.len()).unwrap_or(u16::MAX) };
        match self.replies.next(&call) {
            Some(Reply::Bytes(recorded)) => self.engine.contents.write(gfn, offset, &recorded),
            _ => self.engine.note("read", || {
                let why = "the recording does not hold those that are read";
                format!("frames hold made-up contents: {why} (the first is frame {gfn})")
            }),
        }
        self.engine.contents.read(gfn, offset, bytes);
        Ok(())
    }

    fn write(&mut self, gfn: Gfn, offset: u16, bytes: &[u8]) -> Result<(), Refusal> {
        self.catch_up();
        self.has_content(gfn)?;
        self.engine.contents.write(gfn, offset, bytes);
        Ok(())
    }

    fn remark(&mut self, remark: impl FnOnce() -> Remark) {
        self.engine.remark(remark);
    }

    fn called(&mut self, connection: u32, call: &Call, reply: &Reply) {
        let remark = || Remark::Called { connection, call: Asked::of(call), reply: Answer::of(call, reply, false) };
        self.engine.remark(remark);
    }

    fn chaos(&self) -> &Chaos {
        &self.chaos
    }

    fn record_for(&mut self, _: u32, _: OwnedFd) -> std::io::Result<()> {
        Err(std::io::Error::other("what is replayed is a record already"))
    }

    fn ends_record_of(&mut self, _: u32) {}

    fn note(&mut self, connection: u32, text: &str) -> u64 {
        self.engine.remark(|| Remark::Note { connection, text: text.to_owned() });
        self.engine.steps
    }

    fn info(&mut self) -> Info {
        self.domain().info()
    }

    fn vcpus(&mut self, first: VcpuId) -> Vec<VcpuReport> {
        let domain = self.domain();
        let count = domain.info().vcpus;
        let all = (first.0..u32::try_from(count).unwrap_or(u32::MAX)).take(VcpuReport::MOST);
        let report = |vcpu: u32| {
            let view = domain.vcpu_view(VcpuId(vcpu));
            let (state, ring) = reports::vcpu(view.as_ref());
            let frame = view.and_then(|view| view.stopped_on).filter(|_| state != VcpuState::Running);
            VcpuReport { state, ring, frame, waited: 0, stays: None }
        };
        all.map(report).collect()
    }

    fn devices(&mut self) -> Vec<DeviceReport> {
        Vec::new()
    }

    fn rings(&mut self) -> Vec<RingReport> {
        self.catch_up();
        reports::rings(&self.engine.domain, |ring| self.engine.channel(ring).map_or(0, |channel| channel.process))
    }

    fn monitors(&mut self) -> Vec<MonitorReport> {
        reports::monitors(self.domain())
    }

    fn types(&mut self, first: Gfn) -> Vec<u8> {
        reports::types(self.domain(), first)
    }
}
