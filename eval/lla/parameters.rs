//! The parameters of a small model in one buffer, and AdamW over it.

use std::ops::Range;

use crate::dense::normal;

/// Decay of AdamW's averages of the gradient and of its square.
const BETA: (f32, f32) = (0.9, 0.98);
/// Gradients longer than this are shortened to it.
const LONGEST_GRADIENT: f32 = 1.0;

/// Place of a tensor in the buffer.
pub type Place = Range<usize>;

/// Values and gradients, laid out alike.
#[derive(Default)]
pub struct Parameters {
    pub values: Vec<f32>,
    pub grads: Vec<f32>,
    /// Whether weight decay applies, per value.
    decays: Vec<bool>,
}

impl Parameters {
    /// A tensor of normal draws, shrunk by weight decay.
    pub fn normal(&mut self, random: &mut fastrand::Rng, n: usize, sd: f32) -> Place {
        self.push((0..n).map(|_| sd * normal(random) as f32).collect(), true)
    }

    /// A tensor of one value, not shrunk.
    pub fn constant(&mut self, n: usize, value: f32) -> Place {
        self.push(vec![value; n], false)
    }

    fn push(&mut self, values: Vec<f32>, decays: bool) -> Place {
        let start = self.values.len();
        self.values.extend(values);
        self.grads.resize(self.values.len(), 0.0);
        self.decays.resize(self.values.len(), decays);
        start..self.values.len()
    }

    /// A tensor.
    pub fn get(&self, place: &Place) -> &[f32] {
        &self.values[place.clone()]
    }

    /// Its gradient.
    pub fn grad(&mut self, place: &Place) -> &mut [f32] {
        &mut self.grads[place.clone()]
    }
}

/// AdamW with decoupled decay.
pub struct AdamW {
    mean: Vec<f32>,
    square: Vec<f32>,
    step: i32,
    decay: f32,
}

impl AdamW {
    /// For `n` parameters.
    pub fn new(n: usize, decay: f32) -> Self {
        Self { mean: vec![0.0; n], square: vec![0.0; n], step: 0, decay }
    }

    /// One step down the gradients, which are cleared.
    pub fn step(&mut self, parameters: &mut Parameters, rate: f32) {
        self.step += 1;
        let length = parameters.grads.iter().map(|g| g * g).sum::<f32>().sqrt();
        let shorten = if length > LONGEST_GRADIENT { LONGEST_GRADIENT / length } else { 1.0 };
        let correct = (1.0 - BETA.0.powi(self.step), 1.0 - BETA.1.powi(self.step));
        for (i, value) in parameters.values.iter_mut().enumerate() {
            let gradient = std::mem::take(&mut parameters.grads[i]) * shorten;
            self.mean[i] += (1.0 - BETA.0) * (gradient - self.mean[i]);
            self.square[i] += (1.0 - BETA.1) * (gradient * gradient - self.square[i]);
            let decay = if parameters.decays[i] { self.decay * *value } else { 0.0 };
            *value -= rate * ((self.mean[i] / correct.0) / ((self.square[i] / correct.1).sqrt() + 1e-8) + decay);
        }
    }
}
