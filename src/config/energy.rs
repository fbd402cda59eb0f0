//! `[energy]` and `learning`: what is assumed of the cloud, what is known of this machine, and whether tables follow the traffic.

use super::checked::{Energy, Wall};
use super::env::Around;
use super::problem::{Problems, shown};
use super::{raw, words};
use crate::policy::types::Place;

/// Whether estimates follow the gateway's own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learn {
    /// They do.
    On,
    /// They stay where they are: what was learned before is in force.
    Frozen,
    /// The tables alone are in force.
    Off,
}

impl Learn {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Frozen => "frozen",
            Self::Off => "off",
        }
    }
}

/// Which of the set-ups that a model was measured on; what is none may be any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetUp {
    /// Accelerator, such as `H100`.
    pub gpu: Option<String>,
    /// How many of them.
    pub gpus: Option<u32>,
    /// Weights' precision, such as `bfloat16` or `fp8`.
    pub precision: Option<String>,
}

/// Where a backend's joules come from when its table has none.
#[derive(Debug, Clone)]
pub enum EnergyModel {
    /// The table's J per token.
    Table,
    /// Measured curve of this model id in the shipped points, low/mid/high over batch.
    Points(String),
    /// The same, of certain set-ups only.
    PointsOn(String, SetUp),
    /// A model by name: its measured curves, else EcoLogits' formula with the size that the shipped list has.
    Named(String),
    /// EcoLogits' formula from active and total parameters in billions (low, high).
    Parameters { active: (f64, f64), total: (f64, f64) },
    /// Not known.
    Unknown,
}

impl Energy {
    /// What holds where nothing is configured: a provider under heavy load, the middle of the measured curves, a lightly loaded
    /// one; and nothing known of this machine.
    pub const ASSUMED: Self = Self {
        batch: [256, 64, 16],
        pue: [1.1, 1.2, 1.4],
        cpu_tdp_w: None,
        region: None,
        wall: None,
        sysfs: std::path::PathBuf::new(),
        read_meters: false,
    };
}

/// Checks `[energy]`.
pub fn checked(raw: &raw::Energy, around: &Around, problems: &mut Problems) -> Option<Energy> {
    let batch = triple(raw.batch.as_deref().unwrap_or(&Energy::ASSUMED.batch.map(f64::from)));
    let batch = batch.filter(|[a, b, c]| {
        a >= b && b >= c && *c >= 1.0 && *a <= 65_536.0 && [a, b, c].iter().all(|x| x.fract() == 0.0)
    });
    let batch = batch.ok_or_else(|| {
        "must be three whole numbers for low, mid and high joules, largest first, e.g. [256, 64, 16]".to_owned()
    });
    let batch = problems.keep("energy.batch", batch);
    // The best published fleets, a large provider's average, an ordinary data centre.
    let pue = triple(raw.pue.as_deref().unwrap_or(&Energy::ASSUMED.pue))
        .filter(|[a, b, c]| 1.0 <= *a && a <= b && b <= c && *c <= 3.0);
    let pue = problems.keep(
        "energy.pue",
        pue.ok_or_else(|| "must be three numbers from 1 to 3, smallest first, e.g. [1.1, 1.2, 1.4]".to_owned()),
    );
    let tdp = match raw.cpu_tdp_w {
        Some(w) if !(1.0..=2000.0).contains(&w) => {
            problems.keep("energy.cpu_tdp_w", Err("must be from 1 to 2000 W".to_owned()))
        }
        other => Some(other),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and from 1 to 65536, checked above"
    )]
    let batch = batch?.map(|b| b as u32);
    let wall = wall(raw, around, problems);
    let sysfs = around.base.join(raw.sysfs.as_deref().unwrap_or("/sys"));
    let read_meters = raw.read_meters.unwrap_or(true);
    let region = raw.region.clone();
    Some(Energy { batch, pue: pue?, cpu_tdp_w: tdp?, region, wall, sysfs, read_meters })
}

/// A file relative to the configuration, or a program by its words; whether they can be read is for `wattroute energy`.
fn wall(raw: &raw::Energy, around: &Around, problems: &mut Problems) -> Option<Wall> {
    match (raw.wall_file.as_deref(), &raw.wall_command) {
        (Some(_), Some(_)) => {
            problems.add("energy.wall_command", "stands alone: remove wall_file or this".to_owned());
            None
        }
        (Some(file), None) => Some(Wall::File(around.base.join(file))),
        (None, Some(command)) => problems.keep("energy.wall_command", program(command)).map(Wall::Program),
        (None, None) => None,
    }
}

/// A program and its arguments.
fn program(command: &raw::Words) -> Result<Vec<String>, String> {
    let words = match command {
        raw::Words::Line(line) => words::split(line)?,
        raw::Words::List(words) => words.clone(),
    };
    match words.first() {
        Some(program) if !program.trim().is_empty() => Ok(words),
        _ => Err("is empty: name a program that prints watts".to_owned()),
    }
}

/// Whether tables follow the traffic.
pub fn learning(word: Option<&str>, problems: &mut Problems) -> Learn {
    match word {
        None | Some("on") => Learn::On,
        Some("frozen") => Learn::Frozen,
        Some("off") => Learn::Off,
        Some(other) => {
            problems.add("learning", format!("must be on, frozen or off (got {})", shown(other)));
            Learn::Off
        }
    }
}

/// Checks `[backends.NAME.energy]`; `at` is the backend's key.
pub fn of_backend(
    raw: &raw::BackendEnergy,
    place: Option<Place>,
    at: &str,
    problems: &mut Problems,
) -> Option<EnergyModel> {
    let stated = [("gpu", raw.gpu.is_some()), ("gpus", raw.gpus.is_some()), ("precision", raw.precision.is_some())];
    if let (None, Some((name, _))) = (&raw.points, stated.iter().find(|(_, stated)| *stated)) {
        problems.add(format!("{at}.energy.{name}"), "is of measured points: it needs energy.points");
        return None;
    }
    if let Some(id) = &raw.model {
        if raw.points.is_some() || raw.active.is_some() || raw.total.is_some() {
            problems.add(format!("{at}.energy.model"), "stands alone: remove points, active and total");
            return None;
        }
        return Some(EnergyModel::Named(id.clone()));
    }
    let mut pair = |name: &str, values: &[f64]| match values {
        [one] if *one > 0.0 && *one < 1e6 => Some((*one, *one)),
        [low, high] if *low > 0.0 && low <= high && *high < 1e6 => Some((*low, *high)),
        _ => problems
            .keep(&format!("{at}.energy.{name}"), Err("must be billions of parameters: [8] or [low, high]".to_owned())),
    };
    match (&raw.points, &raw.active, &raw.total) {
        (Some(id), None, None) => {
            let count = |n: i64| u32::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| "must be 1 or more".to_owned());
            let gpus = match raw.gpus {
                Some(n) => Some(problems.keep(&format!("{at}.energy.gpus"), count(n))?),
                None => None,
            };
            let on = SetUp { gpu: raw.gpu.clone(), gpus, precision: raw.precision.clone() };
            let any = on == SetUp::default();
            Some(if any { EnergyModel::Points(id.clone()) } else { EnergyModel::PointsOn(id.clone(), on) })
        }
        (None, Some(active), total) => {
            let active = pair("active", active);
            let total = total.as_ref().map_or(active, |t| pair("total", t));
            Some(EnergyModel::Parameters { active: active?, total: total? })
        }
        (None, None, Some(_)) => {
            problems.keep(&format!("{at}.energy.active"), Err("is missing: total needs active".to_owned()))
        }
        (Some(_), _, _) => {
            problems.keep(&format!("{at}.energy.points"), Err("stands alone: remove active and total".to_owned()))
        }
        (None, None, None) if place == Some(Place::Local) => Some(EnergyModel::Table),
        (None, None, None) => Some(EnergyModel::Unknown),
    }
}

fn triple(values: &[f64]) -> Option<[f64; 3]> {
    values.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_line_as_in_a_shell_or_a_list_of_words() {
        let line = |text: &str| program(&raw::Words::Line(text.to_owned()));
        assert_eq!(line("sh -c 'echo 5; sleep 1'").unwrap(), ["sh", "-c", "echo 5; sleep 1"]);
        assert_eq!(line("sh -c 'echo").unwrap_err(), "has a ' that is not closed");
        let list = raw::Words::List(["sh", "-c", "echo 5"].map(str::to_owned).to_vec());
        assert_eq!(program(&list).unwrap(), ["sh", "-c", "echo 5"]);
        for empty in [raw::Words::Line(" ".to_owned()), raw::Words::List(vec![]), raw::Words::List(vec![String::new()])]
        {
            assert!(program(&empty).unwrap_err().starts_with("is empty"));
        }
    }
}
