//! A scene as SVG whose colours the page's style sheet gives.

use std::fmt::Write;

use super::scene::{Anchor, Ink, Item, Scene};

/// Colours that repeat when there are more subjects.
pub const COLOURS: usize = 12;

/// The picture, described by `title` for those who cannot see it.
pub fn svg(scene: &Scene, title: &str) -> String {
    let mut out = format!(
        "<svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">",
        scene.width,
        scene.height,
        escaped(title)
    );
    for item in &scene.items {
        match item {
            Item::Line { points, ink, width, dashed } => {
                let dash = if *dashed { " stroke-dasharray=\"5 4\"" } else { "" };
                let _ = write!(
                    out,
                    "<polyline class=\"l {}\" stroke-width=\"{width}\"{dash} points=\"{}\"/>",
                    class(*ink),
                    each(points)
                );
            }
            Item::Area { points, ink } => {
                let _ = write!(out, "<polygon class=\"f {}\" points=\"{}\"/>", class(*ink), each(points));
            }
            Item::Dot { at: (x, y), radius, ink } => {
                let _ = write!(out, "<circle class=\"f {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>", class(*ink));
            }
            Item::Text { at: (x, y), size, text, ink, anchor, bold, turned } => {
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                let weight = if *bold { " font-weight=\"600\"" } else { "" };
                let turn = if *turned { format!(" transform=\"rotate(-90 {x:.1} {y:.1})\"") } else { String::new() };
                let _ = write!(
                    out,
                    "<text class=\"f {}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\"{weight}{turn}>{}</text>",
                    class(*ink),
                    escaped(text)
                );
            }
        }
    }
    out + "</svg>"
}

fn class(ink: Ink) -> String {
    match ink {
        Ink::Text => "text".to_owned(),
        Ink::Muted => "muted".to_owned(),
        Ink::Grid => "grid".to_owned(),
        Ink::Axis => "axis".to_owned(),
        Ink::Series(i) => format!("s{}", i % COLOURS),
        Ink::Band(i) => format!("s{} band", i % COLOURS),
    }
}

fn each(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// Text as HTML and XML want it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
