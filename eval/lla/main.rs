//! The study of local linear attention: every part prints its result as one JSON object on standard output.
//!
//! ```text
//! lla-study regression DIM SEGMENT NOISE DRAWS TUNING_DRAWS SEED
//! lla-study recall PAIRS INVERSE_TEMPERATURE NOISE TRIALS SEED
//! lla-study train recall|regression softmax|lla|projection|linear|delta KEY=VALUE...
//! lla-study gradients
//! ```
//!
//! `run.py` beside this file calls it cell by cell and keeps the results.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measuring program on data it draws itself: results are printed, a wrong index should end it"
)]

mod attention;
mod dense;
mod linear;
mod mat;
mod model;
mod parameters;
mod recall;
mod regression;
mod tasks;
mod training;

use std::collections::HashMap;
use std::error::Error;
use std::str::FromStr;

use attention::Memory;
use model::Config;
use regression::Cell;
use training::Schedule;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |i: usize| args.get(i).map(String::as_str).ok_or_else(|| format!("argument {i} is missing"));
    let result = match text(0)? {
        "regression" => {
            let cell = Cell {
                dim: text(1)?.parse()?,
                segment: text(2)?.parse()?,
                noise: text(3)?.parse()?,
                draws: text(4)?.parse()?,
                tuning_draws: text(5)?.parse()?,
            };
            regression::run(&cell, text(6)?.parse()?)
        }
        "recall" => {
            let cell = recall::Cell {
                pairs: text(1)?.parse()?,
                inverse_temperature: text(2)?.parse()?,
                noise: text(3)?.parse()?,
                trials: text(4)?.parse()?,
            };
            recall::run(&cell, text(5)?.parse()?)?
        }
        "train" => train(text(1)?, text(2)?, args.get(3..).unwrap_or(&[]))?,
        "gradients" => training::gradients()?,
        other => return Err(format!("no part is called {other}").into()),
    };
    println!("{result}");
    Ok(())
}

fn train(task: &str, memory: &str, settings: &[String]) -> Result<serde_json::Value, Box<dyn Error>> {
    let memory = match memory {
        "softmax" => Memory::Softmax,
        "lla" => Memory::Lla,
        "projection" => Memory::Projection,
        "linear" => Memory::Linear,
        "delta" => Memory::Delta,
        other => return Err(format!("no memory is called {other}").into()),
    };
    let given: HashMap<&str, &str> = settings.iter().filter_map(|s| s.split_once('=')).collect();
    let recall = task == "recall";
    let config = Config {
        memory,
        layers: 2,
        width: number(&given, "width", if recall { 32 } else { 64 })?,
        heads: number(&given, "heads", 1)?,
        dim: number(&given, "dim", if recall { 16 } else { 32 })?,
        norms: number(&given, "norms", recall)?,
        gain: number(&given, "gain", false)?,
        ridge: number(&given, "ridge", 1.0)?,
        regression: if recall { None } else { Some(number(&given, "vector", 16)?) },
    };
    let schedule = Schedule {
        steps: number(&given, "steps", 1000)?,
        sequences: number(&given, "sequences", 16)?,
        rate: number(&given, "rate", if recall { 1e-2 } else { 3e-3 })?,
        decay: number(&given, "decay", 0.01)?,
    };
    training::run(config, schedule, number(&given, "seed", 1)?)
}

/// A setting by name, or its default.
fn number<T: FromStr>(given: &HashMap<&str, &str>, name: &str, default: T) -> Result<T, T::Err> {
    given.get(name).map_or(Ok(default), |text| text.parse())
}
