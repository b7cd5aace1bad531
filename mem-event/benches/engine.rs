//! The engine on one thread: events a second, and the cost of the check that lets an access pass.
//!
//! Prints one JSON object a line: `name`, `value`, `unit`.

use mem_event::{
    Access, AccessSource, AccessType, Back, Control, Domain, DomainConfig, Effects, Gfn, Gla, Input, Layout, Outcome,
    Rights, Ring, RingPage, VcpuId,
};
use std::hint::black_box;
use std::time::Instant;

const FRAMES: u64 = 1 << 17;
const VCPUS: u32 = 8;
const ROUNDS: u32 = 2_000_000;

struct Rig {
    domain: Domain,
    back: Back,
    effects: Effects,
}

fn rig() -> Result<Rig, String> {
    let config = DomainConfig {
        vcpus: VCPUS,
        ram: vec![(Gfn(0), FRAMES)],
        hap: true,
        passthrough: false,
        populate_on_demand: false,
    };
    let (mut domain, mut effects) = (Domain::new(config)?, Effects::default());
    let page = RingPage::heap();
    let back = Back::init(page.clone(), Ring::Access, Layout::Flags32, 0)?;
    domain.supply(Ring::Access, page);
    let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 };
    let watch = Control::SetAccess { first: Gfn(0), count: FRAMES / 2, access: AccessType::Rx };
    for control in [enable, watch] {
        match domain.apply(&Input::Control(control), &mut effects) {
            Outcome::Proceed => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(Rig { domain, back, effects })
}

/// Claim, pause, put; consume, answer; consume the response, wake; the vCPU's next access is to another frame.
fn event(rig: &mut Rig, round: u32) {
    let gfn = u64::from(round).wrapping_mul(0x9e37_79b9) % (FRAMES / 2);
    let vcpu = VcpuId(round % VCPUS);
    let access = Access {
        gfn: Gfn(gfn),
        offset: 0x123,
        gla: Some(Gla(gfn << 12)),
        rights: Rights::W,
        source: AccessSource::Instruction,
        rip: 0x1000,
    };
    rig.effects.clear();
    let outcome = rig.domain.access(vcpu, &access, &mut rig.effects);
    assert!(matches!(outcome, Outcome::Wait(_)), "the access is not stopped");
    let Ok(Some(request)) = rig.back.take() else { panic!("no request arrived") };
    rig.back.answer(&request.answer());
    let outcome = rig.domain.kick(Ring::Access, &mut rig.effects);
    assert!(outcome == Outcome::Proceed && rig.domain.waiting(vcpu).is_none(), "the vCPU is not woken");
    black_box(&rig.effects);
}

fn events_per_second(rig: &mut Rig) -> f64 {
    let start = Instant::now();
    for round in 0..ROUNDS {
        event(rig, round);
    }
    f64::from(ROUNDS) / start.elapsed().as_secs_f64()
}

fn check_ns(rig: &Rig) -> f64 {
    let (rights, mut passed) = (rig.domain.rights(), 0u32);
    let start = Instant::now();
    for round in 0..ROUNDS * 8 {
        let gfn = Gfn(FRAMES / 2 + u64::from(round).wrapping_mul(0x9e37_79b9) % (FRAMES / 2));
        passed += u32::from(black_box(&rights).allowed(gfn).contains(Rights::RW));
    }
    assert_eq!(passed, ROUNDS * 8, "an allowed access did not pass");
    start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS * 8)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), String> {
    let mut rig = rig()?;
    let events = median((0..7).map(|_| events_per_second(&mut rig)).collect());
    let check = median((0..7).map(|_| check_ns(&rig)).collect());
    println!(r#"{{"name":"engine-events-per-second","value":{events:.0},"unit":"1/s"}}"#);
    println!(r#"{{"name":"p2m-check-ns","value":{check:.2},"unit":"ns"}}"#);
    Ok(())
}
