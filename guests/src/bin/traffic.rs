//! A disk and a network at work while another vCPU stands still.
//!
//! Hardware: devices and processors go on by themselves; one that waits holds no other up.
//!
//! Xen: a vCPU that waits for a listener is off its processor, and the device model, a process of its own, serves the others.
//!
//! What this proves: here the device model is in the same process as the vCPU that waits. Disk and network go on all the same, for as
//! long as that one stands.
//!
//! Symbols: `WATCHED`, a page that vCPU 1 reads once; `COUNTS`, whose words are how many sectors were read and how many questions were
//! answered so far. Checkpoint 1: before (vCPU 0). Then vCPU 1 reads, while vCPU 0 reads sectors of a virtio disk and asks, through a virtio
//! network, who has the gateway's address; at least sixteen of each, and until vCPU 1 is through. Checkpoint 2: end.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::disk::{Disk, Transfer};
use guest::virtio::{DEVICE_WRITES, Device, Queue};
use guest::virtio_disk::VirtioDisk;
use guest::{access, checkpoint, failure, pci, println, skip, smp, verdict};

guest::pages!(
    /// What vCPU 1 reads.
    WATCHED: 1
);
guest::pages!(
    /// Sectors read, questions answered.
    COUNTS: 1
);
guest::pages!(
    /// The disk's queue.
    DISK_QUEUE: guest::virtio::PAGES
);
guest::pages!(
    /// A disk request's first and last part.
    REQUEST: 1
);
guest::pages!(
    /// A sector.
    DATA: 1
);
guest::pages!(
    /// What the network receives.
    RECEIVE_QUEUE: guest::virtio::PAGES
);
guest::pages!(
    /// What the network sends.
    SEND_QUEUE: guest::virtio::PAGES
);
guest::pages!(
    /// A packet that was received.
    RECEIVED: 1
);
guest::pages!(
    /// The packet that is sent.
    SENT: 1
);

/// The network that also speaks the older protocol.
const NETWORK: u32 = 0x1000_1af4;
/// Of each at least.
const LEAST: u64 = 16;
/// virtio's own header before a packet.
const HEADER: usize = 10;
/// Who has 10.0.2.2, asks 10.0.2.15 (ARP over Ethernet).
const QUESTION: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, // to all, from us, ARP
    0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, a question
    0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15, // from
    0, 0, 0, 0, 0, 0, 10, 0, 2, 2, // about
];
/// Where an answer says that it is one.
const OPERATION_AT: u64 = (HEADER + 20) as u64;
const ANSWER: u64 = 0x0200;

/// 1 when vCPU 1 is through.
static THROUGH: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);
guest::needs!(disk, network);

fn main() {
    if smp::vcpus() < 2 {
        skip!("one vCPU; one is to stand still while another goes on");
    }
    let Some(mut disk) = VirtioDisk::find(pci::FIRST, &DISK_QUEUE, REQUEST.address()) else {
        skip!("no disk by virtio")
    };
    let Some(mut network) = Network::find() else { skip!("no network by virtio") };
    access::write(WATCHED.address(), 1);
    access::write(COUNTS.address(), 0);
    access::write(COUNTS.address() + 8, 0);
    checkpoint(1, 0, 0, 0);
    smp::start(read);
    let mut rounds = 0;
    while rounds < LEAST || THROUGH.load(Ordering::Acquire) == 0 {
        disk.prepare(Transfer::Read, rounds % 32, DATA.address());
        disk.offer();
        disk.tell();
        access::add(COUNTS.address(), 1);
        network.ask();
        access::add(COUNTS.address() + 8, 1);
        rounds += 1;
    }
    smp::join();
    checkpoint(2, rounds, 0, 0);
    println!("disk and network went on");
    verdict::success();
}

fn read(vcpu: usize) {
    if vcpu == 1 {
        access::read(WATCHED.address());
        THROUGH.store(1, Ordering::Release);
    }
}

/// The network by its two queues.
struct Network {
    receive: Queue,
    send: Queue,
}

impl Network {
    fn find() -> Option<Network> {
        let device = Device::find(pci::FIRST, NETWORK)?;
        let (receive, send) = (device.queue(0, &RECEIVE_QUEUE), device.queue(1, &SEND_QUEUE));
        device.start();
        receive.describe(0, RECEIVED.address(), 4096, DEVICE_WRITES);
        send.describe(0, SENT.address(), (HEADER + QUESTION.len()) as u64, 0);
        let mut packet = [0; (HEADER + QUESTION.len()).next_multiple_of(8)];
        packet[HEADER..HEADER + QUESTION.len()].copy_from_slice(&QUESTION);
        for (word, bytes) in (0..).zip(packet.chunks_exact(8)) {
            let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            access::write(SENT.address() + word * 8, value);
        }
        Some(Network { receive, send })
    }

    /// Sends the question, and waits for its answer.
    fn ask(&mut self) {
        self.receive.offer();
        self.receive.tell();
        self.send.offer();
        self.send.tell();
        self.send.wait();
        self.receive.wait();
        let operation = access::read(RECEIVED.address() + OPERATION_AT) & 0xffff;
        if operation != ANSWER {
            failure!("what came from the network is no answer: {operation:#x}");
        }
    }
}
