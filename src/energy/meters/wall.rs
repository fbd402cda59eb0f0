//! A meter at the plug that the user configured: a file that holds watts, or a program that prints them.

use std::path::PathBuf;

use crate::config::checked::Wall as Source;
use crate::energy::Basis;
use crate::energy::meters::piped::{Piped, watts};
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading};

/// Smart plugs renew their figure about once a second.
const RENEWED_S: f64 = 1.0;

/// The machine at the plug.
pub enum Wall {
    /// Read from a file.
    File([Rail; 1], PathBuf),
    /// Read from a program.
    Program(Piped),
}

impl Wall {
    /// Opens the configured source.
    ///
    /// # Errors
    /// The file holds no number, or the program cannot be started.
    pub fn open(source: &Source) -> Result<Self, Absent> {
        let rail = |device: String| Rail {
            name: "wall/plug".to_owned(),
            device,
            part: Part::Wall,
            basis: Basis::Power,
            uncertainty: None,
            renewed_s: RENEWED_S,
            cap_w: None,
        };
        match source {
            Source::File(file) => {
                let meter = Self::File([rail(file.display().to_string())], file.clone());
                match read(file) {
                    Ok(_) => Ok(meter),
                    Err(why) => Err(Absent { meter: "wall", why, fix: Some("write watts as one number".to_owned()) }),
                }
            }
            Source::Program(words) => {
                let Some((program, arguments)) = words.split_first() else {
                    return Err(Absent { meter: "wall", why: "the program is empty".to_owned(), fix: None });
                };
                Piped::start("wall", vec![rail(program.clone())], program, arguments, watts).map(Self::Program)
            }
        }
    }
}

impl Meter for Wall {
    fn rails(&self) -> &[Rail] {
        match self {
            Self::File(rails, _) => rails,
            Self::Program(piped) => piped.rails(),
        }
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        match self {
            Self::Program(piped) => piped.read(out),
            Self::File(_, file) => {
                out.clear();
                out.push(read(file).map_or(Reading::Missing, Reading::Watts));
            }
        }
    }
}

fn read(file: &PathBuf) -> Result<f64, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let figure = watts(&text).and_then(|w| w.first().copied());
    figure.ok_or_else(|| format!("{}: not a number of watts", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_is_read_each_time_and_a_bad_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("watts");
        let open = || Wall::open(&Source::File(file.clone()));
        assert!(open().err().unwrap().why.contains("watts: "));
        std::fs::write(&file, "a lot").unwrap();
        assert!(open().err().unwrap().why.ends_with("not a number of watts"));
        std::fs::write(&file, "61.5 W\n").unwrap();
        let mut meter = open().unwrap();
        let mut out = Vec::new();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Watts(61.5)]);
        std::fs::remove_file(&file).unwrap();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Missing]);
    }

    #[test]
    fn a_programs_lines_are_read_as_they_come() {
        let words = ["sh", "-c", "echo starting; echo 41.0; sleep 60"].map(str::to_owned).to_vec();
        let mut meter = Wall::open(&Source::Program(words)).unwrap();
        let mut out = Vec::new();
        for _ in 0..400 {
            meter.read(&mut out);
            if out != [Reading::Missing] {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(out, [Reading::Watts(41.0)]);
        let missing = vec!["no-such-program-anywhere".to_owned()];
        assert!(Wall::open(&Source::Program(missing)).err().unwrap().fix.unwrap().contains("no-such-program-anywhere"));
        assert!(Wall::open(&Source::Program(Vec::new())).is_err());
    }
}
