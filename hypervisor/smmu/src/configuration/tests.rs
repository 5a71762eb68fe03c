use super::*;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;
use qvmconf::NoFiles;

fn said(text: &str) -> Configuration {
    let mut sources = Sources::new();
    let root = sources.add_file("etc/host.smmu", text.as_bytes());
    parse(&mut sources, &[root], &mut NoFiles)
}

/// Line and message of each error, with those of its notes.
fn errors(text: &str) -> Vec<String> {
    let mut sources = Sources::new();
    let root = sources.add_file("etc/host.smmu", text.as_bytes());
    let configuration = parse(&mut sources, &[root], &mut NoFiles);
    let line = |span: Span| sources.location(span).line;
    let mut told = vec![];
    for diagnostic in configuration.diagnostics.iter() {
        let mut text = format!("{}: {}", diagnostic.span.map_or(0, line), diagnostic.message);
        for note in &diagnostic.notes {
            text.push_str(&format!(" / {}: {}", line(note.span), note.message));
        }
        told.push(text);
    }
    told
}

#[test]
fn a_configuration_says_who_may_reach_what() {
    let configuration = said(
        "smmu smmuv3 # the only kind\n\
         device pci:0:18.0 disk   device stream:0x20-0x23 camera\n\
         device mmio:0xfe100000 dma\n\
         device stream:0x30 camera\n\
         allow disk 0x80000000,64K allow disk 0x90000000,0d4096,r\n\
         allow dma bypass\n\
         reserve 0x40000000,1G\n\
         set on-fault cut-off debug 1 debug 2 set on-fault terminate\n",
    );
    assert!(configuration.diagnostics.is_empty(), "{:?}", configuration.diagnostics);
    let [disk, camera, dma] = &configuration.devices[..] else { panic!("{:?}", configuration.devices) };
    assert_eq!(disk.places[0].0, Spec::Pci { bus: 0, device: 18, function: 0 });
    let range = |start, length| Range::new(Pa(start), length).unwrap();
    let allowed: Vec<_> = disk.allowed.iter().map(|it| (it.memory.range, it.read, it.write)).collect();
    assert_eq!(allowed, [(range(0x8000_0000, 0x1_0000), true, true), (range(0x9000_0000, 0x1000), true, false)]);
    let places: Vec<_> = camera.places.iter().map(|place| place.0).collect();
    assert_eq!(places, [Spec::Streams { first: 0x20, last: 0x23 }, Spec::Streams { first: 0x30, last: 0x30 }]);
    assert_eq!((dma.places[0].0, dma.bypass.is_some()), (Spec::Mmio(Pa(0xfe10_0000)), true));
    assert_eq!(configuration.reserved[0].range, range(0x4000_0000, 1 << 30));
    assert_eq!((configuration.on_fault, configuration.debug), (OnFault::Terminate, 2), "the last one counts");
    assert!(!configuration.safety && said("safety").safety);
}

#[test]
fn nothing_said_is_nothing_allowed() {
    let configuration = said("# nothing");
    assert_eq!(configuration, Configuration::default());
    assert_eq!(configuration.on_fault, OnFault::Report);
}

#[test]
fn one_place_has_one_device_and_both_are_named() {
    assert_eq!(
        errors("device pci:0:3.0 net\ndevice pci:0:3.0 disk"),
        ["2: pci:0:3.0 is `net` already: it cannot be `disk`, too / 1: `net` is here"]
    );
    assert_eq!(
        errors("device stream:0x10-0x1f a\ndevice stream:0x1f b"),
        ["2: stream:0x1f is `a` already: it cannot be `b`, too / 1: `a` is here"]
    );
    assert_eq!(errors("device mmio:0x1000 a device mmio:0x1000 a"), [""; 0], "the same again");
    assert_eq!(errors("device pci:0:3.0 a device pci:0:3.1 b device pci:1:3.0 c device stream:3 d"), [""; 0]);
}

#[test]
fn memory_is_allowed_to_a_device_once_and_to_several() {
    assert_eq!(
        errors("device stream:1 a\nallow a 0x80000000,8K\nallow a 0x80001000,4K,r"),
        ["3: `a` may reach some of 0x80001000-0x80001fff already / 2: 0x80000000-0x80001fff is here"]
    );
    assert_eq!(errors("device stream:1 a device stream:2 b allow a 0x1000,4K allow b 0x1000,4K"), [""; 0]);
}

#[test]
fn what_is_reserved_is_allowed_to_nobody() {
    assert_eq!(
        errors("device stream:1 a\nallow a 0x80001000,8K\nreserve 0x80002000,4K"),
        ["2: `a` may not reach 0x80001000-0x80002fff: it is reserved / 3: 0x80002000-0x80002fff is reserved here"]
    );
    assert_eq!(errors("device stream:1 a allow a 0x80001000,4K reserve 0x80002000,4K"), [""; 0]);
}

#[test]
fn letting_through_is_for_those_who_are_named_and_not_with_safety() {
    assert_eq!(errors("allow disk bypass"), ["1: there is no device `disk`"]);
    assert_eq!(
        errors("device stream:1 a\nallow a bypass\nsafety"),
        ["2: `a` cannot be let through: `safety` forbids it"]
    );
    assert_eq!(
        errors("device stream:1 a\nallow a bypass\nallow a 0x1000,4K"),
        ["3: `a` is let through, so a range says nothing / 2: let through here"]
    );
}

#[test]
fn mistakes_are_told_where_they_are() {
    for (text, expected) in [
        ("devise pci:0:3.0 net", "1: unknown word `devise`"),
        ("foreground", "1: `foreground`: not here: there is no background to go to"),
        ("smmu vtd", "1: `smmu` knows no `vtd`"),
        ("smmu", "1: `smmu` wants smmuv3, and nothing follows"),
        ("debug 3", "1: `debug` knows no `3`"),
        ("set on-fault ignore", "1: `on-fault` knows no `ignore`"),
        ("set speed fast", "1: there is no variable `speed`"),
        ("device pci:0:3.0\nsafety", "1: `device` wants a NAME behind SPEC, and nothing follows"),
        ("device pci:0:32.0 a", "1: `32` is no PCI device: there are 0 to 31"),
        ("device pci:3.0 a", "1: `` is no PCI bus: there are no digits"),
        ("device pci:0:3 a", "1: `` is no PCI function: there are no digits"),
        ("device stream:0x100000000 a", "1: `0x100000000` is no stream: they have 32 bits"),
        ("device stream:5-4 a", "1: stream 0x4 comes before 0x5"),
        ("device mmio:fe100000 a", "1: `fe100000` is no address: a hexadecimal number begins with `0x`"),
        ("device usb:1 a", "1: `usb:1` is not where a device is"),
        ("reserve 0x1000", "1: `0x1000` has no length"),
        ("reserve 0x1800,4K", "1: `0x1800,4K` is not whole pages of 4 KiB"),
        ("reserve 0x1000,0", "1: `0x1000,0` is not whole pages of 4 KiB"),
        ("reserve 0xfffffffffffff000,8K", "1: `0xfffffffffffff000,8K` runs over the end of the address space"),
        ("device stream:1 a allow a 0x1000,4K,x", "1: `x` is no permission"),
        ("device stream:1 a allow a 0x1000,4K,", "1: `` is no permission"),
        ("\"safety\"", "1: unknown word `safety`"),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn there_is_a_limit() {
    let text: String = (0..=MAX_DEVICES).map(|n| format!("device stream:{n} d{n}\n")).collect();
    assert_eq!(errors(&text), [format!("{}: more than 256 devices: this is no configuration", MAX_DEVICES + 1)]);
}

#[test]
fn places_are_shown_as_they_are_written() {
    for text in ["pci:0:18.7", "stream:0x10", "stream:0x10-0x1f", "mmio:0xfe100000"] {
        assert_eq!(value::spec(text).unwrap().to_string(), text);
    }
}

/// One PCI bus behind the first SMMU, on which a device's functions have one stream; all else has none.
struct Bus;

impl Places for Bus {
    fn streams(&self, spec: &Spec) -> Result<Vec<Place>, String> {
        match *spec {
            Spec::Pci { bus: 0, device, .. } => Ok(vec![Place { smmu: 0, stream: u32::from(device) << 3 }]),
            Spec::Streams { first, last } => Ok((first..=last).map(|stream| Place { smmu: 0, stream }).collect()),
            _ => Err("it is behind no SMMU".into()),
        }
    }

    fn may_give(&self, memory: Range<Pa>) -> Result<(), String> {
        if memory.start() < Pa(0x8000_0000) { Err("it is the hypervisor's".into()) } else { Ok(()) }
    }

    fn taken(&self, place: Place) -> Option<String> {
        (place.stream == 9 << 3).then(|| "a disk is VM `one`'s".into())
    }
}

fn resolved(text: &str) -> Result<Vec<Vec<Place>>, Vec<String>> {
    let mut sources = Sources::new();
    let root = sources.add_file("etc/host.smmu", text.as_bytes());
    let configuration = parse(&mut sources, &[root], &mut NoFiles);
    assert!(configuration.diagnostics.is_empty(), "{:?}", configuration.diagnostics);
    resolve(&configuration, &Bus).map_err(|found| {
        let line = |span: Span| sources.location(span).line;
        let text = |it: &Diagnostic| {
            let notes: String =
                it.notes.iter().map(|note| format!(" / {}: {}", line(note.span), note.message)).collect();
            format!("{}: {}{notes}", it.span.map_or(0, line), it.message)
        };
        found.iter().map(text).collect()
    })
}

/// It would have its name in the log as one that reaches memory, and the VM would have the stream.
#[test]
fn what_somebody_has_reaches_nothing_for_others() {
    let why = "`disk` cannot have stream 0x48: a disk is VM `one`'s";
    for reaches in ["allow disk bypass", "allow disk 0x90000000,4K"] {
        let text = format!("device pci:0:8.0 other\ndevice stream:0x48 disk\n{reaches}");
        assert_eq!(resolved(&text), Err(vec![format!("2: {why}")]));
    }
    assert_eq!(
        resolved("device pci:0:9.0 disk"),
        Ok(vec![vec![Place { smmu: 0, stream: 0x48 }]]),
        "a name it may have"
    );
}

#[test]
fn a_word_in_quotes_is_not_said_to_be_like_itself() {
    let mut sources = Sources::new();
    let root = sources.add_file("etc/host.smmu", b"\"safety\"");
    let configuration = parse(&mut sources, &[root], &mut NoFiles);
    let hints: Vec<_> = configuration.diagnostics.iter().map(|it| it.hint.clone().unwrap_or_default()).collect();
    assert_eq!(hints, ["it is one without quotes"]);
}

#[test]
fn places_come_to_streams() {
    let place = |stream| Place { smmu: 0, stream };
    let found = resolved("device pci:0:2.0 a device pci:0:2.1 a device stream:0x20-0x21 b device stream:0x22 b");
    assert_eq!(found, Ok(vec![vec![place(0x10)], vec![place(0x20), place(0x21), place(0x22)]]), "each once");
}

#[test]
fn a_stream_has_one_device_whatever_it_is_called_and_both_are_named() {
    assert_eq!(
        resolved("device pci:0:2.0 net\ndevice pci:0:2.1 disk"),
        Err(vec![
            "2: pci:0:2.1 sends by stream 0x10, which is that of `net`: it cannot be `disk`, too / 1: `net` is here"
                .into()
        ])
    );
    assert_eq!(
        resolved("device stream:0x10-0x11 a\ndevice pci:0:2.0 b"),
        Err(vec![
            "2: pci:0:2.0 sends by stream 0x10, which is that of `a`: it cannot be `b`, too / 1: `a` is here".into()
        ])
    );
}

#[test]
fn what_the_machine_has_not_is_told_all_at_once() {
    assert_eq!(
        resolved("device pci:1:0.0 a\ndevice mmio:0x1000 b\nallow b 0x7ffff000,8K\nallow b 0x80001000,4K"),
        Err(vec![
            "1: `a`: it is behind no SMMU".into(),
            "2: `b`: it is behind no SMMU".into(),
            "3: `b` cannot reach 0x7ffff000-0x80000fff: it is the hypervisor's".into(),
        ])
    );
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn no_text_panics(words in prop::collection::vec("(device|allow|smmu|reserve|set|debug|safety|a|pci:0:[0-9]{1,2}.0|stream:[0-9]{1,4}(-[0-9]{1,4})?|0x[0-9a-f]{1,16},[0-9]{1,4}[KMG]?(,r)?|bypass|\\PC{0,8})[ \n]", 0..40)) {
        let _ = errors(&words.concat());
    }
}
