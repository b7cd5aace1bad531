//! Calls on the control socket.

use super::live::Live;
use crate::support::wait_for;
use mem_event::PAGE_SIZE;
use mem_event::message::{Call, HEADER, Notice, Reply};
use mem_event_client::Client;
use mem_event_fuzz::Target;
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, SendFlags};

/// Bytes of a call in an input.
const CALL: usize = 8;

/// A packet from eight bytes: an operation, five arguments that are small for the most part, what is odd about it, whose it is.
fn packet(of: &[u8; CALL]) -> Vec<u8> {
    let [operation, first, second, third, fourth, fifth, odd, _] = *of;
    let operation = u16::from(operation) % 40;
    let payload = match (operation, odd >> 6) {
        (7, 0..3) => PAGE_SIZE,
        (6, 0..3) => usize::from(fifth) + 1,
        (_, 3) => usize::from(fifth) * 17,
        _ => 0,
    };
    let mut packet = Call::Info.encode(1);
    packet[6..8].copy_from_slice(&operation.to_le_bytes());
    // Frame numbers reach over the guest's 16384 frames, most of them in its first megabytes.
    let frame = u64::from(first) << (odd & 6) | u64::from(second) & 1;
    let arguments = [frame, u64::from(second), u64::from(third), u64::from(fourth), u64::from(fifth)];
    for (number, argument) in arguments.into_iter().enumerate() {
        let is_odd = odd & 0x38 == 0x38 && odd & 7 == u8::try_from(number).unwrap();
        let argument = if is_odd { argument.wrapping_neg() } else { argument };
        // What a crash of the domain is asked for by ends each guest soon: seldom is enough.
        let argument = if operation == 19 && number == 1 && odd != 1 { argument & 2 } else { argument };
        packet[16 + 8 * number..24 + 8 * number].copy_from_slice(&argument.to_le_bytes());
    }
    // A ring's number, where one is due.
    if (16..20).contains(&operation) && odd & 0x38 != 0x38 {
        packet[16..24].copy_from_slice(&(u64::from(first) % 4).to_le_bytes());
    }
    packet[56..60].copy_from_slice(&u32::try_from(payload).unwrap().to_le_bytes());
    packet.resize(HEADER + payload, fourth);
    if odd == 0xff {
        packet.truncate(usize::from(first) + 1);
    }
    packet
}

/// Sends a packet and waits for its reply; `None` where the connection ended.
fn exchange(client: &OwnedFd, packet: &[u8]) -> Option<Reply> {
    rustix::net::send(client, packet, SendFlags::NOSIGNAL).ok()?;
    loop {
        wait_for("a reply, or the end", client);
        let mut bytes = vec![0; HEADER + PAGE_SIZE];
        let length = rustix::net::recv(client, &mut bytes[..], RecvFlags::empty()).map_or(0, |(length, _)| length);
        match &bytes[..length] {
            [] => return None,
            notice if Notice::is_notice(notice) => {}
            reply => return Some(Reply::decode(reply).unwrap().1),
        }
    }
}

fn in_words(reply: Option<&Reply>) -> String {
    match reply {
        None => "ended".into(),
        Some(Reply::Done(values)) => format!("done{}", if values[0] == 0 { "" } else { "+" }),
        Some(Reply::Bytes(_)) => "bytes".into(),
        Some(Reply::Refused(errno, why)) => format!("{errno} {}", why.split(' ').take(3).collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn the_control_socket_of_a_live_domain_answers_or_refuses_every_call() {
    // Each operation once; rings that begin and end; a page that leaves and comes back; watching; what is torn.
    let mut seeds: Vec<Vec<u8>> = (0..40).map(|operation| vec![operation, 1, 1, 1, 0, 0, 0, 0]).collect();
    seeds.push(vec![
        16, 1, 1, 0, 0, 0, 0, 0, 28, 9, 0, 0, 0, 0, 0, 1, 24, 80, 0, 0, 0, 0, 6, 0, 25, 80, 0, 0, 0, 0, 6, 1,
    ]);
    seeds.push(vec![
        16, 1, 1, 0, 0, 0, 0, 0, 24, 80, 0, 0, 0, 0, 6, 0, 25, 80, 0, 0, 0, 0, 6, 1, 7, 80, 0, 0, 0, 0, 6, 0,
    ]);
    seeds.push(vec![
        20, 80, 16, 0, 0, 0, 6, 0, 21, 80, 0, 0, 0, 0, 6, 1, 17, 2, 0, 0, 0, 0, 0, 1, 16, 2, 1, 4, 0, 0, 0, 2,
    ]);
    seeds
        .push(vec![29, 1, 2, 0, 0, 0, 0, 0, 30, 1, 1, 0, 0, 0, 0, 1, 31, 9, 0, 0, 0, 0, 6, 1, 32, 9, 0, 0, 0, 0, 6, 1]);
    seeds.push(vec![3, 0, 0, 0, 0, 0, 0xff, 2, 1, 0, 0, 0, 0, 200, 0xc0, 2]);
    let mut live = Live::new();
    let mut clients: [Option<OwnedFd>; 3] = [None, None, None];
    let mut target = Target::new("control socket", seeds, 2_000);
    target.longest = 32 * CALL;
    target.run(|bytes| {
        let (storm, is_new) = live.storm();
        if is_new {
            clients = [None, None, None];
        }
        let socket = storm.socket();
        let mut words = Vec::new();
        for of in bytes.as_chunks::<CALL>().0 {
            let place = &mut clients[usize::from(of[7]) % 3];
            // Somebody who is refused at the door meets a QEMU that ends.
            let Some(client) = place.take().or_else(|| Client::connect(&socket).ok().map(Client::into_socket)) else {
                break;
            };
            let reply = exchange(&client, &packet(of));
            words.push(in_words(reply.as_ref()));
            *place = reply.map(|_| client);
        }
        storm.answer_pending(8);
        live.goes_on();
        words.join(", ")
    });
}
