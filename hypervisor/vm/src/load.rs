//! Where images go in guest memory, and how they get there.
