//! Hypercalls with arguments of any kind, and messages to the store: nothing panics, what the domain is asked crosses its control socket, and
//! every message that may be answered is.
//!
//! The fuzzer, and the variables that make it run for long or on one input, are `mem-event/fuzz/`'s.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use mem_event::message::Call;
use mem_event_fuzz::Target;
use support::{Bench, Made};
use xen::layout::record::Number;
use xen::layout::{access, altp2m, domctl, hvm_param, hypercall, paging, privcmd, reservation, sharing, sysctl};
use xen::store::request::Store;
use xen::store::wire::{Kind, Message};

/// Before the structure: which call it is, and its command.
const HEAD: usize = 16;

fn input(op: u64, command: u64, made: &Made) -> Vec<u8> {
    [op.bytes(), command.bytes(), made.bytes.clone()].concat()
}

fn of(bytes: usize) -> Made {
    Made::new(bytes)
}

/// Well-formed calls of each kind.
fn calls() -> Vec<Vec<u8>> {
    let mut calls = Vec::new();
    let commands = [3, 4, 5, 11, 14, 33, 34, 54, 55, 56, 57, 59, 61, 64, 77, 84];
    for (command, operation) in commands.iter().flat_map(|command| (0..4).map(move |operation| (*command, operation))) {
        let mut made = of(domctl::BYTES);
        made.set(domctl::CMD, command).set(domctl::INTERFACE_VERSION, 0x15).set(domctl::DOMAIN, 1);
        made.set(domctl::VM_EVENT_OP, operation).set(domctl::VM_EVENT_MODE, 2);
        calls.push(input(hypercall::DOMCTL, 0, &made));
    }
    for operation in 0..5 {
        let mut made = of(access::BYTES);
        made.set(access::OP, operation).set(access::DOMID, 1).set(access::NR, 16).set(access::ACCESS, 5);
        calls.push(input(hypercall::MEMORY_OP, reservation::ACCESS, &made));
        let mut made = of(paging::BYTES);
        made.set(paging::OP, operation).set(paging::DOMAIN, 1).set(paging::GFN, 7);
        calls.push(input(hypercall::MEMORY_OP, reservation::PAGING, &made));
        let mut made = of(sharing::BYTES);
        made.set(sharing::OP, operation).set(sharing::DOMAIN, 1).set(sharing::GFN, 7);
        calls.push(input(hypercall::MEMORY_OP, reservation::SHARING, &made));
    }
    let mut made = of(reservation::BYTES);
    made.set(reservation::EXTENTS, support::BASE).set(reservation::NR_EXTENTS, 2).set(reservation::DOMID, 1);
    calls.extend([1, 6, 14].map(|command| input(hypercall::MEMORY_OP, command, &made)));
    let mut made = of(hvm_param::BYTES);
    made.set(hvm_param::DOMID, 1).set(hvm_param::INDEX, 28);
    calls.push(input(hypercall::HVM_OP, hvm_param::GET, &made));
    let mut made = of(altp2m::BYTES);
    made.set(altp2m::VERSION, altp2m::INTERFACE_VERSION).set(altp2m::DOMAIN, 1);
    calls.push(input(hypercall::HVM_OP, hvm_param::ALTP2M, &made));
    let mut made = of(sysctl::BYTES);
    made.set(sysctl::CMD, 6).set(sysctl::INTERFACE_VERSION, sysctl::VERSION).set(sysctl::MAX_DOMAINS, 4);
    made.set(sysctl::BUFFER, support::BASE + 0x1000);
    calls.push(input(hypercall::SYSCTL, 0, &made));
    calls.extend((0..10).map(|command| input(hypercall::XEN_VERSION, command, &of(16))));
    calls.push(input(hypercall::MULTICALL, 2, &of(128)));
    let mut made = of(privcmd::batch::BYTES);
    made.set(privcmd::batch::NUM, 4).set(privcmd::batch::DOM, 1).set(privcmd::batch::ADDR, 0x7000_0000);
    made.set(privcmd::batch::FRAMES, support::BASE + 0x1000).set(privcmd::batch::ERRORS, support::BASE + 0x2000);
    calls.push(input(privcmd::MMAPBATCH_V2, 0, &made));
    let mut made = of(privcmd::buffers::BYTES);
    made.set(privcmd::buffers::DOM, 1).set(privcmd::buffers::NUM, 1);
    made.set(privcmd::buffers::BUFFERS, support::BASE + 0x100);
    calls.push(input(privcmd::DM_OP, 0, &made));
    calls
}

#[test]
fn no_arguments_of_a_hypercall_panic_and_what_is_asked_crosses_the_socket() {
    let mut target = Target::new("hypercalls", calls(), 20_000);
    let numbers =
        [0, 1, 0xff, 0xffff, 0x15, 0x17, u64::from(u32::MAX), u64::MAX, support::BASE, support::BASE + 0x3ff8];
    target.words = numbers.iter().map(|number| number.bytes()).collect();
    target.longest = 0x400;
    target.run(|bytes| {
        let mut bench = Bench::new();
        let (head, made) = bytes.split_at(bytes.len().min(HEAD));
        let (op, command) = (u64::of(head), u64::of(head.get(8..).unwrap_or_default()));
        bench.fill(made);
        let result = match op {
            privcmd::MMAPBATCH_V2 | privcmd::DM_OP => bench.request(op, support::BASE),
            hypercall::MULTICALL | hypercall::DOMCTL | hypercall::SYSCTL => {
                bench.wild(op, [support::BASE, command, 0, 0, 0])
            }
            _ => bench.wild(op, [command, support::BASE, 0, 0, 0]),
        };
        let asked = bench.asked();
        for control in &asked {
            let call = Call::Control(control.clone());
            assert_eq!(Call::decode(&call.encode(1)).map(|(.., call)| call), Ok(call.clone()), "{call}");
        }
        format!("{result:?} {asked:?} {:?}", bench.xen.unknown.take())
    });
}

#[test]
fn each_message_to_the_store_has_one_reply_that_is_no_longer_than_may_be() {
    let message = |kind: u32, body: &[u8]| {
        Message { kind: Kind::of(kind), request: 1, transaction: 0, body: body.to_vec() }.bytes()
    };
    let bodies: [&[u8]; 6] = [b"/a/b\0", b"/a/b\0value", b"@releaseDomain\0token\0", b"T\0", b"1\0", b"\0"];
    let seeds = (0..24).flat_map(|kind| bodies.map(|body| message(kind, body)));
    let two = [message(6, b"\0"), message(11, b"/a\0x"), message(7, b"T\0")].concat();
    let target = Target::new("the store", seeds.chain([two]).collect(), 20_000);
    target.run(|bytes| {
        let (mut store, mut rest, mut said) = (Store::new(), bytes, String::new());
        while let Ok(Some((message, length))) = Message::first(rest) {
            rest = &rest[length..];
            store.request(7, &message);
            for (client, message, newcomer) in store.take_newcomers() {
                store.introduce(&newcomer, 4);
                store.answer(client, &message, Ok(()));
            }
            let out = store.take();
            let replies = out.iter().filter(|(_, reply)| reply.kind != Kind::WatchEvent).count();
            assert_eq!(replies, 1, "{message:?}: {out:?}");
            for (client, reply) in out {
                assert_eq!(client, 7);
                assert!(Message::first(&reply.bytes()).is_ok(), "{reply:?}");
                said += &format!("{:?} {:?}\n", reply.kind, String::from_utf8_lossy(&reply.body));
            }
        }
        said
    });
}
