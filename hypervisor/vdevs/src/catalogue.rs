//! The one table of factories. A board that has devices of its own appends them by `kernel::factories!`, which is [`vdev::factories!`].

use vdev::Factory;

/// All factories, in the order in which they are listed and documented.
pub static CATALOGUE: &[&Factory] = &[
    &crate::gic::FACTORY,
    &crate::pl011::FACTORY,
    &crate::ser8250::FACTORY,
    &crate::sp805::FACTORY,
    &crate::pl031::FACTORY,
    &crate::shmem::FACTORY,
    &crate::smmu::FACTORY,
    &crate::sp804::FACTORY,
    &crate::qvmterm::FACTORY,
    &crate::quiesce::FACTORY,
    &crate::progress::FACTORY,
    &crate::trace::FACTORY,
    &crate::watch::FACTORY,
    &crate::cfi_flash::FACTORY,
    &crate::pci_host::FACTORY,
    &crate::pci_dummy::FACTORY,
    &crate::virtio_9p::FACTORY,
    &crate::virtio_balloon::FACTORY,
    &crate::virtio_blk::FACTORY,
    &crate::virtio_console::FACTORY,
    &crate::virtio_entropy::FACTORY,
    &crate::virtio_input::FACTORY,
    &crate::virtio_net::FACTORY,
    &crate::virtio_vsock::FACTORY,
];

const _: () = vdev::check_factories(CATALOGUE);

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::{OptionSpec, Options, testkit::PlainNumbers};

    #[test]
    fn defaults_are_what_the_options_take() {
        for factory in CATALOGUE {
            let wrong = Options::parse(factory.options, [], &PlainNumbers).err().unwrap_or_default();
            let required = |name| {
                factory.options.iter().any(|OptionSpec { name: own, required, .. }| Some(*own) == name && *required)
            };
            assert!(wrong.iter().all(|error| required(error.option)), "{}: {wrong:?}", factory.name);
        }
    }
}
