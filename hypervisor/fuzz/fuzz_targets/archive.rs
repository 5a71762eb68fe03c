//! The boot archive: whatever a boot loader hands over, reading it ends with files that lie inside it or an error.

#![no_main]

use fuzz::changed;
use host::archive::Archive;
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
const SAMPLES: [&[u8]; 1] = [include_bytes!("../seeds/archive.tar")];

fuzz_target!(|data: &[u8]| {
    let mut blob = changed(&SAMPLES, data);
    check(&blob);
    // A change in a header is nearly always found by its checksum: what lies behind that check is to be reached as well.
    blob.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")).for_each(sign);
    check(&blob);
});

fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn check(blob: &[u8]) {
    let Ok(archive) = Archive::new(blob) else { return };
    let memory = blob.as_ptr_range();
    for (name, contents) in archive.files() {
        assert!(!name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name:?}");
        assert_eq!(archive.get(name), Some(contents));
        let inside = contents.as_ptr_range();
        assert!(memory.start <= inside.start && inside.end <= memory.end);
    }
}
