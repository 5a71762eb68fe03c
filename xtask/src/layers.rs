//! `cargo xtask layers`: holds the workspace to its own architecture.
//!
//! Answers for: which crate may use which, which third-party packages belong in one place only, and where `unsafe` may be
//! said. The table below is the rule; `hypervisor/README.md` explains it. Dependencies of tests are free: a test may look
//! at anything. Does not answer for: what the compiler checks by itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::{Toolchain, cargo, output, shown};

/// A crate of the hypervisor, what of the hypervisor it may use, and whether it may say `unsafe`.
struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
    may_be_unsafe: bool,
}

const fn portable(name: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { name, may_use, may_be_unsafe: false }
}

const fn privileged(name: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { name, may_use, may_be_unsafe: true }
}

/// Everything may use `types`, so it is in no row.
const LAYERS: &[Layer] = &[
    portable("types", &[]),
    portable("qvmconf", &[]),
    portable("machine", &[]),
    portable("pagetable", &[]),
    // The lexer and the diagnostics: `smmuman` speaks a language of its own with the same words.
    portable("smmu", &["qvmconf"]),
    portable("its", &[]),
    portable("sched", &[]),
    portable("trace", &[]),
    portable("vdev", &[]),
    portable("vgic", &["vdev"]),
    portable("vsmmu", &["smmu", "vdev"]),
    portable("pci", &["vdev"]),
    // The machine's, where `pci` is the guests'.
    portable("pcie", &["machine"]),
    portable("virtio", &["vdev", "pci"]),
    portable("plan9", &[]),
    portable("vdevs", &["vdev", "vgic", "vsmmu", "pci", "virtio", "plan9"]),
    // A board's own vdev, as an integrator would write it: it stands on the framework alone.
    portable("example", &["vdev"]),
    // Not `vdevs`: factories are passed in, so that the core cannot make a special case of a device.
    portable("vm", &["qvmconf", "machine", "pagetable", "smmu", "vdev", "vgic", "pci"]),
    portable("host", &["qvmconf", "machine", "vdev", "vm"]),
    privileged("el2", &[]),
    privileged("drivers", &["machine", "smmu", "its", "pcie"]),
    privileged(
        "kernel",
        &[
            "qvmconf",
            "machine",
            "pagetable",
            "smmu",
            "its",
            "sched",
            "trace",
            "vdev",
            "vgic",
            "pci",
            "pcie",
            "virtio",
            "plan9",
            "vdevs",
            "vm",
            "host",
            "el2",
            "drivers",
        ],
    ),
];
const TYPES: &str = "types";
/// What a board may use.
const BOARD: &[&str] = &["kernel", "drivers", "machine", "vdev", "vdevs", "example"];
/// What a guest may use: it has to run without this hypervisor.
const GUEST: &[&str] = &["guest-rt"];
/// What this tool may use: nothing that runs at EL2 only.
const TOOL: &[&str] = &["qvmconf", "machine", "trace", "vdev", "vdevs", "example", "vgic", "vm", "host"];

/// Third-party packages that belong in certain crates only.
const PLACES: &[(&str, &[&str])] = &[
    ("aarch64-cpu", &["el2", "drivers"]),
    ("buddy_system_allocator", &["kernel"]),
    ("fdt", &["machine"]),
    ("pci_types", &["pcie"]),
];

/// A package of the workspace, as far as the rules are concerned.
#[derive(Debug)]
struct Package {
    name: String,
    folder: PathBuf,
    /// The roots of its libraries and programs.
    roots: Vec<PathBuf>,
    /// What it uses outside tests.
    uses: Vec<String>,
}

/// The task.
pub(crate) fn run() -> Result<u8> {
    let metadata =
        output(cargo(Toolchain::Pinned).args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let packages = packages(&serde_json::from_str(&metadata)?)?;
    let mut complaints = Vec::new();
    for package in &packages {
        complaints.extend(dependencies(package, &packages));
        complaints.extend(unsafe_code(package)?);
    }
    for complaint in &complaints {
        eprintln!("layers: {complaint}");
    }
    if complaints.is_empty() {
        println!("layers: {} packages keep to the table", packages.len());
    }
    Ok(u8::from(!complaints.is_empty()))
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata.get("packages").and_then(Value::as_array).context("cargo metadata lists no packages")?;
    list.iter().map(package).collect::<Option<_>>().context("cargo metadata has another form than expected")
}

fn package(value: &Value) -> Option<Package> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_string);
    let uses = value.get("dependencies")?.as_array()?.iter();
    let uses = uses.filter(|dependency| dependency.get("kind").is_some_and(Value::is_null));
    let mut roots = Vec::new();
    for target in value.get("targets")?.as_array()? {
        let kinds = target.get("kind")?.as_array()?;
        if kinds.iter().any(|kind| kind == "lib" || kind == "bin") {
            roots.push(text(target, "src_path")?.into());
        }
    }
    Some(Package {
        name: text(value, "name")?,
        folder: Path::new(&text(value, "manifest_path")?).parent()?.to_path_buf(),
        roots,
        uses: uses.map(|dependency| text(dependency, "name")).collect::<Option<_>>()?,
    })
}

/// What is said of a package that uses what it may not.
fn dependencies(package: &Package, packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    let Some(may_use) = may_use(package) else {
        return vec![format!("{} has no row in the table of xtask/src/layers.rs", package.name)];
    };
    for used in &package.uses {
        let own = packages.iter().any(|package| package.name == *used);
        if own && used != TYPES && !may_use.contains(&used.as_str()) {
            complaints.push(format!("{} must not use {used}", package.name));
        }
        if let Some((_, places)) = PLACES.iter().find(|(name, _)| name == used)
            && !places.contains(&package.name.as_str())
        {
            complaints.push(format!("{} uses {used}, which belongs in {} only", package.name, places.join(" and ")));
        }
    }
    complaints
}

/// The row of a package; boards, guests and the tool are known by their folder.
fn may_use(package: &Package) -> Option<&'static [&'static str]> {
    if let Some(layer) = LAYERS.iter().find(|layer| layer.name == package.name) {
        return Some(layer.may_use);
    }
    match place(package) {
        Place::Board => Some(BOARD),
        Place::Guest => Some(GUEST),
        Place::Tool => Some(TOOL),
        Place::Counter => Some(&[]),
        Place::Elsewhere => None,
    }
}

enum Place {
    Board,
    Guest,
    Tool,
    Counter,
    Elsewhere,
}

fn place(package: &Package) -> Place {
    let parent = package.folder.parent().and_then(Path::file_name).unwrap_or_default();
    match (parent.to_str(), package.name.as_str()) {
        (Some("boards"), _) => Place::Board,
        (Some("guests"), _) => Place::Guest,
        (_, "xtask") => Place::Tool,
        (Some("xtask"), "instruction-counter") => Place::Counter,
        _ => Place::Elsewhere,
    }
}

/// What is said of a package that could say `unsafe` where it may not.
fn unsafe_code(package: &Package) -> Result<Vec<String>> {
    let privileged = LAYERS.iter().any(|layer| layer.name == package.name && layer.may_be_unsafe);
    let mut complaints = Vec::new();
    match place(package) {
        _ if privileged => {}
        // A guest is a program of its own at EL1; the counter runs inside QEMU and speaks C with it.
        Place::Guest | Place::Counter => {}
        // `entry!` expands to an exported symbol, which counts as unsafe; the word itself stays in the kernel.
        Place::Board => {
            for root in &package.roots {
                if says_unsafe(&fs::read_to_string(root)?) {
                    complaints.push(format!("{} says `unsafe`, which belongs in the kernel", shown(root)));
                }
            }
        }
        Place::Tool | Place::Elsewhere => {
            for root in &package.roots {
                if !forbids_unsafe(&fs::read_to_string(root)?) {
                    complaints.push(format!("{} does not begin with #![forbid(unsafe_code)]", shown(root)));
                }
            }
        }
    }
    Ok(complaints)
}

fn forbids_unsafe(source: &str) -> bool {
    source.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]")
}

fn says_unsafe(source: &str) -> bool {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split(|character: char| !character.is_alphanumeric() && character != '_'))
        .any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &str, name: &str, uses: &[&str]) -> Package {
        Package {
            name: name.into(),
            folder: folder.into(),
            roots: Vec::new(),
            uses: uses.iter().map(|name| (*name).to_string()).collect(),
        }
    }

    /// The complaints about one package in a workspace with all that is in the table.
    fn complaints(folder: &str, name: &str, uses: &[&str]) -> Vec<String> {
        let all: Vec<Package> = LAYERS.iter().map(|layer| package("/r/hypervisor/x", layer.name, &[])).collect();
        dependencies(&package(folder, name, uses), &all)
    }

    #[test]
    fn what_the_table_allows_is_allowed() {
        assert!(complaints("/r/hypervisor/vm", "vm", &["types", "vdev", "vgic", "arrayvec"]).is_empty());
        assert!(complaints("/r/boards/qemu-virt", "qemu-virt", &["kernel", "vdevs", "types"]).is_empty());
    }

    #[test]
    fn the_core_cannot_reach_the_devices() {
        assert_eq!(complaints("/r/hypervisor/vm", "vm", &["vdevs"]), ["vm must not use vdevs"]);
        assert_eq!(complaints("/r/hypervisor/el2", "el2", &["vm"]), ["el2 must not use vm"]);
        assert_eq!(complaints("/r/guests/hello", "guest-hello", &["kernel"]), ["guest-hello must not use kernel"]);
    }

    #[test]
    fn a_package_with_a_place_of_its_own_stays_there() {
        assert!(complaints("/r/hypervisor/machine", "machine", &["fdt"]).is_empty());
        assert_eq!(complaints("/r/hypervisor/vm", "vm", &["fdt"]), ["vm uses fdt, which belongs in machine only"]);
    }

    #[test]
    fn a_crate_without_a_row_is_noticed() {
        assert_eq!(complaints("/r/hypervisor/new", "new", &[]).len(), 1);
    }

    #[test]
    fn dependencies_of_tests_and_build_scripts_do_not_count() {
        let text = r#"{"packages": [{"name": "vm", "manifest_path": "/r/hypervisor/vm/Cargo.toml",
            "targets": [{"kind": ["lib"], "src_path": "/r/hypervisor/vm/src/lib.rs"},
                        {"kind": ["test"], "src_path": "/r/hypervisor/vm/tests/whole.rs"}],
            "dependencies": [{"name": "types", "kind": null}, {"name": "vdevs", "kind": "dev"}]}]}"#;
        let packages = packages(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(packages[0].uses, ["types"]);
        assert_eq!(packages[0].roots, [PathBuf::from("/r/hypervisor/vm/src/lib.rs")]);
    }

    #[test]
    fn unsafe_is_found_in_code_and_not_in_words() {
        assert!(says_unsafe("let x = unsafe { y() };"));
        assert!(!says_unsafe("// nothing unsafe here\n#![deny(unsafe_op_in_unsafe_fn)]"));
        assert!(forbids_unsafe("#![no_std]\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("// #![forbid(unsafe_code)]"));
    }
}
