//! The engine while one thread holds it. Whoever its steps wake or signal is called when it is free again: called earlier, he would
//! take the holder's core and want the engine, and with more threads than cores all of them would come to wait for one another.

use crate::engine::effects::Engine;
use crate::engine::hypervisor::Hypervisor;
use crate::host::event_channel::Link;
use crate::host::word::Asleep;
use mem_event::VcpuId;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, MutexGuard};

/// Somebody who is to be called.
#[derive(Debug)]
pub(crate) enum Call {
    /// A vCPU, which was let go on and sleeps.
    Vcpu(VcpuId, Asleep),
    /// A ring's consumer.
    Consumer(Arc<Link>),
}

/// The engine, held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    // In this order: the engine is free before the calls are made.
    engine: MutexGuard<'a, Engine>,
    calls: Calls<'a>,
}

#[derive(Debug)]
struct Calls<'a> {
    host: &'a Hypervisor,
    list: Vec<Call>,
}

impl<'a> Held<'a> {
    pub fn new(host: &'a Hypervisor, engine: MutexGuard<'a, Engine>) -> Held<'a> {
        Held { engine, calls: Calls { host, list: Vec::new() } }
    }
}

impl Deref for Held<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.calls.host.set_carrying_registers(self.engine.domain.carries_registers());
        self.calls.list = std::mem::take(&mut self.engine.calls);
    }
}

impl Drop for Calls<'_> {
    fn drop(&mut self) {
        for call in self.list.drain(..) {
            match call {
                Call::Vcpu(vcpu, asleep) => {
                    if let Some(vcpu) = self.host.vcpu(vcpu.0) {
                        vcpu.call(asleep);
                    }
                }
                Call::Consumer(link) => link.signal(),
            }
        }
    }
}
