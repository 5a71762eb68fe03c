//! The virtual-device framework.
//!
//! Answers for: what a vdev is ([`Factory`], [`Vdev`]), what it may reach ([`Context`]), how accesses find it ([`Bus`]),
//! and what it may ask of the world ([`Effects`], the back-end traits). Does not answer for: any particular device
//! (`vdevs`), the interrupt controller (`vgic`), or when things happen (`vm`, `kernel`).

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

mod backend;
mod balloon;
mod block;
mod bus;
mod clock;
mod connector;
mod context;
mod device;
mod effects;
mod factory;
mod function;
mod interrupt;
mod manual;
mod memory;
mod net;
mod node;
mod options;
mod rest;
mod shadow;
mod shared;
mod streams;
mod table;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod timer;
mod vsock;
mod worker;

pub use backend::{CharDevice, Entropy, Taken, TraceSink, Untraced};
pub use balloon::{Balloon, GIVE_BACK_PAGES, Holding};
pub use block::{BlockDevice, BlockError, DiskName, Geometry, HostDisk, SECTOR, Sink, Source};
pub use bus::{Bus, BusError, Device, Target};
pub use clock::{Alarm, Clock};
pub use connector::{Connector, Decoder, PciSlot};
pub use context::{Context, Identity, Services};
pub use device::{AccessFault, Control, ControlError, Vdev, Wake};
pub use effects::{Cause, Effects};
pub use factory::{
    ABI, AccessSizes, BackendError, Backends, BringsToRest, Create, DeviceId, Factory, FactoryFlags, Files, HostFiles,
    RegionWishes, Safety, Setup,
};
pub use function::{
    FunctionBar, FunctionFacts, FunctionPart, FunctionSignal, GuestMessage, HostFunction, WantedFunction,
};
pub use interrupt::{InterruptController, Line};
pub use memory::{GuestMemory, MemoryFault};
pub use net::{
    Checksum, FILTER_ADDRESSES, FillFrame, Frame, LEAST_FRAME, MOST_FRAME, Mac, NetFilter, NetPort, NetWish, Offloads,
    Received, Segments, Sent, TakeFrame, Unfinished,
};
pub use node::{Node, Trigger};
pub use options::{
    Direction, GENERAL_OPTIONS, Given, HostDevice, Numbers, OptionError, OptionKind, OptionSpec, OptionStatus, Options,
    Place,
};
pub use rest::{
    REST_STEPS, REST_TIME, Registers, Rest, RestAction, RestFailure, RestProgress, RestStep, Resting, Way, check_rest,
    rest_steps, rest_time,
};
pub use shadow::ShadowPage;
pub use shared::{Attached, DEVICE_REGIONS, REGION_CLIENTS, RegionError, RegionName, SharedMemory};
pub use streams::{HostStreams, STREAM_COMMANDS, StreamCommand, StreamEntry, StreamEvent};
pub use table::{append_factories, check_factories};
pub use timer::{Deadlines, TIMERS, Timer};
pub use vsock::{
    GUEST_CIDS, VSOCK_RECEIVE, VSOCK_SEND, VSOCK_STREAM, VsockOp, VsockPacket, VsockPort, VsockSignal, VsockWish,
};
pub use worker::{Bell, NewWorker, PULSES, PulseSink, Shared, Step, WORKERS, Work, Worker};
