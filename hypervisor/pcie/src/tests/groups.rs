//! What cannot be kept apart.
use super::*;

fn group(found: &Hierarchy, address: PciAddress) -> u16 {
    function(found, address).group
}

#[test]
fn devices_of_the_hosts_bus_are_apart() {
    let found = found(&Model::new([disk(8), disk(0x10), disk(0x18)]));
    let groups: Vec<u16> = found.functions.iter().map(|function| function.group).collect();
    assert_eq!((groups, found.groups()), (vec![0, 1, 2], 3));
}

#[test]
fn functions_of_a_device_are_together_unless_they_keep_apart() {
    for keep_apart in [false, true] {
        let mut pair = [disk(8), disk(9)];
        pair[0].set(0x0e, &[0x80]);
        for disk in pair.iter_mut().filter(|_| keep_apart) {
            disk.add_express(0, true);
            disk.add_access_control();
        }
        let found = found(&Model::new(pair));
        assert_eq!(found.groups(), if keep_apart { 2 } else { 1 });
    }
}

#[test]
fn below_a_port_that_keeps_apart_all_is_apart() {
    let ports = [Simulated::root_port(8, true), Simulated::root_port(0x10, true)];
    let hierarchy = found(&Model::new(ports.into_iter().chain([disk(0).behind(0), disk(0).behind(1)])));
    assert_eq!(hierarchy.groups(), 4);
    // Without, a disk is with its port, and other ports are not.
    let ports = [Simulated::root_port(8, false), Simulated::root_port(0x10, true)];
    let hierarchy = found(&Model::new(ports.into_iter().chain([disk(0).behind(0), disk(0).behind(1)])));
    assert_eq!(group(&hierarchy, at(1, 0, 0)), group(&hierarchy, at(0, 1, 0)));
    assert_ne!(group(&hierarchy, at(2, 0, 0)), group(&hierarchy, at(0, 2, 0)));
    assert_eq!(hierarchy.groups(), 3);
}

#[test]
fn ports_of_one_device_that_do_not_keep_apart_are_together_with_all_below() {
    let mut ports = [Simulated::root_port(8, false), Simulated::root_port(9, false)];
    ports[0].set(0x0e, &[0x81]);
    let found = found(&Model::new(ports.into_iter().chain([disk(0).behind(0), disk(0).behind(1)])));
    assert_eq!((found.functions.len(), found.groups()), (4, 1));
}

#[test]
fn below_a_port_that_keeps_apart_what_its_neighbour_sends_still_arrives() {
    for keep in [[true, false], [false, true]] {
        let mut ports = [Simulated::root_port(8, keep[0]), Simulated::root_port(9, keep[1])];
        ports[0].set(0x0e, &[0x81]);
        let found = found(&Model::new(ports.into_iter().chain([disk(0).behind(0), disk(0).behind(1)])));
        assert_eq!((found.functions.len(), found.groups()), (4, 1), "{keep:?}");
    }
    // An endpoint beside a port sends, too; a host bridge there is nobody's, and does not.
    let beside = |other: Simulated| {
        let mut port = Simulated::root_port(8, true);
        port.set(0x0e, &[0x81]);
        let found = found(&Model::new([port, other, disk(0).behind(0)]));
        group(&found, at(1, 0, 0)) == group(&found, at(0, 1, 1))
    };
    assert!(beside(disk(9)));
    assert!(!beside(Simulated::endpoint(9, 0x1022, 0x1452, [6, 0, 0])));
}

#[test]
fn all_below_a_conventional_bridge_is_together() {
    let found = found(&Model::new([Simulated::bridge(8), disk(8).behind(0), disk(0x10).behind(0), disk(0x10)]));
    assert_eq!(group(&found, at(1, 1, 0)), group(&found, at(1, 2, 0)));
    assert_ne!(group(&found, at(1, 1, 0)), group(&found, at(0, 2, 0)));
}

#[test]
fn below_a_switch_every_port_on_the_way_has_to_keep_apart() {
    let switch = |root: bool, down: [bool; 2]| {
        let port = |number, kind: u8, above, keeps: bool| {
            let mut port = Simulated::bridge(number);
            port.add_express(kind, false);
            if keeps {
                port.add_access_control();
            }
            port.behind(above)
        };
        let tree =
            [Simulated::root_port(8, root), port(0, 5, 0, false), port(0, 6, 1, down[0]), port(8, 6, 1, down[1])];
        found(&Model::new(tree.into_iter().chain([disk(0).behind(2), disk(0).behind(3)])))
    };
    let both = |found: &Hierarchy| [group(found, at(3, 0, 0)), group(found, at(4, 0, 0))];
    let apart = switch(true, [true, true]);
    assert_ne!(both(&apart)[0], both(&apart)[1]);
    // A port that does not redirect sends to the windows of the other, which does not look at what comes out of it (6.12.1.1).
    for down in [[false, false], [true, false], [false, true]] {
        let together = switch(true, down);
        assert_eq!(both(&together)[0], both(&together)[1], "{down:?}");
        for port in [at(2, 0, 0), at(2, 1, 0)] {
            assert_eq!(group(&together, port), both(&together)[0], "with the ports: {down:?}");
        }
        assert_ne!(group(&together, at(0, 1, 0)), both(&together)[0], "not with what is above: {down:?}");
    }
    let together = switch(false, [true, true]);
    assert_eq!(both(&together)[0], both(&together)[1], "the root port turns requests around");
}

#[test]
fn beside_the_upstream_port_of_a_switch_a_function_reaches_all_below() {
    let switch = |keep: bool| {
        let port = |number, kind: u8, above, keeps: bool| {
            let mut port = Simulated::bridge(number);
            port.add_express(kind, false);
            if keeps {
                port.add_access_control();
            }
            port.behind(above)
        };
        let mut up = port(0, 5, 0, keep);
        up.set(0x0e, &[0x81]);
        let mut beside = disk(1).behind(0);
        beside.add_express(0, true);
        if keep {
            beside.add_access_control();
        }
        let tree = [Simulated::root_port(8, true), up, beside, port(0, 6, 1, true), disk(0).behind(3)];
        let found = found(&Model::new(tree));
        group(&found, at(1, 0, 1)) == group(&found, at(3, 0, 0))
    };
    assert!(switch(false));
    assert!(!switch(true));
}

#[test]
fn access_control_is_switched_on() {
    let model = Model::new([Simulated::root_port(8, true)]);
    found(&model);
    assert_eq!(Space::new(&model, at(0, 1, 0)).half(0x106), 0x1d);
}
