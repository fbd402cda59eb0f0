//! Configuration: `raw` mirrors the file, [`Config`] is what code uses. All problems are listed, each with its key path.

pub mod checked;

pub use checked::Config;
