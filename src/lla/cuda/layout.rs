//! What kernels are given, laid out as `kernels/base.cuh` reads it: plain numbers and device addresses.

/// Numbers that mean "no slot": the block's result is the output itself.
pub const WHOLE: u32 = u32::MAX;

/// One sequence of a call.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Job {
    /// Keys, `[kv_heads][stride][dim]`.
    pub keys: u64,
    /// Values, `[kv_heads][stride][value_dim]`.
    pub values: u64,
    /// Queries, `[tokens][heads][dim]`.
    pub queries: u64,
    /// Given corrections, laid out like the queries; 0 without.
    pub rho: u64,
    /// Ridge per query head; infinity is softmax.
    pub lambda: u64,
    /// Outputs, `[tokens][heads][value_dim]`.
    pub out: u64,
    /// Iterations per row, -1 where it fell back.
    pub iterations: u64,
    /// Positions a head's rows are apart for.
    pub stride: u32,
    /// Positions held.
    pub held: u32,
    /// Position of the first query.
    pub first: u32,
    /// Queries per head.
    pub tokens: u32,
    /// Keys a query sees at most.
    pub window: u32,
    /// Factor on scores, times log2 e.
    pub scale: f32,
    /// Bound on the squared relative residual.
    pub tolerance: f32,
    /// Most iterations.
    pub most: u32,
    /// Radius of the guard.
    pub radius: f32,
    /// Keeps the size a multiple of eight.
    pub unused: u32,
}

/// One block's part of a call. What the fields mean depends on the kernel; see its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Work {
    /// Index of the job.
    pub job: u32,
    /// Query head, or key-value head for prefill.
    pub head: u32,
    /// Token, or first row for prefill.
    pub row: u32,
    /// First key, or first split.
    pub begin: u32,
    /// End of the keys, or number of splits.
    pub end: u32,
    /// Where the result goes.
    pub slot: u32,
}

/// The one parameter of every kernel.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Params {
    /// Address of the jobs.
    pub jobs: u64,
    /// Address of the first block's work.
    pub work: u64,
    /// Scratch of the splits.
    pub partial: u64,
    /// Scratch of the rows.
    pub merged: u64,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Keeps the size a multiple of eight.
    pub unused: [u32; 2],
}

/// Writes numbers as the device reads them.
pub trait Plain {
    /// Appends the bytes.
    fn put(&self, bytes: &mut Vec<u8>);
}

impl Plain for f32 {
    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_ne_bytes());
    }
}

impl Plain for Work {
    fn put(&self, bytes: &mut Vec<u8>) {
        for n in [self.job, self.head, self.row, self.begin, self.end, self.slot] {
            bytes.extend_from_slice(&n.to_ne_bytes());
        }
    }
}

impl Plain for Job {
    fn put(&self, bytes: &mut Vec<u8>) {
        for n in [self.keys, self.values, self.queries, self.rho, self.lambda, self.out, self.iterations] {
            bytes.extend_from_slice(&n.to_ne_bytes());
        }
        for n in [self.stride, self.held, self.first, self.tokens, self.window] {
            bytes.extend_from_slice(&n.to_ne_bytes());
        }
        self.scale.put(bytes);
        self.tolerance.put(bytes);
        bytes.extend_from_slice(&self.most.to_ne_bytes());
        self.radius.put(bytes);
        bytes.extend_from_slice(&self.unused.to_ne_bytes());
    }
}

/// The bytes of a list.
pub fn bytes<T: Plain>(list: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(list));
    list.iter().for_each(|one| one.put(&mut bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_many_as_the_layout_says() {
        assert_eq!((size_of::<Job>(), size_of::<Work>(), size_of::<Params>()), (96, 24, 48));
        assert_eq!(bytes(&[Job::default(); 3]).len(), 3 * 96);
        assert_eq!(bytes(&[Work::default(); 5]).len(), 5 * 24);
        assert_eq!(bytes(&[1.0_f32, 2.0]), [1.0_f32.to_ne_bytes(), 2.0_f32.to_ne_bytes()].concat());
    }
}
