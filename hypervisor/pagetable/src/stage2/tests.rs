use super::*;
use crate::pool::Idle;
use crate::testing::TestPool;

fn range(start: u64, length: u64) -> Range<Ipa> {
    Range::new(Ipa(start), length).unwrap()
}

#[test]
fn a_page_can_be_cut_out_of_a_block_and_everything_is_given_back() {
    let mut pool = TestPool::with(16);
    let mut stage2 = Stage2::new(Stage2Layout::largest(PaRange::Bits40), &mut pool).unwrap();
    let p = stage2
        .map(range(0x4000_0000, 0x4000_0000), Pa(0x8000_0000), Stage2Attributes::RAM, 1000, &mut pool, &mut Idle)
        .unwrap();
    assert!(p.is_complete());
    assert_eq!(stage2.lookup(Ipa(0x4000_1234), &pool).unwrap().to, Pa(0x8000_0000));
    let p = stage2.unmap(range(0x4000_1000, 0x1000), 1000, &mut pool, &mut Idle).unwrap();
    assert!(p.is_complete());
    assert_eq!(stage2.tables(), 4);
    stage2.destroy(&mut pool);
    assert_eq!(pool.in_use(), 0);
}
