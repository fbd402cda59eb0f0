//! A scene as a PNG: tiny-skia fills shapes, the outlines of Ubuntu Light (Ubuntu Font Licence) make the letters.

use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};
use ttf_parser::{Face, OutlineBuilder};

use super::scene::{Anchor, Ink, Item, Scene};
use super::svg::COLOURS;

/// Pixels of the PNG per pixel of the scene: sharp on dense screens.
const SCALE: f32 = 2.0;
/// The light theme's series, as the page has them.
const SERIES: [[u8; 3]; COLOURS] = [
    [37, 99, 235],
    [217, 119, 6],
    [5, 150, 105],
    [190, 24, 93],
    [124, 58, 237],
    [14, 116, 144],
    [101, 163, 13],
    [185, 28, 28],
    [107, 68, 35],
    [71, 85, 105],
    [192, 38, 211],
    [15, 118, 110],
];
/// The font is light: letters are drawn this much thicker, as a share of their size; bold ones more.
const THICKER: [f32; 2] = [0.018, 0.055];

/// The picture as the bytes of a PNG file.
///
/// # Errors
/// The picture has no size, or the font cannot be read.
pub fn png(scene: &Scene) -> Result<Vec<u8>, String> {
    let face = Face::parse(epaint_default_fonts::UBUNTU_LIGHT, 0).map_err(|e| format!("the font: {e}"))?;
    let (width, height) = (pixels(scene.width), pixels(scene.height));
    let mut map = Pixmap::new(width, height).ok_or("a picture without a size")?;
    map.fill(Color::WHITE);
    let whole = Transform::from_scale(SCALE, SCALE);
    for item in &scene.items {
        match item {
            Item::Line { points, ink, width, dashed } => {
                let Some(path) = line(points, false) else { continue };
                let stroke = Stroke {
                    width: narrow(*width),
                    line_cap: LineCap::Round,
                    line_join: LineJoin::Round,
                    dash: dashed.then(|| StrokeDash::new(vec![5.0, 4.0], 0.0)).flatten(),
                    ..Stroke::default()
                };
                map.stroke_path(&path, &paint(*ink), &stroke, whole, None);
            }
            Item::Area { points, ink } => {
                if let Some(path) = line(points, true) {
                    map.fill_path(&path, &paint(*ink), FillRule::Winding, whole, None);
                }
            }
            Item::Dot { at: (x, y), radius, ink } => {
                if let Some(path) = PathBuilder::from_circle(narrow(*x), narrow(*y), narrow(*radius)) {
                    map.fill_path(&path, &paint(*ink), FillRule::Winding, whole, None);
                }
            }
            Item::Text { at, size, text, ink, anchor, bold, turned } => {
                let letters = Letters { size: narrow(*size), anchor: *anchor, bold: *bold, turned: *turned };
                write(&mut map, &face, *at, text, *ink, letters);
            }
        }
    }
    map.encode_png().map_err(|e| e.to_string())
}

/// How a text is set.
#[derive(Clone, Copy)]
struct Letters {
    size: f32,
    anchor: Anchor,
    bold: bool,
    turned: bool,
}

fn write(map: &mut Pixmap, face: &Face, (x, y): (f64, f64), text: &str, ink: Ink, how: Letters) {
    let unit = how.size / f32::from(face.units_per_em());
    let glyph = |c: char| face.glyph_index(c).or_else(|| face.glyph_index('?'));
    let advance = |c: char| glyph(c).and_then(|g| face.glyph_hor_advance(g)).map_or(0.0, |a| f32::from(a) * unit);
    let length: f32 = text.chars().map(advance).sum();
    let mut pen = match how.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -length / 2.0,
        Anchor::End => -length,
    };
    let turn = if how.turned { -90.0 } else { 0.0 };
    let place = Transform::from_rotate(turn).post_translate(narrow(x), narrow(y)).post_scale(SCALE, SCALE);
    let [regular, bold] = THICKER;
    let stroke = Stroke { width: how.size * if how.bold { bold } else { regular }, ..Stroke::default() };
    for c in text.chars() {
        let mut outline = Outline { path: PathBuilder::new(), x: pen, unit };
        if let Some(id) = glyph(c) {
            face.outline_glyph(id, &mut outline);
        }
        if let Some(path) = outline.path.finish() {
            map.fill_path(&path, &paint(ink), FillRule::Winding, place, None);
            map.stroke_path(&path, &paint(ink), &stroke, place, None);
        }
        pen += advance(c);
    }
}

/// Puts a glyph's outline, in font units with y upwards, onto the base line.
struct Outline {
    path: PathBuilder,
    x: f32,
    unit: f32,
}

impl Outline {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.unit, -y * self.unit)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

fn line(points: &[(f64, f64)], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (i, (x, y)) in points.iter().enumerate() {
        if i == 0 {
            path.move_to(narrow(*x), narrow(*y));
        } else {
            path.line_to(narrow(*x), narrow(*y));
        }
    }
    if closed {
        path.close();
    }
    path.finish()
}

fn paint(ink: Ink) -> Paint<'static> {
    let (colour, alpha) = match ink {
        Ink::Text => ([17, 24, 39], 255),
        Ink::Muted => ([87, 96, 111], 255),
        Ink::Grid => ([226, 229, 234], 255),
        Ink::Axis => ([120, 128, 142], 255),
        Ink::Series(i) => (SERIES.get(i % COLOURS).copied().unwrap_or_default(), 255),
        Ink::Band(i) => (SERIES.get(i % COLOURS).copied().unwrap_or_default(), 36),
    };
    let [r, g, b] = colour;
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(r, g, b, alpha);
    paint
}

#[expect(clippy::cast_possible_truncation, reason = "pixels of a picture")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pixels of a picture; `as` saturates")]
fn pixels(x: f64) -> u32 {
    (x * f64::from(SCALE)).ceil() as u32
}
