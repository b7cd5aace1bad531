//! A hidden breakpoint, as DRAKVUF makes them: a vCPU that executes the instruction comes to the breakpoint, and one that reads it finds the
//! instruction. In a view the frame shows a copy of itself, at a frame beyond RAM, which holds the breakpoint and may only be executed. Who meets it,
//! or reads there, does that one instruction in view 0, where everything is as it is.
//!
//! `mem-event run hidden --consumer 'access:vm_event7=target/release/examples/hidden 0x400000'`
//!
//! The number is the instruction's guest-physical address.

use anyhow::Context;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Cpu, CpuEventKind, Event, Gfn, Gpa, MonitorMode, ViewId};
use mem_event_client::{Channel, Client, Handed, Lost};

/// A frame beyond any RAM.
const COPY: Gfn = Gfn(1 << 24);
const PAGE: u16 = 4096;

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("hidden ADDRESS")?;
    let address = Gpa(u64::from_str_radix(address.trim_start_matches("0x"), 16)?);
    let (_, mut channel, ready) = Handed::take()?.into_channel()?;
    let view = hide(&mut channel.client, address)?;
    ready.say()?;
    match serve(&mut channel, view) {
        // The domain may end in the middle of a call, too.
        Err(error) if error.is::<Lost>() => Ok(()),
        other => other,
    }
}

fn hide(client: &mut Client, address: Gpa) -> anyhow::Result<ViewId> {
    let gfn = address.gfn();
    let control = |client: &mut Client, control| client.insist(&Call::Control(control));
    control(client, Control::Populate { gfn: COPY })?;
    let content = client.read(gfn, 0, PAGE)?;
    client.insist(&Call::WriteFrame { gfn: COPY, offset: 0, bytes: content })?;
    client.set_breakpoint(Gpa(COPY.gpa().0 | u64::from(address.offset())), false)?;
    control(client, Control::SetViews { on: true })?;
    let [number, ..] = control(client, Control::CreateView { access: AccessType::Rwx })?;
    let view = ViewId(u16::try_from(number)?);
    control(client, Control::ChangeGfn { view, old: gfn, new: COPY })?;
    control(client, Control::SetViewAccess { view, first: gfn, count: 1, access: AccessType::X })?;
    for kind in [CpuEventKind::Int3, CpuEventKind::SingleStep] {
        control(client, Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false })?;
    }
    control(client, Control::SwitchView { view })?;
    Ok(view)
}

fn serve(channel: &mut Channel, view: ViewId) -> anyhow::Result<()> {
    while channel.wait()? {
        while let Some(request) = channel.take() {
            let is_breakpoint = matches!(request.event, Event::Cpu(Cpu::Int3 { .. }));
            println!("{} of vCPU {}", if is_breakpoint { "breakpoint" } else { "read" }, request.vcpu);
            // One instruction in view 0, of whose end nobody is told.
            channel.answer(&request.answer().switching_to(ViewId::HOST).stepping_into(view));
            channel.kick()?;
        }
    }
    Ok(())
}
