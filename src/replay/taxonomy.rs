//! What a log calls a domain, in the taxonomy's words: for the floors that a policy sets by domain.

use crate::classify::domain::Domain;

/// Domain of the taxonomy that a log's name of a domain means; `None` where it means none.
pub fn domain_of(name: &str) -> Domain {
    let known = [
        ("math", 0),
        ("computer science", 0),
        ("code", 0),
        ("coding", 0),
        ("biology", 2),
        ("chemistry", 2),
        ("physics", 2),
        ("psychology", 2),
        ("economics", 2),
        ("history", 2),
        ("engineering", 4),
        ("business", 5),
        ("health", 6),
        ("law", 8),
        ("writing", 1),
    ];
    let low = name.to_lowercase();
    let by_name = name.parse::<Domain>().ok();
    by_name.or_else(|| known.iter().find(|(n, _)| *n == low).and_then(|(_, i)| Domain::at(*i))).unwrap_or(Domain::NONE)
}
