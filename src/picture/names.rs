//! Names beside points, none on another.

use super::scene::{Anchor, Ink, Scene};

/// Writes a point's name where no other one is: above or below its point, to the right or to the left.
pub fn name_point(scene: &mut Scene, (px, py): (f64, f64), text: String, taken: &mut Vec<[f64; 4]>) {
    #[expect(clippy::cast_precision_loss, reason = "letters of a name")]
    let wide = 7.0 * text.chars().count() as f64;
    let room = scene.width;
    let places = [-9.0, 20.0, -26.0, 37.0, -43.0, 54.0, -60.0].into_iter().flat_map(|dy| [(11.0, dy), (-11.0, dy)]);
    let boxed = |(dx, dy): (f64, f64)| {
        let left = if dx > 0.0 { px + dx } else { px + dx - wide };
        [left, py + dy - 12.0, left + wide, py + dy + 3.0]
    };
    let free = |place: &(f64, f64)| {
        let [l, t, r, b] = boxed(*place);
        let inside = l > 84.0 && r < room - 4.0 && t > 4.0;
        inside && taken.iter().all(|[l2, t2, r2, b2]| r < *l2 || l > *r2 || b < *t2 || t > *b2)
    };
    let (dx, dy) = places.clone().find(free).unwrap_or((11.0, -9.0));
    taken.push(boxed((dx, dy)));
    let anchor = if dx > 0.0 { Anchor::Start } else { Anchor::End };
    scene.text((px + dx, py + dy), text, Ink::Text, anchor);
}
