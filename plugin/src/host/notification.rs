//! A thread that is to be notified when the engine is free.

use crate::host::domain_host::Host;
use mem_event::VcpuId;
use mem_event::stopped::Asleep;
use mem_event_server::EventChannel;
use std::sync::Arc;

/// A thread that is to be notified.
#[derive(Debug)]
pub enum Notification {
    /// A vCPU's, which was released and sleeps.
    Vcpu(VcpuId, Asleep),
    /// The one thread of all vCPUs: this one had given way, and may go on.
    Turn(VcpuId),
    /// A ring's consumer.
    Consumer(Arc<EventChannel>),
}

impl Notification {
    /// Notifies it: one system call.
    pub fn deliver(self, host: &Host) {
        match self {
            Notification::Vcpu(vcpu, asleep) => {
                if let Some(vcpu) = host.vcpu(vcpu.0) {
                    vcpu.waiting.notify(asleep);
                }
            }
            Notification::Turn(vcpu) => {
                if let Some(vcpu) = host.vcpu(vcpu.0) {
                    host.makes_room_for(vcpu);
                }
            }
            Notification::Consumer(channel) => channel.signal(),
        }
    }
}
