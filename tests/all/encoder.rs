//! The sentence encoder, fetched through the product's own code: its vectors, and what is refused.

use wattroute::classify::topics::VECTOR;
use wattroute::engine::encoder::Encoder;
use wattroute::models::{self, Progress, Store, catalogue};

async fn encoder() -> Encoder {
    let store = Store::of_user().unwrap();
    let model = models::resolve("minilm", None).unwrap();
    assert_eq!(catalogue::find("minilm").unwrap().name, catalogue::ENCODER);
    let path = models::pull(&store, &model, &Progress::stderr()).await.unwrap_or_else(|error| panic!("{error}"));
    Encoder::load(&path, 2).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[tokio::test]
async fn vectors_are_those_of_the_original_model() {
    let encoder = encoder().await;
    let texts = ["Hello, world!", "That is a happy person", "That is a very happy person", "Today is a sunny day"];
    let got = encoder.encode(&texts).unwrap();
    // In single precision, from the same file; ours are 8-bit weights.
    let want = [-0.038_177, 0.032_911, -0.005_460, 0.014_370, -0.040_291, -0.116_532];
    assert!(got[0].iter().zip(want).all(|(g, w)| (g - w).abs() < 0.006), "{:?}", &got[0][..6]);
    assert!((dot(&got[1], &got[2]) - 0.9429).abs() < 0.01 && (dot(&got[1], &got[3]) - 0.2569).abs() < 0.01);
    assert!(got.iter().all(|v| v.len() == VECTOR && (dot(v, v) - 1.0).abs() < 1e-4));
    for (text, beside) in texts.iter().zip(&got) {
        assert_eq!(&encoder.encode(&[text]).unwrap()[0], beside, "a vector depends on its own text alone");
    }
    for odd in ["", "\0", &"x ".repeat(5_000_000), "水の沸点は何度ですか"] {
        assert!(encoder.encode(&[odd]).unwrap()[0].iter().all(|x| x.is_finite()));
    }
    assert!(encoder.encode(&[]).unwrap().is_empty());
}

#[test]
fn a_file_that_is_no_encoder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let cases: [(Vec<u8>, &str); 3] = [
        (b"GGUF".to_vec(), "too short"),
        (vec![255; 64], "header is too long"),
        (b"\x02\0\0\0\0\0\0\0{}".to_vec(), "no tensor"),
    ];
    for (bytes, part) in cases {
        std::fs::write(&path, bytes).unwrap();
        let why = Encoder::load(&path, 1).err().unwrap().to_string();
        assert!(why.contains(part), "{why}");
    }
    assert!(Encoder::load(&folder.path().join("none"), 1).is_err());
}
