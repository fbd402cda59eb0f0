//! From the configured attention to what the kernel takes: nothing, or one ridge per query head, for every layer.

use crate::config::attention::{Attention, Lambda, Lla, Solver};
use crate::engine::types::EngineError;
use crate::lla::ridge::{self, Ridge};

/// Below this ridge a model trained with softmax gets worse at once; see [`WHY`].
pub const SAFE_LAMBDA: f32 = 300.0;
/// Why a smaller one is warned of: perplexities of SmolLM2-135M-Instruct, all layers and heads.
pub const WHY: &str = "weights trained with softmax were made for weighted means of their values, and a small ridge leaves \
    those: measured on SmolLM2-135M, perplexity rises by 1 % at 300, 5 % at 100, 30 % at 30, and more than doubles at 10";

/// Per layer: the ridges of its heads, or nothing where all are infinite. Refuses what does not fit the model.
pub fn ridges(attention: &Attention, layers: usize, heads: usize) -> Result<Vec<Option<Ridge>>, EngineError> {
    let Attention::Lla(lla) = attention else { return Ok(vec![None; layers]) };
    fits(lla, layers, heads)?;
    (0..layers).map(|layer| ridge(lla, layer, heads)).collect()
}

fn fits(lla: &Lla, layers: usize, heads: usize) -> Result<(), EngineError> {
    let has = format!("the model has {layers} layers of {heads} query heads");
    if let Lambda::Matrix(rows) = &lla.lambda
        && (rows.len() != layers || rows.iter().any(|row| row.len() != heads))
    {
        let columns = rows.first().map_or(0, Vec::len);
        return Err(EngineError::Load(format!("attention.lla.lambda is {} lists of {columns}, but {has}", rows.len())));
    }
    for (i, except) in lla.except.iter().enumerate() {
        if except.layers.iter().any(|l| *l >= layers) || except.heads.iter().any(|h| *h >= heads) {
            return Err(EngineError::Load(format!(
                "attention.lla.except[{i}] names a layer or head that is not there: {has}, counted from 0"
            )));
        }
    }
    Ok(())
}

fn ridge(lla: &Lla, layer: usize, heads: usize) -> Result<Option<Ridge>, EngineError> {
    let mut lambda: Vec<f32> = match &lla.lambda {
        Lambda::One(one) => vec![*one; heads],
        Lambda::Matrix(rows) => rows.get(layer).cloned().unwrap_or_default(),
    };
    for except in lla.except.iter().filter(|e| e.layers.is_empty() || e.layers.contains(&layer)) {
        let here = lambda.iter_mut().enumerate();
        let named = here.filter(|(head, _)| except.heads.is_empty() || except.heads.contains(head));
        named.for_each(|(_, place)| *place = except.lambda);
    }
    if lambda.iter().all(|l| *l == f32::INFINITY) {
        return Ok(None);
    }
    let solver = match lla.solver {
        Solver::Auto => ridge::Solver::Auto,
        Solver::Cg => ridge::Solver::ConjugateGradient,
        Solver::Gram => ridge::Solver::Gram,
    };
    let made = Ridge::new(lambda)
        .and_then(|r| r.with_solver(solver).with_tolerance(lla.tolerance))
        .and_then(|r| r.with_most_iterations(lla.iterations))
        .and_then(|r| r.with_radius(lla.radius));
    made.map(Some).map_err(|e| EngineError::Load(format!("attention.lla: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Problems;
    use crate::config::attention::check;

    fn made(raw: &serde_json::Value) -> Result<Vec<Option<Ridge>>, String> {
        let attention = check(Some(raw), "a", &mut Problems::default()).unwrap();
        ridges(&attention, 3, 2).map_err(|e| e.to_string())
    }

    #[test]
    fn every_layer_and_head_gets_its_ridge() {
        assert!(made(&json!("softmax")).unwrap().iter().all(Option::is_none));
        assert!(made(&json!({"lla": {"lambda": "inf"}})).unwrap().iter().all(Option::is_none));
        let except = json!([{"layers": [1], "lambda": 300}, {"layers": [1, 2], "heads": [0], "lambda": 7}]);
        let made = made(&json!({"lla": {"except": except, "radius": 3.0}})).unwrap();
        assert!(made[0].is_none());
        let (one, two) = (made[1].as_ref().unwrap(), made[2].as_ref().unwrap());
        assert_eq!((one.lambda(0), one.lambda(1), one.radius()), (7.0, 300.0, 3.0));
        assert_eq!((two.lambda(0), two.lambda(1)), (7.0, f32::INFINITY));
    }

    #[test]
    fn what_does_not_fit_the_model_is_refused() {
        let error = made(&json!({"lla": {"lambda": [[1.0, 2.0]]}})).unwrap_err();
        assert!(error.contains("1 lists of 2, but the model has 3 layers of 2 query heads"), "{error}");
        assert!(made(&json!({"lla": {"lambda": [[1.0], [1.0], [1.0]]}})).is_err());
        assert!(made(&json!({"lla": {"except": [{"layers": [3], "lambda": 1}]}})).is_err());
        let error = made(&json!({"lla": {"except": [{"heads": [2], "lambda": 1}]}})).unwrap_err();
        assert!(error.contains("except[0]"), "{error}");
    }
}
