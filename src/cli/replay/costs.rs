//! What the command line of a replay states about energy, prices and places.

use crate::config::checked::{Energy, EnergyModel, Price};
use crate::energy::cloud;
use crate::replay::cost::{ELECTRICITY_USD_PER_KWH, Stated};

/// Assumptions about both sides' costs.
#[derive(clap::Args, Debug)]
pub struct Costs {
    /// Batch of the cloud's server for low, mid and high joules
    #[arg(long, num_args = 3, value_names = ["LOW", "MID", "HIGH"], default_values_t = Energy::ASSUMED.batch)]
    pub batch: Vec<u32>,
    /// Power usage effectiveness of the cloud for low, mid and high joules
    #[arg(long, num_args = 3, value_names = ["LOW", "MID", "HIGH"], default_values_t = Energy::ASSUMED.pue)]
    pub pue: Vec<f64>,
    /// Joules per output token of the local device
    #[arg(long, value_name = "J")]
    pub local_joules_per_token: Option<f64>,
    /// Output tokens per second of the local device
    #[arg(long, value_name = "N")]
    pub local_tokens_per_s: Option<f64>,
    /// Billions of parameters of the cloud model: ACTIVE, LOW:HIGH or LOW:HIGH/TOTAL; `unknown` for null joules; or a measured model's name
    #[arg(long, value_name = "SIZE|NAME")]
    pub cloud_params: Option<String>,
    /// US dollars per million prompt and answer tokens of the cloud model
    #[arg(long, num_args = 2, value_names = ["IN", "OUT"])]
    pub cloud_usd: Option<Vec<f64>>,
    /// US dollars per kWh of the local device
    #[arg(long, value_name = "USD", default_value_t = ELECTRICITY_USD_PER_KWH)]
    pub electricity: f64,
    /// Country or number of g CO2e per kWh of the local device
    #[arg(long, value_name = "PLACE")]
    pub local_region: Option<String>,
    /// Country, cloud region or number of g CO2e per kWh of the cloud
    #[arg(long, value_name = "PLACE")]
    pub cloud_region: Option<String>,
}

impl Costs {
    /// What the options say.
    ///
    /// # Errors
    /// Names the option and what it takes.
    pub fn stated(&self) -> Result<Stated, String> {
        let (Ok(batch), Ok(pue)) = (<[u32; 3]>::try_from(&*self.batch), <[f64; 3]>::try_from(&*self.pue)) else {
            return Err("--batch and --pue take three numbers each: for low, mid and high joules".to_owned());
        };
        if !(batch.iter().all(|b| (1..=65_536).contains(b)) && batch.is_sorted_by(|a, b| a >= b)) {
            return Err("--batch: largest first, from 1 to 65536".to_owned());
        }
        if !(pue.iter().all(|p| (1.0..=3.0).contains(p)) && pue.is_sorted()) {
            return Err("--pue: smallest first, from 1 to 3".to_owned());
        }
        let energy = Energy { batch, pue, ..Energy::ASSUMED };
        let positive = |x: &f64| *x >= 0.0 && x.is_finite();
        let cloud_price = match self.cloud_usd.as_deref() {
            Some([input, output]) if positive(input) && positive(output) => {
                Some(Price { input: *input, output: *output })
            }
            Some(_) => {
                return Err("--cloud-usd takes two numbers from 0 up: per million prompt and answer tokens".to_owned());
            }
            None => None,
        };
        if self.local_joules_per_token.is_some_and(|j| !positive(&j)) || !positive(&self.electricity) {
            return Err("--local-joules-per-token and --electricity must be from 0 up".to_owned());
        }
        Ok(Stated {
            energy,
            local_joules_per_token: self.local_joules_per_token,
            local_tokens_per_s: self.local_tokens_per_s,
            cloud: self.cloud_params.as_deref().map(size).transpose()?,
            cloud_price,
            electricity_usd_per_kwh: self.electricity,
            local_region: self.local_region.clone(),
            cloud_region: self.cloud_region.clone(),
        })
    }

    /// The options that differ from their defaults, as they are typed.
    pub fn command(&self) -> String {
        let list = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
        let batch: Vec<f64> = self.batch.iter().map(|b| f64::from(*b)).collect();
        let mut out = String::new();
        let mut add = |name: &str, said: Option<String>| {
            if let Some(said) = said {
                out.push_str(&format!(" {name} {said}"));
            }
        };
        add("--batch", (self.batch != Energy::ASSUMED.batch).then(|| list(&batch)));
        add("--pue", (self.pue != Energy::ASSUMED.pue).then(|| list(&self.pue)));
        add("--local-joules-per-token", self.local_joules_per_token.map(|x| x.to_string()));
        add("--local-tokens-per-s", self.local_tokens_per_s.map(|x| x.to_string()));
        add("--cloud-params", self.cloud_params.clone());
        add("--cloud-usd", self.cloud_usd.as_deref().map(list));
        add(
            "--electricity",
            ((self.electricity - ELECTRICITY_USD_PER_KWH).abs() > 1e-9).then(|| self.electricity.to_string()),
        );
        add("--local-region", self.local_region.clone());
        add("--cloud-region", self.cloud_region.clone());
        out
    }
}

/// `70`, `44:132`, `44:132/440`, `unknown` or a model's name.
fn size(text: &str) -> Result<EnergyModel, String> {
    if text == "unknown" {
        return Ok(EnergyModel::Unknown);
    }
    let pair = |part: &str| -> Option<(f64, f64)> {
        let (low, high) = part.split_once(':').unwrap_or((part, part));
        let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
        (low > 0.0 && low <= high && high.is_finite()).then_some((low, high))
    };
    let (active, total) = text.split_once('/').unwrap_or((text, text));
    match (pair(active), pair(total)) {
        (Some(active), Some(total)) => Ok(EnergyModel::Parameters { active, total }),
        _ => {
            let named = cloud::stated(text);
            cloud::Model::new(&named, &Energy::ASSUMED)
                .map_err(|e| format!("--cloud-params: neither a size (70, 44:132, 44:132/440) nor a model: {e}"))?;
            Ok(named)
        }
    }
}
