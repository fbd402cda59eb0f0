//! What an answer of either side costs: joules, dollars, seconds, by tokens. Every assumption is told in words.
//!
//! Order of sources, local joules: stated per token, a shipped table of the model, the assumption below, null. Cloud joules: stated
//! points or size, measured points of the model, its size from the log or the shipped list, an assumed size, null.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::checked::{Energy, EnergyModel, Price};
use crate::energy::carbon::{self, Grid};
use crate::energy::cloud::{self, Model as Cloud};
use crate::energy::{Basis, Joules};
use crate::tables;

use super::outcomes::Model;
use super::prices;

/// A local device at one query at a time reads all weights for every token: J per output token and billion active parameters, for
/// low, mid and high: bytes per weight x watts / (bytes per second x share reached). Low: 4-bit weights on a laptop-class chip of
/// 546 GB/s and 60 W at 70 %; mid: 4-bit on a 960 GB/s, 300 W workstation card at 60 %; high: 16-bit weights on that card.
const LOCAL_OUT: [f64; 3] = [0.56 * 60.0 / (546.0 * 0.7), 0.56 * 300.0 / (960.0 * 0.6), 2.0 * 300.0 / (960.0 * 0.6)];
/// The same per prompt token: two operations per parameter on a 300 W card of 180 tera-operations per second at 80, 40 and 20 %.
const LOCAL_IN: [f64; 3] = [2e9 * 300.0 / 180e12 / 0.8, 2e9 * 300.0 / 180e12 / 0.4, 2e9 * 300.0 / 180e12 / 0.2];
/// Seconds per output token and billion active parameters of the middle assumption, and per prompt token.
const LOCAL_SECONDS: [f64; 2] = [0.56 / (960.0 * 0.6), 2e9 / (180e12 * 0.4)];
/// Billions of active and all parameters assumed of a large model whose size nobody tells: what EcoLogits gives `gpt-4o`.
const LARGE: [(f64, f64); 2] = [(44.0, 132.0), (440.0, 440.0)];
/// The same of a model that its name calls small: what EcoLogits gives `gpt-4o-mini`.
const SMALL: [(f64, f64); 2] = [(8.0, 28.0), (8.0, 28.0)];
const SMALL_NAMES: [&str; 6] = ["mini", "flash", "haiku", "nano", "lite", "small"];
const JOULES_PER_KWH: f64 = 3.6e6;
/// A household price of the dearer European countries; `--electricity` states another.
pub const ELECTRICITY_USD_PER_KWH: f64 = 0.30;
/// How far a stated figure may be off, for low and high.
const STATED_SPREAD: f64 = 0.3;

/// What the command line states.
#[derive(Clone, Debug)]
pub struct Stated {
    /// Batch of the cloud's server and PUE for low, mid and high.
    pub energy: Energy,
    /// J per output token of the local device.
    pub local_joules_per_token: Option<f64>,
    /// Output tokens per second of the local device.
    pub local_tokens_per_s: Option<f64>,
    /// Billions of active and all parameters of the cloud model; `Unknown` asks for null joules.
    pub cloud: Option<EnergyModel>,
    /// US dollars per million tokens of the cloud model.
    pub cloud_price: Option<Price>,
    /// US dollars per kWh of the local device.
    pub electricity_usd_per_kwh: f64,
    /// Where the local device stands.
    pub local_region: Option<String>,
    /// Where the cloud model runs.
    pub cloud_region: Option<String>,
}

impl Stated {
    /// Nothing stated but the assumptions about the cloud's server.
    pub fn assumed(energy: Energy) -> Self {
        Self {
            energy,
            local_joules_per_token: None,
            local_tokens_per_s: None,
            cloud: None,
            cloud_price: None,
            electricity_usd_per_kwh: ELECTRICITY_USD_PER_KWH,
            local_region: None,
            cloud_region: None,
        }
    }
}

/// One side's cost of tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tariff {
    /// J per output token.
    pub output: Joules,
    /// J per prompt token.
    pub input: Joules,
    /// US dollars per token, prompt and answer.
    pub price: Option<[f64; 2]>,
    /// US dollars per joule, where electricity is the price.
    pub electricity: Option<f64>,
    /// Seconds per prompt token and per output token.
    pub seconds: Option<[f64; 2]>,
    /// Carbon intensity of its place.
    pub grid: Option<Grid>,
    /// Where each figure comes from.
    pub notes: Vec<String>,
}

/// What one answer costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// J, low, mid and high.
    pub joules: Option<[f64; 3]>,
    /// US dollars.
    pub usd: Option<f64>,
    /// Seconds of service, without waiting.
    pub seconds: Option<f64>,
}

impl Tariff {
    /// J of an answer.
    pub fn joules(&self, input: f64, output: f64) -> Joules {
        self.output.times(output).plus(self.input.times(input))
    }

    /// All that an answer costs. Logged dollars and seconds come before the tariff's.
    pub fn cost(&self, input: f64, output: Option<f64>, usd: Option<f64>, seconds: Option<f64>) -> Cost {
        let joules = output.map(|o| self.joules(input, o));
        let joules = joules.and_then(|j| Some([j.low?, j.mid?, j.high?]));
        let priced = || match (self.price, self.electricity) {
            (Some([i, o]), _) => output.map(|out| i * input + o * out),
            (None, Some(per_joule)) => joules.map(|[_, mid, _]| mid * per_joule),
            (None, None) => None,
        };
        let modelled = || Some(self.seconds?).zip(output).map(|([i, o], out)| i * input + o * out);
        Cost { joules, usd: usd.or_else(priced), seconds: seconds.or_else(modelled) }
    }
}

/// The local side's tariff; `own` is its table where one is named, else a shipped one of the model is looked for.
///
/// # Errors
/// A region that is not known.
pub fn local(model: &Model, own: Option<Arc<tables::Table>>, stated: &Stated) -> Result<Tariff, String> {
    let table = own.or_else(|| tables::shipped(&model.id));
    let active = model.active_b.or_else(|| cloud::sizes::size(&model.id).map(|s| s.active().0)).or(model.params_b);
    let mut notes = Vec::new();
    let (output, input) = local_joules(model, stated, table.as_deref(), active, &mut notes);
    let [per_out, per_in] = LOCAL_SECONDS;
    let table_rate = table.as_deref().and_then(|t| t.tokens.output_tokens_per_s);
    let seconds = match (stated.local_tokens_per_s.or(table_rate), active) {
        (Some(rate), active) => Some([active.map_or(0.0, |a| per_in * a), 1.0 / rate]),
        (None, Some(a)) => Some([per_in * a, per_out * a]),
        (None, None) => None,
    };
    if let Some([_, s]) = seconds {
        let from = match (stated.local_tokens_per_s, table_rate) {
            (Some(_), _) => "as stated",
            (None, Some(_)) => "the table's",
            (None, None) => "assumed: 4-bit weights on a 960 GB/s card at 60 %",
        };
        notes.push(format!("local speed where the log has no latency: {:.1} output tokens/s, {from}", 1.0 / s));
    }
    notes.push(format!(
        "local dollars: electricity alone at {} US$ per kWh; the device itself is not counted",
        stated.electricity_usd_per_kwh
    ));
    let electricity = Some(stated.electricity_usd_per_kwh / JOULES_PER_KWH);
    let grid =
        stated.local_region.as_deref().map(carbon::find).transpose().map_err(|e| format!("--local-region: {e}"))?;
    notes.extend(grid.as_ref().map(|g| format!("local {}", g.derivation())));
    Ok(Tariff { output, input, price: None, electricity, seconds, grid, notes })
}

/// J per output and per prompt token: as stated, by the model's table, by its size, or unknown.
fn local_joules(
    model: &Model,
    stated: &Stated,
    table: Option<&tables::Table>,
    active: Option<f64>,
    notes: &mut Vec<String>,
) -> (Joules, Joules) {
    let around = |mid: f64, spread: f64, basis| Joules::range(mid * (1.0 - spread), mid, mid * (1.0 + spread), basis);
    if let Some(j) = stated.local_joules_per_token {
        let spread = STATED_SPREAD * 100.0;
        notes.push(format!("local energy: {j} J per output token as stated, +-{spread:.0} %, prompts inside"));
        return (around(j, STATED_SPREAD, Basis::Modelled), Joules::range(0.0, 0.0, 0.0, Basis::Modelled));
    }
    let measured = table.and_then(|t| Some((t, t.tokens.joules_per_output_token?)));
    if let Some((table, j)) = measured.filter(|(t, _)| t.basis != Basis::Unknown) {
        notes.push(format!("local energy: the table of {} on {} ({})", model.id, table.device, table.basis.name()));
        let spread = table.tokens.relative_uncertainty.unwrap_or(0.5).clamp(0.0, 1.0);
        let input = table.tokens.joules_per_input_token.unwrap_or(0.0);
        return (around(j, spread, table.basis), around(input, spread, table.basis));
    }
    let Some(active) = active else {
        notes.push(format!("local energy: unknown, as nothing tells the size of {}; null", model.id));
        return (Joules::UNKNOWN, Joules::UNKNOWN);
    };
    let assumed =
        |[low, mid, high]: [f64; 3]| Joules::range(low * active, mid * active, high * active, Basis::Modelled);
    let [low, mid, high] = LOCAL_OUT.map(|j| j * active);
    notes.push(format!(
        "local energy: no table of {} has joules, so assumed (modelled) for {active} B active parameters, one query at a time: \
         {low:.2} / {mid:.2} / {high:.2} J per output token (4-bit on a 60 W laptop chip / 4-bit on a 300 W card / 16-bit on that \
         card); --local-joules-per-token states your own",
        model.id
    ));
    (assumed(LOCAL_OUT), assumed(LOCAL_IN))
}

/// The cloud side's tariff.
///
/// # Errors
/// A region or a name of measured points that is not known.
pub fn cloud(model: &Model, stated: &Stated) -> Result<Tariff, String> {
    let mut notes = Vec::new();
    let (found, why) = energy_of(model, stated);
    let made = Cloud::new(&found, &stated.energy)?;
    notes.push(match &made {
        Some(m) => format!("cloud energy ({why}): {}", m.derivation().trim().replace('\n', "; ")),
        None => format!("cloud energy: {why}"),
    });
    let listed = prices::price(&model.id);
    let price = stated.cloud_price.or(listed.as_ref().map(|(p, _)| *p));
    notes.push(match (stated.cloud_price, &listed) {
        (Some(p), _) => format!("cloud price: {} / {} US$ per million tokens as stated", p.input, p.output),
        (None, Some((p, whose))) => format!("cloud price where the log has none: {} / {} US$ per million tokens ({whose}, list of 22 Nov 2026)", p.input, p.output),
        (None, None) => format!("cloud price: unknown, {} is not in the shipped list; null unless the log has cost_usd or --cloud-usd states it", model.id),
    });
    let grid =
        stated.cloud_region.as_deref().map(carbon::find).transpose().map_err(|e| format!("--cloud-region: {e}"))?;
    notes.extend(grid.as_ref().map(|g| format!("cloud {}", g.derivation())));
    let seconds = made.as_ref().and_then(|m| m.seconds_per_output).map(|s| [0.0, s]);
    let (output, input) = made.map_or((Joules::UNKNOWN, Joules::UNKNOWN), |m| (m.output, m.input));
    let price = price.map(|p| [p.input / 1e6, p.output / 1e6]);
    Ok(Tariff { output, input, price, electricity: None, seconds, grid, notes })
}

/// The energy model of a cloud model, and where it comes from.
pub fn energy_of(model: &Model, stated: &Stated) -> (EnergyModel, String) {
    if let Some(own) = &stated.cloud {
        return match own {
            EnergyModel::Unknown => (EnergyModel::Unknown, "unknown, as stated; null".to_owned()),
            other => (other.clone(), "as stated".to_owned()),
        };
    }
    let id = model.id.split('@').next().unwrap_or(&model.id);
    let tail = id.rsplit('/').next().unwrap_or(id);
    if let Some(name) = [id, tail].into_iter().find(|n| cloud::points::curves(n).is_ok()) {
        return (EnergyModel::Points(name.to_owned()), "measured elsewhere".to_owned());
    }
    if let Some(total) = model.params_b {
        let active = model.active_b.unwrap_or(total);
        let dense = if model.active_b.is_none() { ", taken as dense" } else { "" };
        return (
            EnergyModel::Parameters { active: (active, active), total: (total, total) },
            format!("{total} B parameters by the log{dense}"),
        );
    }
    if let Some(size) = cloud::sizes::size(id) {
        return (EnergyModel::Parameters { active: size.active(), total: size.total() }, size.how().to_owned());
    }
    let low = tail.to_lowercase();
    let small = low.split(['-', '_', '.', ':']).any(|word| SMALL_NAMES.contains(&word));
    let [active, total] = if small { SMALL } else { LARGE };
    let like = if small { "gpt-4o-mini" } else { "gpt-4o" };
    let why = format!(
        "size of {} is not published: assumed like EcoLogits' estimate of {like}; --cloud-params states another, `unknown` asks for null",
        model.id
    );
    (EnergyModel::Parameters { active, total }, why)
}

/// The same model under another batch and PUE.
pub fn at_batch(model: &Model, stated: &Stated, batch: u32, pue: f64) -> Option<Cloud> {
    let energy = Energy { batch: [batch; 3], pue: [pue; 3], ..stated.energy.clone() };
    Cloud::new(&energy_of(model, stated).0, &energy).ok().flatten()
}
