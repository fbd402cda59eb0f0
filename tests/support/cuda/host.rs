//! What the host does without a device: finding none, refusing what does not fit.

use std::path::PathBuf;

use super::emulator::device;
use crate::lla::cuda::{Attention, CudaError, Device, Missing, Options};
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::store::Precision;
use crate::lla::{AttendError, Shape};

const SHAPE: Shape = Shape { heads: 4, kv_heads: 2, dim: 16, value_dim: 16 };

#[test]
fn a_machine_without_cuda_is_told_so_and_does_not_panic() {
    match Device::open() {
        Ok(device) => assert!(!device.name().is_empty()),
        Err(missing @ (Missing::Driver(_) | Missing::Compiler(_) | Missing::Device(_) | Missing::Old { .. })) => {
            eprintln!("{missing}");
            assert!(missing.to_string().len() > 10);
        }
    }
    let nowhere = Options { nvrtc: Some(PathBuf::from("/nonexistent")), math: None };
    assert!(matches!(Device::open_with(&nowhere), Err(Missing::Driver(_) | Missing::Compiler(_))));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let Some(here) = device(4, 1, None) else { return };
    for (dim, value_dim, width) in [(20, 16, 20), (136, 16, 136), (16, 4, 4)] {
        let odd = here.store(Shape { dim, value_dim, ..SHAPE }, Precision::Half);
        assert_eq!(odd.err(), Some(CudaError::Width(width)));
    }
    assert!(here.store(Shape { heads: 3, ..SHAPE }, Precision::Half).is_err());
    let mut store = here.store(SHAPE, Precision::Full).unwrap();
    assert_eq!(store.append(&[0.0; 32], &[0.0; 31]), Err(AttendError::Shape("keys and values").into()));
    let empty = here.store(SHAPE, Precision::Full).unwrap();
    store.append(&[0.5; 96], &[0.25; 96]).unwrap();
    let queries = [1.0; 64];
    let job = Attention {
        shape: SHAPE,
        scale: 0.25,
        queries: &queries,
        first: 2,
        store: &store,
        rho: Rho::Zero,
        window: None,
    };
    let mut out = [0.0; 64];
    let mut error = |job: Attention| here.attend(&[job], &mut out).unwrap_err();
    assert_eq!(error(Attention { first: 3, ..job }), AttendError::Overlong { end: 4, held: 3 }.into());
    assert_eq!(error(Attention { store: &empty, ..job }), AttendError::Empty.into());
    assert_eq!(error(Attention { scale: f32::NAN, ..job }), AttendError::Scale.into());
    assert_eq!(error(Attention { queries: &queries[1..], ..job }), AttendError::Shape("queries").into());
    assert_eq!(error(Attention { shape: Shape { heads: 2, ..SHAPE }, ..job }), AttendError::Shape("store").into());
    assert_eq!(error(Attention { rho: Rho::Projection(&[1.0]), ..job }), AttendError::Shape("projections").into());
    let ridge = Ridge::new(vec![1.0; 3]).unwrap();
    assert_eq!(error(Attention { rho: Rho::Solve(&ridge), ..job }), AttendError::Shape("ridges").into());
    assert_eq!(here.attend(&[job], &mut [0.0; 3]).unwrap_err(), AttendError::Shape("outputs").into());
    let other = device(4, 1, None).unwrap();
    assert_eq!(other.attend(&[job], &mut out).unwrap_err(), CudaError::Foreign);
    here.attend(&[job], &mut out).unwrap();
    assert!(out.iter().all(|x| (x - 0.25).abs() < 1e-6), "all values are one: so is their mean");
}
