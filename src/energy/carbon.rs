//! Grams of CO2e from joules: the mean carbon intensity of a place's grid, with what an hour may differ by.
//!
//! Invariant: an unknown place is an error with a suggestion, never a default; every figure tells its source and year.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Joules;
use crate::config::problem::did_you_mean;

/// Joules of one kWh.
const JOULES_PER_KWH: f64 = 3.6e6;
/// How far an hour lies from its year's mean, for low and high: an assumption. Grids with much wind, sun or water move more, coal moves less.
const HOURS: [f64; 2] = [0.6, 1.4];
/// The shipped places.
const CSV: &str = include_str!("../../eval/data/energy/grid.csv");
/// Cloud regions that their provider publishes no intensity of, and the country whose mean stands for them.
const REGIONS: &str = include_str!("../../eval/data/energy/regions.csv");
/// Who names regions.
const PROVIDERS: [&str; 3] = ["gcp:", "aws:", "azure:"];

static GRIDS: LazyLock<BTreeMap<String, Row>> = LazyLock::new(|| {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(CSV.as_bytes());
    let mut grids: BTreeMap<String, Row> =
        reader.deserialize::<Row>().filter_map(Result::ok).map(|row| (row.place.to_lowercase(), row)).collect();
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(REGIONS.as_bytes());
    for region in reader.deserialize::<Region>().filter_map(Result::ok) {
        let Some(country) = grids.get(&region.country.to_lowercase()).cloned() else { continue };
        let name = format!("{}, mean of {}", region.name, country.name);
        grids.insert(region.place.clone(), Row { place: region.place, name, ..country });
    }
    grids
});

#[derive(Clone, Debug, Deserialize)]
struct Row {
    place: String,
    name: String,
    grams_per_kwh: f64,
    year: u16,
    source: String,
}

#[derive(Debug, Deserialize)]
struct Region {
    place: String,
    name: String,
    country: String,
}

/// A place's grid, g CO2e per kWh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// A good hour.
    pub low: f64,
    /// Mean of the year.
    pub mid: f64,
    /// A bad hour.
    pub high: f64,
    /// The place and its name.
    pub place: String,
    /// Where the figure comes from, with its year.
    pub source: String,
}

/// Grams of CO2e.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Grams {
    /// Fewest joules in a good hour.
    pub low: f64,
    /// Middle joules at the year's mean.
    pub mid: f64,
    /// Most joules in a bad hour.
    pub high: f64,
}

/// The grid of a country (`DEU`, `Germany`), of a cloud region (`gcp:europe-west4`, `europe-west4`, `aws:eu-west-1`, `azure:westeurope`),
/// or a number of g CO2e per kWh. Regions of AWS and Azure count as their country's mean, and the place says so.
///
/// # Errors
/// A place that is not known, with the nearest one that is.
pub fn find(place: &str) -> Result<Grid, String> {
    let wanted = place.trim().to_lowercase();
    if let Ok(grams) = wanted.parse::<f64>() {
        if !(0.0..=2000.0).contains(&grams) {
            return Err("must be from 0 to 2000 g CO2e per kWh, or a place".to_owned());
        }
        return Ok(Grid {
            low: grams,
            mid: grams,
            high: grams,
            place: "as configured".to_owned(),
            source: "stated".to_owned(),
        });
    }
    let row = GRIDS
        .get(&wanted)
        .or_else(|| PROVIDERS.iter().find_map(|provider| GRIDS.get(&format!("{provider}{wanted}"))))
        .or_else(|| GRIDS.values().find(|row| row.name.to_lowercase() == wanted));
    let Some(row) = row else {
        let names: Vec<String> = GRIDS.values().map(|row| row.name.to_lowercase()).collect();
        let bare = |name| PROVIDERS.iter().find_map(|p| str::strip_prefix(name, p)).unwrap_or(name);
        let known = GRIDS.keys().chain(&names).map(|n| bare(n.as_str()));
        let near = did_you_mean(&wanted, known).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        return Err(format!("no such country, cloud region or number of g CO2e per kWh{near}"));
    };
    let [good, bad] = HOURS;
    let source = match row.source.as_str() {
        "gcp" => "Google Cloud region-carbon-info",
        _ => "Our World in Data",
    };
    Ok(Grid {
        low: row.grams_per_kwh * good,
        mid: row.grams_per_kwh,
        high: row.grams_per_kwh * bad,
        place: format!("{} ({})", row.place, row.name),
        source: format!("{source}, {}", row.year),
    })
}

impl Grid {
    /// Grams of these joules; none where they are not known.
    pub fn grams(&self, joules: Joules) -> Option<Grams> {
        let kwh = |j: Option<f64>| j.map(|j| j / JOULES_PER_KWH);
        Some(Grams {
            low: kwh(joules.low)? * self.low,
            mid: kwh(joules.mid)? * self.mid,
            high: kwh(joules.high)? * self.high,
        })
    }

    /// The figure and how it comes about, for people.
    pub fn derivation(&self) -> String {
        format!(
            "grid of {}: {:.0} g CO2e per kWh ({:.0} in a good hour, {:.0} in a bad one: an assumption); {}",
            self.place, self.mid, self.low, self.high, self.source
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;

    #[test]
    fn places_are_found_by_code_name_region_or_number() {
        for (text, mid) in [
            ("DEU", 381.0),
            ("germany", 381.0),
            ("gcp:europe-west4", 208.8),
            ("europe-west9", 16.3),
            ("412", 412.0),
            ("aws:eu-central-1", 381.0),
            ("germanynorth", 381.0),
        ] {
            let grid = find(text).unwrap();
            assert!((grid.mid - mid).abs() < 0.2 && grid.low <= grid.mid && grid.mid <= grid.high, "{text}: {grid:?}");
        }
        assert!(find("DEU").unwrap().derivation().contains("Our World in Data, 2023"));
        assert_eq!(find("eu-central-1").unwrap().place, "aws:eu-central-1 (Frankfurt, mean of Germany)");
        assert!(find("europe-wset4").unwrap_err().contains("did you mean"));
        assert!(find("Atlantis").is_err() && find("-3").is_err() && find("").is_err());
    }

    #[test]
    fn every_row_is_read_and_plausible() {
        let rows = CSV.lines().chain(REGIONS.lines()).filter(|l| !l.starts_with('#')).count() - 2;
        assert_eq!(GRIDS.len(), rows);
        assert!(GRIDS.values().all(|r| (0.0..1500.0).contains(&r.grams_per_kwh) && (2000..2030).contains(&r.year)));
    }

    #[test]
    fn grams_keep_the_range_of_the_joules_and_unknown_stays_unknown() {
        let grid = find("France").unwrap();
        let grams = grid.grams(Joules::range(1.8e6, 3.6e6, 7.2e6, Basis::Modelled)).unwrap();
        assert!(
            (grams.mid - 56.0).abs() < 0.1
                && (grams.low - 28.0 * 0.6).abs() < 0.1
                && (grams.high - 112.0 * 1.4).abs() < 0.2
        );
        assert_eq!(grid.grams(Joules::UNKNOWN), None);
    }
}
