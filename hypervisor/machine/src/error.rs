//! What can be wrong with a host device tree.

use alloc::string::String;
use core::fmt;

/// Why there is no [`crate::Machine`]. Says which node and property, for whoever has to change the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// Not a device tree, or a damaged one; the text says what and at which offset.
    Malformed(String),
    /// Nodes nested deeper than [`crate::MAX_DEPTH`], or more of them than any real machine has.
    TooLarge,
    /// No such node, or none that can be used; the text is a path or what it would be for.
    NoNode(&'static str),
    /// A property says something impossible, or is not there.
    Property {
        /// Path of the node.
        node: String,
        /// Name of the property.
        property: &'static str,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// What can be wrong with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// Its length does not fit `#address-cells`, `#size-cells` or what the binding says.
    Length,
    /// An address that the `ranges` of the buses above do not pass on.
    NotMapped,
    /// A range that runs over the end of the address space.
    Wraps,
    /// Fewer entries than the binding asks for.
    TooFew,
    /// A value that the binding does not know.
    Value,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Length => "has the wrong length",
            Self::NotMapped => "holds an address that the `ranges` above it do not map",
            Self::Wraps => "runs over the end of the address space",
            Self::TooFew => "has too few entries",
            Self::Value => "has an unknown value",
        })
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "device tree: {what}"),
            Self::TooLarge => write!(f, "device tree: nested too deep or too many nodes"),
            Self::NoNode(what) => write!(f, "device tree: no usable {what}"),
            Self::Property { node, property, flaw } => write!(f, "device tree: {node}: `{property}` {flaw}"),
        }
    }
}

impl core::error::Error for MachineError {}
