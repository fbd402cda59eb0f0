//! Configuration: [`raw`] mirrors the file, [`Config`] is what code uses. All problems are listed, each with its key path.
//!
//! Invariants: nobody else reads the environment; a secret never reaches a problem, a log line or `Debug`; what
//! [`Config`] holds needs no further checking. Sits beside the request path: [`watch`] swaps the whole of it.

pub mod address;
pub mod attention;
mod backends;
pub mod checked;
pub mod classify;
mod elsewhere;
pub mod energy;
pub mod env;
pub mod problem;
pub mod raw;
mod resolve;
pub mod schema;
mod server;
pub mod shadow;
mod source;
pub mod units;
mod upstream;
pub mod watch;
mod words;

use std::path::{Path, PathBuf};

pub use checked::Config;
pub use env::Around;
pub use problem::{Problem, Problems};

/// The file that is looked for when none is named.
pub const DEFAULT_FILE: &str = "wattroute.toml";

/// The configuration of a program started without a file.
const BUILTIN: &str = include_str!("../../examples/quickstart.toml");

/// Reads the named file, else `wattroute.toml` here if there is one, else the built-in quickstart.
///
/// # Errors
/// Every problem found, with key paths.
pub fn load(path: Option<&Path>) -> Result<Config, Problems> {
    load_with(path, Around::process())
}

/// [`load`] with given surroundings.
///
/// # Errors
/// Every problem found, with key paths.
pub fn load_with(path: Option<&Path>, mut around: Around) -> Result<Config, Problems> {
    let Some(file) = find(path) else { return parse_with(BUILTIN, None, &around) };
    let text = std::fs::read_to_string(&file)
        .map_err(|e| Problem::new("", format!("cannot be read: {}", e.kind())).file(file.display().to_string()))?;
    around.base = file.parent().map(Path::to_owned).unwrap_or_default();
    parse_with(&text, Some(&file), &around)
}

/// The quickstart: an embedded model, and a cloud backend that is on when its key is in the environment.
///
/// # Errors
/// Only overrides from the environment can be wrong.
pub fn builtin() -> Result<Config, Problems> {
    parse_with(BUILTIN, None, &Around::process())
}

/// Checks the text of a file in given surroundings. `file` names it in problems.
///
/// # Errors
/// Every problem found, with key paths and lines.
pub fn parse_with(text: &str, file: Option<&Path>, around: &Around) -> Result<Config, Problems> {
    let name = file.map(|f| f.display().to_string()).unwrap_or_default();
    let label = |mut problems: Problems, lines: &dyn Fn(&str) -> Option<usize>| {
        for p in &mut problems.0 {
            p.file.clone_from(&name);
            p.line = p.line.or_else(|| lines(&p.key));
        }
        problems.0.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
        problems
    };
    let source = source::read(text, &around.overrides).map_err(|p| label(p, &|_| None))?;
    let lines = source.lines.clone();
    let line = |key: &str| lines.get(key).copied();
    let mut config = resolve::resolve(source, around).map_err(|p| label(p, &line))?;
    config.file = file.map(Path::to_owned);
    Ok(config)
}

/// The file that [`load`] would read.
pub fn find(path: Option<&Path>) -> Option<PathBuf> {
    match path {
        Some(p) => Some(p.to_owned()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|p| p.exists()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Problems> {
        parse_with(text, Some(Path::new("wattroute.toml")), &Around::fixed(&[], Path::new("data")))
    }

    #[test]
    fn the_builtin_has_a_local_backend_and_a_cloud_one_that_says_why_it_is_off() {
        let config = parse_with(BUILTIN, None, &Around::fixed(&[], Path::new("data"))).unwrap();
        assert_eq!(&*config.backends[0].name, "local/smollm2");
        assert_eq!(&*config.backends[1].name, "cloud/openai");
        assert_eq!(config.backends[1].off.as_deref(), Some("OPENAI_API_KEY is not set"));
        let around = Around::fixed(&[("OPENAI_API_KEY", "sk-canary-0123456789")], Path::new("data"));
        let on = parse_with(BUILTIN, None, &around).unwrap();
        assert_eq!(on.backends[1].off, None);
        assert!(!format!("{on:?}").contains("canary"), "a key reached Debug");
    }

    #[test]
    fn all_problems_are_listed_with_lines_and_suggestions() {
        let text = "[server]\nlisten = \"everywhere\"\nworker = 3\n[backends.x]\nplace = \"local\"\nbase_url = \"ftp://h\"\nmodel = 7\n";
        let text = parse(text).unwrap_err().to_string();
        for want in [
            "wattroute.toml:2: server.listen: must be ADDRESS:PORT",
            "wattroute.toml:3: server.worker: unknown key; did you mean `workers`?",
            "wattroute.toml:6: backends.x.base_url: must start with https:// (got `ftp`); e.g. \"https://api.openai.com/v1\"",
            "wattroute.toml:7: backends.x.model: must be a string in quotes (got the number 7)",
        ] {
            assert!(text.contains(want), "{want}\nnot in\n{text}");
        }
    }

    #[test]
    fn the_environment_overrides_by_key_and_reads_text_by_type() {
        let around = Around::fixed(
            &[
                ("WATTROUTE__SERVER__LISTEN", "127.0.0.1:1234"),
                ("WATTROUTE__CACHE__ENABLED", "true"),
                ("WATTROUTE__SERVER__WORKERS", "3"),
                ("WATTROUTE__BACKENDS__OPENAI__MODEL", "gpt-x"),
            ],
            Path::new("data"),
        );
        let config = parse_with(BUILTIN, None, &around).unwrap();
        assert_eq!(config.server.listen.port(), 1234);
        assert_eq!(config.server.workers, 3);
        assert!(config.cache.enabled);
        let checked::Kind::OpenAi(endpoint) = &config.backends[1].kind else { panic!("wrong kind") };
        assert_eq!(&*endpoint.model, "gpt-x");
    }
}
