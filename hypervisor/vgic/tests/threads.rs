//! vCPUs that really run at once: what one sends, the other sees, whatever happens in between.
//!
//! Each vCPU is a thread with a simulated interface. Before it makes anything pending, a sender leaves a number in a mailbox;
//! whoever takes the interrupt notes the number that it finds. When all is quiet each number noted has to be the last that
//! was sent: an interrupt that was lost, or delivered before it was sent, leaves an older one.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use types::{AccessSize, IntId, VcpuId};
use vdev::InterruptController;
use vgic::testkit::CpuInterface;
use vgic::{SgiRegister, Version, Vgic, VgicConfig};

const VCPUS: usize = 4;
const LETTERS: u64 = 5_000;
const INTIDS: usize = 64;

/// What the threads share: the numbers sent, how many threads have sent all of theirs, and who is idle.
struct Post {
    vgic: Vgic,
    sent: [[AtomicU64; INTIDS]; VCPUS],
    finished: AtomicUsize,
    idle: [AtomicBool; VCPUS],
    /// Counts what vCPUs do.
    activity: AtomicU64,
    start: Barrier,
}

impl Post {
    /// vCPU `me` is about to do something.
    fn act(&self, me: usize) {
        self.idle[me].store(false, Ordering::SeqCst);
        self.activity.fetch_add(1, Ordering::SeqCst);
    }

    /// Nobody sends any more, nobody has anything to do, and nobody has begun to while we looked.
    fn is_quiet(&self) -> bool {
        let before = self.activity.load(Ordering::SeqCst);
        self.finished.load(Ordering::SeqCst) == VCPUS + 1
            && self.idle.iter().all(|idle| idle.load(Ordering::SeqCst))
            && (0..VCPUS).all(|vcpu| !self.vgic.needs_refill(VcpuId(vcpu as u16)))
            && self.activity.load(Ordering::SeqCst) == before
    }
}

fn post(list_registers: usize) -> Post {
    let vgic = Vgic::new(VgicConfig {
        version: Version::V3,
        vcpus: VCPUS,
        intids: INTIDS as u32,
        list_registers,
        priority_bits: 5,
    })
    .expect("possible");
    vgic.write_distributor(VcpuId(0), 0, AccessSize::Word, 3);
    vgic.write_distributor(VcpuId(0), 0x104, AccessSize::Word, 0xffff_ffff);
    vgic.write_distributor(VcpuId(0), 0xc08, AccessSize::Word, 0xaaaa_aaaa);
    vgic.write_distributor(VcpuId(0), 0xc0c, AccessSize::Word, 0xaaaa_aaaa);
    let sent = std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
    Post {
        vgic,
        sent,
        finished: AtomicUsize::new(0),
        idle: Default::default(),
        activity: AtomicU64::new(0),
        start: Barrier::new(VCPUS + 1),
    }
}

/// One vCPU's thread: sends, takes, ends, is switched out and in. Returns the numbers noted.
fn vcpu(post: &Post, me: usize, list_registers: usize) -> [u64; INTIDS] {
    let Post { vgic, sent, finished, start, .. } = post;
    let id = VcpuId(me as u16);
    let mut cpu = CpuInterface::new(list_registers, 5);
    let mut seen = [0; INTIDS];
    let mut letters = 0;
    vgic.load(id, &mut cpu);
    cpu.enable_group(1, true);
    cpu.set_mask(0xff);
    vgic.write_redistributor(me as u64 * Vgic::REDISTRIBUTOR_SIZE + 0x1_0100, AccessSize::Word, 0xffff);
    start.wait();
    for round in 0_u64.. {
        if letters < LETTERS {
            letters += 1;
            let (to, sgi) = ((me + round as usize) % VCPUS, (round * 7 % 16) as usize);
            sent[to][sgi].fetch_max(letters * VCPUS as u64 + me as u64, Ordering::SeqCst);
            vgic.send_sgi(id, SgiRegister::Sgi1r, (sgi as u64) << 24 | 1 << to);
            if letters == LETTERS {
                finished.fetch_add(1, Ordering::SeqCst);
            }
        }
        if round.is_multiple_of(64) {
            post.act(me);
            vgic.save(id, &mut cpu);
            vgic.load(id, &mut cpu);
        }
        while cpu.maintenance() != 0 {
            post.act(me);
            vgic.refill(id, &mut cpu);
        }
        if vgic.needs_refill(id) {
            post.act(me);
            vgic.refill(id, &mut cpu);
        }
        if let Some((group, intid)) = cpu.signalled() {
            post.act(me);
            assert_eq!(cpu.acknowledge(group), intid);
            let mailbox = if intid < 32 { &sent[me] } else { &sent[0] };
            seen[intid as usize] = mailbox[intid as usize].load(Ordering::SeqCst);
            cpu.end(group, intid);
        } else if cpu.maintenance() == 0 && !vgic.needs_refill(id) {
            post.idle[me].store(true, Ordering::SeqCst);
            if post.is_quiet() {
                break;
            }
            thread::yield_now();
        }
    }
    seen
}

/// A device's thread: pulses edge-triggered SPIs, and a guest routes them here and there meanwhile.
fn device(post: &Post) {
    post.start.wait();
    for letter in 1..=LETTERS {
        let intid = 32 + (letter % 32) as usize;
        let to = letter * 31 % VCPUS as u64;
        post.vgic.write_distributor(VcpuId(0), 0x6000 + 8 * intid as u64, AccessSize::Doubleword, to);
        post.sent[0][intid].store(letter, Ordering::SeqCst);
        post.vgic.set_level(IntId(intid as u32), true);
        post.vgic.set_level(IntId(intid as u32), false);
    }
    post.finished.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn nothing_is_lost_between_vcpus_that_run_at_once() {
    for list_registers in [1, 2, 4] {
        let post = post(list_registers);
        let seen: Vec<[u64; INTIDS]> = thread::scope(|scope| {
            let vcpus: Vec<_> = (0..VCPUS)
                .map(|me| {
                    scope.spawn({
                        let post = &post;
                        move || vcpu(post, me, list_registers)
                    })
                })
                .collect();
            scope.spawn(|| device(&post));
            vcpus.into_iter().map(|vcpu| vcpu.join().expect("no vCPU panics")).collect()
        });
        for (me, seen) in seen.iter().enumerate() {
            for (sgi, seen) in seen.iter().enumerate().take(16) {
                let sent = post.sent[me][sgi].load(Ordering::SeqCst);
                assert_eq!(*seen, sent, "SGI {sgi} of vCPU {me}, {list_registers} list registers");
            }
        }
        for intid in 32..INTIDS {
            let last = seen.iter().map(|seen| seen[intid]).max();
            assert_eq!(last, Some(post.sent[0][intid].load(Ordering::SeqCst)), "SPI {intid}");
        }
    }
}
