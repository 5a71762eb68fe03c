//! Sorting in little code.
//!
//! Answers for: putting things in order. Does not answer for: speed beyond O(n log n). The standard library's sorts are
//! made for speed, in 3 to 8 KiB of code for every type and every order; ten of them were a tenth of the whole image.

use core::cmp::Ordering;

/// Puts `items` into rising order, by a heap sort: in place, without recursion, O(n log n) whatever the order was. Not
/// stable: whoever cares which of two equals comes first has `compare` decide it.
pub fn sort_by<T>(items: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    // Each item of the upper half sinks to where it belongs in a heap; then the greatest, on top, goes behind the others
    // again and again.
    for top in (0..items.len() / 2).rev() {
        sink(items, top, &mut compare);
    }
    for last in (1..items.len()).rev() {
        items.swap(0, last);
        if let Some(heap) = items.get_mut(..last) {
            sink(heap, 0, &mut compare);
        }
    }
}

/// Lets the item at `top` change places with the greater of its children until none is greater than itself.
fn sink<T>(heap: &mut [T], mut top: usize, compare: &mut impl FnMut(&T, &T) -> Ordering) {
    loop {
        let left = top.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let mut is_less =
            |a: usize, b: usize| heap.get(a).zip(heap.get(b)).is_some_and(|(a, b)| compare(a, b) == Ordering::Less);
        let child = if is_less(left, right) { right } else { left };
        if !is_less(top, child) {
            return;
        }
        heap.swap(top, child);
        top = child;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Numbers without any order, always the same.
    fn numbers(count: usize, most: u32) -> Vec<u32> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % most
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn every_length_and_many_equals_come_out_as_the_standard_sort_has_them() {
        for count in (0..70).step_by(if cfg!(miri) { 23 } else { 1 }) {
            for most in [1, 3, 1000] {
                let mut ours = numbers(count, most);
                let mut theirs = ours.clone();
                theirs.sort_unstable();
                sort_by(&mut ours, Ord::cmp);
                assert_eq!(ours, theirs);
                sort_by(&mut ours, |a, b| b.cmp(a));
                theirs.reverse();
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes there, and the test above goes the same ways")]
    fn no_order_is_slow() {
        let count = 1 << 12;
        for input in [numbers(count, u32::MAX), (0..count as u32).collect(), (0..count as u32).rev().collect()] {
            let mut asked = 0;
            let mut items = input;
            sort_by(&mut items, |a, b| {
                asked += 1;
                a.cmp(b)
            });
            assert!(items.is_sorted());
            assert!(asked <= 3 * count * 12, "{asked} comparisons for {count} items");
        }
    }
}
