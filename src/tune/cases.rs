//! Logged queries as cases: what a policy sees of them out of fold, what either side's answer came to, and which are searched.

use super::{Case, Known};
use crate::replay::case::{Case as Logged, mixed};
use crate::replay::cost::{Cost, Tariff};
use crate::replay::decide::signals;
use crate::replay::simulate::Setup;

/// How queries are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// By hash of the prompt's stem, so that near-copies of a query stay on one side.
    Stem,
    /// The latest queries are held out.
    Time,
}

/// The labelled queries of a log. `held_out` is a share from 0 to 1.
///
/// # Errors
/// A split by time of a log without times.
pub fn of(setup: &Setup, logged: &[Logged], split: Split, held_out: f64, seed: u64) -> Result<Vec<Case>, String> {
    let labelled: Vec<&Logged> = logged.iter().filter(|c| c.weak.ok.is_some() && c.strong.ok.is_some()).collect();
    let latest = match split {
        Split::Stem => f64::INFINITY,
        Split::Time => {
            let mut times: Vec<f64> = labelled.iter().filter_map(|c| c.arrival_s).collect();
            if times.is_empty() || times.len() < labelled.len() {
                return Err("the log has no times: split it with `--split stem`".to_owned());
            }
            times.sort_unstable_by(f64::total_cmp);
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank within the list"
            )]
            let rank = (times.len() as f64 * (1.0 - held_out)) as usize;
            times.get(rank.min(times.len() - 1)).copied().unwrap_or(f64::INFINITY)
        }
    };
    let training = |case: &Logged| match split {
        Split::Stem => unit(case.stem ^ seed) >= held_out,
        Split::Time => case.arrival_s.is_some_and(|at| at < latest),
    };
    let n = labelled.len().max(1);
    let searched = labelled.iter().filter(|c| training(c)).count();
    // A part that is drawn by stem is thinner than the log: its arrivals are drawn together, so that the device sees the log's rate.
    #[expect(clippy::cast_precision_loss, reason = "counts of queries")]
    let thin = |training: bool| match split {
        Split::Stem => (if training { searched } else { n - searched }) as f64 / n as f64,
        Split::Time => 1.0,
    };
    let (of_searched, of_held) = (thin(true), thin(false));
    let all = labelled.into_iter().map(|c| {
        let case = one(setup, c, training(c));
        let thin = if case.training { of_searched } else { of_held };
        Case { arrival_s: case.arrival_s * thin, ..case }
    });
    Ok(all.collect())
}

fn one(setup: &Setup, logged: &Logged, training: bool) -> Case {
    let expected = setup.predictions.of(logged);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the line before")]
    let input = logged.input_tokens.clamp(0.0, f64::from(u32::MAX)) as u32;
    let sides = [(&logged.weak, &setup.local), (&logged.strong, &setup.cloud)];
    let answers = sides.map(|(arm, tariff)| {
        let cost = tariff.cost(logged.input_tokens, arm.output_tokens, arm.usd, arm.seconds);
        known(arm.ok.map_or(f64::NAN, |ok| (ok / setup.scale).clamp(0.0, 1.0)), &cost, tariff)
    });
    Case {
        signals: signals(setup, logged, &expected, input),
        answers: answers.to_vec(),
        strong: 1,
        training,
        evidence: logged.evidence,
        arrival_s: logged.arrival_s.unwrap_or(f64::NAN),
    }
}

fn known(quality: f64, cost: &Cost, tariff: &Tariff) -> Known {
    /// Joules of one kWh.
    const KWH: f64 = 3.6e6;
    let joules = cost.joules.map_or(f64::NAN, |[_, mid, _]| mid);
    Known {
        quality,
        joules,
        usd: cost.usd.unwrap_or(f64::NAN),
        grams: tariff.grid.as_ref().map_or(f64::NAN, |grid| joules / KWH * grid.mid),
        seconds: cost.seconds.unwrap_or(f64::NAN),
    }
}

/// A hash as a number from 0 to 1.
fn unit(hash: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let top = (mixed(hash) >> 11) as f64;
    top / 9_007_199_254_740_992.0
}
