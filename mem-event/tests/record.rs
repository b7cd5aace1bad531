//! The record of what crosses ring pages is for traces; the engine does the same without it.

mod common;

use common::{Bench, R, W};
use mem_event::{AccessType, Control, Effect, Layout, Outcome, Ring, VcpuId};

/// Touches, a full ring, answers, a lost consumer and its successor; all effects but the record's, and what was taken.
fn script(record: bool, layout: Layout) -> (Vec<Effect>, usize, Bench) {
    let mut bench = Bench::new(4);
    bench.domain.keep_record(record);
    let (mut effects, mut taken) = (Vec::new(), 0);
    let mut note = |bench: &Bench| {
        effects.extend(bench.effects.list.iter().cloned());
        taken += bench.effects.taken.len();
    };
    assert_eq!(bench.try_enable(Ring::Access, layout, 2), Outcome::Proceed);
    bench.must(Control::SetAccess { first: mem_event::Gfn(0), count: 8, access: AccessType::N });
    for vcpu in 0..3 {
        let _ = bench.access(vcpu, u64::from(vcpu), if vcpu == 1 { W } else { R });
        note(&bench);
    }
    for request in bench.requests(Ring::Access) {
        bench.answer(Ring::Access, &request);
        note(&bench);
    }
    let _ = bench.access(2, 2, R);
    note(&bench);
    let _ = bench.step(&mem_event::Input::ConsumerLost { ring: Ring::Access });
    note(&bench);
    assert_eq!(bench.try_enable(Ring::Access, layout, 2), Outcome::Proceed);
    note(&bench);
    let request = bench.request(Ring::Access);
    assert_eq!(request.vcpu, VcpuId(2));
    bench.answer(Ring::Access, &request);
    note(&bench);
    let recorded = |effect: &Effect| matches!(effect, Effect::Requested { .. } | Effect::Answered { .. });
    assert_eq!(effects.iter().any(recorded), record);
    effects.retain(|effect| !recorded(effect));
    (effects, taken, bench)
}

#[test]
fn without_the_record_the_engine_does_the_same() {
    for layout in [Layout::Flags16, Layout::Flags32, Layout::VmEvent7] {
        let (with, taken, kept) = script(true, layout);
        let (without, nothing, not_kept) = script(false, layout);
        assert_eq!(with, without);
        assert!(with.len() > 6 && taken > 3 * 40);
        assert_eq!(nothing, 0);
        assert_eq!(kept.domain.state(), not_kept.domain.state());
    }
}
