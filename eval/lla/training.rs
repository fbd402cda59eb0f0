//! Trains one small model and measures it: one cell of the training study.

use std::time::Duration;

use serde_json::{Value, json};
use wattroute::clock;

use crate::attention::{Failed, Memory};
use crate::dense::normal;
use crate::model::{Config, Model, Outcome};
use crate::parameters::AdamW;
use crate::tasks::{Batch, SEGMENTS, recall, regression};

/// Pairs per sequence in training, drawn anew for each batch.
const PAIRS: [usize; 4] = [8, 16, 32, 64];
/// Pairs in measuring; the last two are more than were ever trained on.
const MEASURED_PAIRS: [usize; 6] = [8, 16, 32, 64, 128, 240];
/// Length of a regression sequence.
const LENGTH: usize = 128;
/// Sequences per measured point.
const MEASURED: usize = 64;

/// Width of a central difference: rounding of the loss and its curvature balance about here.
const STEP: f32 = 3e-3;

/// Length of the training.
#[derive(Clone, Copy)]
pub struct Schedule {
    pub steps: usize,
    pub sequences: usize,
    pub rate: f32,
    pub decay: f32,
}

fn batch(config: &Config, random: &mut fastrand::Rng, sequences: usize, setting: usize) -> Batch {
    match config.regression {
        Some(dim) => regression(random, sequences, LENGTH, dim, setting),
        None => recall(random, sequences, setting),
    }
}

/// Trains with `seed` for parameters and data; progress goes to standard error.
pub fn run(config: Config, schedule: Schedule, seed: u64) -> Result<Value, Failed> {
    let random = &mut fastrand::Rng::with_seed(seed);
    let mut model = Model::new(config, random.u64(..));
    let mut optimiser = AdamW::new(model.parameters.values.len(), schedule.decay);
    let settings: &[usize] = if config.regression.is_some() { &SEGMENTS } else { &PAIRS };
    let started = clock::now();
    let (mut curve, mut recent) = (Vec::new(), Vec::new());
    for step in 0..schedule.steps {
        let setting = settings[random.usize(..settings.len())];
        // As many tokens per batch whatever the sequences' length.
        let sequences =
            if config.regression.is_some() { schedule.sequences } else { schedule.sequences * 64 / setting };
        let data = batch(&config, random, sequences, setting);
        let outcome = model.run(&data, true)?;
        optimiser.step(&mut model.parameters, rate(&schedule, step));
        recent.push(outcome.loss);
        if (step + 1) % 100 == 0 {
            let mean = recent.drain(..).sum::<f64>() / 100.0;
            curve.push(json!([step + 1, mean]));
            let left = started.elapsed().mul_f64((schedule.steps - step - 1) as f64 / (step + 1) as f64);
            eprintln!("step {} of {}: loss {mean:.4}, {} s left", step + 1, schedule.steps, left.as_secs());
        }
    }
    report(&mut model, schedule, seed, curve, started.elapsed())
}

/// Linear warm-up over a twentieth, then a cosine down to a tenth.
fn rate(schedule: &Schedule, step: usize) -> f32 {
    let done = step as f32 / schedule.steps as f32;
    let warm = (done * 20.0 + 1e-3).min(1.0);
    schedule.rate * warm * (0.55 + 0.45 * (std::f32::consts::PI * done).cos())
}

fn report(
    model: &mut Model,
    schedule: Schedule,
    seed: u64,
    curve: Vec<Value>,
    took: Duration,
) -> Result<Value, Failed> {
    let config = model.config;
    // Never the draws of training: another seed, the same for every memory.
    let random = &mut fastrand::Rng::with_seed(seed ^ 0x5eed_0000_0000);
    let settings: &[usize] = if config.regression.is_some() { &SEGMENTS } else { &MEASURED_PAIRS };
    let mut points = Vec::new();
    for &setting in settings {
        let mut total = Outcome::default();
        for _ in 0..MEASURED / 8 {
            let one = model.run(&batch(&config, random, 8, setting), false)?;
            total.loss += one.loss * one.asked as f64;
            total.accuracy += one.accuracy * one.asked as f64;
            total.asked += one.asked;
        }
        let n = total.asked as f64;
        points.push(json!({
            "setting": setting, "n": total.asked, "loss": total.loss / n,
            "accuracy": if config.regression.is_some() { Value::Null } else { (total.accuracy / n).into() },
        }));
    }
    let (ridges, gains) = model.learned();
    Ok(json!({
        "part": if config.regression.is_some() { "in_context_regression" } else { "associative_recall" },
        "config": format!("{config:?}"), "memory": format!("{:?}", config.memory), "gain": config.gain, "seed": seed,
        "steps": schedule.steps, "sequences": schedule.sequences, "rate": schedule.rate, "decay": schedule.decay,
        "parameters": model.parameters.values.len(), "ridges": ridges, "gains": gains, "seconds": took.as_secs_f64(),
        "curve": curve, "points": points,
    }))
}

/// Largest relative error of the hand-written gradients against central differences, by memory and task.
pub fn gradients() -> Result<Value, Failed> {
    let memories = [Memory::Softmax, Memory::Lla, Memory::Projection, Memory::Linear, Memory::Delta];
    let mut all = Vec::new();
    for (memory, task) in memories.into_iter().flat_map(|m| [(m, None), (m, Some(4))]) {
        let recalls = task.is_none();
        let config = Config {
            memory,
            layers: 2,
            width: 16,
            heads: 2,
            dim: 8,
            norms: recalls,
            gain: recalls,
            ridge: 0.5,
            regression: task,
        };
        let mut model = Model::new(config, 7);
        // A probe of zero has no slope but through itself: move every parameter a little.
        let random = &mut fastrand::Rng::with_seed(3);
        model.parameters.values.iter_mut().for_each(|x| *x += 0.05 * normal(random) as f32);
        let data = match task {
            Some(dim) => regression(random, 2, 24, dim, 12),
            None => recall(random, 2, 12),
        };
        model.machine.tolerance = 1e-7;
        model.run(&data, true)?;
        let slopes = std::mem::take(&mut model.parameters.grads);
        model.parameters.grads = vec![0.0; slopes.len()];
        let (mut wrong, mut size) = (0.0_f64, 0.0_f64);
        for _ in 0..300 {
            let at = random.usize(..slopes.len());
            let before = model.parameters.values[at];
            let mut loss = |x: f32| {
                model.parameters.values[at] = x;
                model.run(&data, false).map(|o| o.loss)
            };
            let difference = (loss(before + STEP)? - loss(before - STEP)?) / f64::from(2.0 * STEP);
            loss(before)?;
            wrong += (difference - f64::from(slopes[at])).powi(2);
            size += difference.powi(2);
        }
        all.push(
            json!({ "memory": format!("{memory:?}"), "recall": recalls, "relative_error": (wrong / size).sqrt() }),
        );
    }
    Ok(json!({ "part": "gradients", "step": STEP, "checked": all }))
}
