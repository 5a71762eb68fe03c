//! A guest's driver, sentence by sentence of the specification.

mod commands;
mod events;
mod registers;
mod streams;
mod worlds;
