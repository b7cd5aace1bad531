//! Rings that begin, and consumers that are gone.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Beside;
use crate::host::waiter;
use mem_event::multicall::Multicall;
use mem_event::trace::Remark;
use mem_event::{Control, Errno, Input, Outcome, Ring, With};
use mem_event_server::EventChannel;
use rustix::fd::OwnedFd;
use std::sync::Arc;

impl Hypervisor {
    /// Makes a ring for a process, by its connection: the reply's descriptors are the page, the engine's signal and the consumer's.
    pub fn enable(
        &self,
        control: Control,
        ring: Ring,
        (connection, process): (u32, u32),
    ) -> Result<(Arc<EventChannel>, [OwnedFd; 3]), (Errno, String)> {
        let mut engine = self.engine_for(connection);
        if let Err((errno, sentence)) = self.admit(&mut engine, &control) {
            let _ = engine.refuse(control, errno, sentence.clone());
            return Err((errno, sentence));
        }
        drop(engine);
        let io = |error: std::io::Error| (Errno::ENOMEM, format!("no ring page or event channel: {error}"));
        let (memory, page, calls) = Multicall::create(ring).map_err(io)?;
        // A consumer may do so again, as Xen's do; one that does not still finds what says that signals are wanted.
        page.init();
        let (channel, [to_consumer, to_engine]) =
            EventChannel::new(ring, (connection, process), page.clone(), calls).map_err(io)?;
        waiter::begin(&channel).map_err(io)?;
        let channel = Arc::new(channel);
        let mut engine = self.engine_for(connection);
        let with = With::page(&page);
        match engine.step_with(&self.host, Input::Control(control), Beside { with, ..Beside::NOTHING }) {
            Outcome::Refused(errno, sentence) => {
                waiter::end(&channel);
                let holder = self.host.channel(ring).filter(|_| errno == Errno::EBUSY).map(|held| held.process);
                Err((errno, sentence + &holder.map_or(String::new(), |process| format!(": process {process} has it"))))
            }
            _ => {
                self.host.set_channel(ring, Some(Arc::clone(&channel)));
                // Requests that outlived the last consumer are on the new page; the signal of this step had no channel yet.
                channel.signal();
                engine.settle(&self.host);
                Ok((channel, [memory, to_consumer, to_engine]))
            }
        }
    }

    /// A client is gone. After the last subscriber nobody would let the vCPUs at checkpoints go on.
    pub fn unsubscribe(&self, client: &Arc<OwnedFd>) {
        if !self.host.subscribers.remove(client) {
            return;
        }
        for vcpu in &self.host.vcpus {
            for _ in 0..vcpu.stops() {
                self.remark(|| Remark::Released { vcpu: vcpu.id, connection: None });
            }
            vcpu.release_checkpoints();
            self.host.makes_room_for(vcpu);
        }
    }

    /// The consumer that held this end of a ring is gone. The ring may be another's by now: a ring that broke, or that a client
    /// disabled, can be enabled by any client.
    pub fn consumer_lost(&self, channel: &Arc<EventChannel>) {
        let ring = channel.ring;
        if self.host.channel(ring).is_some_and(|current| !Arc::ptr_eq(&current, channel)) {
            return;
        }
        let mut engine = self.engine();
        if self.host.is_current(channel) && channel.pollers.is_pending() {
            // Its last answers count, and so do the calls that it handed over before them.
            self.take_calls_held(&mut engine, channel);
        }
        self.host.set_channel(ring, None);
        let _ = engine.step(&self.host, Input::ConsumerLost { ring });
        engine.settle(&self.host);
    }

    /// Before the recording ends: answers that stand on a ring page, which no thread polls and which were not signalled, are taken as
    /// if somebody had asked for it. The trace then holds them, and tells how they were taken. A ring without any is looked at too: by
    /// that step the trace tells how long a wait has lasted.
    pub fn take_unsignalled(&self) {
        for ring in Ring::ALL {
            let Some(channel) = self.host.channel(ring) else { continue };
            if channel.clear() {
                self.take_responses(&channel);
            } else if channel.pollers.is_pending() && !channel.pollers.is_polled() {
                let _ = self.control(0, Control::Resume { ring }, None);
            } else {
                let mut engine = self.engine();
                let _ = engine.step(&self.host, Input::Kick { ring });
                engine.settle(&self.host);
            }
        }
    }
}
