//! The guest's device tree.
