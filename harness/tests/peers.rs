//! Who may call, and what those who may can do to each other: nothing. A listener goes on serving eight vCPUs while somebody else on
//! the same socket does his worst, and the guest ends with its sums right.

use crate::support::storm::Storm;
use crate::support::{Random, break_and_disable, machine, scenario, wait_for};
use harness::machine::process::Qemu;
use mem_event::message::{Call, Reply};
use mem_event::{AccessType, Control, Errno, Gfn, PAGE_SIZE, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::thread::{Gid, Uid};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Serves until the other is done, and no less than so many events; then the guest must come to its end as if nobody had been there.
fn serves_on_beside(mut storm: Storm, hostile: impl FnOnce(&Path) + Send + 'static) {
    let socket = storm.socket();
    let other = std::thread::spawn(move || hostile(&socket));
    let mut served = 0;
    while served < 500 || !other.is_finished() {
        storm.answer_one();
        served += 1;
    }
    other.join().unwrap();
    storm.set(AccessType::Rwx);
    while storm.listener.is_pending() {
        storm.answer_one();
    }
    storm.ends();
}

/// A connection that knows no protocol.
fn connection(path: &Path) -> OwnedFd {
    let make = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let socket = make.unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// The next packet on a connection, `None` where it has ended.
fn packet(socket: &OwnedFd) -> Option<Reply> {
    wait_for("a reply, or the end", socket);
    let mut bytes = vec![0; 8192];
    match rustix::net::recv(socket, &mut bytes[..], RecvFlags::empty()) {
        Ok((length @ 1.., _)) => Some(Reply::decode(&bytes[..length]).unwrap().1),
        Ok(_) | Err(rustix::io::Errno::CONNRESET) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_client_that_floods_calls_gets_its_turn_and_no_more() {
    serves_on_beside(Storm::start(), |socket| {
        let mut client = Client::connect(socket).unwrap();
        for _ in 0..20 {
            // Frames that the guest does not use: each call unmaps or maps 32 MiB and empties all page caches.
            for access in [AccessType::N, AccessType::Rwx] {
                let set = Control::SetAccess { first: Gfn(0x1800), count: 0x2000, access };
                client.values(&Call::Control(set)).unwrap();
            }
            (0..24).for_each(|_| client.send(&Call::Info).unwrap());
            (0..24).for_each(|_| drop(client.reply().unwrap()));
            // A list of those who hear notices does not grow by asking.
            client.values(&Call::Subscribe).unwrap();
        }
    });
}

#[test]
fn a_client_that_reads_no_replies_is_dropped() {
    serves_on_beside(Storm::start(), |socket| {
        let client = Client::connect(socket).unwrap().into_socket();
        let call = Call::ReadFrame { gfn: Gfn(1), offset: 0, len: 4096 }.encode(1);
        let sent = (0..1_000_000).find_map(|_| rustix::net::send(&client, &call, SendFlags::NOSIGNAL).err());
        assert!(matches!(sent, Some(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET)), "{sent:?}");
    });
}

#[test]
fn torn_packets_are_refused_with_a_sentence_and_end_their_connection() {
    serves_on_beside(Storm::start(), |socket| {
        let mut random = Random(1);
        for length in (1..64).chain([65, 100, 4160, 4161, 8192]) {
            let mut bytes = Call::Hello { version: 1 }.encode(1);
            bytes.resize(length, 0);
            if random.below(2) == 0 {
                bytes.iter_mut().for_each(|byte| *byte = u8::try_from(random.below(256)).unwrap());
            }
            let client = connection(socket);
            rustix::net::send(&client, &bytes, SendFlags::NOSIGNAL).unwrap();
            let Some(Reply::Refused(Errno::EINVAL, why)) = packet(&client) else {
                panic!("{length} bytes are no call")
            };
            assert!(why.starts_with("malformed message: "), "{why}");
            assert_eq!(packet(&client), None, "after {length} bytes");
        }
        let early = connection(socket);
        rustix::net::send(&early, &Call::Info.encode(1), SendFlags::NOSIGNAL).unwrap();
        assert_eq!(packet(&early), Some(Reply::Refused(Errno::EINVAL, "the first call is Hello".into())));
    });
}

#[test]
fn a_process_that_connects_without_end_is_refused_and_the_others_stay() {
    serves_on_beside(Storm::start(), |socket| {
        let mut inside = Vec::new();
        let mut outside = 0;
        for _ in 0..100 {
            match Client::connect(socket) {
                Ok(client) => inside.push(client),
                Err(why) => {
                    assert!(format!("{why:#}").contains("has 32 connections already; close one"), "{why:#}");
                    outside += 1;
                }
            }
        }
        // The toolstack and the listener are this process's too.
        assert_eq!((inside.len(), outside), (30, 70));
        inside.iter_mut().for_each(|client| assert_eq!(client.info().unwrap().vcpus, 8));
    });
}

#[test]
fn a_ring_that_broke_and_is_anothers_by_now_has_nothing_to_do_with_its_first_consumer() {
    let mut storm = Storm::start();
    storm.answer_one();
    // Without a ring nobody would stop the guest, so QEMU does.
    storm.qemu.qmp.execute("stop").unwrap();
    break_and_disable(&mut storm.listener, &mut storm.toolstack);
    let settings = RingSettings { slots: 4, ..RingSettings::default() };
    let successor = Channel::enable(&storm.socket(), Ring::Access, settings).unwrap();
    let predecessor = std::mem::replace(&mut storm.listener, successor);
    storm.set(AccessType::N);
    storm.qemu.qmp.execute("cont").unwrap();
    // What stands on the old page is no answer on the new one; nor is its consumer's end the new one's.
    (0..100).for_each(|_| storm.answer_one());
    drop(predecessor);
    serves_on_beside(storm, |_| ());
}

/// What another user gets, from a thread that is his from here on: the kernel keeps credentials by thread.
fn as_nobody<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
    let thread = std::thread::spawn(move || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        act()
    });
    thread.join().unwrap()
}

fn may_change_user() -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        eprintln!("skipped: only root can become another user");
    }
    can
}

#[test]
fn another_user_is_refused_even_where_the_sockets_mode_lets_him() {
    if !may_change_user() {
        return;
    }
    let (_qemu, folder, _job) = machine(scenario("read_write"));
    let socket = folder.file("socket");
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o7777, 0o600);
    let connect = |socket: &PathBuf| {
        let socket = socket.clone();
        as_nobody(move || Client::connect(&socket).err().map(|error| format!("{error:#}")))
    };
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    assert!(connect(&socket).unwrap().contains("Permission denied"), "by the folder");
    open(&folder.file(""), 0o711);
    assert!(connect(&socket).unwrap().contains("Permission denied"), "by the socket's mode");
    open(&socket, 0o666);
    let why = connect(&socket).expect("a refusal");
    assert!(why.contains("EPERM, this QEMU belongs to user 0, and the connection comes from user 65534"), "{why}");
    Client::connect(&socket).unwrap().info().unwrap();
}

#[test]
fn the_memory_file_and_the_ring_page_are_not_open_to_another_user() {
    if !may_change_user() {
        return;
    }
    let (qemu, folder, _job) = machine(scenario("read_write"));
    let _channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    let files = memory_files(&qemu);
    assert_eq!(files.len(), 2, "{files:?}");
    for (name, path) in files {
        let refused = as_nobody(move || std::fs::File::open(path).map(drop).unwrap_err().kind());
        assert_eq!(refused, std::io::ErrorKind::PermissionDenied, "{name}");
    }
}

/// Name and path of each memory file that QEMU has open or mapped: by its descriptor, or by its mapping.
fn memory_files(qemu: &Qemu) -> Vec<(String, PathBuf)> {
    let mut files: Vec<(String, PathBuf)> = mappings(qemu)
        .into_iter()
        .map(|it| (it.name, PathBuf::from(format!("/proc/{}/map_files/{:x}-{:x}", qemu.pid(), it.start, it.end))))
        .collect();
    files.sort();
    files.dedup_by(|one, other| one.0 == other.0);
    files
}

/// A mapping of a memory file in QEMU.
#[derive(Debug)]
struct Mapping {
    start: u64,
    end: u64,
    inode: u64,
    name: String,
}

/// Of `START-END rights offset device inode /memfd:NAME (deleted)`.
fn mappings(qemu: &Qemu) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{}/maps", qemu.pid())).unwrap();
    let mapping = |line: &str| {
        let (place, name) = line.split_once("/memfd:")?;
        let fields: Vec<&str> = place.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end, inode) = (address(start), address(end), fields[4].parse().unwrap());
        // What QEMU makes for its translated code is a memory file too.
        let name = name.trim_end_matches(" (deleted)").to_owned();
        (!name.contains("jit")).then_some(Mapping { start, end, inode, name })
    };
    text.lines().filter_map(mapping).collect()
}

#[test]
fn the_ring_page_lies_nowhere_in_guest_memory() {
    let (qemu, folder, _job) = machine(scenario("read_write"));
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    // A file of its own, mapped beside and not over the guest's memory.
    let mappings = mappings(&qemu);
    let (rings, ram): (Vec<_>, Vec<_>) = mappings.iter().partition(|it| it.name == "mem-event-ring");
    assert!(!rings.is_empty() && !ram.is_empty(), "{mappings:?}");
    for ring in rings {
        assert!(ram.iter().all(|it| it.inode != ring.inode), "{mappings:?}");
        assert!(ram.iter().all(|it| ring.end <= it.start || it.end <= ring.start), "{mappings:?}");
    }
    // What stands in it stands nowhere in the memory file: a guest that looks at every byte does not find it.
    let pattern: Vec<u64> = (0..8).map(|at| 0x6d65_6d65_7665_6e74_u64.rotate_left(at * 7)).collect();
    pattern.iter().zip(400..).for_each(|(word, at)| channel.back().page().write_word(at, *word));
    let bytes: Vec<u8> = pattern.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (_, path) = memory_files(&qemu).into_iter().find(|(name, _)| name != "mem-event-ring").unwrap();
    let file = std::fs::File::open(path).unwrap();
    let frames = file.metadata().unwrap().len() / PAGE_SIZE as u64;
    let mut page = [0; PAGE_SIZE];
    for frame in 0..frames {
        file.read_exact_at(&mut page, frame * PAGE_SIZE as u64).unwrap();
        assert!(!page.chunks(bytes.len()).any(|part| part == bytes), "frame {frame:#x}");
    }
}
