//! Images of other people's kernels, as QEMU's `-kernel` boots them.

use crate::support::{command, kernel_maps_write_protected};
use harness::guest::Guest;
use harness::machine::folder::RunFolder;
use std::path::PathBuf;
use std::process::Command;

/// Assembles and links one of `images/`.
fn built(folder: &RunFolder, name: &str, options: &[&str]) -> PathBuf {
    let (source, image) = (format!("{}/tests/images/{name}.s", env!("CARGO_MANIFEST_DIR")), folder.file(name));
    let mut cc = Command::new("cc");
    cc.args(["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-Ttext-segment=0x100000"]).args(options);
    assert!(cc.arg("-o").arg(&image).arg(source).status().unwrap().success(), "{name} does not build");
    image
}

/// What a run of the image says, with a page watched that it writes to.
fn run(folder: &RunFolder, image: &PathBuf) -> (String, String) {
    let output = command(folder)
        .arg("run")
        .arg(image)
        .args(["--watch", "gpa:0x500000=w", "--sequence", "--deadline", "60s"])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn kernels_of_32_bits_boot_by_multiboot_and_by_pvh() {
    for name in ["multiboot", "pvh32"] {
        let folder = RunFolder::create().unwrap();
        let image = built(&folder, name, &["-m32"]);
        let (said, errors) = run(&folder, &image);
        assert!(
            said.lines().any(|line| line.starts_with("access") && line.contains("gfn 0x500 ")),
            "{name}: {said}{errors}"
        );
    }
}

const A20: &str = r#"
version = 1
about = "A20"
[machine]
guest = "./a20"
[[consumers.listener.rules]]
then = "grant"
[[steps]]
# Behind `cli`: a tick of the BIOS writes to the first page too.
at = "gpa:0x7c06"
do = [{ watch = { frames = "0x0", stop = "w" } }, { watch = { frames = "0x100", stop = "w" } }]
"#;

/// SeaBIOS leaves A20 on, and the sector's page is checked while it is: what the check remembers of it must not outlive the switch.
#[test]
fn with_a20_off_an_address_beyond_1_mib_is_the_one_below() {
    let folder = RunFolder::create().unwrap();
    built(&folder, "a20", &["-m32", "-Wl,--oformat=binary,-Ttext=0x7c00"]);
    let sector = std::fs::read(folder.file("a20")).unwrap();
    assert_eq!(sector.len(), 512);
    std::fs::write(folder.file("a20.toml"), A20).unwrap();
    for gate in ["callback", "mmu"] {
        if gate == "mmu" && !kernel_maps_write_protected() {
            continue;
        }
        let mut run = command(&folder);
        let output = run.arg("run").arg(folder.file("a20.toml")).args(["--gate", gate, "--sequence"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let events: Vec<_> = said.lines().filter(|line| line.starts_with("access")).collect();
        let are = |event: &str, place: &str| event.contains(&format!("{place}  gla 0x100500  -w-"));
        assert_eq!(events.len(), 2, "{gate}: {said}");
        assert!(are(events[0], "gfn 0x0  offset 0x500"), "{gate}: {said}");
        assert!(are(events[1], "gfn 0x100  offset 0x500"), "{gate}: {said}");
    }
}

/// QEMU walks a segment's notes by the segment's alignment.
#[test]
fn an_entry_note_that_qemu_does_not_find_is_told_with_what_helps() {
    let folder = RunFolder::create().unwrap();
    let script = concat!("-Wl,-T,", env!("CARGO_MANIFEST_DIR"), "/tests/images/hidden_note.ld");
    let image = built(&folder, "hidden_note", &[script]);
    let (_, errors) = run(&folder, &image);
    assert!(errors.contains("has a PVH entry note that QEMU does not find"), "{errors}");
    assert!(errors.contains("a PT_NOTE segment of its own"), "{errors}");
}

/// QEMU's own words for it are "Cannot load x86-64 image, give a 32bit one".
#[test]
fn a_multiboot_kernel_of_64_bits_is_refused_with_what_helps() {
    let folder = RunFolder::create().unwrap();
    let image = built(&folder, "multiboot", &[]);
    let (_, errors) = run(&folder, &image);
    assert!(errors.contains("multiboot kernel of 64 bits") && errors.contains("elf32-i386"), "{errors}");
}

/// As an assembler writes it: SeaBIOS boots no disk of less than a cylinder of the geometry that QEMU supposes.
#[test]
fn a_boot_sector_of_512_bytes_boots_on_either_machine() {
    let folder = RunFolder::create().unwrap();
    let image = folder.file("sector.img");
    let whole = std::fs::read(Guest::find("boot_sector").unwrap().path).unwrap();
    std::fs::write(&image, &whole[..512]).unwrap();
    for machine in ["q35", "pc"] {
        let mut run = command(&folder);
        run.arg("run").arg(&image).args(["--deadline", "60s", "--", "-machine", machine]);
        let output = run.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{machine}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
