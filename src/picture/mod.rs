//! Charts of the reports: scenes of lines, areas and letters, drawn as SVG for pages and as PNG for files. Pure.
//!
//! Nothing here knows what a chart is about; [`crate::profile::report`] and [`crate::replay`] do.

pub mod axis;
pub mod names;
pub mod page;
pub mod raster;
pub mod scene;
pub mod svg;
