//! A picture as a list of shapes, drawn twice: as SVG in the page and as pixels in a PNG. Pure.
//!
//! Colours are roles, not values: the page gives them values for light and dark, the PNG takes the light ones.

/// What a shape is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Titles and labels.
    Text,
    /// Notes and ticks.
    Muted,
    /// Grid lines.
    Grid,
    /// Axes and lines of reference.
    Axis,
    /// One subject's marks.
    Series(usize),
    /// One subject's area, see-through.
    Band(usize),
}

/// Where a text hangs on its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Has its middle there.
    Middle,
    /// Ends there.
    End,
}

/// One shape. Coordinates in pixels from the upper left.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A line through points; dashed or not.
    Line { points: Vec<(f64, f64)>, ink: Ink, width: f64, dashed: bool },
    /// A filled area.
    Area { points: Vec<(f64, f64)>, ink: Ink },
    /// A disc.
    Dot { at: (f64, f64), radius: f64, ink: Ink },
    /// A text; `y` is its base line.
    Text { at: (f64, f64), size: f64, text: String, ink: Ink, anchor: Anchor, bold: bool, turned: bool },
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Pixels.
    pub width: f64,
    /// Pixels.
    pub height: f64,
    /// In drawing order.
    pub items: Vec<Item>,
}

impl Scene {
    /// Nothing yet.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, items: Vec::new() }
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64) {
        self.items.push(Item::Line { points: vec![from, to], ink, width, dashed: false });
    }

    /// A dashed line.
    pub fn dashes(&mut self, points: Vec<(f64, f64)>, ink: Ink, width: f64) {
        self.items.push(Item::Line { points, ink, width, dashed: true });
    }

    /// A line through points.
    pub fn path(&mut self, points: Vec<(f64, f64)>, ink: Ink, width: f64) {
        self.items.push(Item::Line { points, ink, width, dashed: false });
    }

    /// A filled polygon.
    pub fn area(&mut self, points: Vec<(f64, f64)>, ink: Ink) {
        self.items.push(Item::Area { points, ink });
    }

    /// A disc.
    pub fn dot(&mut self, at: (f64, f64), radius: f64, ink: Ink) {
        self.items.push(Item::Dot { at, radius, ink });
    }

    /// A text of 12 pixels.
    pub fn text(&mut self, at: (f64, f64), text: impl Into<String>, ink: Ink, anchor: Anchor) {
        self.sized(at, 12.0, text, ink, anchor);
    }

    /// A text of another size.
    pub fn sized(&mut self, at: (f64, f64), size: f64, text: impl Into<String>, ink: Ink, anchor: Anchor) {
        self.items.push(Item::Text { at, size, text: text.into(), ink, anchor, bold: false, turned: false });
    }

    /// A bold text.
    pub fn bold(&mut self, at: (f64, f64), size: f64, text: impl Into<String>, anchor: Anchor) {
        self.items.push(Item::Text { at, size, text: text.into(), ink: Ink::Text, anchor, bold: true, turned: false });
    }

    /// A text that reads upwards.
    pub fn turned(&mut self, at: (f64, f64), text: impl Into<String>) {
        let (ink, anchor) = (Ink::Muted, Anchor::Middle);
        self.items.push(Item::Text { at, size: 12.0, text: text.into(), ink, anchor, bold: false, turned: true });
    }

    /// A mark with whiskers along x: low, value, high.
    pub fn whisker(&mut self, y: f64, [low, at, high]: [f64; 3], series: usize, radius: f64) {
        let ink = Ink::Series(series);
        self.line((low, y), (high, y), ink, 1.6);
        for end in [low, high] {
            self.line((end, y - 3.0), (end, y + 3.0), ink, 1.6);
        }
        self.dot((at, y), radius, ink);
    }

    /// Another picture at a place in this one.
    pub fn put(&mut self, other: &Self, (dx, dy): (f64, f64)) {
        let moved = |(x, y): (f64, f64)| (x + dx, y + dy);
        let all = |points: &[(f64, f64)]| points.iter().map(|p| moved(*p)).collect();
        self.items.extend(other.items.iter().map(|item| match item.clone() {
            Item::Line { points, ink, width, dashed } => Item::Line { points: all(&points), ink, width, dashed },
            Item::Area { points, ink } => Item::Area { points: all(&points), ink },
            Item::Dot { at, radius, ink } => Item::Dot { at: moved(at), radius, ink },
            Item::Text { at, size, text, ink, anchor, bold, turned } => {
                Item::Text { at: moved(at), size, text, ink, anchor, bold, turned }
            }
        }));
    }
}
