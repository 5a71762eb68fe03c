//! What is at the host's CID.

use super::*;

const ECHO: (u32, u32) = (HOST_CID, ECHO_PORT);
const AGENT: (u32, u32) = (HOST_CID, AGENT_PORT);

/// A guest with a connection from port 10.
fn with<'w>(world: &'w World, service: (u32, u32)) -> Guest<'w> {
    let a = world.guest("a", 3, &[]);
    a.say(10, service, VsockOp::Request);
    let (packet, _) = a.receive().unwrap();
    assert_eq!((packet.op, packet.src_cid, packet.src_port), (VsockOp::Response, 2, service.1));
    a
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn at_other_ports_there_is_nothing() {
    let world = World::new();
    let a = world.guest("a", 3, &[]);
    for port in [0, 2, 9, u32::MAX] {
        a.say(10, (HOST_CID, port), VsockOp::Request);
        assert_eq!(a.ops(), [VsockOp::Rst]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_echo_sends_back_what_it_gets() {
    let world = World::new();
    let a = with(&world, ECHO);
    let mut total = 0_u32;
    for round in 0..20_u8 {
        let bytes: Vec<u8> = (0..WINDOW).map(|at| (at as u8).wrapping_mul(3) ^ round).collect();
        let packet = VsockPacket { len: WINDOW, fwd_cnt: total, ..a.packet(10, ECHO, VsockOp::Rw) };
        assert!(a.send_with(&packet, &bytes));
        let back: Vec<u8> = a.all().into_iter().flat_map(|(_, data)| data).collect();
        assert_eq!(back, bytes);
        total += WINDOW;
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_echo_waits_for_who_does_not_read() {
    let world = World::new();
    let a = with(&world, ECHO);
    a.send(&VsockPacket { buf_alloc: 0, ..a.packet(10, ECHO, VsockOp::CreditUpdate) });
    let packet = VsockPacket { buf_alloc: 0, len: WINDOW, ..a.packet(10, ECHO, VsockOp::Rw) };
    assert!(a.send_with(&packet, &FULL));
    assert!(a.ops().is_empty());
    assert!(a.send_with(&VsockPacket { len: 1, ..packet }, &[1]));
    assert_eq!(a.ops(), [VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_echo_ends_when_its_guest_does() {
    let world = World::new();
    let a = with(&world, ECHO);
    a.write(10, ECHO, b"rest");
    a.shut_down(10, ECHO, VSOCK_SEND);
    assert_eq!(a.all(), [(VsockOp::Rw, b"rest".to_vec()), (VsockOp::Shutdown, vec![])]);
    a.shut_down(10, ECHO, VSOCK_RECEIVE | VSOCK_SEND);
    assert_eq!(a.ops(), [VsockOp::Rst], "a clean disconnect (5.10.6.5)");
    a.say(10, ECHO, VsockOp::Request);
    assert_eq!(a.ops(), [VsockOp::Response]);
    a.shut_down(10, ECHO, VSOCK_RECEIVE | VSOCK_SEND);
    assert_eq!(a.ops(), [VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_an_agent_says_is_shown_by_lines() {
    let world = World::new();
    let a = with(&world, AGENT);
    a.write(10, AGENT, b"hello\nhalf a ");
    a.write(10, AGENT, b"line\nrest");
    assert_eq!(world.heard.lock().unwrap().lines, ["hello", "half a line"]);
    // There is always room: nobody has to read it.
    for _ in 0..10 {
        a.write(10, AGENT, &FULL);
    }
    // Another agent does not go on where this one has stopped.
    a.say(10, AGENT, VsockOp::Rst);
    a.all();
    world.heard.lock().unwrap().lines.clear();
    a.say(11, AGENT, VsockOp::Request);
    a.write(11, AGENT, b"new\n");
    assert_eq!(world.heard.lock().unwrap().lines, ["new"]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_agent_is_asked_to_shut_down_and_nobody_in_its_place() {
    let world = World::new();
    let button = |guest: &Guest<'_>| world.signals.send(guest.id, VsockSignal::Button);
    let a = with(&world, AGENT);
    let b = world.guest("b", 4, &[]);
    assert!(!button(&b), "it has no agent");
    a.say(11, AGENT, VsockOp::Request);
    assert_eq!(a.ops(), [VsockOp::Rst], "there is one already");
    assert!(button(&a));
    assert_eq!(a.all(), [(VsockOp::Rw, SHUT_DOWN.to_vec())]);
    assert!(a.ops().is_empty() && b.ops().is_empty());
    // It may stop speaking and still listen.
    a.shut_down(10, AGENT, VSOCK_SEND);
    assert!(button(&a));
    assert_eq!(a.ops(), [VsockOp::Rw]);
    type Leave = fn(&Guest<'_>, u32);
    let leave: [Leave; 3] = [
        |a, port| a.say(port, AGENT, VsockOp::Rst),
        |a, port| a.shut_down(port, AGENT, VSOCK_RECEIVE),
        |a, _| a.world.with(|hub| hub.open(a.id)),
    ];
    for (port, leave) in (10..).zip(leave) {
        leave(&a, port);
        a.all();
        assert!(!button(&a), "{port}");
        a.say(port + 1, AGENT, VsockOp::Request);
        assert_eq!(a.ops(), [VsockOp::Response]);
        assert!(button(&a));
        assert_eq!(a.ops(), [VsockOp::Rw]);
    }
    // A station begins without, whatever its place's last one has left.
    assert!(button(&a));
    world.end("a");
    let (id, _) = world.attach("c", None, &[]).unwrap();
    assert!(!world.signals.send(id, VsockSignal::Button));
}
