use super::*;
use crate::testkit::{Part, PlainNumbers};
use crate::{Given, OptionKind, OptionSpec};
use alloc::vec;
use core::cell::Cell;

/// A tick is a microsecond.
const FREQUENCY: Frequency = const { Frequency::new(1_000_000).unwrap() };

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("write", OptionKind::Numbers("OFFSET,SIZE,VALUE"), "stores").repeatable(),
    OptionSpec::new("poll", OptionKind::Numbers("OFFSET,SIZE,MASK,VALUE,LIMIT"), "waits for").repeatable(),
    OptionSpec::new("wait", OptionKind::Numbers("TIME"), "waits").repeatable(),
];

fn parse(words: &[(&str, &str)]) -> Result<Vec<RestStep>, String> {
    let given = words.iter().zip(0..).map(|((name, argument), start)| Given {
        name,
        argument: Some(argument),
        place: Place { source: 0, start, end: start + 1 },
    });
    let options = Options::parse(OPTIONS, given, &PlainNumbers)
        .map_err(|errors| errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "))?;
    rest_steps(&options).map_err(|error| error.message)
}

fn actions(words: &[(&str, &str)]) -> Vec<RestAction> {
    parse(words).unwrap().into_iter().map(|step| step.action).collect()
}

/// Carries `steps` out, by a clock that goes on by `pause` beyond the time that was asked for; the last word, and the time.
fn carry_out(steps: &[RestStep], part: &Part, pause: u64) -> (RestProgress, u64) {
    let now = Cell::new(1000);
    let mut resting = Resting::new(steps, FREQUENCY);
    for _ in 0..100_000 {
        match resting.advance(part, &mut || Ticks(now.get())) {
            RestProgress::Until(when) => {
                assert!(when.0 > now.get(), "it would spin");
                now.set(when.0 + pause);
            }
            end => return (end, now.get() - 1000),
        }
    }
    panic!("no end")
}

#[test]
fn steps_are_taken_in_the_order_of_the_text() {
    let words = [("write", "0x10,4,0"), ("wait", "30"), ("poll", "0x14,4,1,0,1000"), ("write", "0x1c,2,0xffff")];
    assert_eq!(
        actions(&words),
        [
            RestAction::Write { offset: 0x10, size: AccessSize::Word, value: 0 },
            RestAction::Wait { time: 30 },
            RestAction::Poll { offset: 0x14, size: AccessSize::Word, mask: 1, value: 0, limit: 1000 },
            RestAction::Write { offset: 0x1c, size: AccessSize::Halfword, value: 0xffff },
        ]
    );
    let steps = parse(&words).unwrap();
    assert_eq!(steps.iter().map(|step| step.place.unwrap().start).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(rest_time(&steps), 1030);
    assert_eq!(steps[2].action.to_string(), "poll 0x14,4,0x1,0x0,1000");
    let part = Part::default();
    assert_eq!(carry_out(&steps, &part, 0), (RestProgress::Done, 30));
    assert_eq!(part.stores(), [(0x10, AccessSize::Word, 0), (0x1c, AccessSize::Halfword, 0xffff)]);
}

#[test]
fn what_cannot_be_a_step_is_refused() {
    for (word, argument, message) in [
        ("write", "0x10,4", "expected OFFSET,SIZE,VALUE"),
        ("write", "0x10,4,0,0", "expected OFFSET,SIZE,VALUE"),
        ("write", "0x10,,0", "not a number"),
        ("write", "0x10,3,0", "1, 2, 4 or 8 bytes, not 3"),
        ("write", "0x12,4,0", "offset 0x12 is not a multiple of 4"),
        ("write", "0x10,1,0x100", "0x100 has more than 8 bits"),
        ("poll", "0x10,4,0x100000000,0,5", "mask 0x100000000 has more than 32 bits"),
        ("poll", "0x10,4,0,0,5", "the mask has no bits"),
        ("poll", "0x10,4,1,3,5", "it would never come true"),
        ("poll", "0x11,2,1,1,5", "offset 0x11 is not a multiple of 2"),
        ("wait", "1,2", "expected TIME"),
        ("wait", "1000001", "1000000 us is the most"),
        ("poll", "0,4,1,1,0xffffffffffffffff", "1000000 us is the most"),
    ] {
        let said = parse(&[(word, argument)]).unwrap_err();
        assert!(said.contains(message), "{word} {argument}: {said}");
    }
    assert!(parse(&[("wait", "600000"), ("poll", "0,4,1,1,400000")]).is_ok());
    let said = parse(&[("wait", "600000"), ("poll", "0,4,1,1,400001")]).unwrap_err();
    assert!(said.contains("the steps may take 1000001 us"), "{said}");
    assert_eq!(parse(&[("write", "0,4,0"); REST_STEPS]).unwrap().len(), 64);
    assert!(parse(&[("write", "0,4,0"); REST_STEPS + 1]).unwrap_err().contains("more than 64 steps"));
}

#[test]
fn every_register_is_in_the_region() {
    for (word, argument, fits) in [
        ("write", "0xffc,4,0", true),
        ("write", "0xff8,8,0", true),
        ("write", "0x1000,1,0", false),
        ("poll", "0x1000,4,1,0,1", false),
        ("poll", "0xfffffffffffffff8,8,1,0,1", false),
    ] {
        let steps = parse(&[("wait", "1"), (word, argument)]).unwrap();
        match check_rest(&steps, 0x1000) {
            Ok(()) => assert!(fits, "{argument}"),
            Err((step, message)) => {
                assert!(!fits && step == steps[1] && message.contains("behind the region's end"), "{message}");
            }
        }
    }
}

#[test]
fn a_poll_ends_when_it_comes_true() {
    let mut looks = 0;
    let part = Part::new(move |registers, stored, offset| {
        if stored.is_none() && offset == 0x14 {
            looks += 1;
            registers.insert(0x14, if looks < 4 { 0xf1 } else { 0xf0 });
        }
    });
    let steps = parse(&[("poll", "0x14,4,1,0,1000"), ("write", "0x18,4,7")]).unwrap();
    assert_eq!(carry_out(&steps, &part, 0), (RestProgress::Done, 3 * LOOK));
    assert_eq!((part.loads(), part.get(0x18)), (4, 7));
}

#[test]
fn a_poll_that_does_not_come_true_ends_with_its_limit_and_nothing_follows_it() {
    let part = Part::default();
    part.set(0x14, 1);
    let steps = parse(&[("poll", "0x14,4,1,0,125"), ("write", "0x18,4,7")]).unwrap();
    let failed = RestProgress::Failed(steps[0], RestFailure::TimedOut(1));
    assert_eq!(carry_out(&steps, &part, 0), (failed, 125));
    assert_eq!((part.loads(), part.stores().len()), (4, 0), "at 0, 50, 100 and 125");
    assert_eq!(RestFailure::TimedOut(1).to_string(), "it reads 0x1 still");
}

#[test]
fn one_that_is_late_looks_once_more() {
    let mut looks = 0;
    let part = Part::new(move |registers, stored, _| {
        if stored.is_none() {
            looks += 1;
            registers.insert(0x14, u64::from(looks < 2));
        }
    });
    let steps = parse(&[("poll", "0x14,4,1,0,10")]).unwrap();
    assert_eq!(carry_out(&steps, &part, 500), (RestProgress::Done, 510));
    let part = Part::default();
    assert_eq!(carry_out(&parse(&[("poll", "0x14,4,1,0,0")]).unwrap(), &part, 0).0, RestProgress::Done);
    assert_eq!(part.loads(), 1, "without time there is one look");
}

#[test]
fn time_is_counted_from_the_step_and_not_from_the_first() {
    let steps = parse(&[("wait", "100"), ("wait", "100"), ("poll", "0,4,1,1,100")]).unwrap();
    let part = Part::default();
    assert_eq!(carry_out(&steps, &part, 7).1, 107 + 107 + (57 + 50));
}

#[test]
fn a_register_that_is_not_there_ends_it() {
    let steps = parse(&[("write", "0x2000,4,1"), ("write", "0,4,1")]).unwrap();
    let part = Part::default();
    let failed = RestProgress::Failed(steps[0], RestFailure::Fault(AccessFault::Straddles));
    assert_eq!(carry_out(&steps, &part, 0), (failed, 0));
    assert_eq!(part.stores(), vec![]);
}

/// Whatever the device answers, it ends within the sum of the limits and one look's delay for each step, and at most that often has the
/// device been read.
#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn it_always_ends_in_time() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..500 {
        let count = 1 + random(REST_STEPS as u64);
        let steps: Vec<RestStep> = (0..count)
            .map(|_| {
                let size = AccessSize::from_sas(random(4));
                let offset = random(Part::LENGTH / size.bytes()) * size.bytes();
                let mask = 1 + random(size.mask());
                let action = match random(3) {
                    0 => RestAction::Write { offset, size, value: random(size.mask()) },
                    1 => RestAction::Poll { offset, size, mask, value: random(u64::MAX) & mask, limit: random(15_000) },
                    _ => RestAction::Wait { time: random(15_000) },
                };
                action.check().unwrap();
                RestStep { action, place: None }
            })
            .collect();
        check_rest(&steps, Part::LENGTH).unwrap();
        assert!(rest_time(&steps) <= REST_TIME);
        let (seed, late) = (random(u64::MAX) | 1, random(20));
        let mut noise = seed;
        let part = Part::new(move |registers, stored, offset| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if stored.is_none() {
                registers.insert(offset, noise >> 32);
            }
        });
        let (end, time) = carry_out(&steps, &part, late);
        let most = rest_time(&steps) + late * (count + rest_time(&steps) / LOOK);
        assert!(time <= most, "{time} of {most}: {steps:?}");
        let looks = steps.len() as u64 + rest_time(&steps) / LOOK + count;
        assert!(part.loads() as u64 <= looks, "{} of {looks}", part.loads());
        // What is behind a step that has failed is not tried; what is before it was.
        let done = match end {
            RestProgress::Done => steps.len(),
            RestProgress::Failed(step, _) => steps.iter().position(|other| *other == step).unwrap(),
            RestProgress::Until(_) => panic!("it has not ended"),
        };
        let stores = steps[..done].iter().filter(|step| matches!(step.action, RestAction::Write { .. })).count();
        assert_eq!(part.stores().len(), stores, "{seed}");
    }
}
