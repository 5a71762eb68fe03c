use super::*;
use alloc::string::String;
use types::Pa;
use vdev::{RestAction, RestStep, Way};

const CLOCK: &str = "pass loc 0x1c170000,4K,rwn=0x09010000 intr gic:41=34\n";

fn with_ram(text: &str) -> String {
    format!("{RAM}{text}\n")
}

fn refused(text: &str, words: &[&str]) {
    bad(&with_ram(text), words);
}

#[test]
fn a_quiesce_is_for_the_region_that_it_names() {
    let text = format!(
        "vdev pl011 loc 0x1c090000 intr gic:37\n\
         vdev quiesce region 0x1c170000 write 0x10,4,0 poll 0x14,4,1,0,1000 wait 5\n\
         pass loc 0x0c000000,4K,rn intr gic:39\n{CLOCK}"
    );
    let description = good(&with_ram(&text)).description;
    let [rest] = &description.rests[..] else { panic!("{:?}", description.rests) };
    assert_eq!((rest.vdev.0, rest.device), (1, 1));
    assert_eq!((rest.region.host.start(), rest.region.guest.start()), (Pa(0x0901_0000), Ipa(0x1c17_0000)));
    let Way::Steps(steps) = &rest.way else { panic!("{rest:?}") };
    let [_, RestStep { action: RestAction::Poll { limit: 1000, .. }, .. }, _] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(good(&with_ram(CLOCK)).description.rests, [], "nobody has to");
}

#[test]
fn what_it_names_is_passed_to_be_written_and_there_once() {
    let quiesce = "vdev quiesce region 0x1c170000 write 0x10,4,0";
    refused(quiesce, &["no `loc` of a `pass` begins there", "the guest's address"]);
    refused(&format!("{CLOCK}vdev quiesce region 0x1c170800 write 0,4,0"), &["no `loc` of a `pass` begins there"]);
    refused(&format!("{CLOCK}vdev quiesce region 0x09010000 write 0,4,0"), &["no `loc` of a `pass` begins there"]);
    refused(&format!("pass loc 0x1c170000,4K,rn {quiesce}"), &["passed without `w`"]);
    refused(&format!("{CLOCK}{quiesce} {quiesce}"), &["is brought to rest twice", "here too"]);
    let reaching = good(&with_ram(&format!("pass loc 0x1c170000,4K,rwd=0x09010000 {quiesce}"))).description;
    assert_eq!(reaching.rests.len(), 1, "a device that reaches memory is one like others");
}

#[test]
fn a_step_that_cannot_be_taken_is_shown() {
    for (step, said) in [
        (
            "write 0x1000,4,0",
            "3:38: error: `vdev quiesce`: `write 0x1000,4,0x0`: offset 0x1000 is behind the region's end",
        ),
        ("write 0x12,4,0", "3:38: error: `vdev quiesce`: offset 0x12 is not a multiple of 4"),
        ("poll 0,4,1,0,1000001", "3:37: error: `vdev quiesce`: with this the steps may take 1000001 us"),
        ("write 0,4", "3:38: error: `vdev quiesce`: `write 0,4`: expected OFFSET,SIZE,VALUE"),
        ("", "`vdev quiesce`: nothing is done to the device"),
        ("wait 5", "`vdev quiesce`: nothing is done to the device"),
    ] {
        refused(&format!("{CLOCK}vdev quiesce region 0x1c170000 {step}"), &[said]);
    }
}

#[test]
fn with_safety_everything_that_is_passed_comes_to_rest() {
    let quiesce = "vdev quiesce region 0x1c170000 write 0x10,4,0";
    refused(
        &format!("safety qualified {CLOCK}"),
        &["nothing brings the device to rest", "`vdev quiesce`", "which this asks for"],
    );
    good(&with_ram(&format!("safety qualified {CLOCK}{quiesce}")));
    let other = "pass loc 0x0c000000,4K,rwn intr gic:39\n";
    refused(
        &format!("safety qualified {CLOCK}{other}{quiesce}"),
        &["3:1: error: ", "nothing brings the device to rest"],
    );
    good(&with_ram(&format!("{CLOCK}{other}{quiesce}")));
}

#[test]
fn a_vdev_of_ones_own_brings_its_device_to_rest() {
    static OWN: Factory = Factory {
        name: "own",
        help: "stops its hardware",
        flags: vdev::FactoryFlags::LOC_FORBIDDEN.union(vdev::FactoryFlags::INTR_FORBIDDEN),
        region_size: 0,
        safety: vdev::Safety::Qualified,
        options: &[vdev::OptionSpec::new("region", vdev::OptionKind::Address, "of what").required()],
        rest: Some(|options| {
            let region = options.address("region").unwrap_or_default();
            Ok(vdev::Rest { region, place: options.place("region"), way: Way::ByItself })
        }),
        ..Factory::new(|_, _| unreachable!())
    };
    let factories = &[&OWN];
    let read = |text: &str| {
        let mut sources = Sources::new();
        let root = sources.add_file("guest.qvmconf", with_ram(text).as_bytes());
        let files = Archive(HashMap::new());
        let document = qvmconf::parse(&mut sources, &[root], &mut Includes(&files), &vocabulary(factories));
        build(&document, &sources, factories, Limits::default())
            .map(|(configuration, _)| configuration.description.rests)
            .map_err(|diagnostics| sources.render_all(&diagnostics).to_string())
    };
    let rests = read(&format!("safety qualified {CLOCK}vdev own region 0x1c170000")).unwrap();
    assert_eq!((rests.len(), &rests[0].way), (1, &Way::ByItself));
    assert!(read("vdev own region 0x1c170000").unwrap_err().contains("`vdev own`: no `loc` of a `pass` begins there"));
    assert!(read("pass loc 0x1c170000,4K,rn vdev own region 0x1c170000").unwrap_err().contains("passed without `w`"));
}
