use super::{
    testing::{Archive, Elf, Memory, elf, gzip, image, load, range},
    *,
};
use alloc::{string::ToString, vec};

const MIB: u64 = 1 << 20;
const RAM: u64 = 0x8000_0000;
/// Bytes of a kernel's file: many blocks and a part of one.
const KERNEL: usize = if cfg!(miri) { 20_001 } else { 3 * 1024 * 1024 + 5 };

/// A plan in one RAM of 128 MiB, nothing reserved.
fn planned(loads: &[Load], files: &Archive) -> Result<LoadPlan, Vec<LoadError>> {
    planned_in(&[range(RAM, 128 * MIB)], loads, None, files)
}

fn planned_in(
    ram: &[Range<Ipa>],
    loads: &[Load],
    entry: Option<u64>,
    files: &Archive,
) -> Result<LoadPlan, Vec<LoadError>> {
    plan(&LoadInput { ram, rom: &[], reserved: &[], loads, entry: entry.map(Ipa), tree_at: None }, files)
}

/// The message of the only error.
fn refused(loads: &[Load], files: &Archive) -> (Option<usize>, String) {
    let errors = planned(loads, files).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    (errors[0].load, errors[0].to_string())
}

fn executed(plan: &LoadPlan, files: &Archive) -> Memory {
    let memory = Memory::new(range(RAM, 128 * MIB));
    plan.execute(files, b"tree", &memory, &mut |_| {}).unwrap();
    memory
}

fn detect(path: &str) -> Load {
    load(BlobKind::Detect, None, path)
}

#[test]
fn a_kernel_goes_text_offset_above_the_lowest_base_and_starts_there() {
    let files = Archive::default().with("Image", image(0x8_0000, 4 * MIB, KERNEL));
    let plan = planned(&[detect("Image")], &files).unwrap();
    assert_eq!(plan.entry, Ipa(RAM + 0x8_0000));
    let memory = executed(&plan, &files);
    assert_eq!(memory.at(RAM + 0x8_0000, KERNEL), image(0x8_0000, 4 * MIB, KERNEL));
    // RAM that begins between two bases: the next base.
    let plan = planned_in(&[range(RAM + MIB, 64 * MIB)], &[detect("Image")], None, &files).unwrap();
    assert_eq!(plan.entry, Ipa(RAM + 2 * MIB + 0x8_0000));
}

#[test]
fn a_packed_kernel_is_the_same_kernel() {
    let contents = image(0, 4 * MIB, KERNEL);
    let files = Archive::default().with("Image", contents.clone()).with("Image.gz", gzip(&contents));
    let plans = ["Image", "Image.gz"].map(|path| planned(&[detect(path)], &files).unwrap());
    assert_eq!((plans[0].entry, plans[0].bytes()), (plans[1].entry, plans[1].bytes()));
    let memories = plans.each_ref().map(|plan| executed(plan, &files).at(RAM, KERNEL + 4096));
    assert!(memories[0] == memories[1]);
}

#[test]
fn an_executable_goes_where_it_says_and_its_zeros_are_not_written() {
    let file = Elf::exec(0xffff_8000_0010_0004).segment(0xffff_8000_0010_0000, RAM + MIB, &[0xa5; 5000], 9000);
    let contents = elf(&file.segment(0xffff_8000_0020_0000, RAM + 2 * MIB, b"data", 4));
    for packed in [contents.clone(), gzip(&contents)] {
        let files = Archive::default().with("a.elf", packed);
        let plan = planned(&[detect("a.elf")], &files).unwrap();
        assert_eq!(plan.entry, Ipa(RAM + MIB + 4));
        assert_eq!(plan.bytes(), 5004);
        let memory = executed(&plan, &files);
        assert_eq!(memory.at(RAM + MIB, 5001), [vec![0xa5; 5000], vec![0]].concat());
        assert_eq!(memory.at(RAM + 2 * MIB, 5), b"data\0");
    }
}

#[test]
fn only_a_position_independent_executable_takes_an_address() {
    let mut file = Elf::exec(0x1008).segment(0x1000, 0x1000, b"code", 64).segment(0x3000, 0x3000, b"data", 4);
    let at = [load(BlobKind::Guest, Some(RAM + 0x10_0000), "a.elf")];
    let (load_of, message) = refused(&at, &Archive::default().with("a.elf", elf(&file)));
    assert_eq!(message, "a.elf: an executable linked to fixed addresses, but given another");
    assert_eq!(load_of, Some(0));
    file.kind = 3;
    let files = Archive::default().with("a.elf", elf(&file));
    let plan = planned(&at, &files).unwrap();
    assert_eq!(plan.entry, Ipa(RAM + 0x10_0008));
    assert_eq!(executed(&plan, &files).at(RAM + 0x10_2000, 4), b"data");
    let (_, message) = refused(&[detect("a.elf")], &files);
    assert_eq!(message, "a.elf would be at 0x1000-0x103f, which is not all the VM's memory");
}

#[test]
fn bytes_at_an_address_start_at_the_first_of_them() {
    let files = Archive::default().with("raw", b"first").with("more", b"second");
    let loads =
        [load(BlobKind::Detect, Some(RAM + 0x8_0000), "raw"), load(BlobKind::Detect, Some(RAM + 0x9_0000), "more")];
    let plan = planned(&loads, &files).unwrap();
    assert_eq!(plan.entry, Ipa(RAM + 0x8_0000));
    let memory = executed(&plan, &files);
    assert_eq!((memory.at(RAM + 0x8_0000, 6), memory.at(RAM + 0x9_0000, 6)), (b"first\0".to_vec(), b"second".to_vec()));
}

#[test]
fn what_has_no_address_and_no_format_takes_the_first_free_page() {
    let files = Archive::default().with("a", vec![1; 5000]).with("b", b"b");
    let loads = [detect("a"), load(BlobKind::Data, None, "b"), load(BlobKind::Data, Some(RAM + 0x1000), "b")];
    let memory = executed(&planned(&loads, &files).unwrap(), &files);
    // The address that was given comes first, then the first place of 5000 bytes, then what is left below.
    assert_eq!(memory.at(RAM + 0x1000, 2), b"b\0");
    assert_eq!(memory.at(RAM + 0x2000, 1), [1]);
    assert_eq!(memory.at(RAM, 2), b"b\0");
}

#[test]
fn a_recognised_image_is_started_before_one_that_is_not_and_entry_before_both() {
    let files = Archive::default().with("raw", b"....").with("Image", image(0, MIB, 4096));
    let loads = [load(BlobKind::Detect, Some(RAM + 64 * MIB), "raw"), detect("Image")];
    assert_eq!(planned(&loads, &files).unwrap().entry, Ipa(RAM));
    let memory = [range(RAM, 128 * MIB)];
    let plan = planned_in(&memory, &loads, Some(RAM + 64 * MIB + 4), &files).unwrap();
    assert_eq!(plan.entry, Ipa(RAM + 64 * MIB + 4));
    for wrong in [RAM - 4, RAM + 2, RAM + 128 * MIB] {
        let errors = planned_in(&memory, &loads, Some(wrong), &files).unwrap_err();
        assert_eq!(errors[0].problem, Problem::BadEntry(Ipa(wrong)));
    }
}

#[test]
fn a_file_that_is_said_to_be_the_guest_is_started_before_others() {
    let files = Archive::default().with("raw", b"....").with("Image", image(0, MIB, 4096));
    let loads = [detect("Image"), load(BlobKind::Guest, Some(RAM + 64 * MIB), "raw")];
    assert_eq!(planned(&loads, &files).unwrap().entry, Ipa(RAM + 64 * MIB));
}

#[test]
fn who_is_in_the_way_of_the_device_tree_is_told_with_the_load_that_put_it_there() {
    let files = Archive::default().with("raw", b"....").with("t", b"\xd0\x0d\xfe\xed");
    let loads = [load(BlobKind::Detect, Some(RAM + MIB), "raw"), load(BlobKind::Fdt, Some(RAM + MIB), "t")];
    let (load_of, message) = refused(&loads, &files);
    assert!(load_of == Some(1) && message.contains("the device tree at"), "{message}");
}

#[test]
fn data_are_never_started() {
    let files = Archive::default().with("Image", image(0, MIB, 4096));
    for kind in [BlobKind::Data, BlobKind::Initrd] {
        let (load_of, message) = refused(&[load(kind, None, "Image")], &files);
        assert_eq!((load_of, &*message), (None, "nothing to start: no guest image and no `entry`"));
    }
}

#[test]
fn packed_data_of_no_known_format_stay_packed_unless_they_are_said_to_be_a_guest() {
    let packed = gzip(b"something");
    let files = Archive::default().with("Image", image(0, MIB, 4096)).with("x.gz", packed.clone());
    let at = |kind| [detect("Image"), load(kind, Some(RAM + 32 * MIB), "x.gz")];
    let memory = executed(&planned(&at(BlobKind::Detect), &files).unwrap(), &files);
    assert_eq!(memory.at(RAM + 32 * MIB, packed.len()), packed);
    let memory = executed(&planned(&at(BlobKind::Guest), &files).unwrap(), &files);
    assert_eq!(memory.at(RAM + 32 * MIB, 10), b"something\0");
}

#[test]
fn initrd_and_tree_are_high_in_ram_and_clear_of_what_the_kernel_will_use() {
    let files = Archive::default().with("Image", image(0, 100 * MIB, 4096)).with("initrd", vec![9; 10_000]);
    let plan = planned(&[detect("Image"), load(BlobKind::Initrd, None, "initrd")], &files).unwrap();
    let initrd = plan.initrd.unwrap();
    assert_eq!(initrd, range(RAM + 128 * MIB - 3 * 4096, 10_000), "whole pages at the top, its own length");
    let tree = range(plan.device_tree_at.0, plan.device_tree_space);
    assert!(!tree.overlaps(&initrd) && tree.start().0 >= RAM + 100 * MIB);
    let memory = executed(&plan, &files);
    assert_eq!(memory.at(initrd.start().0, 10_000), vec![9; 10_000]);
    assert_eq!(memory.at(plan.device_tree_at.0, 5), b"tree\0");
}

#[test]
fn the_initrd_goes_into_the_first_ram_with_the_kernel_within_32_gib() {
    let files = Archive::default().with("Image", image(0, MIB, 4096)).with("initrd", b"i");
    let loads = [detect("Image"), load(BlobKind::Initrd, None, "initrd")];
    let memory = [range(RAM, 64 << 30), range(0x1000, 0x10_0000)];
    let plan = planned_in(&memory, &loads, None, &files).unwrap();
    assert_eq!(plan.initrd, Some(range(RAM + (32 << 30) - 4096, 1)));
}

#[test]
fn an_initrd_is_not_unpacked_and_may_have_an_address() {
    let packed = gzip(b"cpio");
    let files = Archive::default().with("Image", image(0, MIB, 4096)).with("i.gz", packed.clone());
    let initrd = load(BlobKind::Initrd, Some(RAM + 0x555_0000), "i.gz");
    let plan = planned(&[detect("Image"), initrd.clone()], &files).unwrap();
    assert_eq!(plan.initrd, Some(range(RAM + 0x555_0000, packed.len().try_into().unwrap())));
    assert_eq!(executed(&plan, &files).at(RAM + 0x555_0000, packed.len()), packed);
    let second = load(BlobKind::Initrd, None, "i.gz");
    let (load_of, message) = refused(&[detect("Image"), initrd, second], &files);
    assert_eq!((load_of, &*message), (Some(2), "a second initrd"));
}

#[test]
fn the_tree_crosses_no_2_mib_boundary() {
    // However much of the top is taken: the tree is in what is left, within one block of 2 MiB.
    for taken in (0..40).map(|n| n * 100_000 + 8) {
        let files = Archive::default().with("Image", image(0, MIB, 4096)).with("top", vec![1; taken]);
        let at = RAM + 128 * MIB - u64::try_from(taken).unwrap();
        let plan = planned(&[detect("Image"), load(BlobKind::Data, Some(at), "top")], &files).unwrap();
        let (start, end) = (plan.device_tree_at.0, plan.device_tree_at.0 + plan.device_tree_space);
        assert_eq!(start / (2 * MIB), (end - 1) / (2 * MIB));
        assert!(end <= at && start % 8 == 0);
    }
}

#[test]
fn trees_are_merged_and_the_place_for_the_result_grows_with_them() {
    let tree = [vec![0xd0, 0x0d, 0xfe, 0xed], vec![0; 200_000]].concat();
    let files = Archive::default().with("Image", image(0, MIB, 4096)).with("my.dtb", tree);
    let plan = planned(&[detect("Image"), load(BlobKind::Fdt, None, "my.dtb"), detect("my.dtb")], &files).unwrap();
    let user = |load| UserTree { load, path: "my.dtb".into() };
    assert_eq!(plan.user_trees, [user(1), user(2)], "`fdt load`, and `load` of what is one");
    assert!(plan.device_tree_space >= 400_000 && plan.device_tree_space <= 2 * MIB);
    assert_eq!(plan.bytes(), 4096, "they are not copied");
}

#[test]
fn a_tree_with_an_address_goes_there() {
    let files = Archive::default().with("Image", image(0, MIB, 4096)).with("my.dtb", b"\xd0\x0d\xfe\xed....");
    let tree = |at| [detect("Image"), load(BlobKind::Fdt, Some(at), "my.dtb")];
    let plan = planned(&tree(RAM + 0x40_0008), &files).unwrap();
    assert_eq!(plan.device_tree_at, Ipa(RAM + 0x40_0008));
    // Just below a boundary there is only so much.
    assert_eq!(planned(&tree(RAM + 0x3f_f000), &files).unwrap().device_tree_space, 0x1000);
    let (load_of, message) = refused(&tree(RAM + 4), &files);
    assert_eq!((load_of, &*message), (Some(1), "a device tree at 0x80000004, which is not a multiple of 8"));
}

#[test]
fn a_small_vm_has_a_small_place_for_its_tree() {
    let files = Archive::default().with("raw", vec![1; 4096]);
    let plan = planned_in(&[range(RAM, 64 * 1024)], &[detect("raw")], None, &files).unwrap();
    assert_eq!((plan.device_tree_at, plan.device_tree_space), (Ipa(RAM + 32 * 1024), 32 * 1024));
    let errors = planned_in(&[range(RAM, 8 * 1024)], &[detect("raw")], None, &files).unwrap_err();
    assert_eq!(errors[0].to_string(), "no free place in RAM for the 16384 bytes of the device tree");
}

#[test]
fn the_place_of_the_tree_may_be_given_without_a_file() {
    let files = Archive::default().with("raw", vec![1; 4096]).with("my.dtb", vec![0xd0, 0x0d, 0xfe, 0xed]);
    let (ram, rom) = ([range(RAM, MIB)], [range(0, MIB)]);
    let plan = |loads: &[Load], at| {
        let tree_at = Some(Ipa(at));
        plan(&LoadInput { ram: &ram, rom: &rom, reserved: &[], loads, entry: None, tree_at }, &files)
    };
    let firmware = load(BlobKind::Detect, Some(0), "raw");
    let made = plan(&[firmware.clone(), detect("raw")], RAM).unwrap();
    assert_eq!((made.entry, made.device_tree_at, made.device_tree_space), (Ipa(0), Ipa(RAM), 64 * 1024));
    assert_eq!(made.items[1].pieces[0].to, Ipa(RAM + 64 * 1024), "what has no address goes behind it");
    let tree = load(BlobKind::Fdt, Some(RAM + 8), "my.dtb");
    assert_eq!(plan(&[firmware.clone(), tree], RAM).unwrap().device_tree_at, Ipa(RAM), "before that of a `fdt load`");
    for (at, message) in [
        (RAM + 4, "a device tree at 0x80000004, which is not a multiple of 8"),
        (RAM + MIB, "the device tree would be at 0x80100000-0x8010ffff, which is not all the VM's memory"),
        (0x800, "the device tree at 0x800-0x107ff overlaps raw at 0x0-0xfff"),
    ] {
        let errors = plan(core::slice::from_ref(&firmware), at).unwrap_err();
        assert_eq!((errors[0].load, errors[0].to_string().as_str()), (None, message));
    }
}

#[test]
fn rom_is_for_what_has_an_address() {
    let files = Archive::default().with("raw", vec![1; 4096]);
    let plan = |loads: &[Load]| {
        let (ram, rom) = ([range(RAM, MIB)], [range(0, MIB)]);
        plan(&LoadInput { ram: &ram, rom: &rom, reserved: &[], loads, entry: None, tree_at: None }, &files).unwrap()
    };
    assert_eq!(plan(&[load(BlobKind::Detect, Some(0x1000), "raw")]).entry, Ipa(0x1000));
    assert_eq!(plan(&[detect("raw")]).entry, Ipa(RAM));
}

#[test]
fn what_is_reserved_is_not_given_away() {
    let files = Archive::default().with("raw", vec![1; 4096]);
    let loads = [detect("raw")];
    let (ram, reserved) = ([range(RAM, 128 * MIB)], [range(RAM, 0x2800)]);
    let input = LoadInput { ram: &ram, rom: &[], reserved: &reserved, loads: &loads, entry: None, tree_at: None };
    assert_eq!(plan(&input, &files).unwrap().entry, Ipa(RAM + 0x3000));
}

#[test]
fn an_overlap_names_both() {
    let files = Archive::default().with("Image", image(0, 16 * MIB, 4096)).with("raw", vec![1; 4096]);
    let loads = [
        load(BlobKind::Detect, Some(RAM), "Image"),
        // Behind the end of the file, but within the memory that the kernel will use.
        load(BlobKind::Data, Some(RAM + 15 * MIB), "raw"),
    ];
    let errors = planned(&loads, &files).unwrap_err();
    assert_eq!((errors[0].load, errors[0].other), (Some(1), Some(0)));
    assert_eq!(errors[0].to_string(), "raw at 0x80f00000-0x80f00fff overlaps Image at 0x80000000-0x80ffffff");
}

#[test]
fn all_errors_come_in_one_go() {
    let files = Archive::default()
        .with("empty", vec![])
        .with("cut.gz", &gzip(&image(0, MIB, 20_000))[..20])
        .with("cut.elf", &elf(&Elf::exec(RAM).segment(RAM, RAM, &[0; 100], 100))[..150])
        .with("Image", image(0x8_0000, MIB, 4096))
        .with("large", vec![0; 4096]);
    let loads = [
        load(BlobKind::Detect, None, "missing"),
        load(BlobKind::Detect, None, "empty"),
        load(BlobKind::Detect, None, "cut.gz"),
        load(BlobKind::Detect, None, "cut.elf"),
        load(BlobKind::Detect, Some(RAM), "Image"),
        load(BlobKind::Data, Some(RAM - 1), "large"),
    ];
    let errors = planned(&loads, &files).unwrap_err();
    let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "missing: no such file",
            "empty: the file is empty",
            "cut.gz: the gzip data are cut off",
            "cut.elf: the file is cut off: it is shorter than its headers say",
            "Image: its header wants it 0x80000 bytes above a multiple of 2 MiB, not at 0x80000000",
            "large would be at 0x7fffffff-0x80000ffe, which is not all the VM's memory",
        ]
    );
    assert!(errors.iter().map(|error| error.load).eq((0..6).map(Some)));
}

#[test]
fn a_kernel_that_does_not_fit_finds_no_place() {
    let files = Archive::default().with("Image", image(0, 200 * MIB, 4096));
    let (_, message) = refused(&[detect("Image")], &files);
    assert_eq!(message, "no free place in RAM for the 209715200 bytes of Image");
}

#[test]
fn damage_inside_packed_data_stops_the_copying() {
    let mut packed = gzip(&image(0, MIB, 20_000));
    let end = packed.len();
    packed[end - 8] ^= 1;
    let files = Archive::default().with("Image.gz", packed);
    let plan = planned(&[detect("Image.gz")], &files).unwrap();
    let memory = Memory::new(range(RAM, 128 * MIB));
    let error = plan.execute(&files, b"tree", &memory, &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "Image.gz: the gzip checksum does not fit");
}

#[test]
fn copying_refuses_what_was_not_planned() {
    let files = Archive::default().with("raw", vec![1; 4096]);
    let plan = planned(&[detect("raw")], &files).unwrap();
    let memory = Memory::new(range(RAM, 128 * MIB));
    let run = |files: &Archive, tree: &[u8], memory: &Memory| {
        plan.execute(files, tree, memory, &mut |_| {}).unwrap_err().to_string()
    };
    let other = Archive::default().with("raw", vec![1; 4097]);
    assert_eq!(run(&other, b"", &memory), "raw: not the file that it was before");
    let tree = vec![0; usize::try_from(plan.device_tree_space).unwrap() + 1];
    assert_eq!(run(&files, &tree, &memory), "the device tree has 65537 bytes, the place for it only 65536");
    assert_eq!(run(&files, b"", &Memory::new(range(0, 16))), "raw: guest memory at 0x80000000 cannot be written");
}

#[test]
fn progress_is_told_in_blocks_and_ends_with_the_total() {
    let files = Archive::default().with("raw", vec![1; 1_000_000]);
    let plan = planned(&[detect("raw")], &files).unwrap();
    let memory = Memory::new(range(RAM, 128 * MIB));
    let mut heard = vec![0];
    plan.execute(&files, b"tree", &memory, &mut |done| heard.push(done)).unwrap();
    assert!(heard.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 64 * 1024));
    assert_eq!(heard.last(), Some(&plan.bytes()));
}
