//! The cloud's energy: joules per token under stated assumptions, low, mid and high.
//!
//! Measured curves of J per output token by server batch where the model was measured ([`points`]); else the EcoLogits
//! formula from active and total parameters. Both get the host's overhead and PUE. No provider publishes these figures,
//! so [`Model::derivation`] prints every input.

pub mod points;
pub mod sizes;

use std::fmt::Write;

use self::points::Curve;
use super::{Basis, Joules};
use crate::config::checked::{Energy, EnergyModel};
use crate::config::energy::SetUp;

/// Watts of a server beside its accelerators (processors, memory, fans), for eight of them: EcoLogits' 1.2 kW.
const SERVER_W: f64 = 1200.0;
/// Accelerators that share those watts.
const SERVER_GPUS: f64 = 8.0;
/// EcoLogits: Wh per output token and accelerator = A exp(B batch) active + C, active in billions of parameters.
const ECO_A: f64 = 1.1665e-6;
const ECO_B: f64 = -0.011_206;
const ECO_C: f64 = 4.0529e-5;
/// EcoLogits: seconds per output token = a active + b batch + c.
const ECO_LATENCY: [f64; 3] = [6.785e-4, 3.119e-4, 1.947e-2];
/// Memory of the accelerator that EcoLogits assumes, GB, and bytes per weight, and room for activations.
const ECO_MEMORY: f64 = 80.0;
const ECO_BYTES: f64 = 2.0;
const ECO_ROOM: f64 = 1.2;
/// Joules per floating-point operation while reading a prompt: 700 W over 989e12 16-bit operations per second (H100 SXM
/// data sheet) at full use.
const JOULES_PER_FLOP: f64 = 700.0 / 989e12;
/// Share of that peak that prompt reading reaches, for low, mid and high joules: an assumption.
const PREFILL_USE: [f64; 3] = [0.6, 0.4, 0.2];
const JOULES_PER_WH: f64 = 3600.0;

/// One backend's cloud energy, ready to be asked per query.
#[derive(Clone, Debug)]
pub struct Model {
    /// J per generated token.
    pub output: Joules,
    /// J per prompt token. Measured curves fold the prompts of their benchmark into the output figure, so their low is 0.
    pub input: Joules,
    /// Seconds per generated token at the middle assumption.
    pub seconds_per_output: Option<f64>,
    derivation: String,
}

impl Model {
    /// The model that the configuration states; none where it states none.
    ///
    /// # Errors
    /// A name or a set-up without measured points, with a suggestion or the choices.
    pub fn new(stated: &EnergyModel, assumed: &Energy) -> Result<Option<Self>, String> {
        match stated {
            EnergyModel::Table | EnergyModel::Unknown => Ok(None),
            EnergyModel::Points(id) => Self::measured(id, &SetUp::default(), assumed).map(Some),
            EnergyModel::PointsOn(id, on) => Self::measured(id, on, assumed).map(Some),
            EnergyModel::Named(id) => Self::named(id, assumed).map(Some),
            EnergyModel::Parameters { active, total } => {
                Ok(Some(Self::from_parameters("no measurement of this model is known", *active, *total, assumed)))
            }
        }
    }

    fn named(id: &str, assumed: &Energy) -> Result<Self, String> {
        if points::curves(id).is_ok() {
            return Self::measured(id, &SetUp::default(), assumed);
        }
        let Some(size) = sizes::size(id) else {
            let near = points::nearest(id).or_else(|| sizes::nearest(id));
            let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            return Err(format!(
                "`{id}` was neither measured nor has it a known size{near} Its parameters can be stated: active = [8, 28]"
            ));
        };
        Ok(Self::from_parameters(&format!("{id}: {}", size.how()), size.active(), size.total(), assumed))
    }

    /// J per generated token.
    pub fn per_token(&self) -> Joules {
        self.output
    }

    /// J of a whole query.
    pub fn joules(&self, input: f64, output: f64) -> Joules {
        self.output.times(output).plus(self.input.times(input))
    }

    /// Every input of the figures, as text for people.
    pub fn derivation(&self) -> &str {
        &self.derivation
    }

    fn measured(id: &str, on: &SetUp, assumed: &Energy) -> Result<Self, String> {
        let curves = points::curves_on(id, on)?;
        let ends = [0, 1, 2].map(|i| {
            let (batch, pue) = (at(&assumed.batch, i), at(&assumed.pue, i));
            let mut each: Vec<f64> = curves.iter().map(|c| c.with_host(f64::from(batch)) * pue).collect();
            each.sort_by(f64::total_cmp);
            match i {
                0 => each.first().copied(),
                1 => each.get(each.len() / 2).copied(),
                _ => each.last().copied(),
            }
        });
        let [Some(low), Some(mid), Some(high)] = ends else { return Err("has no measured points".to_owned()) };
        let (low, mid) = (low.min(mid), mid.min(high));
        let active = curves.first().map_or(0.0, |c| c.active_b);
        let input = prefill(active, active, assumed);
        let input = Joules::range(0.0, input.mid.unwrap_or(0.0), input.high.unwrap_or(0.0), Basis::Modelled);
        let middle = f64::from(at(&assumed.batch, 1));
        let mut seconds: Vec<f64> = curves.iter().map(|c| c.seconds_per_token(middle)).collect();
        seconds.sort_by(f64::total_cmp);
        Ok(Self {
            output: Joules::range(low, mid, high, Basis::Modelled),
            input,
            seconds_per_output: seconds.get(seconds.len() / 2).copied(),
            derivation: tell_points(id, &curves, assumed, [low, mid, high]),
        })
    }

    fn from_parameters(why: &str, active: (f64, f64), total: (f64, f64), assumed: &Energy) -> Self {
        let middle = |(a, b): (f64, f64)| f64::midpoint(a, b);
        let (actives, totals) = ([active.0, middle(active), active.1], [total.0, middle(total), total.1]);
        let mut text = format!("EcoLogits formula; {why}\n");
        let ends = [0, 1, 2].map(|i| {
            let (p, t, b, pue) = (at(&actives, i), at(&totals, i), f64::from(at(&assumed.batch, i)), at(&assumed.pue, i));
            let joules = ecologits(p, t, b) * pue;
            let _ = writeln!(
                text,
                "{:>4}: {p} B active, {t} B in all on {} accelerators, batch {b}, PUE {pue}: {joules:.4} J per output token",
                at(&["low", "mid", "high"], i),
                gpus(t)
            );
            joules
        });
        let input = prefill(active.0, active.1, assumed);
        let _ = write!(
            text,
            "prompt: 2 x active parameters x {JOULES_PER_FLOP:.2e} J per operation, at 60, 40, 20 % of peak"
        );
        let mut sorted = ends;
        sorted.sort_by(f64::total_cmp);
        let [low, mid, high] = sorted;
        Self {
            output: Joules::range(low, mid, high, Basis::Modelled),
            input,
            seconds_per_output: Some(ecologits_seconds(at(&actives, 1), f64::from(at(&assumed.batch, 1)))),
            derivation: text,
        }
    }
}

/// A model as people write it: `NAME`, or measured points of one set-up as `NAME@8xH100`, `NAME@H100` or `NAME@8xH100/fp8`.
pub fn stated(text: &str) -> EnergyModel {
    let Some((id, on)) = text.split_once('@') else { return EnergyModel::Named(text.to_owned()) };
    let (device, precision) = on.split_once('/').map_or((on, None), |(device, p)| (device, Some(p.to_owned())));
    let counted = device.split_once(['x', 'X']).and_then(|(n, gpu)| Some((n.parse::<u32>().ok()?, gpu)));
    let (gpus, gpu) = counted.map_or((None, device), |(n, gpu)| (Some(n), gpu));
    EnergyModel::PointsOn(id.to_owned(), SetUp { gpu: Some(gpu.to_owned()), gpus, precision })
}

/// EcoLogits' J per output token, host included, before PUE. `active` and `total` in billions of parameters.
pub fn ecologits(active: f64, total: f64, batch: f64) -> f64 {
    let accelerators = gpus(total);
    let one = (ECO_A * (ECO_B * batch).exp() * active + ECO_C) * JOULES_PER_WH;
    let host = SERVER_W * ecologits_seconds(active, batch) * accelerators / SERVER_GPUS / batch;
    one * accelerators + host
}

/// EcoLogits' seconds per output token.
pub fn ecologits_seconds(active: f64, batch: f64) -> f64 {
    let [a, b, c] = ECO_LATENCY;
    a * active + b * batch + c
}

/// Accelerators of 80 GB that hold the weights, a power of two.
pub fn gpus(total: f64) -> f64 {
    (ECO_ROOM * total * ECO_BYTES / ECO_MEMORY).log2().ceil().max(0.0).exp2()
}

/// J per prompt token by operations; billions of active parameters for low and high.
fn prefill(low: f64, high: f64, assumed: &Energy) -> Joules {
    let actives = [low, f64::midpoint(low, high), high];
    let [l, m, h] =
        [0, 1, 2].map(|i| 2.0 * at(&actives, i) * 1e9 * JOULES_PER_FLOP / at(&PREFILL_USE, i) * at(&assumed.pue, i));
    Joules::range(l, m, h, Basis::Modelled)
}

fn tell_points(id: &str, curves: &[&Curve], assumed: &Energy, ends: [f64; 3]) -> String {
    let mut text = format!("measured curves of {id} (ML.ENERGY, accelerators only) + host {SERVER_W} W per 8 x PUE\n");
    for (i, name) in ["low", "mid", "high"].into_iter().enumerate() {
        let _ = writeln!(
            text,
            "{name:>4}: batch {}, PUE {}, {} of {} set-ups: {:.4} J per output token",
            at(&assumed.batch, i),
            at(&assumed.pue, i),
            at(&["the best", "the middle", "the worst"], i),
            curves.len(),
            at(&ends, i)
        );
    }
    for curve in curves {
        let _ = writeln!(text, "  {}", curve.about());
    }
    text.push_str("batches outside a curve take its nearest end; prompts of the benchmark are inside these figures, and mid and high \
         add what reading a prompt takes");
    text
}

fn at<T: Copy + Default>(three: &[T; 3], i: usize) -> T {
    three.get(i).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSUMED: Energy = Energy::ASSUMED;

    #[test]
    fn the_formula_gives_the_stated_examples() {
        // 100 B active: 9.7e-5 Wh, 0.35 J per token and accelerator; 235 B in all: 8 accelerators, about 1.5 J.
        let one = (ECO_A * (ECO_B * 64.0).exp() * 100.0 + ECO_C) * JOULES_PER_WH;
        assert!((one - 0.35).abs() < 0.01, "{one}");
        assert_eq!(gpus(235.0), 8.0);
        assert_eq!(gpus(8.0), 1.0);
        let accelerators_only = (ECO_A * (ECO_B * 64.0).exp() * 22.0 + ECO_C) * JOULES_PER_WH * 8.0;
        assert!((accelerators_only - 1.53).abs() < 0.02, "{accelerators_only}");
        assert!(ecologits(22.0, 235.0, 64.0) > accelerators_only);
    }

    #[test]
    fn low_is_a_large_batch_and_every_figure_tells_how_it_came() {
        let stated = EnergyModel::Parameters { active: (8.0, 28.0), total: (8.0, 28.0) };
        let model = Model::new(&stated, &ASSUMED).unwrap().unwrap();
        let j = model.per_token();
        assert!(j.low < j.mid && j.mid < j.high && j.basis == Basis::Modelled, "{j:?}");
        assert!(model.derivation().contains("batch 256, PUE 1.1"), "{}", model.derivation());
        let stated = EnergyModel::Points("Qwen/Qwen3-235B-A22B-Instruct-2507".to_owned());
        let model = Model::new(&stated, &ASSUMED).unwrap().unwrap();
        let j = model.per_token();
        assert!(j.low < j.mid && j.mid < j.high, "{j:?}");
        assert!(model.derivation().contains("8x H100"), "{}", model.derivation());
        assert_eq!(Model::new(&EnergyModel::Unknown, &ASSUMED).unwrap().map(|_| ()), None);
    }

    #[test]
    fn a_name_is_measured_or_sized_or_neither() {
        let of = |id: &str| Model::new(&EnergyModel::Named(id.to_owned()), &ASSUMED);
        let sized = of("openai/gpt-4o-mini").unwrap().unwrap();
        let size = EnergyModel::Parameters { active: (8.0, 28.0), total: (8.0, 28.0) };
        assert_eq!(sized.per_token(), Model::new(&size, &ASSUMED).unwrap().unwrap().per_token());
        assert!(sized.derivation().contains("estimated by EcoLogits, not published"), "{}", sized.derivation());
        let measured = of("qwen3-235b-a22b-instruct-2507").unwrap().unwrap();
        assert!(measured.derivation().contains("measured curves"), "{}", measured.derivation());
        let on = Model::new(&stated("qwen3-235b-a22b-instruct-2507@8xH100/bfloat16"), &ASSUMED).unwrap().unwrap();
        assert!(on.derivation().contains("1 set-ups"), "{}", on.derivation());
        let why = Model::new(&stated("qwen3-235b-a22b-instruct-2507@8xH10"), &ASSUMED).unwrap_err();
        assert!(why.contains("did you mean `H100`"), "{why}");
        let why = of("gpt-4o-mni").unwrap_err();
        assert!(why.contains("`gpt-4o-mini`") && why.contains("active = "), "{why}");
    }

    #[test]
    fn a_named_set_up_gives_its_own_row() {
        let (id, assumed) = ("Qwen3-235B-A22B-Instruct-2507", Energy { batch: [16; 3], pue: [1.0; 3], ..ASSUMED });
        let on = SetUp { gpu: Some("h100".to_owned()), gpus: Some(8), precision: Some("bfloat16".to_owned()) };
        let model = Model::new(&EnergyModel::PointsOn(id.to_owned(), on), &assumed).unwrap().unwrap();
        let j = model.per_token();
        // One set-up has one figure: 5.1783 J of its accelerators, and 1.2 kW for the host over its tokens.
        let curves = points::curves(id).unwrap();
        let row = curves.iter().find(|c| c.gpu == "H100" && c.gpus == 8.0 && c.precision == "bfloat16").unwrap();
        assert!((row.at(16.0) - 5.1783).abs() < 1e-6);
        assert_eq!((j.low, j.mid, j.high), (Some(row.with_host(16.0)), j.low, j.low));
        assert!(model.derivation().contains("1 set-ups") && model.derivation().contains("8x H100, bfloat16"));
        let all = Model::new(&EnergyModel::Points(id.to_owned()), &assumed).unwrap().unwrap().per_token();
        assert!(all.low < all.high, "{all:?}");
    }

    #[test]
    fn a_local_answer_of_one_kilojoule_wins_or_loses_with_the_batch() {
        let curve = points::curves("Qwen3-235B-A22B-Instruct-2507").unwrap();
        let h100 = curve.iter().find(|c| c.gpu == "H100" && c.gpus == 8.0).unwrap();
        let answer = |batch: f64, tokens: f64| h100.at(batch) * tokens;
        let (few, many) = (answer(16.0, 865.0), answer(256.0, 874.0));
        assert!((few - 4480.0).abs() < 10.0 && (many - 955.0).abs() < 10.0, "{few} {many}");
        assert!((1.0 - 1000.0 / few - 0.78).abs() < 0.005);
        assert!((1000.0 / many - 1.0 - 0.05).abs() < 0.005);
    }
}
