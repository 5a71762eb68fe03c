//! The one table of factories. A board that has devices of its own passes a longer slice.

use vdev::Factory;

/// All factories, in the order in which they are listed and documented.
pub static CATALOGUE: &[&Factory] = &[
    &crate::gic::FACTORY,
    &crate::pl011::FACTORY,
    &crate::ser8250::FACTORY,
    &crate::sp805::FACTORY,
    &crate::pl031::FACTORY,
    &crate::shmem::FACTORY,
    &crate::sp804::FACTORY,
    &crate::qvmterm::FACTORY,
    &crate::progress::FACTORY,
    &crate::trace::FACTORY,
    &crate::watch::FACTORY,
];

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::{ABI, FactoryFlags, GENERAL_OPTIONS, OptionStatus, Options, testkit::PlainNumbers};

    #[test]
    fn names_are_unique_and_every_factory_is_of_this_interface() {
        for (n, factory) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE.iter().skip(n + 1).all(|other| other.name != factory.name), "{}", factory.name);
            assert_eq!(factory.abi, ABI, "{}", factory.name);
        }
    }

    #[test]
    fn options_are_unique_explained_and_have_defaults_that_parse() {
        for factory in CATALOGUE {
            for (n, option) in factory.options.iter().enumerate() {
                let same = |other: &vdev::OptionSpec| other.name == option.name;
                assert!(!factory.options.iter().skip(n + 1).any(same), "{} {}", factory.name, option.name);
                assert!(!GENERAL_OPTIONS.iter().any(same), "{} {} is every vdev's", factory.name, option.name);
                assert!(!option.help.is_empty(), "{} {}", factory.name, option.name);
                assert!(option.default.is_none() || option.status == OptionStatus::Supported);
            }
            assert!(Options::parse(factory.options, [], &PlainNumbers).is_ok(), "{}", factory.name);
        }
    }

    #[test]
    fn flags_do_not_contradict_each_other() {
        for factory in CATALOGUE {
            let flags = factory.flags;
            assert!(!flags.contains(FactoryFlags::INTR_FORBIDDEN | FactoryFlags::INTR_REQUIRED), "{}", factory.name);
            assert!(!flags.contains(FactoryFlags::LOC_FORBIDDEN | FactoryFlags::LOC_MEM), "{}", factory.name);
        }
    }
}
