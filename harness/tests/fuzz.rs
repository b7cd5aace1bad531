//! Files of any content, at each place where the command reads one: scenarios, guest images, traces. Nothing may panic or hang, and
//! what is wrong is told in one line that names the file.
//!
//! The fuzzer, and the variables that make it run for long or on one input, are `fuzz/`'s.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and the numbers of a small file are small"
)]

use harness::guest::symbols::Symbols;
use harness::guest::{Guest, recognise};
use harness::refusal::Refusal;
use harness::scenario::Scenario;
use harness::scenario::corpus;
use harness::trace::gdb::events::Events;
use harness::trace::gdb::session::Session;
use mem_event::Gpa;
use mem_event::trace::Tape;
use mem_event_fuzz::Target;
use std::collections::BTreeSet;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

/// Text without what stands in quotes, which is the input's own and makes no new shape.
fn outline(text: &str) -> String {
    text.split(['"', '`', '\'']).step_by(2).collect()
}

/// A refusal must say where, in one line, and what to do.
fn told(refusal: &Refusal, file: &str) -> String {
    let line = &refusal.what;
    assert!(line.starts_with(file) && !line.contains('\n') && !refusal.remedy.contains('\n'), "{refusal:?}");
    outline(&refusal.to_string())
}

#[test]
fn scenarios_of_any_text_are_understood_or_refused_with_their_line() {
    let texts: Vec<String> = corpus::all().into_iter().map(|it| it.source.unwrap().text.clone()).collect();
    let of_letter = |letter: char| !letter.is_alphanumeric() && !"-_+".contains(letter);
    let mut words: BTreeSet<&str> = texts.iter().flat_map(|text| text.split(of_letter)).collect();
    words.extend([
        "[[",
        "]]",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\"\"\"",
        "'",
        " = ",
        "\n",
        ".",
        "#",
        "\r",
        "\u{feff}",
        "é\u{301}",
    ]);
    words.extend(["-1", "18446744073709551615", "0x", "1e999", "nan", "gpa:", "..", "inf", "1979-05-27T07:32:00Z"]);
    let mut target = Target::new("scenarios", texts.iter().map(|text| text.clone().into_bytes()).collect(), 20_000);
    target.words = words.into_iter().map(|word| word.as_bytes().to_vec()).collect();
    target.run(|bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let refused = |refusal: &Refusal| told(refusal, "a/b.toml:");
        let scenario = match Scenario::parse(Path::new("a/b.toml"), text) {
            Ok(scenario) => scenario,
            Err(refusal) => return refused(&refusal),
        };
        let symbols = Symbols::default();
        if let Err(refusal) = scenario.check(&symbols) {
            return refused(&refusal);
        }
        let _ = (scenario.title(), scenario.target(), scenario.needs_gate(), scenario.places(&symbols));
        outline(&format!("{:?}{:?}{:?}", scenario.consumers, scenario.start, scenario.steps))
    });
}

/// The smallest ELF that is a guest, with all that is looked at: a note that names the entry, two symbols, their names.
///
/// ```text
/// 0 header | 64 segments: all, note | 176 note | 200 symbols | 272 names | 336 sections: none, note, symbols, names
/// ```
fn small_elf() -> Vec<u8> {
    let words = |list: &[u64]| list.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let halves = |low: u64, high: u64| low | high << 32;
    let names = b"\0main\0_ZN5guest7WATCHED17h0123456789abcdefE\0.note.Xen\0";
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for x86-64 with 2 segments of 56 bytes and 4 sections of 64; the names of sections are those of symbols.
    elf.extend(words(&[halves(0x003e_0002, 1), 0x10_0000, 64, 336, 64 << 32, 0x0040_0002_0038 | 4 << 48]));
    elf[54..64].copy_from_slice(&[56, 0, 2, 0, 64, 0, 4, 0, 3, 0]);
    elf.extend(words(&[halves(1, 7), 0, 0x10_0000, 0x10_0000, 592, 0x2000, 0x1000]));
    elf.extend(words(&[halves(4, 4), 176, 0x10_00b0, 0x10_00b0, 24, 24, 4]));
    elf.extend(words(&[halves(4, 8), halves(18, u64::from(u32::from_le_bytes(*b"Xen\0"))), 0x10_0000]));
    elf.extend(words(&[0, 0, 0, halves(1, 0x1_0012), 0x10_0000, 16, halves(6, 0x1_0011), 0x10_1000, 0x1000]));
    elf.extend(names);
    elf.resize(336, 0);
    elf.extend(words(&[0; 8]));
    elf.extend(words(&[halves(44, 7), 2, 0x10_00b0, 176, 24, 0, 4, 0]));
    elf.extend(words(&[halves(0, 2), 0, 0, 200, 72, halves(3, 1), 8, 24]));
    elf.extend(words(&[halves(0, 3), 0, 0, 272, names.len() as u64, 0, 1, 0]));
    elf
}

#[test]
fn images_of_any_content_are_recognised_or_refused_with_a_reason() {
    let built = |name: &str| std::fs::read(Guest::find(name).unwrap().path).unwrap();
    let (_, symbols) = recognise(&small_elf()).unwrap();
    assert_eq!(symbols.name(Gpa(0x10_1008)).as_deref(), Some("guest::WATCHED+0x8"), "{symbols:?}");
    let mut kernel = vec![0; 0x300];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let mut seeds = vec![small_elf(), kernel, built("efi_application"), built("boot_sector")];
    // Of a built guest the beginning: its headers name much that is not there.
    seeds.push(built("example"));
    seeds.iter_mut().for_each(|seed| seed.truncate(1 << 13));
    Target::new("images", seeds, 50_000).run(|bytes| match recognise(bytes) {
        Err(why) => {
            assert!(why.what.starts_with("is ") || why.what.starts_with("has "), "{}", why.what);
            assert!(!why.what.contains('\n'), "{}", why.what);
            outline(&why.what)
        }
        Ok((kind, symbols)) => {
            let named = symbols.iter().filter(|symbol| symbols.name(symbol.gpa).is_some()).count();
            let found = symbols.iter().filter(|symbol| symbols.find(&symbol.name).is_ok()).count();
            format!("{kind:?} {named} {found} {}", ".".repeat(symbols.iter().count()))
        }
    });
}

/// What gdb sends, and what it gets.
struct Exchange<'a> {
    sent: Cursor<&'a [u8]>,
    got: &'a mut Vec<u8>,
}

impl Read for Exchange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.sent.read(buffer)
    }
}

impl Write for Exchange<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.got.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn whatever_gdb_sends_is_answered_or_ends_the_connection() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/traces/smp_storm.trace");
    let trace = std::fs::read(place).unwrap();
    let seeds = [
        "?\ng\nm100630,4\nc\nbc\ns\nbs\nHg2\ng\nHc2\ns\nT3\nD",
        "qSupported:x\nqXfer:features:read:target.xml:0,10\nqfThreadInfo\nqsThreadInfo\nqThreadExtraInfo,1\nqC\nqAttached",
        "Z0,100630,1\nc\nz0,100630,1\nc\nM10,1:00\nvCont?\nk",
    ];
    let mut target = Target::new("gdb", seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect(), 4_000);
    target.words = ["ffffffffffffffff", "-1", "0", ",", ":", "#", "$", "\x03", "-"].map(|it| it.into()).to_vec();
    target.run(|bytes| {
        let mut sent = Vec::new();
        for packet in bytes.split(|byte| *byte == b'\n') {
            let sum = packet.iter().copied().fold(0_u8, u8::wrapping_add);
            sent.extend([b"$", packet, format!("#{sum:02x}").as_bytes()].concat());
        }
        let (events, _) = Events::of(Tape::new(Cursor::new(trace.as_slice())).unwrap());
        let mut got = Vec::new();
        let ended = Session::new(events).serve(Exchange { sent: Cursor::new(&sent), got: &mut got });
        let answers = got.iter().filter(|byte| **byte == b'$').count();
        let taken = got.iter().filter(|byte| **byte == b'+').count();
        assert!(answers <= 2 * (sent.len() + 1) && taken <= sent.len(), "{answers} answers to {taken} packets");
        let text: String =
            String::from_utf8_lossy(&got).chars().filter(|it| !it.is_ascii_hexdigit()).take(200).collect();
        format!("{} {text}", ended.is_ok())
    });
}
