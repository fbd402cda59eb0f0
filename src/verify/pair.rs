//! A judge's question and verdict: which of two answers to a question is better, read in both orders.
//!
//! Models favour the answer that they read first. So each pair is judged twice with the order swapped, and only a verdict
//! that both orders agree on counts.

/// What one reading said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The answer that was read first.
    First,
    /// The other one.
    Second,
    /// Neither.
    Tie,
}

/// What a judge is asked.
pub fn prompt(question: &str, first: &str, second: &str) -> String {
    format!(
        "Two assistants answered the same question. Say which answer helps the asker more. Look at whether it is correct, \
         does what was asked, and is complete and clear; neither length nor order is a merit. Give one sentence of reason, \
         then end with exactly one of [[A]] (answer A is better), [[B]] (answer B is better) or [[C]] (equally good).\n\n\
         [Question]\n{question}\n\n[Answer A]\n{first}\n[End of answer A]\n\n[Answer B]\n{second}\n[End of answer B]"
    )
}

/// The last mark of a verdict: a judge may mention the others while it weighs them.
pub fn verdict(text: &str) -> Option<Better> {
    let marks = [("[[A]]", Better::First), ("[[B]]", Better::Second), ("[[C]]", Better::Tie)];
    let last = marks.iter().filter_map(|(mark, better)| Some((text.rfind(mark)?, *better))).max_by_key(|(at, _)| *at);
    last.map(|(_, better)| better)
}

/// What the first answer of the first reading is worth beside the other: 1 better, 0.5 as good, 0 worse; none where the
/// readings disagree.
pub fn agreed(forth: Better, back: Better) -> Option<f64> {
    match (forth, back) {
        (Better::First, Better::Second) => Some(1.0),
        (Better::Second, Better::First) => Some(0.0),
        (Better::Tie, Better::Tie) => Some(0.5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_is_the_verdict() {
        assert_eq!(verdict("[[A]] would be harsh, so [[C]]"), Some(Better::Tie));
        assert_eq!(verdict("B is right. [[B]]."), Some(Better::Second));
        assert_eq!(verdict("A is better"), None);
    }

    #[test]
    fn only_what_both_orders_agree_on_counts() {
        use Better::{First, Second, Tie};
        for (forth, back, want) in [
            (First, Second, Some(1.0)),
            (Second, First, Some(0.0)),
            (Tie, Tie, Some(0.5)),
            // The judge liked whatever came first.
            (First, First, None),
            (First, Tie, None),
        ] {
            assert_eq!(agreed(forth, back), want, "{forth:?} {back:?}");
        }
    }
}
