//! The variables of `set`.

use super::Status::{Never, NotYet, Supported};
use super::{Shape, Status, Variable};

const fn variable(
    name: &'static str,
    context: &'static str,
    shape: Shape,
    default: &'static str,
    status: Status,
    help: &'static str,
) -> Variable {
    Variable { name, context, shape, default, status, help }
}

const MESSAGES: Status = Never("devices send no messages to servers that could keep them waiting");
const HEAP: Status = Never("a VM is no process and has no heap or log buffer of its own");
const HOST_TREE: Status = Never("the host's device tree says where the physical GIC is");

/// Every variable of the original, and `pmu` and `fdt-address`, which are ours.
#[rustfmt::skip]
pub static VARIABLES: &[Variable] = &[
    variable("exit-on-halt", "global", Shape::Boolean, "on", Supported, "Whether WFI exits, so that the physical CPU is free while the guest idles."),
    variable("counter-offset", "global", Shape::Number, "0xffffffffffffffff", Supported, "Host counter minus guest counter. All ones: the guest's counter starts at 0."),
    variable("pmu", "global", Shape::Boolean, "on", Supported, "Whether the guest has performance monitors, if the host has some to give."),
    variable("fdt-address", "global", Shape::Address, "found", Supported, "Where the guest's device tree is, for guests that do not ask X0. Not of the original."),
    variable("fdt-dump-file", "global", Shape::Text, "none", NotYet, "Writes the guest's device tree to a file."),
    variable("grow-heap", "global", Shape::Size, "no growth", HEAP, "Grows the process's heap at the start."),
    variable("message-block-timeout", "global", Shape::Number, "10000", MESSAGES, "Milliseconds that a message to a host server may take."),
    variable("vdev-message-block-timeout", "vdev", Shape::Number, "the global one", MESSAGES, "The same for one vdev."),
    variable("slog-buffer", "global", Shape::Size, "4K", HEAP, "Size of the log buffer."),
    variable("debug", "vdev", Shape::Boolean, "on", Supported, "Whether the vdev takes part in the status report."),
    variable("gic-hwassist", "global", Shape::Boolean, "true", NotYet, "Whether the GIC's virtualization hardware is used."),
    variable("host-paddr-gicd", "global", Shape::Address, "from the host's tables", HOST_TREE, "Base of the host's distributor."),
    variable("host-paddr-gich", "global", Shape::Address, "from the host's tables", HOST_TREE, "Base of the host's hypervisor interface."),
    variable("host-paddr-gicv", "global", Shape::Address, "from the host's tables", HOST_TREE, "Base of the host's virtual CPU interface."),
];
