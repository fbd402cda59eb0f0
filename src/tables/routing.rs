//! What a router saves, by the paper's arithmetic and by honest arithmetic. Pure.
//!
//! *Intelligence per Watt* (arXiv 2511.07885, section 4.3) lets a router that is right about a share of the locally solvable
//! queries save that share of an oracle's saving: every error goes straight to the cloud, and costs nothing else. A real
//! router also pays local attempts that it throws away, and answers some queries locally that only the cloud gets right.

use serde::Serialize;

/// A pair of places and a router between them. All are shares from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Router {
    /// Of all queries, those that the local side answers right.
    pub solvable: f64,
    /// What a local answer costs of what a cloud answer costs (energy, compute or price).
    pub ratio: f64,
    /// Of the solvable queries, those that the router keeps local.
    pub kept: f64,
    /// Of the queries that the local side gets wrong, those that the router keeps local all the same.
    pub false_local: f64,
    /// Of the solvable queries that go to the cloud, those that were tried locally first.
    pub tried_first: f64,
}

/// Shares of what everything in the cloud would cost, and of all answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Saved.
    pub saved: f64,
    /// Spent on local attempts that were thrown away.
    pub wasted: f64,
    /// Answers that are wrong because they stayed local; a bound, as the cloud errs too.
    pub quality_loss: f64,
}

impl Router {
    /// The paper's router: errors are missed savings and nothing else.
    pub fn paper(solvable: f64, ratio: f64, kept: f64) -> Self {
        Self { solvable, ratio, kept, false_local: 0.0, tried_first: 0.0 }
    }

    /// What comes of it.
    pub fn outcome(&self) -> Outcome {
        let missed = self.solvable * (1.0 - self.kept);
        let wrong = (1.0 - self.solvable) * self.false_local;
        let wasted = missed * self.tried_first * self.ratio;
        Outcome {
            saved: (self.solvable * self.kept + wrong) * (1.0 - self.ratio) - wasted,
            wasted,
            quality_loss: wrong,
        }
    }
}
