//! The lines that report an end. Scripts read them: their form is part of the interface of `cargo xtask qemu --batch`.

use alloc::{format, string::String};
use vdev::Cause;

/// What the host says when the last VM of a batch has ended, just before it powers the machine off.
pub const ALL_ENDED: &str = "bulkhead: all VMs have ended";

/// `qvm: NAME ended: code N (WORDS)`. `detail` says more than the cause does, or is empty; what is not printable in it is
/// shown as `?`, for it may have come from a guest.
#[must_use]
pub fn end_line(name: &str, cause: Cause, detail: &str) -> String {
    let mut line = format!("qvm: {name} ended: code {} ({cause}", cause.code());
    if !detail.is_empty() {
        line.push_str(": ");
        line.extend(detail.chars().map(|character| if character.is_control() { '?' } else { character }));
    }
    line.push(')');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_form_that_scripts_expect() {
        assert_eq!(end_line("linux", Cause::Shutdown, ""), "qvm: linux ended: code 0 (shut down)");
        assert_eq!(
            end_line("a", Cause::Unsupported, "access to 0x10\nqvm: b ended"),
            "qvm: a ended: code 5 (unsupported operation: access to 0x10?qvm: b ended)"
        );
    }
}
