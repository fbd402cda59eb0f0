//! The front of objective and accuracy that a search leaves behind.

use super::judge::{self, Limits, Sums};
use super::search::Tried;
use super::space::Space;
use super::{Case, Point, Task, policy, rows};

/// Points that are shown.
const SHOWN: usize = 16;

/// The points that no other beats in objective and accuracy at once, on the cases that were searched.
pub fn front(
    task: &Task<'_>,
    space: &Space,
    tried: &[Tried],
    training: &[&Case],
    held: &[&Case],
) -> Result<Vec<Point>, String> {
    let free = Task { limits: Limits::default(), ..*task };
    let mut each: Vec<(Vec<f64>, Sums)> = Vec::new();
    for tried in spread(tried) {
        let values = space.values(&tried.point);
        if each.iter().any(|(known, _)| *known == values) {
            continue;
        }
        let policy = policy(space, &values, task.file)?;
        if let Some(sums) = judge::sums(&rows(&policy, training, task), &free.limits) {
            each.push((values, sums));
        }
    }
    each.sort_by(|(_, a), (_, b)| {
        let cost = |s: &Sums| s.objective.unwrap_or(f64::INFINITY);
        cost(a).total_cmp(&cost(b)).then(b.accuracy.total_cmp(&a.accuracy))
    });
    let mut best = f64::NEG_INFINITY;
    let mut front = Vec::new();
    for (values, sums) in each {
        if sums.accuracy <= best || sums.objective.is_none() {
            continue;
        }
        best = sums.accuracy;
        let policy = policy(space, &values, task.file)?;
        if let Some(held_out) = judge::sums(&rows(&policy, held, task), &free.limits) {
            let values = space.parameters.iter().zip(&values).map(|(p, value)| p.setting(*value)).collect();
            front.push(Point { values, training: sums, held_out });
        }
    }
    let step = front.len().div_ceil(SHOWN).max(1);
    Ok(front.into_iter().step_by(step).collect())
}

/// At most a few hundred of the points tried, evenly: a front needs no more.
fn spread(tried: &[Tried]) -> impl Iterator<Item = &Tried> {
    const ENOUGH: usize = 160;
    tried.iter().step_by(tried.len().div_ceil(ENOUGH).max(1))
}
