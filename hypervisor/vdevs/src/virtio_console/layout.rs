//! What a console device and its driver agree on: numbers and layouts (virtio 1.3, 5.3).

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device ID (5.3.1).
pub(super) const ID: u16 = 3;
/// Simple communication controller, other.
pub(super) const CLASS: u32 = 0x07_8000;

/// Features (5.3.3).
pub(super) mod feature {
    use virtio::Features;

    pub(crate) const MULTIPORT: Features = Features::from_bits_retain(1 << 1);
    pub(crate) const EMERG_WRITE: Features = Features::from_bits_retain(1 << 2);
}

/// What control messages say (5.3.6.2).
pub(super) mod event {
    pub(crate) const DEVICE_READY: u16 = 0;
    pub(crate) const DEVICE_ADD: u16 = 1;
    pub(crate) const PORT_READY: u16 = 3;
    pub(crate) const CONSOLE_PORT: u16 = 4;
    pub(crate) const PORT_OPEN: u16 = 6;
    pub(crate) const PORT_NAME: u16 = 7;
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `receiveq` of a port: input for the guest.
    Receive(usize),
    /// `transmitq` of a port: its output.
    Transmit(usize),
    /// `control receiveq`: messages to the driver.
    ControlReceive,
    /// `control transmitq`: messages of the driver's.
    ControlTransmit,
}

/// The number of `control receiveq`.
pub(super) const CONTROL_RECEIVE: u16 = 2;

/// Without `VIRTIO_CONSOLE_F_MULTIPORT` there are the first two queues only (5.3.2).
pub(super) const QUEUES_OF_ONE: u16 = 2;

impl Role {
    /// The role of a queue (5.3.2): port 0 has the first two, the control queues follow, then the other ports' pairs.
    pub(super) fn of(queue: u16) -> Self {
        match queue {
            0 => Self::Receive(0),
            1 => Self::Transmit(0),
            CONTROL_RECEIVE => Self::ControlReceive,
            3 => Self::ControlTransmit,
            _ if queue.is_multiple_of(2) => Self::Receive(usize::from(queue / 2).saturating_sub(1)),
            _ => Self::Transmit(usize::from(queue / 2).saturating_sub(1)),
        }
    }
}

/// The `receiveq` of a port.
pub(super) fn receive_queue(port: usize) -> u16 {
    let pair = if port == 0 { 0 } else { port.saturating_add(1) };
    u16::try_from(pair.saturating_mul(2)).unwrap_or(u16::MAX)
}

/// How many queues there are for so many ports.
pub(super) fn queues(ports: usize) -> u16 {
    if ports > 1 { receive_queue(ports) } else { QUEUES_OF_ONE }
}

/// The configuration space (5.3.4).
#[derive(Clone, Copy, Debug, Default, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Configuration {
    /// Only with `VIRTIO_CONSOLE_F_SIZE`, which is not offered: nobody knows how large the terminal is.
    pub(super) cols: U16,
    pub(super) rows: U16,
    pub(super) max_nr_ports: U32,
    /// Is written only.
    pub(super) emerg_wr: U32,
}

/// A control message (5.3.6.2); behind `PORT_NAME` follows the name.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Control {
    /// Which port.
    pub(super) id: U32,
    /// What is said of it; see [`event`].
    pub(super) event: U16,
    /// 1 for yes, 0 for no.
    pub(super) value: U16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let offsets = [
            (offset_of!(Configuration, rows), 2),
            (offset_of!(Configuration, max_nr_ports), 4),
            (offset_of!(Configuration, emerg_wr), 8),
            (size_of::<Configuration>(), 12),
            (offset_of!(Control, event), 4),
            (offset_of!(Control, value), 6),
            (size_of::<Control>(), 8),
        ];
        offsets.into_iter().for_each(|(own, theirs)| assert_eq!(own, theirs));
    }

    #[test]
    fn queues_have_the_numbers_of_5_3_2() {
        let roles = [0, 1, 2, 3, 4, 5, 6, 7].map(Role::of);
        let expected = [
            Role::Receive(0),
            Role::Transmit(0),
            Role::ControlReceive,
            Role::ControlTransmit,
            Role::Receive(1),
            Role::Transmit(1),
            Role::Receive(2),
            Role::Transmit(2),
        ];
        assert_eq!(roles, expected);
        (0..20).for_each(|port| assert_eq!(Role::of(receive_queue(port)), Role::Receive(port)));
        assert_eq!([1, 2, 3].map(queues), [2, 6, 8]);
    }
}
