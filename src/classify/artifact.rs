//! Why the artifact of a classifier was refused; its layout is in [`super::topics::file`].

use std::io;

/// Why an artifact was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file could not be read.
    #[error("cannot read the classifier artifact {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The magic bytes are missing.
    #[error("this is not the artifact of a classifier: it does not begin with WRTOPICS")]
    Magic,
    /// Written by another version of the program.
    #[error(
        "the artifact has version {found}, this program reads version {wanted}: train it again with `wattroute train domain`"
    )]
    Version {
        /// In the artifact.
        found: usize,
        /// What this program reads.
        wanted: u32,
    },
    /// An artifact for other labels than were asked for.
    #[error(
        "the artifact sorts by taxonomy `{found}`, not by `{wanted}`: train one with `wattroute train domain --taxonomy`"
    )]
    Taxonomy {
        /// In the artifact.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// Sizes of tables or of heads differ from this program's.
    #[error("the artifact has another shape ({0}): train it again with `wattroute train domain`")]
    Shape(&'static str),
    /// Cut short or too long.
    #[error("the artifact has {found} bytes where its header promises {wanted}")]
    Length {
        /// Bytes there should be.
        wanted: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The content does not match its own checksum.
    #[error("the artifact is corrupt: its checksum does not match its content")]
    Checksum,
    /// A number in it cannot be used.
    #[error("the artifact holds an impossible number: {0}")]
    Value(&'static str),
}
