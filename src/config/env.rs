//! The process environment: the only place that reads it.
//!
//! Everything else gets an [`Around`], so that tests and `check` can say exactly what the surroundings are.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

/// Prefix of overrides: `WATTROUTE__SERVER__LISTEN` overrides `server.listen`.
pub const PREFIX: &str = "WATTROUTE__";

/// Looks up one variable of the environment.
pub type Lookup = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What lies around the configuration file: environment, folders, cores.
pub struct Around {
    /// Looks up one variable.
    pub var: Lookup,
    /// Variables that start with [`PREFIX`], name and value.
    pub overrides: Vec<(String, String)>,
    /// Folder for data of this user: the journal's default place.
    pub data: PathBuf,
    /// Relative paths of the file start here: the file's own folder.
    pub base: PathBuf,
    /// Cores that this process may use.
    pub cores: usize,
}

impl Around {
    /// The real surroundings.
    pub fn process() -> Self {
        Self { var: Box::new(var), overrides: overrides(), data: data_dir(), base: PathBuf::new(), cores: cores() }
    }

    /// Surroundings of a test: these variables and nothing else.
    pub fn fixed(vars: &[(&str, &str)], data: &Path) -> Self {
        let all: Vec<(String, String)> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let overrides = all.iter().filter(|(k, _)| k.starts_with(PREFIX)).cloned().collect();
        let look = move |name: &str| all.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        Self { var: Box::new(look), overrides, data: data.to_owned(), base: PathBuf::new(), cores: 2 }
    }
}

/// One variable; none if it is missing or not Unicode.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The user's folder for data, `~/.local/share/wattroute` on Linux; the current folder when there is no home.
pub fn data_dir() -> PathBuf {
    dirs::data_local_dir().unwrap_or_default().join("wattroute")
}

/// Cores that this process may use, at least 1.
pub fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn overrides() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(k, _)| k.starts_with(PREFIX))
        .collect()
}
