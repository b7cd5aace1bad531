//! The engine embedded in another emulator: a guest of one vCPU, a pager that keeps page 7, and nothing else.
//!
//! `cargo run -p mem-event --example embed`

use mem_event::{
    Access, AccessSource, Back, Control, Domain, DomainConfig, Effect, Effects, Flags, Gfn, Input, Layout, Outcome,
    Rights, Ring, RingPage, VcpuId, With,
};
use std::collections::HashMap;

/// What the emulator has to do itself: memory, and carrying effects out.
struct Guest {
    memory: HashMap<Gfn, u8>,
    incoming: Option<u8>,
    sleeps: bool,
}

impl Guest {
    fn carry_out(&mut self, effects: &mut Effects) {
        for effect in effects.list.drain(..) {
            println!("    {effect:?}");
            match effect {
                Effect::Punch(gfn) => drop(self.memory.remove(&gfn)),
                Effect::Fill(gfn) => self.memory.extend(self.incoming.take().map(|content| (gfn, content))),
                Effect::Wake(VcpuId(0)) => self.sleeps = false,
                _ => {}
            }
        }
    }
}

fn main() -> Result<(), String> {
    let ram = vec![(Gfn(0), 16)];
    let config = DomainConfig::new(1, ram);
    let mut domain = Domain::new(config)?;
    let mut effects = Effects::default();
    let mut guest = Guest { memory: HashMap::from([(Gfn(7), 42)]), incoming: None, sleeps: false };

    // The pager attaches: a page that both sides map, and a ring on it.
    let page = RingPage::heap();
    let mut pager = Back::init(page.clone(), Ring::Paging, Layout::Flags32, 0)?;
    let enable = Control::Enable { ring: Ring::Paging, layout: Layout::Flags32, slots: 0 };

    // It takes page 7 out, and keeps a copy.
    let mut kept = None;
    for control in [enable, Control::Nominate { gfn: Gfn(7) }, Control::Evict { gfn: Gfn(7) }] {
        println!("{control:?}");
        kept = kept.or(guest.memory.get(&Gfn(7)).copied());
        let outcome = domain.apply(&Input::Control(control), With::page(&page), &mut effects);
        assert_eq!(outcome, Outcome::Proceed);
        guest.carry_out(&mut effects);
    }

    // The vCPU reads it: told to wait, it retries when it is woken.
    let rights = Rights::R;
    let access = Access { gfn: Gfn(7), offset: 8, gla: None, rights, source: AccessSource::Instruction, rip: 0x1000 };
    let read = Input::Access { vcpu: VcpuId(0), access };
    while let outcome @ Outcome::Wait(_) = domain.apply(&read, With::NOTHING, &mut effects) {
        println!("read: {outcome:?}");
        guest.sleeps = true;
        guest.carry_out(&mut effects);
        while guest.sleeps {
            // The pager's turn: take the request, load the content, answer, signal.
            let request = pager.take().map_err(|error| error.to_string())?.ok_or("no request arrived")?;
            assert!(request.flags.contains(Flags::VCPU_PAUSED));
            guest.incoming = kept;
            let gfn = request.frame().ok_or("a request of no frame")?;
            let prep = Control::Prep { gfn, buffer: true };
            assert_eq!(domain.apply(&Input::Control(prep), With::NOTHING, &mut effects), Outcome::Proceed);
            pager.answer(&request.answer());
            let _ = domain.apply(&Input::Kick { ring: Ring::Paging }, With::NOTHING, &mut effects);
            guest.carry_out(&mut effects);
        }
    }
    println!("the guest reads {:?}", guest.memory.get(&Gfn(7)));
    if guest.memory.get(&Gfn(7)) == Some(&42) { Ok(()) } else { Err("the content was lost".to_string()) }
}
