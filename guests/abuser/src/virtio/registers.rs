//! What a driver can do wrong at registers, wherever they are: the same for MMIO (virtio 1.3, 4.2) and PCI (4.1), and for both kinds of queues;
//! their modules say which cases these are.

use guest_rt::exceptions::catch;
use guest_rt::mmio::Width;

use super::driver::{Bench, DATA, Driver, ENTRIES, IN, RING_RESET};
use super::ring::Part;
use super::transport::Area;
use super::{Verdict, ensure};

/// Reads and writes the device's own configuration in all pieces.
pub(super) fn configuration_widths(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let configuration = bench.device.transport.configuration();
    let capacity = configuration.read_width(0, Width::Doubleword);
    for (offset, width) in (0..64).flat_map(|offset| Width::ALL.map(|width| (offset, width))) {
        catch(|| configuration.read_width(offset, width));
        catch(|| configuration.write_width(offset, width, 0));
    }
    let after = configuration.read_width(0, Width::Doubleword);
    ensure(after == capacity, "the capacity is another one", after)?;
    bench.is_unharmed()
}

/// Has a queue that is as it should be but for what `spoil` says of it: the device refuses it.
fn is_refused(bench: &mut Bench<'_>, features: u64, spoil: impl FnOnce(&Driver<'_>)) -> Verdict {
    bench.device.negotiate(features)?;
    bench.device.lay(0, ENTRIES);
    spoil(&bench.device);
    bench.device.enable(0);
    bench.device.go();
    bench.device.notify(0);
    bench.device.needs_reset()
}

/// Has queues of such sizes, none of which can be.
pub(super) fn sizes(bench: &mut Bench<'_>, features: u64, sizes: &[u32]) -> Verdict {
    sizes.iter().try_for_each(|size| is_refused(bench, features, |device| device.transport.set_size(*size)))
}

/// Puts an area at every address but those that it may be at.
pub(super) fn misaligned(bench: &mut Bench<'_>, features: u64, area: Area, alignment: u64) -> Verdict {
    (1..alignment).try_for_each(|offset| {
        is_refused(bench, features, |device| device.transport.set_area(area, device.rings[0].address(area) + offset))
    })
}

/// Says of a queue that is in use where it is, and how large; and enables it once more.
pub(super) fn moved_while_enabled(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    bench.device.transport.select(0);
    for value in [0, 1, 3, u64::MAX] {
        bench.device.transport.set_size(value as u32);
        for area in Area::ALL {
            bench.device.transport.set_area(area, value);
        }
        bench.is_unharmed()?;
    }
    bench.device.enable(0);
    bench.is_unharmed()
}

/// Resets a queue that is in use, and never looks whether it is reset.
pub(super) fn reset_unread(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_RESET)?;
    for _ in 0..20 {
        bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
        bench.device.transport.reset_queue();
        bench.device.transport.reset_queue();
        bench.device.lay(0, ENTRIES);
        bench.device.enable(0);
    }
    bench.is_unharmed()
}
