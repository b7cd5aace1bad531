//! The engine on one thread: events a second, and the cost of the check that lets an access pass.
//!
//! Prints one JSON object a line: `name`, `value`, `unit`, `goal`, `detail`.

use mem_event::{
    Access, AccessSource, AccessType, Back, Control, Domain, DomainConfig, Effects, Gfn, Gla, Input, Layout, Outcome,
    Rights, Ring, RingPage, VcpuId, With,
};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

const FRAMES: u64 = 1 << 17;
const VCPUS: u32 = 8;
const ROUNDS: u32 = 2_000_000;

struct Rig {
    domain: Domain,
    back: Back,
    effects: Effects,
}

fn rig() -> Result<Rig, String> {
    let config = DomainConfig::new(VCPUS, vec![(Gfn(0), FRAMES)]);
    let (mut domain, mut effects) = (Domain::new(config)?, Effects::default());
    let page = RingPage::heap();
    let back = Back::init(page.clone(), Ring::Access, Layout::Flags32, 0)?;
    let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 };
    let watch = Control::SetAccess { first: Gfn(0), count: FRAMES / 2, access: AccessType::Rx };
    for control in [enable, watch] {
        match domain.apply(&Input::Control(control), With::page(&page), &mut effects) {
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
    let outcome = rig.domain.access(vcpu, &access, None, &mut rig.effects);
    assert!(matches!(outcome, Outcome::Wait(_)), "the access is not stopped");
    let Ok(Some(request)) = rig.back.take() else { panic!("no request arrived") };
    rig.back.answer(&request.answer());
    let outcome = rig.domain.kick(Ring::Access, None, &mut rig.effects);
    assert!(outcome == Outcome::Proceed && rig.domain.waiting(vcpu).is_none(), "the vCPU is not woken");
    black_box(&rig.effects);
}

/// Seconds of processor time of this thread: what one thread does is measured without what else runs on the machine.
fn busy() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn events_per_second(rig: &mut Rig, record: bool) -> f64 {
    rig.domain.keep_record(record);
    let start = busy();
    for round in 0..ROUNDS {
        event(rig, round);
    }
    f64::from(ROUNDS) / (busy() - start)
}

fn check_ns(rig: &Rig) -> f64 {
    let (rights, mut passed) = (rig.domain.rights(), 0u32);
    let start = busy();
    for round in 0..ROUNDS * 8 {
        let gfn = Gfn(FRAMES / 2 + u64::from(round).wrapping_mul(0x9e37_79b9) % (FRAMES / 2));
        passed += u32::from(black_box(&rights).allowed(gfn).contains(Rights::RW));
    }
    assert_eq!(passed, ROUNDS * 8, "an allowed access did not pass");
    (busy() - start) * 1e9 / f64::from(ROUNDS * 8)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), String> {
    let mut rig = rig()?;
    let recorded = median((0..7).map(|_| events_per_second(&mut rig, true)).collect()) / 1e6;
    let events = median((0..7).map(|_| events_per_second(&mut rig, false)).collect());
    let check = median((0..7).map(|_| check_ns(&rig)).collect());
    let detail = format!("one thread; with the record that a replay needs {recorded:.1} M/s");
    println!(
        r#"{{"name":"engine-events-per-second","value":{events:.0},"unit":"1/s","goal":">= 20000000","detail":"{detail}"}}"#
    );
    let detail = "the published rights of a random frame of 65536";
    println!(r#"{{"name":"p2m-check-ns","value":{check:.2},"unit":"ns","goal":"","detail":"{detail}"}}"#);
    Ok(())
}
