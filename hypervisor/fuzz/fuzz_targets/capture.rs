//! Captures of traces: a file is refused, or read to its end, and what is understood of it would be recorded the same way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trace::{Capture, Event, MAGIC, RECORD, bytes};

fuzz_target!(|data: &[u8]| {
    check(data);
    // The beginning is hard to guess, and what is behind it is the larger part.
    let mut file = MAGIC.to_vec();
    file.extend(1_u64.to_le_bytes());
    file.extend([0; 16]);
    file.extend(data);
    file.truncate(file.len() / RECORD * RECORD);
    check(&file);
});

fn check(file: &[u8]) {
    let Ok(capture) = Capture::new(file) else { return };
    assert_eq!(capture.events().count(), file.len() / RECORD - 1);
    for event in capture.events().flatten() {
        let record = event.encode();
        assert_eq!(Event::decode(&record), Some(event));
        assert_eq!(bytes(&record).len(), RECORD);
    }
}
