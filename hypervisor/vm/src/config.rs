//! From a parsed configuration to a checked description of a VM.
