//! One block of packed weights, a value at a time: how files are packed and kernels are checked. `packed` says where
//! everything lies; nothing here is fast.

use half::f16;

use crate::engine::packed::{Format, ROWS};

fn half_at(block: &[u8], byte: usize) -> f32 {
    match block.get(byte..byte + 2) {
        Some(&[low, high]) => f16::from_le_bytes([low, high]).to_f32(),
        _ => 0.0,
    }
}

/// The weight at an index of a plain block.
pub fn float(format: Format, block: &[u8], index: usize) -> f32 {
    if format == Format::F16 {
        return half_at(block, index * 2);
    }
    match block.get(index * 4..index * 4 + 4) {
        Some(&[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        _ => 0.0,
    }
}

/// Puts a weight into a plain block.
pub fn set_float(format: Format, block: &mut [u8], index: usize, value: f32) {
    let half = f16::from_f32(value).to_le_bytes();
    let full = value.to_le_bytes();
    let bytes: &[u8] = if format == Format::F16 { &half } else { &full };
    if let Some(place) = block.get_mut(index * bytes.len()..(index + 1) * bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Half-precision scale and minimum of one row in a block, or their factors where the format is wide.
pub fn factors(format: Format, block: &[u8], lane: usize) -> (f32, f32) {
    let at = format.factors_at();
    let scale = half_at(block, at + lane * 2);
    let minimum =
        if format.minimum { half_at(block, at + (ROWS + lane) * 2) } else { -scale * f32::from(format.offset()) };
    (scale, minimum)
}

/// Scale and minimum of one row and group in a block.
pub fn scales(format: Format, block: &[u8], lane: usize, part: usize) -> (f32, f32) {
    let (scale, minimum) = factors(format, block, lane);
    let (s, m) = integers(format, block, lane, part);
    (scale * f32::from(s), minimum * f32::from(if format.minimum { m } else { s }))
}

/// The byte scale and minimum of one row and group; ones where the format has none.
pub fn integers(format: Format, block: &[u8], lane: usize, part: usize) -> (i8, i8) {
    let at = |start: usize| block.get(start + pair_place(lane, part)).map_or(0, |b| b.cast_signed());
    match (format.wide, format.minimum) {
        (false, _) => (1, 1),
        (true, false) => (at(format.scales_at()), 1),
        (true, true) => (at(format.scales_at()), at(format.scales_at() + format.parts() * ROWS)),
    }
}

/// Where the byte of a row and group is among those of all pairs of groups.
fn pair_place(lane: usize, part: usize) -> usize {
    part / 2 * 2 * ROWS + lane * 2 + part % 2
}

/// Where a code lives in a group: line-relative byte, step of four columns.
fn position(lane: usize, column: usize) -> (usize, usize) {
    (lane * 4 + column % 4, column / 4)
}

/// The code of one row and column in a block.
pub fn code(format: Format, block: &[u8], lane: usize, column: usize) -> u8 {
    let (byte, step) = position(lane, column % format.group);
    let start = column / format.group * format.part_bytes();
    let at = |index: usize| block.get(start + index).copied().unwrap_or(0);
    if format.bits == 8 {
        return at(step * 64 + byte);
    }
    let half = format.group / 8;
    let low = if step < half { at(step * 64 + byte) & 15 } else { at((step - half) * 64 + byte) >> 4 };
    (4..format.bits).fold(low, |sum, bit| {
        let plane = format.code_bytes() + (bit - 4) * format.group * 2;
        let set = at(plane + step * 8 + byte / 8) >> (byte % 8) & 1;
        sum | set << bit
    })
}

/// Puts a code into a block whose codes are still zero there.
pub fn set_code(format: Format, block: &mut [u8], lane: usize, column: usize, code: u8) {
    let (byte, step) = position(lane, column % format.group);
    let start = column / format.group * format.part_bytes();
    let mut or = |index: usize, bits: u8| {
        if let Some(place) = block.get_mut(start + index) {
            *place |= bits;
        }
    };
    if format.bits == 8 {
        return or(step * 64 + byte, code);
    }
    let half = format.group / 8;
    if step < half {
        or(step * 64 + byte, code & 15)
    } else {
        or((step - half) * 64 + byte, (code & 15) << 4)
    }
    for bit in 4..format.bits {
        let plane = format.code_bytes() + (bit - 4) * format.group * 2;
        or(plane + step * 8 + byte / 8, (code >> bit & 1) << (byte % 8));
    }
}

/// Puts scale and minimum of one row into a block, or their factors where the format is wide.
pub fn set_scales(format: Format, block: &mut [u8], lane: usize, scale: f16, minimum: f16) {
    let at = format.factors_at();
    let mut put = |byte: usize, value: f16| {
        if let Some(place) = block.get_mut(byte..byte + 2) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(at + lane * 2, scale);
    if format.minimum {
        put(at + (ROWS + lane) * 2, minimum);
    }
}

/// Puts the byte scale and minimum of one row and group into a wide block.
pub fn set_integers(format: Format, block: &mut [u8], lane: usize, part: usize, scale: i8, minimum: i8) {
    let at = format.scales_at() + pair_place(lane, part);
    if let Some(place) = block.get_mut(at) {
        *place = scale.cast_unsigned();
    }
    if format.minimum
        && let Some(place) = block.get_mut(at + format.parts() * ROWS)
    {
        *place = minimum.cast_unsigned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every format that a type is stored in with codes.
    const CODED: [Format; 10] = [
        Format::narrow(4, false),
        Format::narrow(4, true),
        Format::narrow(5, false),
        Format::narrow(5, true),
        Format::narrow(8, false),
        Format::wide(4, 16, false),
        Format::wide(4, 16, true),
        Format::wide(4, 32, true),
        Format::wide(5, 32, true),
        Format::wide(6, 16, false),
    ];

    #[test]
    fn codes_and_scales_come_back_from_every_format() {
        for format in CODED {
            let mut block = vec![0; format.block_bytes()];
            let value = |lane: usize, column: usize| ((lane * 37 + column * 11) % (1 << format.bits)) as u8;
            let byte = |lane: usize, part: usize| ((lane * 5 + part * 3) % 127) as i8 - 60;
            for lane in 0..ROWS {
                let minimum = f16::from_f32(-(lane as f32));
                set_scales(format, &mut block, lane, f16::from_f32(lane as f32 * 0.5), minimum);
                (0..format.columns()).for_each(|c| set_code(format, &mut block, lane, c, value(lane, c)));
                if format.wide {
                    let mut set = |part| {
                        set_integers(format, &mut block, lane, part, byte(lane, part), byte(lane, part + 1));
                    };
                    (0..format.parts()).for_each(&mut set);
                }
            }
            for lane in 0..ROWS {
                (0..format.columns()).for_each(|c| assert_eq!(code(format, &block, lane, c), value(lane, c)));
                for part in 0..format.parts() {
                    let (s, m) = if format.wide { (byte(lane, part), byte(lane, part + 1)) } else { (1, 1) };
                    let scale = lane as f32 * 0.5 * f32::from(s);
                    let minimum = match format.minimum {
                        true => -(lane as f32) * f32::from(m),
                        false => -scale * f32::from(format.offset()),
                    };
                    assert_eq!(scales(format, &block, lane, part), (scale, minimum), "{format:?}");
                }
            }
        }
    }
}
