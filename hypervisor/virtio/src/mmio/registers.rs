//! Which register is where (4.2.2, table 4.1; 4.2.4, table 4.2).

use crate::device::Interface;

macro_rules! registers {
    ($($interface:pat => $offset:literal $name:ident),* $(,)?) => {
        /// A control register, by its name in the specification.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Register {
            $($name),*
        }

        impl Register {
            /// The one at `offset`, if there is one in this interface.
            pub(super) const fn at(offset: u64, interface: Interface) -> Option<Self> {
                match (offset, interface) {
                    $(($offset, $interface) => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Where it is.
            pub(super) const fn offset(self) -> u16 {
                match self {
                    $(Self::$name => $offset,)*
                }
            }
        }
    };
}

registers! {
    _ => 0x000 MagicValue,
    _ => 0x004 Version,
    _ => 0x008 DeviceId,
    _ => 0x00c VendorId,
    _ => 0x010 DeviceFeatures,
    _ => 0x014 DeviceFeaturesSel,
    _ => 0x020 DriverFeatures,
    _ => 0x024 DriverFeaturesSel,
    Interface::Legacy => 0x028 GuestPageSize,
    _ => 0x030 QueueSel,
    _ => 0x034 QueueSizeMax,
    _ => 0x038 QueueSize,
    Interface::Legacy => 0x03c QueueAlign,
    Interface::Legacy => 0x040 QueuePfn,
    Interface::Modern => 0x044 QueueReady,
    _ => 0x050 QueueNotify,
    _ => 0x060 InterruptStatus,
    _ => 0x064 InterruptAck,
    _ => 0x070 Status,
    Interface::Modern => 0x080 QueueDescLow,
    Interface::Modern => 0x084 QueueDescHigh,
    Interface::Modern => 0x090 QueueDriverLow,
    Interface::Modern => 0x094 QueueDriverHigh,
    Interface::Modern => 0x0a0 QueueDeviceLow,
    Interface::Modern => 0x0a4 QueueDeviceHigh,
    Interface::Modern => 0x0ac ShmSel,
    Interface::Modern => 0x0b0 ShmLenLow,
    Interface::Modern => 0x0b4 ShmLenHigh,
    Interface::Modern => 0x0b8 ShmBaseLow,
    Interface::Modern => 0x0bc ShmBaseHigh,
    Interface::Modern => 0x0c0 QueueReset,
    Interface::Modern => 0x0fc ConfigGeneration,
}
