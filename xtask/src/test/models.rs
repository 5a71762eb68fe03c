//! The bare-metal self-test on the models of CPUs that QEMU has, in a VM with two vCPUs on two CPUs.
//!
//! Answers for: every core that `hypervisor/docs/errata.md` is about and that can be emulated boots, says which measures its
//! identification registers ask for, and runs a guest with them. QEMU emulates none of the errata: whether a measure helps is
//! not seen here, only that it does no harm. Does not answer for: the whole self-test (`test::guests`).

use anyhow::{Result, bail};

use super::Test;
use super::guests::{configuration, judge, machine};
use super::machine::Case;
use crate::workspace::output;

/// QEMU's name of the core, and what the hypervisor says of it.
const MODELS: [(&str, &str); 7] = [
    ("cortex-a53", "Cortex-A53 r0p4, erratum 835769 wants an image made for it"),
    ("cortex-a55", "Cortex-A55 r2p0, repeated TLB maintenance"),
    ("cortex-a57", "Cortex-A57 r1p0, faults of stage 2 doubted, branch predictor unprotected"),
    ("cortex-a72", "Cortex-A72 r0p3, branch predictor unprotected"),
    ("cortex-a76", "Cortex-A76 r4p1, repeated TLB maintenance, 24 branches on each exit"),
    ("neoverse-n1", "Neoverse-N1 r4p1, repeated TLB maintenance, 24 branches on each exit"),
    ("max", "an unlisted core, MIDR_EL1 "),
];

/// Parts of the self-test where cores differ.
const PARTS: &str = "registers instructions memory timers power monitors floating";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let test = |(model, says): (&'static str, &'static str)| {
        Test::hypervisor(
            format!("models/{model}"),
            "a guest on this core, with the measures that the core needs",
            move |case| boot(case, model, says),
        )
    };
    MODELS.into_iter().map(test).collect()
}

fn boot(case: &Case, model: &str, says: &str) -> Result<()> {
    if !is_known(&output(crate::qemu::qemu().args(["-M", "virt", "-cpu", "help"]))?, model) {
        println!("models/{model}: skipped, this QEMU has no such model");
        return Ok(());
    }
    let file = case.file("selftest.qvmconf", configuration("selftest", "selftest", 2, PARTS))?;
    let ran = case.batch(&machine(2, model), &[file])?;
    ran.expect_status(0)?.expect(&format!("cpu0: {says}"))?;
    if ran.text.contains("cpu1: ") {
        bail!("two equal CPUs, and the second is said to be of another kind");
    }
    judge(ran.of("selftest"))
}

/// Whether QEMU's list of models has this one.
fn is_known(list: &str, model: &str) -> bool {
    list.lines().any(|line| line.split_whitespace().next() == Some(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_whole_name() {
        let list = "Available CPUs:\n  cortex-a72\n  max\n  pxa270-a0 (deprecated)\n";
        assert!(is_known(list, "cortex-a72") && is_known(list, "max") && is_known(list, "pxa270-a0"));
        assert!(!is_known(list, "cortex-a7") && !is_known(list, "neoverse-n1"));
    }
}
