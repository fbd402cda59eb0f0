//! The oracle for the kernel's own jobs: what a store holds, widened to double precision.

use crate::lla::Attention;
use crate::lla::reference::job::{Job, Rho};
use crate::lla::ridge;

/// Output of a job, `tokens x heads x value_dim`, with the correction it asks for. Input without `NaN` and of fitting
/// shape is assumed; the solver's tolerance and cap play no part.
pub fn attend(job: &Attention) -> Vec<f64> {
    asked(job, |oracle| oracle.forward())
}

/// Correction vector of every row, `tokens x heads x dim`.
pub fn corrections(job: &Attention) -> Vec<f64> {
    asked(job, |oracle| oracle.corrections())
}

fn asked<T>(job: &Attention, read: impl FnOnce(&Job) -> T) -> T {
    match job.rho {
        ridge::Rho::Zero => run(job, Rho::Zero, f64::INFINITY, read),
        ridge::Rho::Solve(ridge) => {
            let lambda: Vec<f64> = (0..job.shape.heads).map(|head| f64::from(ridge.lambda(head))).collect();
            run(job, Rho::Solve(&lambda), f64::from(ridge.radius()), read)
        }
        ridge::Rho::Projection(rho) => run(job, Rho::Projection(&wide(rho)), f64::INFINITY, read),
    }
}

/// Softmax attention of a job, whatever correction it asks for.
pub fn softmax(job: &Attention) -> Vec<f64> {
    run(job, Rho::Zero, f64::INFINITY, |oracle| oracle.forward())
}

/// Single precision as double.
pub fn wide(rows: &[f32]) -> Vec<f64> {
    rows.iter().map(|x| f64::from(*x)).collect()
}

fn run<T>(job: &Attention, rho: Rho, radius: f64, read: impl FnOnce(&Job) -> T) -> T {
    let held = |part: &dyn Fn(usize, usize) -> Vec<f32>| -> Vec<f64> {
        let places =
            (0..job.store.len()).flat_map(|position| (0..job.shape.kv_heads).map(move |head| (head, position)));
        places.flat_map(|(head, position)| wide(&part(head, position))).collect()
    };
    let oracle = Job {
        heads: job.shape.heads,
        kv_heads: job.shape.kv_heads,
        dim: job.shape.dim,
        value_dim: job.shape.value_dim,
        scale: f64::from(job.scale),
        queries: &wide(job.queries),
        keys: &held(&|head, position| job.store.key(head, position)),
        values: &held(&|head, position| job.store.value(head, position)),
        first: job.first,
        window: job.window,
        rho,
        radius,
    };
    read(&oracle)
}
