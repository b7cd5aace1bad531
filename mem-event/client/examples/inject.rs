//! A page fault is injected where a watched page is touched, as by a consumer that has the guest bring a page in; and what the vCPU gets next is
//! asked for, which tells that it is this fault and nothing before it.
//!
//! `mem-event run injected --watch WATCHED=w --consumer 'access:vm_event7=target/release/examples/inject 0xdead1231000'`
//!
//! The number is the linear address that the guest finds in CR2.

use anyhow::Context;
use mem_event::{AccessType, Control, Cpu, Event, Flags, Request, TrapKind};
use mem_event_client::{Channel, Handed, Lost};

const PAGE_FAULT: u32 = 14;
/// Its error code.
const WRITTEN: u32 = 2;

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("inject ADDRESS")?;
    let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
    let (_, mut channel, ready) = Handed::take()?.into_channel()?;
    ready.say()?;
    match serve(&mut channel, address) {
        // The domain may end in the middle of a call, too.
        Err(error) if error.is::<Lost>() => Ok(()),
        other => other,
    }
}

fn serve(channel: &mut Channel, address: u64) -> anyhow::Result<()> {
    while channel.wait()? {
        while let Some(request) = channel.take() {
            let flags = asked(channel, &request, address)?;
            channel.answer(&request.answer().with(flags));
            channel.kick()?;
        }
    }
    Ok(())
}

/// The further flags of its answer.
fn asked(channel: &mut Channel, request: &Request, cr2: u64) -> anyhow::Result<Flags> {
    let vcpu = request.vcpu;
    match request.event {
        Event::Violation { gfn, .. } => {
            println!("page fault for vCPU {vcpu}");
            channel.client.set_access(gfn, AccessType::Rwx)?;
            let (vector, kind, error) = (PAGE_FAULT, TrapKind::Exception, WRITTEN);
            let fault = Control::Inject { vcpu, vector, kind, error, cr2 };
            channel.client.control(fault)?.map_err(|(error, why)| anyhow::anyhow!("{error}: {why}"))?;
            Ok(Flags::GET_NEXT_INTERRUPT)
        }
        Event::Cpu(Cpu::Interrupt { .. }) => {
            println!("vCPU {vcpu} gets {:?}", request.event);
            Ok(Flags::NONE)
        }
        other => anyhow::bail!("nobody asked for {other:?}"),
    }
}
