//! A small attention-only model: embedding, layers of `x += attention(norm(x)) W_o`, read-out; forward and backward by
//! hand. All memories share everything but the attention itself.

mod ends;

use wattroute::lla::pool::Pool;
use wattroute::lla::simd::Level;

use crate::attention::{Failed, Grads, Inputs, Machine, Memory, Tape, backward, forward};
use crate::mat::{add, dot, mat, product, rms, rms_back, times};
use crate::parameters::{Parameters, Place};
use crate::tasks::{Batch, VOCABULARY};

/// What the model is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub memory: Memory,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    /// Width of a head's keys and values.
    pub dim: usize,
    /// RMS norms before each layer and the read-out, and on queries and keys.
    pub norms: bool,
    /// A learned factor per head on normed queries and keys: the temperature.
    pub gain: bool,
    /// Ridge at the start; it is learned, per head.
    pub ridge: f32,
    /// `None`: recall over the vocabulary. Else regression of vectors of this size.
    pub regression: Option<usize>,
}

struct Layer {
    query: Place,
    key: Place,
    value: Place,
    out: Place,
    /// The probe of the projection memory.
    probe: Place,
    /// Weights and offset of the delta rule's step.
    step: Place,
    step_offset: Place,
    log_ridge: Place,
    log_gain: Place,
}

pub struct Model {
    pub config: Config,
    pub parameters: Parameters,
    pub machine: Machine,
    /// Keys, values and the mark of a query; or the input map.
    embed: Place,
    layers: Vec<Layer>,
    read: Place,
}

/// What a layer keeps for its backward.
struct Kept {
    normed: Vec<f32>,
    scales: Vec<f32>,
    /// Queries and keys as the attention sees them, with the reciprocals of their norms.
    q: Vec<f32>,
    k: Vec<f32>,
    q_scales: Vec<f32>,
    k_scales: Vec<f32>,
    v: Vec<f32>,
    rho: Vec<f32>,
    steps: Vec<f32>,
    attended: Vec<f32>,
    tape: Tape,
}

/// Loss and how well it went.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Mean cross-entropy (nats), or mean squared error per number.
    pub loss: f64,
    /// Share of queries answered rightly (recall only).
    pub accuracy: f64,
    pub asked: usize,
}

impl Model {
    pub fn new(config: Config, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut p = Parameters::default();
        let Config { width, heads, dim, .. } = config;
        let inner = heads * dim;
        let (inputs, outputs, embed_sd) = match config.regression {
            Some(d) => (3 * d, d, (3.0 * d as f32).sqrt().recip()),
            None => (2 * VOCABULARY + 1, VOCABULARY, 1.0),
        };
        let sd = (width as f32).sqrt().recip();
        let embed = p.normal(random, inputs * width, embed_sd);
        let probed = matches!(config.memory, Memory::Projection);
        let layers = (0..config.layers)
            .map(|_| Layer {
                query: p.normal(random, width * inner, sd),
                key: p.normal(random, width * inner, sd),
                value: p.normal(random, width * inner, sd),
                out: p.normal(random, inner * width, (inner as f32 * 2.0 * config.layers as f32).sqrt().recip()),
                probe: p.constant(if probed { width * inner } else { 0 }, 0.0),
                step: p.normal(random, width * heads, 0.0),
                step_offset: p.constant(heads, 0.0),
                log_ridge: p.constant(heads, config.ridge.ln()),
                log_gain: p.constant(heads, 0.0),
            })
            .collect();
        let read = p.normal(random, width * outputs, sd);
        let machine = Machine { pool: Pool::new(1), level: Level::detect(), tolerance: 1e-3 };
        Self { config, parameters: p, machine, embed, layers, read }
    }

    /// Ridges and gains by layer and head.
    pub fn learned(&self) -> (Vec<f32>, Vec<f32>) {
        let all = |place: fn(&Layer) -> &Place| {
            self.layers.iter().flat_map(|l| self.parameters.get(place(l)).iter().map(|x| x.exp())).collect()
        };
        (all(|l| &l.log_ridge), all(|l| &l.log_gain))
    }

    /// Loss on a batch; with `learn` also adds its gradient to the parameters'.
    pub fn run(&mut self, batch: &Batch, learn: bool) -> Result<Outcome, Failed> {
        let (rows, width) = (batch.sequences * batch.length, self.config.width);
        let mut x = self.embedding(&batch.tokens, rows);
        let mut kept = Vec::new();
        for layer in &self.layers {
            let (change, keep) = self.layer(layer, batch, &x)?;
            add(&change, &mut x);
            kept.push(keep);
        }
        let (normed, scales) = if self.config.norms { rms(&x, width) } else { (x, Vec::new()) };
        let (outcome, grad) = self.judge(&batch.tokens, &normed, rows);
        if !learn {
            return Ok(outcome);
        }
        let mut grad = self.read_back(&normed, &grad, rows);
        if self.config.norms {
            grad = rms_back(&normed, &scales, &grad, width);
        }
        for (index, keep) in kept.into_iter().enumerate().rev() {
            let back = self.layer_back(index, batch, &keep, &grad)?;
            add(&back, &mut grad);
        }
        self.embedding_back(&batch.tokens, &grad, rows);
        Ok(outcome)
    }

    fn layer(&self, layer: &Layer, batch: &Batch, x: &[f32]) -> Result<(Vec<f32>, Kept), Failed> {
        let Config { width, heads, dim, norms, .. } = self.config;
        let (rows, inner) = (batch.sequences * batch.length, heads * dim);
        let (normed, scales) = if norms { rms(x, width) } else { (x.to_vec(), Vec::new()) };
        let h = mat(&normed, rows, width);
        let map = |place: &Place| times(h, mat(self.parameters.get(place), width, inner));
        let (q, q_scales) = self.point(layer, map(&layer.query));
        let (k, k_scales) = self.point(layer, map(&layer.key));
        let rho = if layer.probe.is_empty() { Vec::new() } else { map(&layer.probe) };
        let mut steps = Vec::new();
        if matches!(self.config.memory, Memory::Delta) {
            steps = times(h, mat(self.parameters.get(&layer.step), width, heads));
            let offset = self.parameters.get(&layer.step_offset);
            steps.iter_mut().zip(offset.iter().cycle()).for_each(|(s, o)| *s = ((-*s - o).exp() + 1.0).recip());
        }
        let v = map(&layer.value);
        let ridges = self.ridges(layer);
        let inputs = Inputs { batch, heads, dim, q: &q, k: &k, v: &v, rho: &rho, steps: &steps, ridges: &ridges };
        let (attended, tape) = forward(&self.machine, self.config.memory, &inputs)?;
        let out = times(mat(&attended, rows, inner), mat(self.parameters.get(&layer.out), inner, width));
        Ok((out, Kept { normed, scales, q, k, q_scales, k_scales, v, rho, steps, attended, tape }))
    }

    fn ridges(&self, layer: &Layer) -> Vec<f32> {
        self.parameters.get(&layer.log_ridge).iter().map(|x| x.exp()).collect()
    }

    /// Queries or keys as the attention sees them: normed per head, times the head's gain.
    fn point(&self, layer: &Layer, mut x: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
        if !self.config.norms {
            return (x, Vec::new());
        }
        let scales;
        (x, scales) = rms(&x, self.config.dim);
        if self.config.gain {
            let gains = self.parameters.get(&layer.log_gain);
            for (row, gain) in x.chunks_exact_mut(self.config.dim).zip(gains.iter().cycle()) {
                row.iter_mut().for_each(|x| *x *= gain.exp());
            }
        }
        (x, scales)
    }

    /// Gradient before [`Self::point`]; adds the gain's.
    fn point_back(&mut self, index: usize, point: &[f32], scales: &[f32], grad: Vec<f32>) -> Vec<f32> {
        let Config { dim, heads, norms, gain, .. } = self.config;
        if !norms {
            return grad;
        }
        let (mut point, mut grad) = (point.to_vec(), grad);
        if gain {
            let place = self.layers[index].log_gain.clone();
            let gains: Vec<f32> = self.parameters.get(&place).iter().map(|g| g.exp()).collect();
            let rows = point.chunks_exact_mut(dim).zip(grad.chunks_exact_mut(dim)).enumerate();
            for (row, (point, grad)) in rows {
                let gain = gains[row % heads];
                self.parameters.grads[place.start + row % heads] += dot(point, grad);
                point.iter_mut().for_each(|x| *x /= gain);
                grad.iter_mut().for_each(|x| *x *= gain);
            }
        }
        rms_back(&point, scales, &grad, dim)
    }

    /// Gradient of a layer's input through its attention (not the residual).
    fn layer_back(&mut self, index: usize, batch: &Batch, kept: &Kept, grad: &[f32]) -> Result<Vec<f32>, Failed> {
        let Config { memory, width, heads, dim, norms, .. } = self.config;
        let (rows, inner) = (batch.sequences * batch.length, heads * dim);
        let ridges = self.ridges(&self.layers[index]);
        let out = self.layers[index].out.clone();
        let back = times(mat(grad, rows, width), mat(self.parameters.get(&out), inner, width).t());
        let attended = mat(&kept.attended, rows, inner);
        product(1.0, attended.t(), mat(grad, rows, width), 1.0, self.parameters.grad(&out));
        let Kept { q, k, v, rho, steps, .. } = kept;
        let inputs = Inputs { batch, heads, dim, q, k, v, rho, steps, ridges: &ridges };
        let Grads { q, k, v, rho, steps, ridges: slopes } =
            backward(&self.machine, memory, &inputs, &kept.tape, &back)?;
        let q = self.point_back(index, &kept.q, &kept.q_scales, q);
        let k = self.point_back(index, &kept.k, &kept.k_scales, k);
        let layer = &self.layers[index];
        let mut into = vec![0.0; rows * width];
        let mut maps = vec![(&layer.query, q, inner), (&layer.key, k, inner), (&layer.value, v, inner)];
        if !rho.is_empty() {
            maps.push((&layer.probe, rho, inner));
        }
        if !steps.is_empty() {
            let slope = steps.iter().zip(&kept.steps).map(|(g, s)| g * s * (1.0 - s)).collect::<Vec<f32>>();
            for (i, g) in slope.iter().enumerate() {
                self.parameters.grads[layer.step_offset.start + i % heads] += g;
            }
            maps.push((&layer.step, slope, heads));
        }
        for (place, grad, columns) in maps {
            let grad = mat(&grad, rows, columns);
            product(1.0, mat(&kept.normed, rows, width).t(), grad, 1.0, &mut self.parameters.grads[place.clone()]);
            product(1.0, grad, mat(&self.parameters.values[place.clone()], width, columns).t(), 1.0, &mut into);
        }
        // The ridge is learned as its logarithm.
        for ((place, slope), ridge) in layer.log_ridge.clone().zip(slopes).zip(ridges) {
            self.parameters.grads[place] += slope * ridge;
        }
        Ok(if norms { rms_back(&kept.normed, &kept.scales, &into, width) } else { into })
    }
}
