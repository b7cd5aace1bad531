//! The engine under each flow control, told everything in any order: what holds between two steps holds after each, a domain that was put
//! away is the same again, and a draining end lets everybody go.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod common;

use common::{Bench, FRAMES, R, W, touch};
use mem_event::{
    AccessType, Control, CpuEvent, CpuEventKind, Domain, FlowKind, Gfn, Gla, Input, Layout, MonitorMode, Outcome,
    Request, Ring, VcpuId,
};
use std::collections::VecDeque;

const VCPUS: u32 = 4;
const STEPS: u32 = 1500;
const SEEDS: u64 = 60;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }
}

struct World {
    bench: Bench,
    out: [VecDeque<Request>; 3],
    random: Random,
}

impl World {
    fn new(flow: FlowKind, seed: u64) -> World {
        let mut bench = Bench::new(VCPUS);
        for ring in Ring::ALL {
            bench.must(Control::SetFlow { ring, flow });
            bench.enable(ring, 2);
        }
        let monitor = |kind, mode| Control::Monitor { kind, mode, on_change_only: false };
        bench.must(monitor(CpuEventKind::Cr3, MonitorMode::Async));
        bench.must(monitor(CpuEventKind::Int3, MonitorMode::Sync));
        World { bench, out: Default::default(), random: Random(seed) }
    }

    fn input(&mut self) -> Input {
        let random = &mut self.random;
        let vcpu = VcpuId(random.below(VCPUS));
        let gfn = Gfn(u64::from(random.below(32)));
        let rights = if random.below(2) == 0 { R } else { W };
        let access = touch(gfn.0, rights);
        let kind = if random.below(2) == 0 { CpuEventKind::Cr3 } else { CpuEventKind::Int3 };
        let types = [AccessType::N, AccessType::Rwx, AccessType::N2rwx, AccessType::R];
        match random.below(25) {
            0..=8 => Input::Access { vcpu, access },
            9 => Input::AccessNosleep { vcpu, access },
            10..=12 => Input::CpuEvent {
                vcpu,
                event: CpuEvent { kind, value: gfn.0 + 1, old: 0, number: 0, rip: Gla(0), gfn: Gfn(0) },
            },
            13 => Input::Balloon { vcpu, gfn },
            14 => Input::Abandon { vcpu },
            15 => Input::Foreign { access },
            16 => Input::Control(Control::Drop { gfn }),
            17 => Input::Control(Control::SetBudget { frames: FRAMES - u64::from(random.below(12)) }),
            18 => Input::Control(Control::Nominate { gfn }),
            19 => Input::Control(Control::Evict { gfn }),
            20 => Input::ConsumerLost { ring: Ring::ALL[random.below(3) as usize] },
            21 => Input::Control(Control::Prep { gfn, buffer: true }),
            22 => Input::Reset,
            _ => {
                let access = types[random.below(4) as usize];
                Input::Control(Control::SetAccess { first: gfn, count: 1, access })
            }
        }
    }

    fn step(&mut self) {
        let ring = Ring::ALL[self.random.below(3) as usize];
        match self.random.below(40) {
            0 => {
                let drain = self.random.below(2) == 0;
                if self.bench.control(Control::Disable { ring, drain }) == Outcome::Proceed && !drain {
                    self.out[ring.index()].clear();
                }
            }
            1 => {
                if self.bench.try_enable(ring, Layout::Flags32, 2) == Outcome::Proceed {
                    self.out[ring.index()].clear();
                }
            }
            2..=14 => {
                let most = u32::try_from(self.out[ring.index()].len()).unwrap();
                let at = self.random.below(most.max(1)) as usize;
                if let Some(request) = self.out[ring.index()].remove(at) {
                    self.bench.post(ring, &request.answer());
                    let _ = self.bench.step(&Input::Kick { ring });
                }
            }
            _ => {
                let input = self.input();
                let _ = self.bench.step(&input);
            }
        }
        for ring in Ring::ALL {
            if let Some(back) = &mut self.bench.backs[ring.index()] {
                while let Ok(Some(request)) = back.take() {
                    self.out[ring.index()].push_back(request);
                }
            }
        }
    }
}

#[test]
fn what_holds_between_two_steps_holds_under_every_flow_control() {
    for flow in FlowKind::ALL {
        let mut ended = 0;
        for seed in 0..SEEDS {
            let mut world = World::new(flow, seed);
            for _ in 0..STEPS {
                world.step();
                if world.bench.domain.ended().is_some() {
                    ended += 1;
                    break;
                }
            }
            let domain = &world.bench.domain;
            let again = Domain::restore(common::config(VCPUS), domain.checkpoint()).unwrap();
            assert_eq!(again.state(), domain.state(), "{flow}, seed {seed}");
            let _ = world.bench.step(&Input::Destroy);
            assert!((0..VCPUS).all(|vcpu| world.bench.waiting(vcpu).is_none()), "{flow}, seed {seed}");
        }
        // The sources crash the domain, or their host, without a ring; the engine's own waits.
        assert_eq!(
            ended > 0,
            matches!(flow, FlowKind::WaitQueueV5 | FlowKind::Blocked2012),
            "{flow}: {ended} domains crashed"
        );
    }
}
