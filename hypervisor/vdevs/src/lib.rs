//! Every virtual device model, and the one table of their factories.
//!
//! Answers for: what guests see at a device's registers. A device is a chip (registers and nothing else, after the part's
//! manual) and a plug (bus, interrupt line, back end, device tree). Does not answer for: how an access gets here (`vdev`),
//! or what is behind a back end (`host`).

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

mod catalogue;
mod cfi_flash;
mod character;
mod fifo;
mod gic;
mod pci_dummy;
mod pci_host;
mod pl011;
mod pl031;
mod plug;
mod progress;
mod quiesce;
mod qvmterm;
mod ser8250;
mod serial;
mod shmem;
mod smmu;
mod sp804;
mod sp805;
mod time;
mod trace;
mod virtio_9p;
mod virtio_balloon;
mod virtio_blk;
mod virtio_console;
mod virtio_entropy;
mod virtio_input;
mod virtio_net;
mod virtio_vsock;
mod watch;

pub use catalogue::CATALOGUE;
