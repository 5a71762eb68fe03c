//! temporary
use types::Ticks;
pub(crate) const PRIORITY: u8 = 20;
pub(crate) fn run() {
    log::info!("startup runs on {}", crate::cpu::this().id);
    let t = crate::thread::spawn(
        "a".into(),
        sched::Parameters {
            priority: sched::Priority::new(10).unwrap(),
            policy: sched::Policy::RoundRobin,
            affinity: types::CpuSet::first(16),
        },
        || {
            for i in 0..5 {
                log::info!("a {i} on {}", crate::cpu::this().id);
                crate::thread::sleep_until(Ticks(el2::cpu::counter().0 + 6_250_000));
            }
        },
    )
    .unwrap();
    crate::thread::join(&t);
    log::info!("joined; frames {:?} heap {:?}", crate::frames::statistics(), crate::heap::statistics());
    if el2::cpu::counter().0 & 1 == 2 {
        return;
    }
    fn deep(n: u64) -> u64 {
        let a = [n; 64];
        core::hint::black_box(&a);
        deep(n + 1) + a[3]
    }
    deep(1);
    crate::board::power_off();
}
