//! `cargo xtask`: the one tool to set up, build, run, test and measure Bulkhead.
//!
//! Answers for: the command line, whose interface is fixed because people script on it, and for turning a task's result
//! into an exit status. Does not answer for: what a task does; each has a file of its own.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod archive;
mod artifacts;
mod bench;
mod card;
mod check;
mod child;
mod configuration;
mod coredump;
mod cpio;
mod docs;
mod failure;
mod gdb;
mod image;
mod layers;
mod lexical;
mod qemu;
mod receive;
mod setup;
mod soak;
mod symbols;
mod test;
mod trace;
mod workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, run, test and measure Bulkhead")]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build, pack the boot archive and boot on QEMU: the demo, or just the VMs of the CONFIGs
    Qemu(qemu::Arguments),
    /// Write an image of a card that a board starts from, to be written to a card
    Image(card::image::Arguments),
    /// Copy what a board starts from to a boot partition that there is, or take it off again
    Install(card::install::Arguments),
    /// Attach a debugger to a QEMU that waits (`cargo xtask qemu --gdb`)
    Gdb(gdb::Arguments),
    /// Check configurations on the PC with the code that reads them at EL2
    Check(check::Arguments),
    /// Check which crate uses which, and where `unsafe` may be said
    Layers,
    /// Write the documents that are made of the code: the manual pages of the vdevs
    Docs(docs::Arguments),
    /// Say what is in a dump of a guest, and make it and its symbols ready for gdb
    Core(coredump::Arguments),
    /// Take the files out of a recording of the console that were sent by `send`
    Receive(receive::Arguments),
    /// Turn a capture of `tracelogger` into a timeline for Perfetto, and say what exits cost
    Trace(trace::Arguments),
    /// Run every test there is, or those with FILTER in their name
    Test(test::Arguments),
    /// Start, kill and restart VMs for hours, and count what is lost
    Soak(soak::Arguments),
    /// Measure the budgets of the design, beside the bare machine
    Bench(bench::Arguments),
    /// Install what is missing: Rust target, QEMU, debugger, Linux guest
    Setup,
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().task {
        Task::Qemu(arguments) => qemu::run(&arguments),
        Task::Image(arguments) => card::image::run(&arguments),
        Task::Install(arguments) => card::install::run(&arguments),
        Task::Gdb(arguments) => gdb::run(&arguments),
        Task::Check(arguments) => check::run(&arguments),
        Task::Layers => layers::run(),
        Task::Docs(arguments) => docs::run(&arguments),
        Task::Core(arguments) => coredump::run(&arguments),
        Task::Receive(arguments) => receive::run(&arguments),
        Task::Trace(arguments) => trace::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Setup => setup::run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Diagnostics that show a line say it themselves.
            let text = format!("{error:#}");
            eprintln!("{}{text}", if text.contains(" error: ") { "" } else { "error: " });
            ExitCode::from(failure::status(&error))
        }
    }
}
