//! The terminal debugger: where its keys lead, what its screen shows, and that it gives the terminal back.

use crate::support::terminal::{read_until, spawn_on, terminal};
use crate::support::{command, wait_for};
use harness::machine::folder::RunFolder;
use harness::step::app::App;
use harness::step::model::Model;
use harness::step::style::Theme;
use harness::step::view;
use mem_event::trace::{Context, Header, Player, Symbol, Tape, Writer};
use mem_event::{
    Access, AccessSource, AccessType, Back, Control, Domain, DomainConfig, Effect, Effects, Gfn, Gla, Input, Layout,
    Rights, Ring, RingPage, VcpuId, With,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Color;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::termios::LocalModes;
use std::io::{Cursor, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

const SIZE: (u16, u16) = (80, 24);
/// The step of the sample at which vCPU 2 finds the ring full.
const FULL: u64 = 5;
/// The steps that concern frame 0x5 after the third.
const OF_FRAME_5: [u64; 5] = [5, 6, 7, 8, 9];

fn header() -> Header {
    let symbol = |name: &str, gpa| Symbol { gpa, size: 0x1000, name: name.to_owned() };
    Header {
        scenario: "a ring of two slots, three vCPUs".into(),
        symbols: vec![symbol("WATCHED", 0x5000), symbol("NEXT", 0x6000), symbol("PAGED", 0x9000)],
        ..Header::of("sample", DomainConfig::new(3, vec![(Gfn(0), 64)]))
    }
}

fn access(vcpu: u32, gfn: u64) -> Input {
    let access = Access {
        gfn: Gfn(gfn),
        offset: 8,
        gla: Some(Gla((gfn << 12) + 8)),
        rights: Rights::W,
        source: AccessSource::Instruction,
        rip: 0x10_0000,
    };
    Input::Access { vcpu: VcpuId(vcpu), access }
}

fn enable(ring: Ring, slots: u32) -> Input {
    Input::Control(Control::Enable { ring, layout: Layout::Flags32, slots })
}

fn set_access(first: u64, count: u64, access: AccessType) -> Input {
    Input::Control(Control::SetAccess { first: Gfn(first), count, access })
}

/// Three vCPUs want two slots; a frame is paged out and in again; an answer without rights makes the same event again.
fn inputs() -> Vec<Input> {
    let gfn = Gfn(9);
    vec![
        enable(Ring::Access, 2),
        set_access(5, 2, AccessType::R),
        access(0, 5),
        access(1, 6),
        access(2, 5),
        set_access(5, 1, AccessType::Rwx),
        Input::Kick { ring: Ring::Access },
        access(0, 5),
        access(2, 5),
        enable(Ring::Paging, 8),
        Input::Control(Control::Nominate { gfn }),
        Input::Control(Control::Evict { gfn }),
        access(0, 9),
        Input::Control(Control::Prep { gfn, buffer: true }),
        Input::Kick { ring: Ring::Paging },
        access(0, 9),
        Input::Kick { ring: Ring::Access },
        access(1, 6),
    ]
}

/// The trace of those steps; at step `wrong` an effect too many is recorded, as an engine with a bug would.
fn trace(wrong: Option<usize>) -> Vec<u8> {
    recorded(inputs(), wrong)
}

fn recorded(inputs: Vec<Input>, wrong: Option<usize>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    writer.put_states_every(7);
    let mut domain = Domain::new(header().config).unwrap();
    let mut backs: [Option<Back>; 3] = [None, None, None];
    let mut effects = Effects::default();
    for (at, input) in inputs.into_iter().enumerate() {
        let page = RingPage::heap();
        if let Input::Control(Control::Enable { ring, slots, .. }) = input {
            backs[ring.index()] = Some(Back::init(page.clone(), ring, Layout::Flags32, slots).unwrap());
        }
        if let Input::Kick { ring } = input {
            let back = backs[ring.index()].as_mut().unwrap();
            let request = back.take().unwrap().unwrap();
            back.answer(&request.answer());
        }
        effects.clear();
        let outcome = domain.apply(&input, With::page(&page), &mut effects);
        if wrong == Some(at + 1) {
            effects.list.push(Effect::Wake(VcpuId(1)));
        }
        let time = 1000 * (at as u64 + 1);
        writer.record(Context { time, code: &[64, 0x48, 0x89, 0x03], connection: 0 }, &input, &outcome, &effects);
        if writer.wants_state() && wrong.is_none() {
            writer.keep(&domain);
        }
    }
    writer.finish().unwrap();
    file
}

type Sample = App<Cursor<Vec<u8>>>;

fn app(bytes: Vec<u8>) -> Sample {
    App::new(Model::new(Player::new(Tape::new(Cursor::new(bytes)).unwrap()).unwrap()))
}

/// Types keys: letters as they are, `⏎` for Enter, `⎋` for Esc; and lets each search end.
fn keys(app: &mut Sample, keys: &str) {
    for letter in keys.chars() {
        let code = match letter {
            '⏎' => KeyCode::Enter,
            '⎋' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        app.key(KeyEvent::from(code));
        while app.model.hunting().is_some() {
            app.model.advance(3);
        }
    }
}

fn screen(app: &mut Sample, (width, height): (u16, u16), theme: Theme) -> ratatui::buffer::Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, app, theme)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(app: &mut Sample, size: (u16, u16)) -> String {
    let buffer = screen(app, size, Theme::new(false));
    let row = |row: &[ratatui::buffer::Cell]| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    buffer.content.chunks(usize::from(size.0)).map(|cells| row(cells).trim_end().to_owned() + "\n").collect()
}

fn is_accepted(name: &str, screen: &str) {
    insta::with_settings!({
        snapshot_path => "../../snapshots/step",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, screen) });
}

#[test]
fn the_screen_shows_steps_rings_vcpus_and_p2m_side_by_side() {
    let mut app = app(trace(None));
    keys(&mut app, ":5⏎m");
    is_accepted("full_ring", &text(&mut app, SIZE));
    keys(&mut app, "jj");
    is_accepted("answer", &text(&mut app, SIZE));
    keys(&mut app, ":13⏎");
    is_accepted("paged_out", &text(&mut app, (120, 36)));
}

#[test]
fn a_wide_screen_has_the_instruction_and_the_p2m_between_the_steps_and_the_rings() {
    let mut app = app(trace(None));
    keys(&mut app, ":5⏎");
    let wide = text(&mut app, (150, 30));
    let head = wide.lines().nth(1).unwrap();
    let places = ["[1] steps", "[2] step", "[3] rings"].map(|panel| head.find(panel).unwrap());
    assert!(places.is_sorted(), "{wide}");
    for shown in ["code    mov [rbx], rax", "[5] p2m", "waits: slot of access (1 of 1)", "queue, oldest first: vcpu 2"]
    {
        assert!(wide.contains(shown), "{shown}:\n{wide}");
    }
}

#[test]
fn a_run_of_steps_of_one_kind_is_one_line_that_says_how_many() {
    let mut inputs = vec![enable(Ring::Access, 2)];
    inputs.extend((0..30).map(|gfn| set_access(gfn, 1, AccessType::Rwx)));
    inputs.push(access(0, 5));
    let mut app = app(recorded(inputs, None));
    keys(&mut app, ":32⏎");
    let shown = text(&mut app, SIZE);
    assert!(shown.contains(" 2 to 31, 30 steps: set-access 0x0 ok"), "{shown}");
    assert!(shown.contains(">  32 v0 access 0x5"), "{shown}");
    // Where one stands, and what is marked, is a line of its own.
    keys(&mut app, ":10⏎m:20⏎");
    let shown = text(&mut app, SIZE);
    for line in [
        " 2 to 9, 8 steps: ",
        " m 10 set-access 0x8",
        "11 to 19, 9 steps: ",
        ">  20 set-access 0x12",
        "21 to 31, 11 steps: ",
    ] {
        assert!(shown.contains(line), "{line}:\n{shown}");
    }
}

#[test]
fn each_panel_can_have_the_whole_screen() {
    let mut app = app(trace(None));
    keys(&mut app, ":5⏎3");
    is_accepted("rings", &text(&mut app, SIZE));
    keys(&mut app, "?");
    is_accepted("help", &text(&mut app, SIZE));
    keys(&mut app, "5");
    assert!(text(&mut app, SIZE).contains(">0x5    ram_rw       r     v0 WATCHED"), "{}", text(&mut app, SIZE));
    keys(&mut app, "i");
    assert!(text(&mut app, SIZE).contains("a ring of two slots, three vCPUs"));
    keys(&mut app, "mb");
    assert!(text(&mut app, SIZE).contains(">m  5 v2 access 0x5"));
    keys(&mut app, "⎋");
    assert!(app.large.is_none());
}

#[test]
fn going_back_shows_the_engine_that_going_forward_showed() {
    let mut app = app(trace(None));
    let len = app.model.len();
    let mut seen = Vec::new();
    for number in 0..=len {
        app.model.go(number);
        app.model.choose_frame(Gfn(5));
        assert!(app.model.moment().stop.is_none());
        seen.push(app.model.moment().clone());
    }
    for number in (0..=len).rev() {
        app.model.go(number);
        app.model.choose_frame(Gfn(5));
        let (now, then) = (app.model.moment(), &seen[usize::try_from(number).unwrap()]);
        assert_eq!((&now.before, &now.after, &now.step), (&then.before, &then.after, &then.step), "step {number}");
    }
    assert!(seen[5].after.rings[1].queue == [VcpuId(2)] && seen[5].before.as_ref().unwrap().rings[1].queue.is_empty());
}

#[test]
fn keys_lead_to_the_steps_of_a_frame_a_vcpu_and_a_request() {
    let mut app = app(trace(None));
    keys(&mut app, ":3⏎");
    for number in OF_FRAME_5 {
        keys(&mut app, "f");
        assert_eq!((app.model.at(), app.model.frame()), (number, Some(Gfn(5))));
    }
    keys(&mut app, "f");
    assert_eq!(app.model.at(), 9, "no step after it concerns the frame");
    assert!(app.model.message().unwrap().contains("no step after 9 fits frame 0x5"));
    keys(&mut app, "F");
    assert_eq!(app.model.at(), 8);
    keys(&mut app, ":4⏎v");
    assert_eq!((app.model.at(), app.model.vcpu()), (17, Some(VcpuId(1))), "its answer comes next");
    keys(&mut app, "V");
    assert_eq!(app.model.at(), 4);
    keys(&mut app, "e");
    assert_eq!((app.model.at(), app.model.frame()), (13, Some(Gfn(9))), "the next request");
}

#[test]
fn words_and_conditions_are_looked_for_in_both_directions() {
    let mut app = app(trace(None));
    keys(&mut app, "/SLOT OF ACCESS⏎");
    assert_eq!(app.model.at(), FULL);
    keys(&mut app, "gckind == kick and ring == paging⏎");
    assert_eq!(app.model.at(), 15);
    keys(&mut app, "gcvcpu == 1⏎");
    assert_eq!(app.model.at(), 4);
    keys(&mut app, "n");
    assert_eq!(app.model.at(), 18);
    keys(&mut app, "N");
    assert_eq!(app.model.at(), 4);
    for (typed, told) in
        [("cvcpu is 1⏎", "no operator"), ("cwait > 1ms⏎", "show --where"), ("/nothing⏎", "no step after")]
    {
        keys(&mut app, typed);
        assert!(app.model.message().unwrap().contains(told), "{typed}: {:?}", app.model.message());
        assert_eq!(app.model.at(), 4);
    }
}

#[test]
fn a_search_in_a_long_trace_can_be_given_up() {
    let mut app = app(trace(None));
    app.key(KeyEvent::from(KeyCode::Char('/')));
    "nothing like it".chars().for_each(|letter| app.key(KeyEvent::from(KeyCode::Char(letter))));
    app.key(KeyEvent::from(KeyCode::Enter));
    app.model.advance(4);
    assert!(text(&mut app, SIZE).contains("looking for \"nothing like it\": step 6"));
    app.key(KeyEvent::from(KeyCode::Esc));
    assert!(app.model.hunting().is_none() && app.model.at() == 1);
}

#[test]
fn places_are_steps_parts_and_times() {
    let mut app = app(trace(None));
    for (place, number) in [("7", 7), ("0", 0), ("50%", 9), ("100%", 18), ("5us", 5), ("4001ns", 5), ("3s", 18)] {
        assert_eq!(app.model.place(place), Ok(number), "{place}");
    }
    for wrong in ["19", "101%", "x", "", "-1", "5 us 3"] {
        assert!(app.model.place(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn bookmarks_are_walked_round_the_ends() {
    let mut app = app(trace(None));
    keys(&mut app, "'");
    assert!(app.model.message().unwrap().contains("no bookmark"));
    keys(&mut app, ":4⏎m:9⏎m:12⏎m'");
    assert_eq!(app.model.at(), 4);
    keys(&mut app, "''");
    assert_eq!(app.model.at(), 12);
    keys(&mut app, "\"m");
    assert_eq!(app.model.bookmarks().iter().copied().collect::<Vec<_>>(), [4, 12]);
}

#[test]
fn a_difference_is_found_and_shown_as_what_went_and_what_came() {
    let mut app = app(trace(Some(7)));
    keys(&mut app, "d");
    assert_eq!(app.model.at(), 7);
    is_accepted("difference", &text(&mut app, SIZE));
    keys(&mut app, "k");
    assert!(app.model.moment().stop.is_none(), "the steps before it are right");
    keys(&mut app, "G");
    let shown = text(&mut app, SIZE);
    assert!(shown.contains("differs from step 7 on") && shown.contains("are as after step 6"), "{shown}");
    keys(&mut app, "d");
    assert!(app.model.message().unwrap().contains("no step after 18"));
}

#[test]
fn a_damaged_trace_is_never_shown_as_right() {
    let whole = trace(None);
    let all = app(whole.clone());
    let mut bytes = whole;
    for at in 0..bytes.len() {
        bytes[at] ^= 0x40;
        if let Ok(tape) = Tape::new(Cursor::new(bytes.clone()))
            && let Ok(player) = Player::new(tape)
        {
            let mut app = App::new(Model::new(player));
            keys(&mut app, "G");
            let same = app.model.at() == all.model.len();
            let shown = text(&mut app, SIZE);
            assert!(
                !same || app.model.moment().stop.is_some() || shown.contains("v1 access 0x6"),
                "byte {at}:\n{shown}"
            );
        }
        bytes[at] ^= 0x40;
    }
}

#[test]
fn without_colour_nothing_is_coloured_and_nothing_is_missing() {
    let mut app = app(trace(Some(7)));
    for typed in ["", "d", "3", "?"] {
        keys(&mut app, typed);
        let (plain, colored) = (screen(&mut app, SIZE, Theme::new(false)), screen(&mut app, SIZE, Theme::new(true)));
        assert!(plain.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
        assert!(colored.content.iter().any(|cell| cell.fg != Color::Reset), "the test would see a colour");
        let symbols =
            |buffer: &ratatui::buffer::Buffer| -> String { buffer.content.iter().map(|cell| cell.symbol()).collect() };
        assert_eq!(symbols(&plain), symbols(&colored));
    }
}

#[test]
fn any_keys_on_a_screen_of_any_size_are_survived() {
    let letters: Vec<char> = "jkgGfFvVeEnNdm'\"/:cp12345bi?[]⏎⎋x09%=~ ".chars().collect();
    let mut app = app(trace(Some(16)));
    let mut random = 1u64;
    for _ in 0..4000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(random >> 33).unwrap();
        keys(&mut app, &letters[at % letters.len()].to_string());
        let size = (u16::try_from(at % 160).unwrap() + 1, u16::try_from(at % 50).unwrap() + 1);
        screen(&mut app, size, Theme::new(true));
        assert!(app.model.at() <= app.model.len() && !app.done);
    }
}

#[test]
fn without_a_terminal_it_says_so() {
    let folder = RunFolder::create().unwrap();
    std::fs::write(folder.file("trace"), trace(None)).unwrap();
    for (arguments, what, remedy) in
        [(vec![], "step draws on a terminal", "mem-event show"), (vec!["--at", "77"], "there are 18 steps", "50%")]
    {
        let output = command(&folder).arg("step").arg(folder.file("trace")).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.lines().count() == 2 && said.contains(what) && said.contains(remedy), "{said}");
        assert!(output.stdout.is_empty());
    }
}

/// What of a terminal the command switches off.
const MODES: LocalModes = LocalModes::ECHO.union(LocalModes::ICANON).union(LocalModes::ISIG);

fn echoes(terminal: &impl AsFd) -> bool {
    rustix::termios::tcgetattr(terminal).unwrap().local_modes.contains(MODES)
}

/// The command on a terminal of its own, which echoes until the command starts; what it draws, and the terminal's other end.
fn on_a_terminal(folder: &RunFolder) -> (std::process::Child, std::fs::File, OwnedFd) {
    let (ours, theirs) = terminal(SIZE);
    assert!(echoes(&theirs), "as it is before");
    let mut step: Command = command(folder);
    step.arg("step").arg(folder.file("trace")).env("TERM", "xterm").env("NO_COLOR", "1");
    let child = spawn_on(&theirs, step);
    (child, ours, theirs)
}

#[test]
fn the_terminal_is_given_back_after_a_key_and_after_a_signal() {
    let folder = RunFolder::create().unwrap();
    std::fs::write(folder.file("trace"), trace(None)).unwrap();
    for signal in [None, Some(Signal::INT), Some(Signal::TERM), Some(Signal::HUP)] {
        let (mut child, mut terminal, theirs) = on_a_terminal(&folder);
        read_until(&mut terminal, "keys");
        assert!(!echoes(&theirs), "it is drawn on");
        match signal {
            None => terminal.write_all(b"q").unwrap(),
            Some(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
        }
        read_until(&mut terminal, "\x1b[?1049l");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal:?}");
        assert!(echoes(&theirs), "{signal:?}: it is as it was");
    }
}

#[test]
fn it_ends_when_the_terminal_goes_away() {
    let folder = RunFolder::create().unwrap();
    std::fs::write(folder.file("trace"), trace(None)).unwrap();
    let (mut child, mut terminal, theirs) = on_a_terminal(&folder);
    read_until(&mut terminal, "keys");
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    drop((terminal, theirs));
    wait_for("its end", &ended);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
