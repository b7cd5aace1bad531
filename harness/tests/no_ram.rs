//! Frames that are no RAM: nothing there can be trapped, so watching them is refused, and `ram` leaves them out.

use crate::support::machine;
use harness::scenario::{MemoryAct, Name, Scenario, Size};
use harness::toolstack::carry_out;
use mem_event::{AccessType, Control, Errno, Gfn};
use mem_event_client::Client;

/// It was accepted below the highest frame, and no event ever came.
#[test]
fn watching_what_is_no_ram_is_refused_with_the_ranges_of_ram() {
    let mut guest = Scenario::bare("read_write");
    guest.machine.memory = Size(4 << 30);
    guest.consumers.listener.get_or_insert_default();
    let (_qemu, folder, _job) = machine(guest);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    let mut set = |first, count, access| {
        toolstack.control(Control::SetAccess { first: Gfn(first), count, access }).unwrap().map(drop)
    };
    let ram = "RAM is frames 0x0 to 0x7ffff and 0x100000 to 0x17ffff, which is the highest";
    for (first, count, which) in [
        (0xf_ee00, 1, "frame 0xfee00 is no RAM"),
        (0x7_ffff, 3, "frames 0x80000 to 0x80001 are no RAM"),
        (0x1000, 0x10_0000, "frames 0x80000 to 0xfffff are no RAM"),
        (0x17_ffff, 2, "frame 0x180000 is no RAM"),
    ] {
        let (errno, sentence) = set(first, count, AccessType::N).expect_err(which);
        assert_eq!(errno, Errno::EINVAL);
        assert!(sentence.starts_with(which) && sentence.ends_with(ram), "{sentence}");
    }
    // Nothing was set of a row that is refused; and that everything passes is true of any frame.
    assert_eq!(toolstack.access(Gfn(0x7_ffff)).unwrap(), AccessType::Rwx);
    let mut set = |first, count, access| {
        toolstack.control(Control::SetAccess { first: Gfn(first), count, access }).unwrap().map(drop)
    };
    set(0x7_fffe, 2, AccessType::N).unwrap();
    set(0x1000, 0x10_0000, AccessType::Rwx).unwrap();
}

#[test]
fn all_of_ram_is_set_by_its_name_and_what_is_none_is_left_out() {
    let mut guest = Scenario::bare("read_write");
    // More than one operation sets.
    guest.machine.memory = Size(7 << 30);
    guest.consumers.listener.get_or_insert_default();
    let (_qemu, folder, job) = machine(guest);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    let (frames, access) = ("ram".into(), Name(AccessType::Rx));
    let all = MemoryAct::SetAccess { frames, access, view: None, refused: None };
    let done = carry_out(&all, &mut toolstack, &job.symbols()).unwrap();
    assert_eq!((done.text.as_str(), done.failure), ("set ram rx", None));
    for (gfn, access) in [
        (0, AccessType::Rx),
        (0x9f, AccessType::Rx),
        (0xa0, AccessType::Rwx),
        (0x100, AccessType::Rx),
        (0x7_ffff, AccessType::Rx),
        (0x10_0000, AccessType::Rx),
        (0x23_ffff, AccessType::Rx),
    ] {
        assert_eq!(toolstack.access(Gfn(gfn)).unwrap(), access, "frame {gfn:#x}");
    }
}
