//! Ends of connections: in good order, by a reset, with a guest.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_clean_disconnect_loses_nothing() {
    let world = World::new();
    let (a, b) = connected(&world);
    a.write(10, B, b"last words");
    a.shut_down(10, B, VSOCK_SEND);
    a.shut_down(10, B, VSOCK_RECEIVE | 1 << 7);
    let (packet, data) = b.receive().unwrap();
    assert_eq!((packet.op, &data[..]), (VsockOp::Rw, &b"last words"[..]));
    let (packet, _) = b.receive().unwrap();
    assert_eq!((packet.op, packet.flags), (VsockOp::Shutdown, VSOCK_RECEIVE | VSOCK_SEND));
    b.say(20, A, VsockOp::Rst);
    assert_eq!(a.ops(), [VsockOp::Rst]);
    assert!(b.ops().is_empty());
    // The addresses can be used again.
    a.say(10, B, VsockOp::Request);
    assert_eq!(b.ops(), [VsockOp::Request]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_has_shut_down_sending_sends_no_more() {
    let world = World::new();
    let (a, b) = connected(&world);
    a.shut_down(10, B, VSOCK_SEND);
    a.shut_down(10, B, 0);
    b.write(20, A, b"goes on");
    assert_eq!(a.ops(), [VsockOp::Rw]);
    a.write(10, B, b"x");
    assert_eq!(a.ops(), [VsockOp::Rst], "it is permanent (5.10.6.5)");
    assert_eq!(b.ops(), [VsockOp::Shutdown, VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_reset_comes_behind_the_data_and_at_once_if_something_is_lost() {
    let world = World::new();
    let (a, b) = connected(&world);
    a.write(10, B, b"last words");
    a.say(10, B, VsockOp::Rst);
    assert_eq!(b.all(), [(VsockOp::Rw, b"last words".to_vec()), (VsockOp::Rst, vec![])]);
    let world = World::new();
    let (a, b) = connected(&world);
    a.write(10, B, b"last words");
    b.write(20, A, b"for nobody");
    a.say(10, B, VsockOp::Rst);
    assert_eq!(b.ops(), [VsockOp::Rst]);
    // Whoever writes to somebody who has gone hears of it at once, too.
    let world = World::new();
    let (a, b) = connected(&world);
    a.write(10, B, b"last words");
    a.say(10, B, VsockOp::Rst);
    b.write(20, A, b"for nobody");
    assert_eq!(b.ops(), [VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn the_end_of_a_vm_or_of_its_driver_is_a_reset_for_its_peers() {
    type Ending = fn(&World, StationId);
    let endings: [Ending; 3] = [
        |world, _| assert_eq!(world.end("a"), 1),
        |world, id| world.with(|hub| hub.open(id)),
        |world, id| {
            assert!(world.signals.send(id, VsockSignal::Closed));
            attend(world, world.signals, id);
        },
    ];
    for ending in endings {
        let world = World::new();
        let (a, b) = connected(&world);
        let (waiting, asked) = ((3, 30), (3, 31));
        b.say(21, waiting, VsockOp::Request);
        b.say(22, asked, VsockOp::Request);
        a.receive().unwrap();
        a.say(11, B, VsockOp::Request);
        b.receive().unwrap();
        a.say(12, B, VsockOp::Request);
        world.rings("b");
        ending(&world, a.id);
        assert!(world.rings("b") > 0);
        assert_eq!(b.ops(), [VsockOp::Rst; 4], "but for what it has not heard of");
        world.check();
    }
    let world = World::new();
    let (a, b) = connected(&world);
    world.signals.send(a.id, VsockSignal::Closed);
    attend(&world, world.signals, a.id);
    b.all();
    b.say(20, A, VsockOp::Request);
    assert_eq!(b.ops(), [VsockOp::Rst], "nobody is there");
    world.with(|hub| hub.open(a.id));
    b.say(20, A, VsockOp::Request);
    assert_eq!(a.ops(), [VsockOp::Request]);
}
