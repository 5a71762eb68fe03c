//! The `.qvmconf` language: text to [`Document`], with diagnostics that point.
//!
//! Answers for: the lexical rules, the option words with their contexts and the shapes of their arguments
//! ([`words`]), includes, and messages that show file, line, column and a caret ([`Diagnostic`], [`Sources::render`]).
//! Does not answer for: what a configuration means. Whether memory overlaps, whether a file exists, whether a CPU is
//! there is asked in `vm::config`. This crate knows no machine and no vdev: the options of vdevs come in as a
//! [`Vocabulary`]. Other languages with the same words take them from [`words_of`].
//!
//! Follows the language of the QNX Hypervisor's `qvm` as `hypervisor/docs/qvmconf.md` describes it; where this dialect
//! decides or deviates, a `QNX:` comment says so.
//!
//! ```
//! use qvmconf::{NoFiles, Sources, Vocabulary, parse};
//! let mut sources = Sources::new();
//! let root = sources.add_file("vms/hello.qvmconf", b"system hello ram 0x80000000,16M load hello.elf");
//! let document = parse(&mut sources, &[root], &mut NoFiles, &Vocabulary::default());
//! assert_eq!(document.statements.len(), 3);
//! assert!(!document.diagnostics.has_errors());
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

mod diagnostic;
mod document;
mod lexer;
mod number;
mod parser;
mod path;
mod render;
mod source;
mod suggest;
mod value;
pub mod words;

pub use diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS, Note, Severity};
pub use document::{Argument, Document, Setting, SettingName, Statement};
pub use lexer::{Token, quote};
pub use number::{NumberError, address, boolean, number, size};
pub use parser::{Loader, NoFiles, VdevOption, VdevWords, Vocabulary, parse, words_of};
pub use path::{PathError, folder_of, resolve, stem_of};
pub use render::{Rendered, RenderedAll};
pub use source::{Location, MAX_SOURCE_BYTES, Source, SourceId, Sources, Span};
pub use suggest::nearest;
pub use value::{
    Interrupt, LogFilters, PassAttributes, PassedInterrupt, PassedPlace, PciFunction, PciIdentity, Place, Scheduling,
    SchedulingPolicy, SporadicServer, Value, scheduling,
};
