//! Files that a configuration loads: planning and copying ends with all of it inside the memory, or an error.

#![no_main]

use fuzz::changed;
use libfuzzer_sys::fuzz_target;
use types::{AccessSize, Ipa, Range};
use vdev::{GuestMemory, MemoryFault};
use vm::{
    Files,
    load::{BlobKind, Load, LoadInput, plan},
};

const RAM: u64 = 0x8000_0000;
const LENGTH: u64 = 64 << 20;

const FILES: [&[u8]; 3] = [
    include_bytes!("../seeds/image.bin"),
    include_bytes!("../seeds/image.bin.gz"),
    include_bytes!("../seeds/executable.elf"),
];

struct Archive(Vec<u8>);

impl Files for Archive {
    fn file(&self, _: &str) -> Option<&[u8]> {
        Some(&self.0)
    }
}

/// Memory that is only asked whether it is there.
struct Memory;

impl GuestMemory for Memory {
    fn read(&self, from: Ipa, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { at: from })
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        let range = Range::new(to, from.len() as u64).filter(|range| ram().contains_range(range));
        assert!(range.is_some(), "{to}, {} bytes", from.len());
        Ok(())
    }

    fn load(&self, from: Ipa, _: AccessSize) -> Result<u64, MemoryFault> {
        Err(MemoryFault { at: from })
    }

    fn store(&self, to: Ipa, _: AccessSize, _: u64) -> Result<(), MemoryFault> {
        Err(MemoryFault { at: to })
    }

    fn exchange(&self, at: Ipa, _: AccessSize, _: u64, _: u64) -> Result<u64, MemoryFault> {
        Err(MemoryFault { at })
    }

    fn contains(&self, range: Range<Ipa>) -> bool {
        ram().contains_range(&range)
    }
}

fn ram() -> Range<Ipa> {
    Range::new(Ipa(RAM), LENGTH).unwrap()
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let kinds = [BlobKind::Detect, BlobKind::Guest, BlobKind::Initrd, BlobKind::Data, BlobKind::Fdt];
    let address = (how & 0x10 != 0).then_some(Ipa(RAM + (u64::from(how >> 5) << 19)));
    let kind = kinds[usize::from(how & 15) % kinds.len()];
    let files = Archive(changed(&FILES, data));
    let first = Load { kind, address, path: "first".into() };
    let loads = [first, Load { kind: BlobKind::Data, address: Some(Ipa(RAM + (32 << 20))), path: "second".into() }];
    let entry = (how & 8 != 0).then_some(Ipa(RAM));
    let input = LoadInput { ram: &[ram()], rom: &[], reserved: &[], loads: &loads, entry, tree_at: None };
    let Ok(plan) = plan(&input, &files) else { return };
    assert!(ram().contains(plan.entry));
    let tree = Range::new(plan.device_tree_at, plan.device_tree_space).unwrap();
    assert!(ram().contains_range(&tree) && !plan.initrd.is_some_and(|initrd| initrd.overlaps(&tree)));
    let mut copied = 0;
    if plan.execute(&files, b"tree", &Memory, &mut |done| copied = done).is_ok() {
        assert_eq!(copied, plan.bytes());
    }
});
