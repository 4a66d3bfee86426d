//! Words that were probably meant.

use crate::component::NAME_LIMIT;

/// The longest word that is looked for, in characters: longer ones are no slips, and the search
/// takes time and memory by the product of two lengths.
const WORD_LIMIT: usize = NAME_LIMIT;

/// The most that one search compares, in products of lengths: the supervisor answers nobody else
/// meanwhile. Enough for ten thousand names of ten characters; with more, those after are not seen.
const SEARCH_LIMIT: usize = 1_000_000;

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().take(WORD_LIMIT + 1).count();
    if length > WORD_LIMIT {
        return None;
    }
    // Two slips in a short word, a third of a long one: more is another word.
    let limit = (length / 3).max(2);
    known
        .into_iter()
        // The distance is the difference in length at least; characters have one to four bytes.
        .filter(|candidate| (length.saturating_sub(limit)..=4 * (length + limit)).contains(&candidate.len()))
        .scan(0, |compared, candidate| {
            *compared += length * candidate.len();
            (*compared <= SEARCH_LIMIT).then_some(candidate)
        })
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::{SEARCH_LIMIT, WORD_LIMIT, nearest};

    #[test]
    fn slips_are_seen_and_other_words_are_not() {
        let known = || ["health_interval", "health_timeout", "name"];
        assert_eq!(nearest("health_intervall", known()), Some("health_interval"));
        assert_eq!(nearest("naem", known()), Some("name"));
        assert_eq!(nearest("restart", known()), None);
    }

    #[test]
    fn no_length_is_too_much() {
        let (long, longer) = ("x".repeat(100_000), "x".repeat(100_001));
        assert_eq!(nearest(&long, [longer.as_str()]), None);
        assert_eq!(nearest("x", [longer.as_str()]), None);
        // Of many long names only the first are looked at.
        let word = "x".repeat(WORD_LIMIT);
        let names: Vec<_> = (0..100_000).map(|n| format!("{}{n:06}", "y".repeat(WORD_LIMIT - 6))).collect();
        let looked_at = std::cell::Cell::new(0);
        let names = names.iter().inspect(|_| looked_at.set(looked_at.get() + 1)).map(String::as_str);
        assert_eq!(nearest(&word, names), None);
        assert!(looked_at.get() <= 1 + SEARCH_LIMIT / (WORD_LIMIT * WORD_LIMIT), "{}", looked_at.get());
    }
}
