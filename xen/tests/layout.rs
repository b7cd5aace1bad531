//! The tables of layouts against Xen's own headers, where this machine has them: a C program prints what the compiler makes of each name.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use xen::layout::fact::Fact;
use xen::layout::facts;

const HEADERS: &str = "\
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>
#include <xen/memory.h>
#include <xen/vm_event.h>
#include <xen/version.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/save.h>
#include <xen/sys/privcmd.h>
#include <xen/sys/evtchn.h>
";

/// What the table says, as the C program says it.
fn said(fact: &Fact) -> String {
    match fact {
        Fact::Size { structure, bytes } => format!("{structure}: {bytes}"),
        Fact::Member { structure, member, offset, bytes } => format!("{structure}.{member}: {offset} {bytes}"),
        Fact::Number { name, value } => format!("{name}: {value}"),
    }
}

fn printing(fact: &Fact) -> String {
    match fact {
        Fact::Size { structure, .. } => format!("printf(\"{structure}: %zu\\n\", sizeof({structure}));"),
        Fact::Member { structure, member, .. } => format!(
            "printf(\"{structure}.{member}: %zu %zu\\n\", offsetof({structure}, {member}), \
             sizeof((({structure} *)0)->{member}));"
        ),
        Fact::Number { name, .. } => format!("printf(\"{name}: %llu\\n\", (unsigned long long)({name}));"),
    }
}

#[test]
fn every_layout_is_that_of_xens_headers() {
    if !Path::new("/usr/include/xen/domctl.h").is_file() {
        eprintln!("skipped: there are no headers of Xen's in /usr/include/xen; ci/setup installs them (libxen-dev)");
        return;
    }
    let mut program = format!("{HEADERS}int main(void) {{\n");
    for fact in facts() {
        writeln!(program, "{}", printing(fact)).unwrap();
    }
    program += "return 0; }\n";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, binary) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("cc").arg("-w").arg("-o").arg(&binary).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let printed = String::from_utf8(Command::new(&binary).output().unwrap().stdout).unwrap();
    let differing: Vec<(&str, String)> =
        printed.lines().zip(facts().map(said)).filter(|(header, table)| header != table).collect();
    assert_eq!(differing, [], "the headers' and the table's");
    assert_eq!(printed.lines().count(), facts().count());
}
