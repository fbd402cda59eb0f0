//! A gateway on a machine with an energy counter: the journal has what answers took, not what a table expects.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::answers::{CHUNKED, DONE, chunk, delta, finish, usage};
use crate::support::gateway::{Plan, cloud, local};
use crate::support::upstream::{Step, Upstream};

const WATTS: f64 = 100.0;

/// A powercap tree whose counter rises by a hundred watts.
struct Counter {
    sysfs: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    fn start() -> Self {
        let sysfs = tempfile::tempdir().unwrap();
        let zone = sysfs.path().join("class/powercap/intel-rapl:0");
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), "package-0\n").unwrap();
        fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let count = move || {
            let microjoules = WATTS * began.elapsed().as_secs_f64() * 1e6;
            fs::write(zone.join("next"), format!("{microjoules:.0}\n")).unwrap();
            fs::rename(zone.join("next"), zone.join("energy_uj")).unwrap();
        };
        count();
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                count();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { sysfs, stop, thread: Some(thread) }
    }

    /// `[energy]` of a machine that has it.
    fn config(&self) -> String {
        format!("[energy]\nsysfs = \"{}\"\n", self.sysfs.path().display())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A streamed answer of ten tokens and a usage event that takes about half a second.
fn slow() -> Vec<Step> {
    let words: String = (0..10).map(|_| delta("word")).collect();
    let events = words + &finish("stop") + &usage() + DONE;
    let body: Vec<u8> = [CHUNKED, &chunk(&events), "0\r\n\r\n"].concat().into_bytes();
    let piece = body.len() / 10;
    vec![Step::Request, Step::Drip(body, piece, Duration::from_millis(50)), Step::Again]
}

#[tokio::test]
async fn an_answer_of_this_machine_is_charged_what_the_counter_counted() {
    let (near, far) = (Upstream::always(slow()).await, Upstream::always(slow()).await);
    let counter = Counter::start();
    let text = local("near", &near.base()) + &cloud("far", &far.base()) + &counter.config();
    let gateway = Plan::new(&text).start().await;
    for model in ["local/near", "cloud/far"] {
        assert_eq!(gateway.chat(model, true).await.status, 200);
    }
    let entries = gateway.finish().await;
    let entry = |place: &str| entries.iter().find(|e| e["place"] == place).unwrap();
    let (here, there) = (entry("local"), entry("cloud"));
    assert_eq!((&here["outcome"], &here["joules_basis"]), (&json!("ok"), &json!("counter")), "{here}");
    let joules = here["joules_mid"].as_f64().unwrap();
    let most = WATTS * here["total_ms"].as_f64().unwrap() / 1e3;
    // What was counted while it ran; the counter steps every few milliseconds and is read every fifty.
    assert!(joules > 0.7 * most && joules < 1.1 * most + 2.0, "{joules} of {most}");
    assert_ne!(there["joules_basis"], "counter", "nobody here meters the cloud");
}

#[tokio::test]
async fn a_gateway_told_not_to_read_meters_keeps_to_its_tables() {
    let near = Upstream::always(slow()).await;
    let counter = Counter::start();
    let text = local("near", &near.base()) + &counter.config() + "read_meters = false\n";
    let gateway = Plan::new(&text).start().await;
    assert_eq!(gateway.chat("local/near", true).await.status, 200);
    let entries = gateway.finish().await;
    assert_ne!(entries[0]["joules_basis"], "counter", "{}", entries[0]);
}
