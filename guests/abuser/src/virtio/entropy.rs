//! Rules for entropy devices (virtio 1.3, 5.4).

use super::arena;
use super::driver::{Bench, DATA, Kind};
use super::ring::Part;
use super::{Case, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("entropy-readable-buffer", Kind::Entropy, readable_buffer),
    Case::new("entropy-length-unexamined", Kind::Entropy, length_unexamined),
];

fn readable_buffer(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    arena::fill(DATA..DATA + 64, 0);
    for parts in [&[Part::readable(DATA, 64)][..], &[Part::readable(DATA, 64), Part::writable(DATA + 64, 0)][..]] {
        bench.device.send(0, parts);
        let written = bench.device.wait(0)?;
        ensure(written == 0, "it has written where nothing is writable: bytes", written)?;
    }
    bench.device.send(0, &[Part::readable(DATA, 64), Part::writable(DATA + 128, 8)]);
    let written = bench.device.wait(0)?;
    ensure((1..=8).contains(&written), "so many random numbers", written)?;
    bench.is_unharmed()
}

fn length_unexamined(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    // More than a device gives: what it has not given is as it was.
    bench.device.send(0, &[Part::writable(DATA, 0xc00)]);
    let written = bench.device.wait(0)?;
    ensure((1..=0xc00).contains(&written), "so many random numbers", written)?;
    bench.is_unharmed()
}
