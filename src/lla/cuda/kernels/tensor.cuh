// Products of small tiles on the tensor cores, or in plain single precision where MATH says so.
//
// A step multiplies 16 x 8 by 8 x 8 (single precision, tf32). Lane (group g = lane / 4, t = lane % 4) holds of the
// result c: rows g and g + 8, columns 2 t and 2 t + 1. Of the left operand it holds, by the hardware's order, columns
// t and t + 4; here columns 2 t and 2 t + 1 of memory are put there, and rows 2 t and 2 t + 1 of the right operand
// likewise: the sum over that index does not care, both operands can be read as pairs, and a result can be the left
// operand of the next product without moving between lanes.

#if MATH != MATH_BF16

// What an operand must be before it enters `multiply`.
INLINE float operand(float v) {
#if MATH == MATH_TF32
    return round_tf32(v);
#else
    return v;
#endif
}

INLINE void multiply(float c[4], const float a[4], const float b[2]) {
#if MATH == MATH_F32
    multiply_f32(c, a, b);
#elif MATH == MATH_TF32
    multiply_tf32(c, a, b);
#else
    // Each operand as a sum of two tf32 numbers; the product of the two small parts is below single precision.
    float ah[4], al[4], bh[2], bl[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        ah[i] = round_tf32(a[i]);
        al[i] = round_tf32(a[i] - ah[i]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bh[i] = round_tf32(b[i]);
        bl[i] = round_tf32(b[i] - bh[i]);
    }
    multiply_tf32(c, al, bh);
    multiply_tf32(c, ah, bl);
    multiply_tf32(c, ah, bh);
#endif
}

// Left operand from rows g and g + 8 of memory, at this lane's pair of columns.
INLINE void left(float a[4], const float* row_g, const float* row_g8) {
    Float2 u = *(const Float2*)row_g, v = *(const Float2*)row_g8;
    a[0] = u.x;
    a[1] = v.x;
    a[2] = u.y;
    a[3] = v.y;
}

// Left operand from a result.
INLINE void left_of(float a[4], const float c[4]) {
    a[0] = operand(c[0]);
    a[1] = operand(c[2]);
    a[2] = operand(c[1]);
    a[3] = operand(c[3]);
}

#endif
