//! Which of QEMU's options are refused, and which only sound like it.

use mem_event_plugin::memory::command_line::CommandLine;
use mem_event_plugin::memory::unsupported::refuse;

const GOOD: [&str; 3] = ["qemu-system-x86_64", "-machine", "q35,smm=off,memory-backend=ram"];

fn refused(words: &[&str]) -> Option<String> {
    let words: Vec<&str> = GOOD.iter().chain(words).copied().collect();
    refuse(&CommandLine::parse(&words)).err()
}

#[test]
fn what_pins_maps_or_gives_back_guest_memory_is_refused_however_it_is_written() {
    for (words, part) in [
        (&["-drive", "file=x,cache=none"][..], "cache=none"),
        (&["--drive", "file=x,cache=none"], "cache=none"),
        (&["-drive", "file=x,cache=directsync"], "cache=directsync"),
        (&["-drive", "file=x,cache.direct=on"], "cache.direct=on"),
        (&["-drive", "file=x,cache.direct"], "cache.direct=on"),
        (&["-blockdev", "driver=file,filename=x,node-name=n,cache.direct=on"], "cache.direct=on"),
        (&["-blockdev", r#"{"driver":"file","filename":"x","cache":{"direct":true}}"#], "cache.direct=on"),
        (&["-blockdev", r#"{"driver":"raw","file":{"driver":"file","cache":{"direct":true}}}"#], "cache.direct=on"),
        (&["-netdev", "tap,id=n,vhost=on"], "vhost=off"),
        (&["-netdev", "vhost-user,id=n,chardev=c"], "QEMU's own"),
        (&["-device", "vhost-user-blk-pci,chardev=c"], "QEMU's own"),
        (&["-device", r#"{"driver":"vhost-vsock-pci"}"#], "QEMU's own"),
        (&["-device", "virtio-balloon-pci,free-page-reporting=on"], "virtio-balloon"),
        (&["-device", "pc-dimm,memdev=m"], "DIMMs"),
        (&["-overcommit", "mem-lock=on"], "-overcommit mem-lock=off"),
        (&["-overcommit", "cpu-pm=on,mem-lock=on-fault"], "-overcommit mem-lock=off"),
        (&["-object", "memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on"], "without hugetlb"),
        (
            &["-object", r#"{"qom-type":"memory-backend-memfd","id":"ram","size":67108864,"hugetlb":true}"#],
            "without hugetlb",
        ),
        (&["-machine", "smm=on"], "smm=off"),
        (&["-accel", "kvm"], "accel tcg"),
        (&["-enable-kvm"], "accel tcg"),
        (&["-accel", "kvm:tcg"], "accel tcg"),
        (&["-machine", "accel=kvm"], "accel tcg"),
    ] {
        let sentence = refused(words).unwrap_or_else(|| panic!("{words:?} passes"));
        assert!(sentence.contains(part), "{words:?}: {sentence}");
    }
    let smm_by_default = refuse(&CommandLine::parse(&["qemu", "-M", "pc-q35-10.0"])).unwrap_err();
    assert!(smm_by_default.contains("-machine pc-q35-10.0,smm=off"), "{smm_by_default}");
}

/// Once a path with `vhost-` in it, a guest's name and a kernel's command line were taken for devices.
#[test]
fn words_in_a_path_a_name_or_the_guests_command_line_are_no_devices() {
    for words in [
        &["-kernel", "/home/u/vhost-tests/kernel"][..],
        &["-name", "vhost-guest"],
        &["-name", "-device"],
        &["-append", "rootfstype=9p rootflags=trans=virtio,version=9p2000.L,cache=none"],
        &["-append", "-device vhost-user-blk-pci"],
        &["-drive", "file=/tmp/a,,cache=none,,b"],
        &["-drive", "file=/tmp/cache=none.img"],
        &["-drive", "file=x,cache=writeback,cache.direct=off"],
        &["-device", "virtio-net-pci,netdev=vhost-"],
        &["-netdev", "tap,id=n,novhost"],
        &["-chardev", "socket,id=c,path=/tmp/vhost-user.sock"],
        &["-accel", "tcg,thread=multi"],
        &["-object", "memory-backend-memfd,id=hugetlb,size=64M,share=on,hugetlb=off"],
        &["-overcommit", "mem-lock=off,cpu-pm=on"],
        &["-smp", "2", "-S"],
    ] {
        assert_eq!(refused(words), None, "{words:?}");
    }
}

#[test]
fn the_last_word_about_the_machine_counts() {
    let line = CommandLine::parse(&["qemu", "-machine", "q35,smm=off", "-M", "type=pc,nosmm,max-ram-below-4g=2G"]);
    assert_eq!((line.machine("type"), line.machine("smm")), (Some("pc"), Some("off")));
    assert_eq!(line.machine("max-ram-below-4g"), Some("2G"));
    assert_eq!(CommandLine::parse(&["qemu", "-machine", "memory-backend=ram"]).machine("type"), None);
}
