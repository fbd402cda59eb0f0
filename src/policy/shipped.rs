//! The policies inside this program, and how a name finds its file.

use std::path::Path;
use std::sync::Arc;

use super::file::{is_name, parse};
use super::rules::Policy;
use crate::config::problem::{Problem, Problems, did_you_mean, shown};

/// Shipped policies: name and text.
const FILES: &[(&str, &str)] = &[
    ("all-cloud", include_str!("../../policies/all-cloud.toml")),
    ("all-local", include_str!("../../policies/all-local.toml")),
    ("balanced", include_str!("../../policies/balanced.toml")),
    ("bandit", include_str!("../../policies/bandit.toml")),
    ("cascade", include_str!("../../policies/cascade.toml")),
    ("coverage-threshold", include_str!("../../policies/coverage-threshold.toml")),
    ("fast", include_str!("../../policies/fast.toml")),
    ("green", include_str!("../../policies/green.toml")),
    ("private", include_str!("../../policies/private.toml")),
    ("quality", include_str!("../../policies/quality.toml")),
];

/// Names of the shipped policies.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Loads a policy: a path (it has a slash or ends in `.toml`), else `NAME.toml` in `folder`, else the shipped one.
/// A name that a client sent must have passed as a name before: only configuration may give a path.
///
/// # Errors
/// No such policy, or every problem of its file.
pub fn load(name: &str, folder: Option<&Path>) -> Result<Arc<Policy>, Problems> {
    let (text, file) = text(name, folder)?;
    parse(&text, &file).map(Arc::new)
}

/// The text of a policy's file, found as [`load`] finds it, and what problems call the file.
///
/// # Errors
/// No such policy, or its file cannot be read.
pub fn text(name: &str, folder: Option<&Path>) -> Result<(String, String), Problems> {
    if name.contains(['/', '\\']) || name.ends_with(".toml") {
        let path = Path::new(name);
        let here = folder.map(|f| f.join(path)).filter(|p| path.is_relative() && p.exists());
        return read(here.as_deref().unwrap_or(path));
    }
    if !is_name(name) {
        let text = format!("a policy's name is 1 to 64 of a-z, 0-9, `-`, `_` (got {})", shown(name));
        return Err(Problem::new("", text).into());
    }
    if let Some(path) = folder.map(|f| f.join(format!("{name}.toml"))).filter(|p| p.exists()) {
        return read(&path);
    }
    match FILES.iter().find(|(n, _)| *n == name) {
        Some((n, text)) => Ok(((*text).to_owned(), format!("policies/{n}.toml"))),
        None => {
            let near = did_you_mean(name, names()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            let known = names().collect::<Vec<_>>().join(", ");
            Err(Problem::new("", format!("no policy `{name}`{near} Shipped: {known}")).into())
        }
    }
}

fn read(path: &Path) -> Result<(String, String), Problems> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((text, name)),
        Err(e) => Err(Problem::new("", format!("cannot be read: {}", e.kind())).file(name).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_probes;
    use super::*;
    use crate::classify::Classifier;

    #[test]
    fn every_shipped_policy_loads_is_named_after_its_file_and_has_probes() {
        for name in names() {
            let policy = load(name, None).unwrap();
            assert_eq!(&*policy.name, name);
            assert!(!policy.probes.is_empty(), "{name}");
        }
    }

    #[test]
    fn every_probe_of_every_shipped_policy_goes_where_it_must() {
        let classifier = Classifier::shipped();
        for name in names() {
            let policy = load(name, None).unwrap();
            for checked in run_probes(&policy, |text| classifier.posterior(text)) {
                assert!(checked.ok, "{name}: {}", checked.text);
            }
        }
    }

    #[test]
    fn a_folder_comes_before_the_shipped_ones_and_a_wrong_name_gets_a_suggestion() {
        let folder = tempfile::tempdir().unwrap();
        let mine = "name = \"balanced\"\nabout = \"Mine.\"\n[rule]\nkind = \"all-local\"\n";
        std::fs::write(folder.path().join("balanced.toml"), mine).unwrap();
        assert_eq!(load("balanced", Some(folder.path())).unwrap().about, "Mine.");
        assert_eq!(load("./balanced.toml", Some(folder.path())).unwrap().about, "Mine.");
        assert_eq!(load("private", Some(folder.path())).unwrap().about, "No query leaves this machine.");
        let e = load("balansed", None).unwrap_err().to_string();
        assert!(e.starts_with("no policy `balansed`; did you mean `balanced`?"), "{e}");
        assert!(load("no/such.toml", None).is_err());
        assert!(load("", None).is_err());
    }
}
