//! Work may be cut in any way: moments of parts merge to the moments of the whole.

use proptest::prelude::*;

use crate::lla::properties::support::{cases, close, problem};
use crate::lla::reference::forms;
use crate::lla::reference::matrix::dot;
use crate::lla::reference::moments::Moments;

#[test]
fn split_passes_merge_in_any_order_and_number() {
    let strategy = (problem(), any::<u64>(), prop::sample::select(vec![1_usize, 2, 3, 7, 64]));
    proptest!(cases(40), |((p, seed, parts) in strategy)| {
        let local = p.local();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut split: Vec<Moments> = (0..parts).map(|_| Moments::empty(p.d, p.dv)).collect();
        for (key, value) in p.keys.chunks_exact(p.d).zip(p.values.chunks_exact(p.dv)) {
            split[random.usize(..parts)].add(p.scale * dot(&p.query, key), key, value);
        }
        random.shuffle(&mut split);
        // Pairs of neighbours, like a tree, until one is left: no order is special.
        while split.len() > 1 {
            let last = split.pop().unwrap();
            let place = random.usize(..split.len());
            split[place].merge(&last);
        }
        let whole = Moments::gather(&local);
        let merged = &split[0];
        prop_assert_eq!(merged.most, whole.most);
        close(&[merged.total], &[whole.total], 1e-12, "sum of weights");
        close(&merged.key_mean, &whole.key_mean, 1e-12, "mean key");
        close(&merged.covariance, &local.covariance(), 1e-11, "covariance");
        close(&merged.cross, &local.cross_covariance(), 1e-11, "cross covariance");
        let rho = merged.solve(&p.query, p.lambda).unwrap();
        close(&merged.apply(&rho), &forms::dense(&local), 1e-10, "output");
    });
}

#[test]
fn an_empty_part_changes_nothing_and_nothing_at_all_is_zero() {
    proptest!(cases(10), |(p in problem())| {
        let (mut whole, empty) = (Moments::gather(&p.local()), Moments::empty(p.d, p.dv));
        let before = whole.clone();
        whole.merge(&empty);
        prop_assert_eq!(&whole, &before);
        whole.add(f64::NEG_INFINITY, &vec![f64::NAN; p.d], &vec![f64::INFINITY; p.dv]);
        prop_assert_eq!(&whole, &before);
        let mut other = empty.clone();
        other.merge(&before);
        prop_assert_eq!(&other, &before);
        prop_assert_eq!(empty.apply(&vec![1.0; p.d]), vec![0.0; p.dv]);
    });
}
