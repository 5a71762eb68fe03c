//! Room: how much a guest may send, and is sent.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_guest_sends_no_more_than_there_is_room_for() {
    let world = World::new();
    let (a, b) = connected(&world);
    a.write(10, B, &FULL);
    a.write(10, B, b"");
    assert_eq!(b.all().iter().map(|(_, data)| data.len()).sum::<usize>(), FULL.len());
    a.write(10, B, &FULL);
    // One byte too many: the connection is no more, and b has missed something.
    a.write(10, B, b"x");
    assert_eq!(a.ops(), [VsockOp::Rst]);
    let got = b.all();
    assert_eq!(got.iter().map(|(_, data)| data.len()).sum::<usize>(), FULL.len());
    assert_eq!(got.last().map(|(op, _)| *op), Some(VsockOp::Rst));
    for len in [WINDOW + 1, u32::MAX] {
        a.say(11, B, VsockOp::Request);
        b.all();
        b.say(20, (3, 11), VsockOp::Response);
        a.all();
        a.send(&VsockPacket { len, ..a.packet(11, B, VsockOp::Rw) });
        assert_eq!((a.ops(), b.ops()), (vec![VsockOp::Rst], vec![VsockOp::Rst]));
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn data_that_is_not_there_ends_the_connection() {
    let world = World::new();
    let (a, b) = connected(&world);
    assert!(a.send_with(&VsockPacket { len: 3000, ..a.packet(10, B, VsockOp::Rw) }, &[1; 2500]));
    assert_eq!(a.ops(), [VsockOp::Rst]);
    assert_eq!(b.ops(), [VsockOp::Rw, VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_guest_is_sent_no_more_than_it_has_room_for() {
    let world = World::new();
    let (a, b) = connected(&world);
    let room = |buf_alloc, fwd_cnt| VsockPacket { buf_alloc, fwd_cnt, ..b.packet(20, A, VsockOp::CreditUpdate) };
    let take = || b.all().iter().map(|(_, data)| data.len()).collect::<Vec<_>>();
    b.send(&room(100, 0));
    a.write(10, B, &[1; 1000]);
    assert_eq!(take(), [100]);
    b.send(&room(100, 30));
    assert_eq!(take(), [30]);
    // What is older than what is known is not heard: packets of a guest's threads may overtake each other.
    b.send(&room(100, 10));
    assert_eq!(take(), [0; 0]);
    // Less room than is in use.
    b.send(&room(50, 30));
    assert_eq!(take(), [0; 0]);
    b.send(&room(50, 130));
    assert_eq!(take(), [50]);
    b.send(&room(u32::MAX, 130));
    assert_eq!(take(), [820]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_is_done_with_what_it_has_not_got_lies() {
    let world = World::new();
    let (a, b) = connected(&world);
    a.write(10, B, &[1; 10]);
    b.all();
    b.send(&VsockPacket { fwd_cnt: 11, ..b.packet(20, A, VsockOp::CreditUpdate) });
    assert_eq!((a.ops(), b.ops()), (vec![VsockOp::Rst], vec![VsockOp::Rst]));
    let echo = (HOST_CID, ECHO_PORT);
    b.send(&VsockPacket { fwd_cnt: 1, ..b.packet(6, echo, VsockOp::Request) });
    assert_eq!(b.ops(), [VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_sender_hears_of_new_room_when_it_asks_and_by_itself() {
    let world = World::new();
    let (a, b) = connected(&world);
    let answer = |fwd_cnt| {
        let (packet, _) = a.receive().unwrap();
        assert_eq!((packet.op, packet.buf_alloc, packet.fwd_cnt), (VsockOp::CreditUpdate, WINDOW, fwd_cnt));
        assert!(a.receive().is_none());
    };
    a.say(10, B, VsockOp::CreditRequest);
    answer(0);
    a.write(10, B, &[1; 100]);
    a.say(10, B, VsockOp::CreditRequest);
    answer(0);
    b.all();
    assert!(a.receive().is_none(), "little has been taken");
    world.rings("a");
    a.write(10, B, &FULL[100..]);
    b.all();
    assert!(world.rings("a") > 0);
    answer(WINDOW);
    // What is said anyway says it, too.
    a.write(10, B, &FULL);
    b.all();
    b.write(20, A, b"x");
    let (packet, _) = a.receive().unwrap();
    assert_eq!((packet.op, packet.fwd_cnt), (VsockOp::Rw, 2 * WINDOW));
    assert!(a.receive().is_none());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_does_not_take_what_it_gets_holds_up_nobody_else() {
    let world = World::new();
    let (a, b) = connected(&world);
    let c = world.guest("c", 5, &["both"]);
    a.say(11, (5, 50), VsockOp::Request);
    c.all();
    c.say(50, (3, 11), VsockOp::Response);
    a.all();
    a.write(10, B, &FULL);
    for _ in 0..10 {
        a.write(11, (5, 50), &[2; 1000]);
        b.write(20, A, &[3; 1000]);
        assert_eq!(c.ops(), [VsockOp::Rw]);
        assert!(a.ops().contains(&VsockOp::Rw));
    }
    assert_eq!(b.all().iter().map(|(_, data)| data.len()).sum::<usize>(), FULL.len());
}
