//! Two gates, one meaning: what the check before an instruction stops, the host's MMU stops as well, with the same event.

use crate::support::{
    gates, has_its_accepted_sequence, judged, kernel_maps_write_protected, once_under, run_under, scenario,
};
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::scenario::Scenario;
use harness::scenario::icount::Icount;
use harness::suite;
use harness::toolstack::log::Silent;
use harness::toolstack::transcript;
use harness::verdict::Kind;
use std::path::Path;

fn both_gates_give_the_same_sequence(name: &str) {
    // `page_touch` sorts the times that it measured, which are others under another gate.
    if name == "page_touch" || !kernel_maps_write_protected() {
        return;
    }
    // The accepted sequence is that of `gate=callback`, which tests/sequences.rs compares.
    has_its_accepted_sequence(name, Gate::Mmu, 1);
}

fn run_under_auto(name: &str, argument: &str) -> (Outcome, String) {
    let mut job = Job::new(scenario(name), None).unwrap();
    job.gate = Gate::Auto;
    job.plugin = vec![argument.into()];
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{name}: {}\n{}", outcome.verdict, outcome.said);
    let sequence = transcript::text(&outcome.records, job.scenario.machine.vcpus, &job.symbols());
    (outcome, sequence)
}

fn says(outcome: &Outcome, what: &str) -> bool {
    outcome.notes.iter().any(|note| note.contains(what))
}

/// The vCPU passes a place, stands at the page that its instruction touches, leaves its block while it waits, and comes back to the place.
#[test]
fn a_place_is_told_once_however_late_the_answer_to_its_access_is() {
    if !kernel_maps_write_protected() {
        return;
    }
    let sequence = |scenario| {
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = Gate::Mmu;
        let outcome = job.run(&mut Silent, None).unwrap();
        assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
        let text = transcript::text(&outcome.records, job.scenario.machine.vcpus, &job.symbols());
        text.lines().filter(|line| line.starts_with("place")).map(str::to_owned).collect::<Vec<_>>()
    };
    let late = |nth| format!("[[faults]]\nlate-response = {{ ring = \"access\", nth = {nth}, by = \"40ms\" }}\n");
    let mut with_late_answers = scenario("places");
    with_late_answers.chaos = toml::from_str(&(1..=8).map(late).collect::<String>()).unwrap();
    assert_eq!(sequence(with_late_answers), sequence(scenario("places")));
}

#[test]
fn auto_gives_the_accepted_sequences_and_says_which_gate_it_took() {
    for name in ["read_write", "page_cross"] {
        has_its_accepted_sequence(name, Gate::Auto, 1);
    }
    let (outcome, _) = run_under_auto("page_cross", "registers=auto");
    let taken = if kernel_maps_write_protected() { "takes gate=mmu: " } else { "takes gate=callback: " };
    assert!(says(&outcome, taken) && outcome.said.contains(taken), "{:?} {}", outcome.notes, outcome.said);
}

#[test]
fn auto_takes_the_hosts_mmu_whatever_consumers_ask_for_and_the_check_where_qemu_or_the_registers_lack_something() {
    let by_kernel = if kernel_maps_write_protected() { "takes gate=mmu: " } else { "takes gate=callback: " };
    let by_names = if kernel_maps_write_protected() { "takes gate=callback: this QEMU cannot" } else { by_kernel };
    for (name, argument, taken) in [
        // A page that may be written and not read; single steps; a request with all registers.
        ("read_write", "registers=auto", by_kernel),
        ("grant_by_steps", "registers=auto", by_kernel),
        ("layout_vm_event7", "registers=auto", by_kernel),
        ("page_cross", "falsify=names", by_names),
        ("page_cross", "registers=api", "takes gate=callback: registers=api"),
        ("example", "registers=auto", "takes gate=none: "),
    ] {
        let (outcome, _) = run_under_auto(name, argument);
        assert!(says(&outcome, taken), "{name} {argument}: {:?}", outcome.notes);
    }
}

#[test]
fn auto_goes_over_to_the_check_where_registers_in_place_do_not_prove_themselves() {
    if !kernel_maps_write_protected() {
        return;
    }
    let (_, by_check) = crate::support::run(scenario("page_cross"));
    let (outcome, sequence) = run_under_auto("page_cross", "falsify=proof");
    for taken in ["takes gate=mmu: ", "takes gate=callback from here on"] {
        assert!(says(&outcome, taken), "{:?}", outcome.notes);
    }
    assert_eq!(by_check, sequence, "left by callback, right gone over to it");
}

/// `MEM_EVENT_COUNTED` takes all such scenarios (`ci/soak`). Under `-icount` a repeated instruction is one step a block.
#[test]
fn on_a_machine_that_counts_instructions_the_hosts_mmu_gives_the_accepted_sequences() {
    if !kernel_maps_write_protected() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let all = std::env::var_os("MEM_EVENT_COUNTED").is_some();
    let files: Vec<_> =
        ["read_write", "page_cross", "repeat_pages"].map(|name| folder.join(format!("{name}.toml"))).into();
    let cases = suite::cases(&if all { vec![folder] } else { files }).unwrap();
    let (mut same, mut others) = (0, Vec::new());
    for mut case in cases {
        let machine = &mut case.scenario.machine;
        if machine.icount.is_some() {
            continue;
        }
        machine.icount = Some(Icount { shift: 2 });
        match judged(&case, &once_under(Gate::Mmu)) {
            (kind, Some(wrong)) if kind != Kind::Skip => others.push(wrong),
            _ => same += 1,
        }
    }
    println!("{same} scenarios are the same where instructions are counted");
    assert!(others.is_empty() && same > 0, "{}", others.join("\n"));
}

/// With each page opened whole no page may be written and not read, and no check is beside the host's MMU: then too operands come in the
/// processor's order, and with their addresses. Vector registers were once read where those of AVX-512 stand. To QEMU a flushed line is no access.
#[test]
fn without_any_check_beside_it_the_hosts_mmu_tells_operands_alike() {
    let sequence = |gate| {
        let mut operands = scenario("operands");
        operands.consumers.listener.as_mut().unwrap().rules.clear();
        let (_, text) = run_under(gate, operands);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let flushes = lines.iter().position(|line| line.contains("op_flush_line")).unwrap() + 1;
        if lines[flushes].starts_with("access") {
            lines.remove(flushes);
        }
        lines.join("\n")
    };
    let told: Vec<String> = gates().into_iter().map(sequence).collect();
    assert!(told[0].contains("gla 0x502470  -w-"), "{}", told[0]);
    told.iter().for_each(|other| assert_eq!(other, &told[0]));
}

/// A frame that gets memory again has the rights that were set for it: it was mapped to be written to, whatever they are.
#[test]
fn memory_that_comes_anew_is_watched() {
    for (access, told) in [("rx", 1), ("x", 1), ("rwx", 0)] {
        let text = format!(
            r#"
            version = 1
            about = "memory that goes and comes"
            machine = {{ guest = "touch" }}
            [consumers.listener]
            [[steps]]
            at = 2
            do = [
                {{ balloon = {{ frames = "WRITTEN" }} }},
                {{ default-access = {{ access = "{access}" }} }},
                {{ populate = {{ frames = "WRITTEN" }} }},
            ]
            "#
        );
        for gate in gates() {
            let scenario = Scenario::parse(Path::new("anew.toml"), text.clone()).unwrap();
            let (outcome, sequence) = run_under(gate, scenario);
            assert_eq!(outcome.counts.access, told, "{gate}, {access}: {sequence}");
        }
    }
}

/// The view allows that an instruction reads a page, and not that it writes the same: the vCPU was to do it alone for the read, and could not for
/// the write, for ever.
#[test]
fn what_a_view_allows_in_part_is_asked_for_whole() {
    // In the place of `clflush`, of which nothing is expected: `mov rsi, rdi`, `movsb`, `ret`.
    let text = r#"
        version = 1
        about = "a view by which pages may be read, and one by which they may not"
        deadline = "20s"
        rings.access.layout = "vm_event7"
        machine = { guest = "operands", cpu = "max", vcpus = 2 }
        start = [
            { views = { on = true } },
            { create-view = { view = 1 } },
            { set-access = { frames = "WATCHED", access = "r", view = 1 } },
            { create-view = { view = 2 } },
            { set-access = { frames = "WATCHED", access = "n", view = 2 } },
            { switch-view = { view = 2, vcpu = 1 } },
            { write = { at = "op_flush_line", value = "0x909090c3a4fe8948" } },
        ]
        [[consumers.listener.rules]]
        then = { view = 0 }
        [[steps]]
        at = 1
        do = [{ switch-view = { view = 1, vcpu = 0 } }]
        "#;
    for gate in gates() {
        let scenario = Scenario::parse(Path::new("part.toml"), text.to_owned()).unwrap();
        let (_, sequence) = run_under(gate, scenario);
        let copies = sequence.lines().skip_while(|line| !line.contains("op_flush_line")).nth(1).unwrap_or_default();
        assert!(copies.contains("WATCHED  offset 0x0  gla 0x502000  -w-"), "{gate}: {copies}");
    }
}

include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            both_gates_give_the_same_sequence(stringify!($name));
        })*
    };
}

with_all_scenarios!(scenarios);
