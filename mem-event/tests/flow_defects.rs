//! Each defect of Xen's flow controls, side by side with the other three: what the same guest, toolstack and consumer see of each, a line for
//! what one of them does. The accepted tables lie in `mem-event/tests/flow_defects/`.

mod common;

use common::{Bench, R, write_of_cr3};
use mem_event::{
    AccessType, Control, Effect, FlowKind, Gfn, Input, Layout, MonitorMode, Outcome, Request, Ring, VcpuId, WaitReason,
};
use std::collections::VecDeque;

/// What was done under one flow control, and what came of it.
struct Scene {
    bench: Bench,
    ring: Ring,
    /// What the consumer has taken and not answered; none if there is no consumer.
    taken: Option<VecDeque<Request>>,
    /// What a vCPU does again when it is woken, which has had no slot.
    again: Vec<Option<Input>>,
    lines: Vec<(String, String)>,
}

impl Scene {
    fn new(flow: FlowKind, ring: Ring, slots: u32, vcpus: u32) -> Scene {
        let mut bench = Bench::new(vcpus);
        bench.must(Control::SetFlow { ring, flow });
        bench.enable(ring, slots);
        Scene { bench, ring, taken: Some(VecDeque::new()), again: vec![None; vcpus as usize], lines: Vec::new() }
    }

    /// Does it, unless the host is down, and notes what it came to.
    fn does(&mut self, what: impl Into<String>, step: impl FnOnce(&mut Bench) -> Outcome) -> Option<Outcome> {
        let outcome = self.bench.domain.ended().is_none().then(|| step(&mut self.bench));
        let became = outcome.as_ref().map_or_else(|| "-".to_owned(), |outcome| self.became(outcome));
        self.lines.push((what.into(), became));
        outcome
    }

    fn became(&self, outcome: &Outcome) -> String {
        if self.bench.domain.ended().is_some() {
            return "the host is down".to_owned();
        }
        let mut became = match outcome {
            Outcome::Proceed => "done".to_owned(),
            Outcome::Wait(WaitReason::Answer(_)) => "event; waits".to_owned(),
            Outcome::Wait(WaitReason::Slot(_)) => "waits for a slot".to_owned(),
            Outcome::Retry(errno) | Outcome::Refused(errno, _) => format!("{errno:?}"),
            other => format!("{other:?}"),
        };
        if self.bench.effects.list.iter().any(|effect| matches!(effect, Effect::Lost { .. })) {
            became += ", event lost";
        }
        let woken = self.bench.woken();
        if !woken.is_empty() {
            let woken: Vec<_> = woken.iter().map(u32::to_string).collect();
            became += &format!(", wakes {}", woken.join(" "));
        }
        became
    }

    /// A vCPU's step, if it runs.
    fn vcpu_does(&mut self, vcpu: u32, what: &str, input: &Input) {
        let label = format!("vCPU {vcpu} {what}");
        if self.bench.waiting(vcpu).is_some() {
            self.lines.push((label, "(stands)".to_owned()));
        } else {
            let outcome = self.does(label, |bench| bench.step(input));
            let has_no_slot = matches!(outcome, Some(Outcome::Wait(WaitReason::Slot(_))));
            self.again[vcpu as usize] = has_no_slot.then(|| input.clone());
        }
    }

    fn reads(&mut self, vcpu: u32, gfn: u64) {
        let input = Input::Access { vcpu: VcpuId(vcpu), access: common::touch(gfn, R) };
        self.vcpu_does(vcpu, &format!("reads frame {gfn}"), &input);
    }

    fn writes_cr3(&mut self, vcpu: u32, value: u64) {
        self.vcpu_does(vcpu, &format!("writes {value:#x} to CR3"), &write_of_cr3(vcpu, value));
    }

    fn drops(&mut self, gfn: u64) {
        let drop = Control::Drop { gfn: Gfn(gfn) };
        let _ = self.does(format!("the toolstack drops frame {gfn}"), |bench| bench.control(drop));
    }

    fn disables(&mut self) {
        let disable = Control::Disable { ring: self.ring, drain: false };
        let _ = self.does("the toolstack ends the ring", |bench| bench.control(disable));
    }

    fn consumer_dies(&mut self) {
        let ring = self.ring;
        let _ = self.does("the consumer dies", |bench| bench.step(&Input::ConsumerLost { ring }));
        self.taken = None;
    }

    fn successor_enables(&mut self, slots: u32) {
        let ring = self.ring;
        let outcome = self.does("a successor enables it", |bench| bench.try_enable(ring, Layout::Flags32, slots));
        if outcome == Some(Outcome::Proceed) {
            self.taken = Some(VecDeque::new());
        }
    }

    /// What the consumer has had longest.
    fn request(&mut self) -> Option<Request> {
        let taken = self.taken.as_mut()?;
        if self.bench.domain.ended().is_none() {
            taken.extend(self.bench.requests(self.ring));
        }
        taken.pop_front()
    }

    fn answers(&mut self) {
        let (ring, label) = (self.ring, "the consumer answers".to_owned());
        match self.request() {
            Some(request) => drop(self.does(label, |bench| {
                bench.answer(ring, &request);
                Outcome::Proceed
            })),
            None => self.lines.push((label, "(has nothing)".to_owned())),
        }
    }

    /// Every vCPU that was woken for a slot goes on, and the consumer answers, until nobody can; who stands then hangs.
    fn ends(&mut self) {
        // In each round a request of a finite number is put or answered.
        for _ in 0..100 {
            let mut went_on = false;
            for vcpu in 0..self.again.len() {
                let number = u32::try_from(vcpu).expect("few");
                if self.bench.waiting(number).is_none()
                    && let Some(input) = self.again[vcpu].take()
                {
                    self.vcpu_does(number, "goes on", &input);
                    self.lines.pop();
                    went_on = true;
                }
            }
            if let Some(request) = self.request() {
                self.bench.answer(self.ring, &request);
                went_on = true;
            }
            if !went_on {
                break;
            }
        }
        let vcpus = 0..u32::try_from(self.again.len()).expect("few");
        let hung: Vec<_> =
            vcpus.filter(|vcpu| self.bench.waiting(*vcpu).is_some()).map(|vcpu| vcpu.to_string()).collect();
        let end = match (self.bench.domain.ended(), hung.as_slice()) {
            (Some(_), _) => "the host is down".to_owned(),
            (None, []) => "all run".to_owned(),
            (None, hung) => format!("hung: {}", hung.join(" ")),
        };
        self.lines.push(("in the end".to_owned(), end));
    }
}

/// Plays a scene under each flow control, and puts what came of it side by side.
fn side_by_side(name: &str, (ring, slots, vcpus): (Ring, u32, u32), play: impl Fn(&mut Scene)) {
    let scenes = FlowKind::ALL.map(|flow| {
        let mut scene = Scene::new(flow, ring, slots, vcpus);
        play(&mut scene);
        scene.ends();
        (flow, scene.lines)
    });
    let mut columns = vec![vec![String::new()]];
    columns[0].extend(scenes[0].1.iter().map(|(what, _)| what.clone()));
    for (flow, lines) in &scenes {
        let mut column = vec![flow.to_string()];
        column.extend(lines.iter().map(|(_, became)| became.clone()));
        columns.push(column);
    }
    let widths: Vec<usize> = columns.iter().map(|column| column.iter().map(String::len).max().unwrap_or(0)).collect();
    let row = |number: usize| {
        let cells = columns.iter().zip(&widths).map(|(column, width)| format!("{:<width$}", column[number]));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let table: Vec<_> = (0..columns[0].len()).map(row).collect();
    insta::with_settings!({ snapshot_path => "flow_defects", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, table.join("\n"));
    });
}

/// v5: the access pauses its vCPU, and its put sleeps, which pauses it again; the wake takes one of both back.
#[test]
fn a_vcpu_that_is_paused_and_then_sleeps_in_its_put_stands_for_ever_by_the_patch() {
    side_by_side("double_pause", (Ring::Access, 1, 2), |scene| {
        scene.bench.watch(3, AccessType::N);
        scene.reads(0, 3);
        scene.reads(1, 3);
        scene.answers();
        scene.reads(1, 3);
        scene.answers();
    });
}

/// v5: the toolstack's notice is put without a claim, and the count of producers goes below zero.
#[test]
fn a_notice_without_a_claim_ruins_the_accounts_by_the_patch() {
    side_by_side("ruined_accounts", (Ring::Paging, 8, 2), |scene| {
        (0..4).for_each(|gfn| scene.bench.page_out(gfn));
        scene.drops(0);
        scene.reads(0, 1);
        let _ = scene.does("a device reads frame 2", |bench| bench.foreign(2, R));
        scene.answers();
        scene.answers();
    });
}

/// v5: the notice looks at no ring; the pointer is the last one's.
#[test]
fn a_notice_without_a_ring_ends_the_host_by_the_patch() {
    side_by_side("stale_pointer", (Ring::Paging, 8, 1), |scene| {
        scene.bench.page_out(0);
        scene.disables();
        scene.drops(0);
    });
}

/// v5, and what Xen took: whoever sleeps keeps the ring in use, and nobody will ever answer. 2011: nobody asks, and the sleepers are left.
#[test]
fn a_dead_consumer_leaves_a_ring_in_use_or_its_sleepers_asleep() {
    side_by_side("dead_consumer", (Ring::Access, 1, 2), |scene| {
        scene.bench.watch(3, AccessType::N);
        scene.reads(0, 3);
        scene.reads(1, 3);
        scene.consumer_dies();
        scene.successor_enables(1);
        scene.disables();
        scene.successor_enables(1);
    });
}

/// v5: an event that pauses nobody sleeps in its put, so that the end of the ring is refused, though no vCPU is paused for it.
#[test]
fn an_event_that_pauses_nobody_waits_in_its_put_by_the_patch() {
    side_by_side("sleeping_poster", (Ring::Access, 1, 2), |scene| {
        scene.bench.watch(3, AccessType::N);
        scene.bench.monitor_cr3(MonitorMode::Async);
        scene.reads(0, 3);
        scene.writes_cr3(1, 0x2000);
        scene.disables();
        scene.answers();
        scene.writes_cr3(1, 0x2000);
        scene.answers();
    });
}

/// 2011: `check_ring` marks its vCPU and returns; the register is written by then, and its event is forgotten.
#[test]
fn a_full_ring_loses_the_write_of_a_register_before_the_patch() {
    side_by_side("lost_register", (Ring::Access, 1, 3), |scene| {
        scene.bench.watch(3, AccessType::N);
        scene.bench.monitor_cr3(MonitorMode::Async);
        scene.reads(0, 3);
        scene.writes_cr3(1, 0x1000);
        scene.reads(2, 3);
        scene.answers();
        scene.writes_cr3(1, 0x1000);
        scene.reads(2, 3);
    });
}

/// 2011 and since 2012: there is no slot for a foreign caller, and `drop_page` has no result to give.
#[test]
fn a_full_ring_loses_the_toolstacks_notice_everywhere_in_xen() {
    side_by_side("lost_notice", (Ring::Paging, 1, 1), |scene| {
        (0..2).for_each(|gfn| scene.bench.page_out(gfn));
        scene.reads(0, 0);
        scene.drops(1);
        scene.answers();
        scene.drops(1);
    });
}

/// 2011: one answer wakes everybody for its one slot. Since 2012: a slot for each that is free, and who needs it no more passes it on.
#[test]
fn one_answer_wakes_everybody_before_the_patch() {
    side_by_side("woken_in_vain", (Ring::Access, 1, 4), |scene| {
        scene.bench.watch(3, AccessType::N);
        (0..4).for_each(|vcpu| scene.reads(vcpu, 3));
        scene.answers();
        (0..4).for_each(|vcpu| scene.reads(vcpu, 3));
        scene.answers();
    });
}

/// Since 2012: a vCPU whose events pause nobody is stopped before the ring is full, so that each other vCPU has a slot.
#[test]
fn a_poster_that_runs_on_is_throttled_since_2012() {
    side_by_side("throttled_poster", (Ring::Access, 4, 2), |scene| {
        scene.bench.monitor_cr3(MonitorMode::Async);
        (1..=5).for_each(|value| scene.writes_cr3(0, value * 0x1000));
        scene.disables();
        scene.writes_cr3(0, 0x6000);
    });
}

/// Since 2012: the end of the ring is refused after the monitors are off.
#[test]
fn a_refused_end_has_switched_the_monitors_off_since_2012() {
    side_by_side("monitors_off", (Ring::Access, 1, 3), |scene| {
        scene.bench.monitor_cr3(MonitorMode::Sync);
        scene.writes_cr3(0, 0x1000);
        scene.writes_cr3(1, 0x1000);
        scene.disables();
        scene.writes_cr3(2, 0x1000);
    });
}
