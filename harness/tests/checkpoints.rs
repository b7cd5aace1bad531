//! Checkpoints that are reached while the vCPU stands at another one.

use crate::support::{machine, next_checkpoint, scenario};
use mem_event::VcpuId;
use mem_event::message::Call;
use mem_event_client::socket::Client;

#[test]
fn a_checkpoint_in_an_interrupt_handler_is_another_one_and_the_interrupted_one_comes_once() {
    let (mut qemu, folder, job) = machine(scenario("nested_checkpoint"));
    let ready = job.symbols().find("READY").unwrap().gpa.gfn();
    let mut client = Client::connect(&folder.file("socket")).unwrap();
    client.values(&Call::Subscribe).unwrap();
    qemu.qmp.execute("cont").unwrap();
    assert_eq!(next_checkpoint(&mut client).number, 1);
    let word = |client: &mut Client, offset| -> u64 {
        u64::from_le_bytes(client.read(ready, offset, 8).unwrap().try_into().unwrap())
    };
    client.values(&Call::WriteFrame { gfn: ready, offset: 0, bytes: 1u64.to_le_bytes().into() }).unwrap();
    assert_eq!(next_checkpoint(&mut client).number, 2, "the handler's, while the vCPU has no release from 1");

    // The first release is for the first arrival. The vCPU stands at the second one and stays there.
    client.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    assert_eq!((word(&mut client, 8), word(&mut client, 0x10)), (0, 0), "neither was passed");
    client.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    let stop = next_checkpoint(&mut client);
    assert_eq!(
        (stop.number, &stop.arguments[..2]),
        (3, &[1, 1][..]),
        "1 is not announced again, and each was passed once"
    );
    client.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
}
