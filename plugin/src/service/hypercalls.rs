//! What the domain does for the clients of the control socket.

use crate::engine::hypervisor::Hypervisor;
use mem_event::message::{Call, DeviceReport, Info, MonitorReport, Over, Reply, RingReport, Space, VcpuReport};
use mem_event::registers::Context;
use mem_event::trace::Remark;
use mem_event::{Control, Errno, Gfn, Gla, Gpa, Outcome, Ring, VcpuId};
use mem_event_server::hypercalls::Refusal;
use mem_event_server::{Chaos, EventChannel, Hypercalls};
use rustix::fd::OwnedFd;
use std::sync::Arc;

impl Hypercalls for &Hypervisor {
    fn control(&mut self, connection: u32, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        Hypervisor::control(self, connection, control, content)
    }

    fn enable(
        &mut self,
        control: Control,
        ring: Ring,
        caller: (u32, u32),
    ) -> Result<(Arc<EventChannel>, [OwnedFd; 3]), Refusal> {
        Hypervisor::enable(self, control, ring, caller)
    }

    fn is_current(&self, channel: &EventChannel) -> bool {
        self.host.is_current(channel)
    }

    fn consumer_lost(&mut self, channel: &Arc<EventChannel>) {
        Hypervisor::consumer_lost(self, channel);
    }

    fn take_responses(&mut self, channel: &EventChannel) {
        Hypervisor::take_responses(self, channel);
    }

    fn take_calls(&mut self, channel: &EventChannel) {
        Hypervisor::take_calls(self, channel);
    }

    fn subscribe(&mut self, client: &Arc<OwnedFd>) {
        self.host.subscribers.add(Arc::clone(client));
    }

    fn unsubscribe(&mut self, client: &Arc<OwnedFd>) {
        Hypervisor::unsubscribe(self, client);
    }

    fn at_checkpoint(&mut self, vcpu: VcpuId) -> Result<(), Refusal> {
        match self.host.vcpu(vcpu.0) {
            Some(vcpu) if vcpu.awaits_release() => Ok(()),
            Some(_) => Err((Errno::EINVAL, format!("vCPU {vcpu} is at no checkpoint"))),
            None => Err((Errno::ESRCH, format!("no vCPU {vcpu}"))),
        }
    }

    fn release(&mut self, vcpu: VcpuId) {
        self.releases(vcpu);
    }

    fn end_trace(&mut self) {
        self.take_unsignalled();
        self.end();
    }

    fn read(&mut self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> Result<(), Refusal> {
        Hypervisor::read(self, gfn, offset, bytes)
    }

    fn write(&mut self, gfn: Gfn, offset: u16, bytes: &[u8]) -> Result<(), Refusal> {
        Hypervisor::write(self, gfn, offset, bytes)
    }

    fn memory(&mut self, beyond: bool) -> Result<OwnedFd, Refusal> {
        Hypervisor::memory(self, beyond)
    }

    fn place(&mut self, gfn: Gfn) -> Result<(u64, bool), Refusal> {
        Hypervisor::place(self, gfn)
    }

    fn registers(&mut self, vcpu: VcpuId) -> Result<Context, Refusal> {
        Hypervisor::registers(self, vcpu)
    }

    fn set_registers(&mut self, vcpu: VcpuId, context: &Context) -> Result<(), Refusal> {
        Hypervisor::set_registers(self, vcpu, context)
    }

    fn pause(&mut self) -> Result<(), Refusal> {
        Hypervisor::pause(self)
    }

    fn unpause(&mut self) {
        Hypervisor::unpause(self);
    }

    fn translate(&mut self, space: Space, address: Gla) -> Result<Gpa, Refusal> {
        Hypervisor::translate(self, space, address)
    }

    fn over_breakpoints(&self) -> Over {
        Hypervisor::over_breakpoints(self)
    }

    fn may_be_written(&mut self, gfn: Gfn) {
        Hypervisor::may_be_written(self, gfn);
    }

    fn remark(&mut self, remark: impl FnOnce() -> Remark) {
        Hypervisor::remark(self, remark);
    }

    fn called(&mut self, connection: u32, call: &Call, reply: &Reply) {
        Hypervisor::called(self, connection, call, reply);
    }

    fn note(&mut self, connection: u32, text: &str) -> u64 {
        Hypervisor::note(self, connection, text)
    }

    fn chaos(&self) -> &Chaos {
        &self.host.chaos
    }

    fn record_for(&mut self, connection: u32, file: OwnedFd) -> std::io::Result<()> {
        Hypervisor::record_for(self, connection, file)
    }

    fn ends_record_of(&mut self, connection: u32) {
        Hypervisor::ends_record_of(self, connection);
    }

    fn info(&mut self) -> Info {
        Hypervisor::info(self)
    }

    fn vcpus(&mut self, first: VcpuId) -> Vec<VcpuReport> {
        self.reports(first)
    }

    fn devices(&mut self) -> Vec<DeviceReport> {
        Hypervisor::devices(self)
    }

    fn rings(&mut self) -> Vec<RingReport> {
        Hypervisor::rings(self)
    }

    fn monitors(&mut self) -> Vec<MonitorReport> {
        Hypervisor::monitors(self)
    }

    fn types(&mut self, first: Gfn) -> Vec<u8> {
        Hypervisor::types(self, first)
    }
}
