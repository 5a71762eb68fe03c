//! Near misses.
//!
//! Answers for: which known word somebody probably meant. Distance is that of Damerau and Levenshtein in its restricted
//! form: insertions, deletions, substitutions, and swaps of neighbours count one each.

use alloc::vec::Vec;

/// Words longer than this are not compared: the cost grows with the square.
const LONGEST: usize = 32;

/// The candidate nearest to `word`, if it is near enough to be a slip: at most a third of the letters, at least one; upper
/// and lower case count as the same. Of equally near ones that in which only letters are missing, then the first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(word, &mut candidates.into_iter())
}

/// The same, once for all kinds of iterators.
fn nearest_of<'a>(word: &str, candidates: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().count();
    if letters > LONGEST {
        return None;
    }
    let limit = letters.checked_div(3).unwrap_or(0).max(1);
    candidates
        .filter(|candidate| candidate.chars().count() <= LONGEST)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= limit && distance < candidate.chars().count())
        .min_by_key(|&(distance, candidate)| (distance, !only_misses_letters(word, candidate)))
        .map(|(_, candidate)| candidate)
}

/// Whether `word` becomes `candidate` by letters put in alone.
fn only_misses_letters(word: &str, candidate: &str) -> bool {
    let mut rest = candidate.chars();
    word.chars().all(|letter| rest.any(|other| other.eq_ignore_ascii_case(&letter)))
}

fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| word.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    // Rows of the classic table: the one before the last, the last, the one being filled.
    let mut two_back: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        row.push(i.saturating_add(1));
        for (j, &to) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let mut best = at(&last, j)
                .saturating_add(usize::from(from != to))
                .min(at(&last, j.saturating_add(1)).saturating_add(1))
                .min(at(&row, j).saturating_add(1));
            let swapped =
                i > 0 && j > 0 && a.get(i.saturating_sub(1)) == Some(&to) && b.get(j.saturating_sub(1)) == Some(&from);
            if swapped {
                best = best.min(at(&two_back, j.saturating_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        two_back = core::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_left_out_is_likelier_than_a_wrong_one() {
        assert_eq!(nearest("lod", ["loc", "load"]), Some("load"));
        assert_eq!(nearest("lox", ["loc", "load"]), Some("loc"));
    }

    #[test]
    fn slips_are_recognised() {
        let words = ["ram", "rom", "cmdline", "vdev", "hostdev", "runmask"];
        assert_eq!(nearest("cmdlien", words), Some("cmdline"));
        assert_eq!(nearest("hostdve", words), Some("hostdev"));
        assert_eq!(nearest("RAM", words), Some("ram"));
        assert_eq!(nearest("vdve", words), Some("vdev"));
        assert_eq!(nearest("runmsk", words), Some("runmask"));
    }

    #[test]
    fn strangers_are_not() {
        assert_eq!(nearest("frobnicate", ["ram", "cpu"]), None);
        assert_eq!(nearest("x", ["y"]), None, "a word of one letter has nothing in common with another");
        assert_eq!(nearest(&"r".repeat(100), ["ram"]), None);
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("ca", "ac", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
