//! Scales with round ticks, and the frame that charts stand in. Pure.

use super::scene::{Anchor, Ink, Scene};

/// Values to pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    at: (f64, f64),
    log: bool,
    doubling: bool,
}

impl Scale {
    /// Even steps from `from` to `to`, drawn from pixel `at.0` to pixel `at.1`.
    pub fn linear(from: f64, to: f64, at: (f64, f64)) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        Self { from, to, at, log: false, doubling: false }
    }

    /// Even factors. Both ends are made positive and whole powers of ten apart at least.
    pub fn log(from: f64, to: f64, at: (f64, f64)) -> Self {
        let from = if from > 0.0 { from } else { 1e-6 };
        let to = if to > from * 1.5 { to } else { from * 10.0 };
        Self { from, to, at, log: true, doubling: false }
    }

    /// Even factors, with a tick at every doubling of `from`.
    pub fn doubling(from: f64, to: f64, at: (f64, f64)) -> Self {
        Self { doubling: true, ..Self::log(from, to, at) }
    }

    /// Around positive values with room on both sides.
    pub fn around(values: &[f64], at: (f64, f64)) -> Self {
        let good = values.iter().copied().filter(|v| *v > 0.0 && v.is_finite());
        let (low, high) = good.fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        if low.is_finite() { Self::log(low / 1.6, high * 1.6, at) } else { Self::log(1.0, 10.0, at) }
    }

    /// The pixel of a value, kept within the scale.
    pub fn px(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.at.0 + share.clamp(0.0, 1.0) * (self.at.1 - self.at.0)
    }

    /// Round values with their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let double = |v: &f64| Some(v * 2.0).filter(|v| *v <= self.to * 1.001);
        let values = match (self.doubling, self.log) {
            (true, _) => std::iter::successors(Some(self.from), double).collect(),
            (false, true) => self.powers(),
            (false, false) => self.steps(),
        };
        values.into_iter().map(|v| (v, label(v))).collect()
    }

    /// 1, 2, 5 of every power of ten, or the powers alone where they are many.
    fn powers(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        let of: &[f64] = if decades < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        #[expect(clippy::cast_possible_truncation, reason = "exponents of figures people read")]
        let (first, last) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
        let each = (first..=last).flat_map(|e| of.iter().map(move |m| m * 10_f64.powi(e)));
        each.filter(|v| (self.from * 0.999..=self.to * 1.001).contains(v)).collect()
    }

    fn steps(&self) -> Vec<f64> {
        let rough = (self.to - self.from) / 5.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * unit).find(|s| *s >= rough).unwrap_or(rough);
        let mut at = (self.from / step).ceil() * step;
        let mut out = Vec::new();
        while at <= self.to + step * 1e-6 && out.len() < 20 {
            out.push(if at.abs() < step * 1e-6 { 0.0 } else { at });
            at += step;
        }
        out
    }
}

/// A figure as short as it can be read.
pub fn label(v: f64) -> String {
    let size = v.abs();
    let short = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match size {
        0.0 => "0".to_owned(),
        _ if size >= 1e6 => format!("{}M", short(format!("{:.1}", v / 1e6))),
        _ if size >= 1e4 => format!("{}k", short(format!("{:.1}", v / 1e3))),
        _ if size >= 100.0 => format!("{v:.0}"),
        _ if size >= 1.0 => short(format!("{v:.1}")),
        _ if size >= 0.001 => short(format!("{v:.3}")),
        _ => format!("{v:.0e}"),
    }
}

/// A frame with grid lines, ticks and names of both axes. `x` runs right, `y` runs up.
pub fn frame(scene: &mut Scene, x: &Scale, y: &Scale, names: (&str, &str)) {
    let ((left, right), (bottom, top)) = (x.at, y.at);
    for (value, text) in x.ticks() {
        let px = x.px(value);
        scene.line((px, bottom), (px, top), Ink::Grid, 1.0);
        scene.text((px, bottom + 18.0), text, Ink::Muted, Anchor::Middle);
    }
    for (value, text) in y.ticks() {
        let py = y.px(value);
        scene.line((left, py), (right, py), Ink::Grid, 1.0);
        scene.text((left - 8.0, py + 4.0), text, Ink::Muted, Anchor::End);
    }
    scene.line((left, bottom), (right, bottom), Ink::Axis, 1.0);
    scene.line((left, bottom), (left, top), Ink::Axis, 1.0);
    scene.text((f64::midpoint(left, right), bottom + 38.0), names.0, Ink::Muted, Anchor::Middle);
    scene.turned((left - 46.0, f64::midpoint(bottom, top)), names.1);
}

/// Names with their colours, in rows from a corner; returns the height used.
pub fn legend(scene: &mut Scene, names: &[(usize, String)], (left, top): (f64, f64), room: f64) -> f64 {
    let (mut x, mut y) = (left, top);
    for (i, name) in names {
        #[expect(clippy::cast_precision_loss, reason = "letters of a name")]
        let width = 28.0 + 7.2 * name.chars().count() as f64;
        if x > left && x + width > left + room {
            (x, y) = (left, y + 20.0);
        }
        scene.dot((x + 5.0, y - 4.0), 5.0, Ink::Series(*i));
        scene.text((x + 15.0, y), name.clone(), Ink::Text, Anchor::Start);
        x += width;
    }
    y - top + 20.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let marks = |s: Scale| s.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(marks(Scale::linear(0.0, 1.0, (0.0, 1.0))), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(marks(Scale::linear(-100.0, 100.0, (0.0, 1.0))), ["-100", "-50", "0", "50", "100"]);
        assert_eq!(marks(Scale::log(8.0, 512.0, (0.0, 1.0))), ["10", "20", "50", "100", "200", "500"]);
        assert_eq!(marks(Scale::log(0.002, 30_000.0, (0.0, 1.0)))[..3], ["0.01", "0.1", "1"]);
    }

    #[test]
    fn values_outside_stay_on_the_edge() {
        let scale = Scale::log(1.0, 100.0, (10.0, 30.0));
        assert!((scale.px(10.0) - 20.0).abs() < 1e-9);
        assert_eq!((scale.px(0.0), scale.px(1e9), scale.px(-3.0)), (10.0, 30.0, 10.0));
        assert_eq!(Scale::around(&[], (0.0, 1.0)), Scale::log(1.0, 10.0, (0.0, 1.0)));
    }
}
