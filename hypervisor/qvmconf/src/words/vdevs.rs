//! The vdevs of the original, and those of ours that it has not got.
//!
//! This hypervisor's own vdevs come from their factories; this table is there so that a name of the original that is not
//! among them is known as such, and so that its options do not each count as another error. Names and options
//! are those of the original's documentation of each vdev.

use super::{KnownOption, KnownVdev};

const fn option(name: &'static str, argument: &'static str) -> KnownOption {
    KnownOption { name, argument }
}

const fn vdev(name: &'static str, help: &'static str, options: &'static [KnownOption]) -> KnownVdev {
    KnownVdev { name, help, never: None, options }
}

const fn pc(name: &'static str, help: &'static str) -> KnownVdev {
    KnownVdev { name, help, never: Some("it is a part of x86 machines"), options: &[] }
}

const SERIAL: &[KnownOption] =
    &[option("hostdev", "[<|>]PATH"), option("batch", "MICROSECONDS"), option("delayed", "SECONDS|forever")];

/// Every vdev of the original that is publicly known, and our extensions.
pub static VDEVS: &[KnownVdev] = &[
    vdev(
        "gic",
        "ARM generic interrupt controller, version 2 or 3. There without being named.",
        &[
            option("version", "2|3"),
            option("gicr", "ADDRESS"),
            option("gicc", "ADDRESS"),
            option("its", "ADDRESS"),
            option("num-lpis", "NUMBER"),
            option("msi", "ADDRESS,INTERRUPT,COUNT"),
            option("host-gicd", "ADDRESS"),
            option("host-gich", "ADDRESS"),
            option("host-gicv", "ADDRESS"),
        ],
    ),
    vdev("pl011", "ARM PrimeCell UART.", SERIAL),
    vdev(
        "ser8250",
        "8250 UART.",
        &[
            option("hostdev", "[<|>]PATH"),
            option("batch", "MICROSECONDS"),
            option("delayed", "SECONDS|forever"),
            option("reg-shift", "0|2"),
        ],
    ),
    vdev(
        "wdt-sp805",
        "ARM SP805 watchdog.",
        &[option("action", "[dump,]terminate|fiq|restart"), option("frequency", "HERTZ")],
    ),
    vdev(
        "shmem",
        "Memory shared between guests and with the host.",
        &[
            option("create", "NAME,SIZE"),
            option("allow", "PATTERN"),
            option("deny", "PATTERN"),
            option("limit", "SIZE"),
        ],
    ),
    vdev("smmu", "IOMMU for a guest's own use.", &[]),
    vdev(
        "virtio-blk",
        "virtio block device.",
        &[
            option("hostdev", "[<]PATH"),
            option("delayed", "SECONDS|forever"),
            option("dio", "enable|disable"),
            option("queues", "NUMBER"),
            option("serial", "TEXT"),
            option("threads", "NUMBER"),
            option("legacy", ""),
        ],
    ),
    vdev(
        "virtio-net",
        "virtio Ethernet device.",
        &[
            option("mac", "ADDRESS"),
            option("peer", "PATH"),
            option("peerfeats", "MASK"),
            option("peermac", "ADDRESS"),
            option("group", "NUMBER"),
            option("rate", "SIZE"),
            option("legacy", ""),
        ],
    ),
    vdev(
        "virtio-console",
        "virtio console.",
        &[
            option("hostdev", "[<|>]PATH"),
            option("port", "NAME[,[<|>]PATH]"),
            option("delayed", "SECONDS|forever"),
            option("tx-backpressure", ""),
            option("legacy", ""),
        ],
    ),
    vdev("virtio-entropy", "virtio source of random numbers.", &[option("legacy", "")]),
    vdev(
        "virtio-gpu",
        "virtio display.",
        &[option("scanout-width", "NUMBER"), option("scanout-height", "NUMBER"), option("scanout-display", "NAME")],
    ),
    vdev("virtio-input", "virtio keyboard, pointer, touch screen; here the power button.", &[option("legacy", "")]),
    vdev("virtio-snd", "virtio sound.", &[]),
    vdev("virtio-vsock", "virtio sockets.", &[option("cid", "NUMBER"), option("group", "NAME"), option("legacy", "")]),
    vdev(
        "virtio-9p",
        "virtio file system, for reading.",
        &[option("hostdev", "DIRECTORY"), option("tag", "NAME"), option("legacy", "")],
    ),
    vdev("virtio-video", "virtio video codec.", &[]),
    vdev("trace", "The example of the vdev guide.", &[]),
    vdev("qvmterm", "Example that only handles termination.", &[option("message", "TEXT")]),
    vdev(
        "progress",
        "Marks the progress of a guest's start.",
        &[option("stages", "NAME,NAME..."), option("timeout", "SECONDS")],
    ),
    vdev(
        "pci-dummy",
        "Placeholder on the PCI bus.",
        &[option("vendor", "NUMBER"), option("device", "NUMBER"), option("class", "NUMBER")],
    ),
    vdev("pci-host", "The PCI bus; there as soon as it is used. An extension.", &[option("window", "START,SIZE")]),
    vdev("pl031", "ARM PrimeCell real-time clock. An extension.", &[]),
    vdev("sp804", "ARM dual timer. An extension.", &[option("frequency", "HERTZ")]),
    vdev(
        "virtio-balloon",
        "Memory that the guest gives back when it is asked to. An extension.",
        &[option("lend", ""), option("legacy", "")],
    ),
    vdev(
        "quiesce",
        "Brings a passed device to rest when the VM has ended. An extension.",
        &[
            option("region", "ADDRESS"),
            option("write", "OFFSET,SIZE,VALUE"),
            option("poll", "OFFSET,SIZE,MASK,VALUE,LIMIT"),
            option("wait", "TIME"),
        ],
    ),
    vdev("watch", "Tells the guest of another VM's end. An extension.", &[option("vm", "NAME")]),
    vdev("cfi-flash", "NOR flash for the variables of firmware. An extension.", &[option("file", "FILE")]),
    pc("ioapic", "I/O APIC."),
    pc("8259", "Interrupt controllers of the PC."),
    pc("timer8254", "Timer of the PC."),
    pc("mc146818", "Real-time clock of the PC."),
    pc("hpet", "High-precision event timer."),
    pc("pckeyboard", "Keyboard controller of the PC."),
    pc("wdt-ib700", "IB700 watchdog."),
];
