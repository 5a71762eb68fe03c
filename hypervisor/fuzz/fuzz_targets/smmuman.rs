//! Configurations of `smmuman`: whatever bytes they are made of, nothing in them contradicts the rest, or there are errors; and no
//! stream comes to two devices.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qvmconf::{NoFiles, Sources};
use smmu::configuration::{MAX_DEVICES, Place, Places, Spec, parse, resolve};
use types::{PAGE_SIZE, Pa, Range};

/// A machine on which the functions of a PCI device have one stream, and all memory can be given.
struct Machine;

impl Places for Machine {
    fn streams(&self, spec: &Spec) -> Result<Vec<Place>, String> {
        let (first, last) = match *spec {
            Spec::Pci { bus, device, .. } => (u32::from(bus) << 8 | u32::from(device) << 3, 0),
            Spec::Streams { first, last } => (first, last),
            Spec::Mmio(_) => return Err("there is nothing".into()),
        };
        let count = last.saturating_sub(first).min(15);
        Ok((0..=count).filter_map(|n| Some(Place { smmu: 0, stream: first.checked_add(n)? })).collect())
    }

    fn may_give(&self, _: Range<Pa>) -> Result<(), String> {
        Ok(())
    }

    fn taken(&self, place: Place) -> Option<String> {
        (place.stream == 0x10).then(|| "a disk is `one`'s".into())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut sources = Sources::new();
    let root = sources.add_file("host.smmu", data);
    let configuration = parse(&mut sources, &[root], &mut NoFiles);
    let shown = sources.render_all(&configuration.diagnostics).to_string();
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    if configuration.diagnostics.has_errors() {
        return;
    }
    let devices = &configuration.devices;
    assert!(devices.len() <= MAX_DEVICES && configuration.debug <= 2);
    for (index, device) in devices.iter().enumerate() {
        assert!(!device.places.is_empty());
        assert!(device.bypass.is_none() || device.allowed.is_empty() && !configuration.safety);
        for other in devices.iter().take(index) {
            assert_ne!(device.name, other.name);
            let both = device.places.iter().flat_map(|(a, _)| other.places.iter().map(move |(b, _)| (a, b)));
            both.for_each(|(a, b)| assert!(!a.overlaps(b), "{a} {b}"));
        }
        for allowed in &device.allowed {
            let memory = allowed.memory.range;
            assert!(!memory.is_empty() && memory.is_aligned(PAGE_SIZE) && (allowed.read || allowed.write));
            assert!(configuration.reserved.iter().all(|reserved| !reserved.range.overlaps(&memory)));
        }
    }
    if let Ok(all) = resolve(&configuration, &Machine) {
        assert_eq!(all.len(), devices.len());
        let mut streams: Vec<u32> = all.iter().flatten().map(|place| place.stream).collect();
        streams.sort_unstable();
        assert!(streams.windows(2).all(|pair| pair[0] != pair[1]));
    }
});
