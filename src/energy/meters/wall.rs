//! A meter at the plug that the user configured: a file that holds watts, or a program that prints them.

use std::path::Path;
use std::time::Duration;

use crate::config::checked::Wall as Source;
use crate::energy::Basis;
use crate::energy::meters::figure::Figure;
use crate::energy::meters::piped::{Piped, watts};
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading};

/// Smart plugs renew their figure about once a second.
const RENEWED_S: f64 = 1.0;
/// A program has this long to print its first figure; else the machine's other meters are its total.
const FIRST: Duration = Duration::from_secs(3);

/// Room for a number and its unit.
const LINE: usize = 128;

/// The machine at the plug.
pub enum Wall {
    /// Read from a file.
    File([Rail; 1], Figure),
    /// Read from a program.
    Program(Piped),
}

impl Wall {
    /// Opens the configured source.
    ///
    /// # Errors
    /// The file holds no number, or the program cannot be started or prints none within [`FIRST`], for which this waits.
    pub fn open(source: &Source) -> Result<Self, Absent> {
        Self::open_within(source, FIRST)
    }

    fn open_within(source: &Source, patience: Duration) -> Result<Self, Absent> {
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
                let mut figure = Figure::of(file.clone());
                match read(&mut figure, file) {
                    Ok(_) => Ok(Self::File([rail(file.display().to_string())], figure)),
                    Err(why) => Err(Absent { meter: "wall", why, fix: Some("write watts as one number".to_owned()) }),
                }
            }
            Source::Program(words) => {
                let Some((program, arguments)) = words.split_first() else {
                    return Err(Absent { meter: "wall", why: "the program is empty".to_owned(), fix: None });
                };
                let piped = Piped::start("wall", vec![rail(program.clone())], program, arguments, watts)?;
                match piped.first(patience) {
                    Ok(()) => Ok(Self::Program(piped)),
                    Err(why) => {
                        let fix = Some("let it print watts, one number a line, and go on".to_owned());
                        Err(Absent { meter: "wall", why, fix })
                    }
                }
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
                out.push(figure(file).map_or(Reading::Missing, Reading::Watts));
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        match self {
            Self::Program(piped) => piped.trouble(),
            Self::File([rail], _) => read(&mut Figure::of(rail.device.clone().into()), Path::new(&rail.device)).err(),
        }
    }
}

fn figure(file: &mut Figure) -> Option<f64> {
    watts(file.text(&mut [0; LINE])?)?.first().copied()
}

fn read(file: &mut Figure, path: &Path) -> Result<f64, String> {
    if let Err(e) = std::fs::metadata(path) {
        return Err(format!("{}: {e}", path.display()));
    }
    figure(file).ok_or_else(|| format!("{}: not a number of watts", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let program = |script: &str| Source::Program(["sh", "-c", script].map(str::to_owned).to_vec());
        let patience = Duration::from_secs(20);
        let mut meter = Wall::open_within(&program("echo starting; echo 41.0; exec sleep 60"), patience).unwrap();
        let mut out = Vec::new();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Watts(41.0)]);
        let failed = Wall::open_within(&program("echo who are you >&2; exit 1"), patience).err().unwrap();
        assert_eq!(failed.why, "sh has ended (exit status: 1): who are you");
        let missing = vec!["no-such-program-anywhere".to_owned()];
        assert!(Wall::open(&Source::Program(missing)).err().unwrap().fix.unwrap().contains("no-such-program-anywhere"));
        assert!(Wall::open(&Source::Program(Vec::new())).is_err());
    }
}
