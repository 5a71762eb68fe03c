//! Configurations of `smmuman`: whatever bytes they are made of, nothing in them contradicts the rest, or there are errors.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qvmconf::{NoFiles, Sources};
use smmu::configuration::{MAX_DEVICES, parse};
use types::PAGE_SIZE;

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
});
