use super::*;
use alloc::{boxed::Box, rc::Rc, vec};

type Table = Regions<Rc<u32>, &'static str>;

fn table() -> Table {
    let bells = Box::leak(Box::new([const { Bells::new() }; MAX_REGIONS]));
    Regions::new(bells)
}

fn name(text: &str) -> RegionName {
    RegionName::new(text.as_bytes()).unwrap()
}

fn join(table: &mut Table, region: &str, door: &'static str) -> Joined<Rc<u32>> {
    table.join(&name(region), door).unwrap().unwrap()
}

#[test]
fn the_first_client_makes_a_region_and_the_last_one_takes_it_along() {
    let mut table = table();
    assert!(table.join(&name("frames"), "a").is_none());
    let memory = Rc::new(1);
    table.add(name("frames"), 4, memory.clone(), None, Some(VmId(1))).unwrap();
    assert_eq!(
        table.add(name("frames"), 8, Rc::new(2), None, None),
        Err(NotAdded::Exists(Rc::new(2))),
        "the size is the first one's"
    );
    let a = join(&mut table, "frames", "a");
    let b = join(&mut table, "frames", "b");
    assert_eq!((a.client, b.client, a.pages, b.pages, a.tell, b.tell), (0, 1, 4, 4, 0, 1));
    assert_eq!(table.made_by(VmId(1)), 4);
    assert_eq!(table.leave(a.region, a.client), Some(Left { region: a.region, tell: 2, memory: None }));
    assert_eq!(table.leave(a.region, a.client), None, "it has gone already");
    assert_eq!(table.leave(b.region, b.client), Some(Left { region: b.region, tell: 0, memory: Some(memory) }));
    assert!(table.info(0).is_none() && table.made_by(VmId(1)) == 0);
}

#[test]
fn sixteen_clients_and_no_more() {
    let mut table = table();
    table.add(name("r"), 1, Rc::new(0), None, None).unwrap();
    for client in 0..16 {
        assert_eq!(join(&mut table, "r", "x").client, client);
    }
    assert!(matches!(table.join(&name("r"), "y"), Some(Err(RegionError::TooManyClients))));
    let id = table.id(&name("r")).unwrap();
    table.leave(id, 7);
    assert_eq!(join(&mut table, "r", "y").client, 7, "a free number is used again");
}

#[test]
fn who_rings_is_seen_once_and_told_once() {
    let mut table = table();
    table.add(name("r"), 1, Rc::new(0), None, None).unwrap();
    for door in ["a", "b", "c"] {
        join(&mut table, "r", door);
    }
    let id = table.id(&name("r")).unwrap();
    let bells = table.bells(id).unwrap();
    // Others have come: the first two are told of it.
    assert_eq!([bells.look(0), bells.look(1), bells.look(2)], [7 << 16; 3]);
    assert_eq!(bells.notify(0, 0b1110), 0b110, "there is no client 3");
    assert_eq!(bells.notify(2, 0b10), 0, "it has been told, and has not looked");
    assert_eq!(table.doors(id, 0b110).copied().collect::<Vec<_>>(), ["b", "c"]);
    assert!(bells.has_news(1) && !bells.has_news(0));
    assert_eq!(bells.look(1), 7 << 16 | 0b101);
    assert_eq!(bells.look(1), 7 << 16);
    assert_eq!(bells.notify(1, 0b10), 0b10, "itself, too");
    table.leave(id, 2);
    assert!(bells.has_news(0) && bells.look(0) == 3 << 16, "one has gone, and nobody has rung");
    // What the one before it was told is not for the next one of that number.
    bells.notify(0, 0b10);
    table.leave(id, 1);
    join(&mut table, "r", "d");
    assert_eq!(bells.look(1), 3 << 16);
}

#[test]
fn what_is_kept_stays_until_it_is_not() {
    let mut table = table();
    table.add(name("r"), 1, Rc::new(5), Some(Keeper::Host), None).unwrap();
    assert!(table.keep(&name("r"), Keeper::Vm(VmId(2))) && !table.keep(&name("s"), Keeper::Host));
    let a = join(&mut table, "r", "a");
    assert_eq!(table.leave(a.region, a.client).unwrap().memory, None);
    assert_eq!(table.release(&name("r"), Keeper::Host), (true, None));
    assert_eq!(table.release(&name("r"), Keeper::Host), (false, None));
    assert_eq!(table.end(VmId(3), |_| false), None, "somebody else's end");
    assert_eq!(table.end(VmId(2), |_| false).unwrap().memory, Some(Rc::new(5)));
    assert_eq!(table.end(VmId(2), |_| false), None);
}

#[test]
fn the_end_of_a_vm_is_the_end_of_its_clients_and_the_others_hear_of_it() {
    let mut table = table();
    for region in ["r", "s", "t"] {
        table.add(name(region), 1, Rc::new(0), None, Some(VmId(0))).unwrap();
        join(&mut table, region, "a");
    }
    join(&mut table, "r", "b");
    join(&mut table, "s", "a");
    let (mut told, mut gone) = (vec![], 0);
    while let Some(Left { region, tell, memory }) = table.end(VmId(0), |door| *door == "a") {
        told.extend(table.doors(region, tell).copied().filter(|door| *door == "b"));
        gone += usize::from(memory.is_some());
    }
    assert_eq!((told, gone), (vec!["b"], 2));
    assert_eq!(table.info(0).unwrap().clients, 0b10);
    assert_eq!(table.made_by(VmId(0)), 0, "what is left is nobody's, and not a later VM's of that number");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_table_is_as_large_as_it_is() {
    let mut table = table();
    for number in 0..MAX_REGIONS {
        let name = name(&alloc::format!("r{number}"));
        table.add(name, 1, Rc::new(0), None, None).unwrap();
    }
    assert_eq!(table.add(name("more"), 1, Rc::new(9), None, None), Err(NotAdded::TooMany(Rc::new(9))));
}

#[test]
fn regions_in_a_window_are_where_blocks_can_map_them() {
    const MIB: u64 = 1 << 20;
    let base = 16 << 30;
    let mut window = Window::new(Range::new(Ipa(base), 8 << 30).unwrap());
    let first = window.take(1).unwrap();
    assert_eq!((first.start().0, first.length()), (base + 2 * MIB - 4096, 8192));
    let second = window.take(1024).unwrap();
    assert_eq!((second.start().0, second.length()), (base + 4 * MIB - 4096, 4 * MIB + 4096));
    // A gigabyte, at a multiple of one.
    let large = window.take(1 << 18).unwrap();
    assert_eq!((large.start().0 + 4096) % (1 << 30), 0);
    window.give_back(first);
    // Two megabytes do not fit between, with their page in front of the second one's.
    assert!(window.take(512).unwrap().start() > second.start());
    assert_eq!(window.take(511), Some(Range::new(Ipa(base + 2 * MIB - 4096), 2 * MIB).unwrap()));
    assert_eq!(window.take(u32::MAX), None);
    assert!((0..12).filter_map(|_| window.take(1 << 18)).count() < 8, "it ends");
}
