//! The part of an entry that no sum is made of, packed into one column: half the bytes of as many columns, and one value to
//! bind instead of seventeen. `journal export` gives every field of it by name.
//!
//! Layout: the byte [`LAYOUT`], then the fields in the order of [`pack`] and [`unpack`], which mirror each other. Numbers
//! are little endian; a text is its length (LEB128) and its UTF-8; what may be missing is preceded by a byte 0 or 1; a list
//! by its length (LEB128). Invariant: [`unpack`] accepts any bytes without a panic and never reads past their end.

use serde_json::{Map, Value, json};

use super::record::Record;
use crate::energy::Joules;
use crate::policy::types::{Alternative, Place};

/// First byte: which layout follows.
const LAYOUT: u8 = 1;
/// All of the first, and what came of a check: for entries whose answer was checked.
const CHECKED: u8 = 2;
/// All of the second, which tier classified the query, and what a judge said: for entries with one of these.
const WIDER: u8 = 3;
const KNOWN: std::ops::RangeInclusive<u8> = LAYOUT..=WIDER;
/// Bytes of a usual entry: two backends, a sentence for each.
const USUAL_BYTES: usize = 640;

/// Packs what is not a column of its own.
pub fn pack(r: &Record) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(USUAL_BYTES));
    let checked = r.verdict.is_some() || r.wasted_seconds.is_some();
    let known = if checked { CHECKED } else { LAYOUT };
    let layout = if r.tier.is_some() || r.judged.is_some() { WIDER } else { known };
    out.byte(layout);
    out.text(&r.id);
    out.text(&r.decision_id);
    out.text(&r.model_asked);
    out.byte(u8::from(r.stream));
    out.bytes(&r.domain_p.to_le_bytes());
    let posterior = r.posterior.as_ref().map_or(&[][..], |p| &p.0);
    out.count(posterior.len());
    posterior.iter().for_each(|p| out.bytes(&p.to_le_bytes()));
    out.text(&r.policy);
    out.text(&r.policy_hash);
    out.float(r.propensity);
    out.text(&r.reason);
    out.count(r.alternatives.len());
    r.alternatives.iter().for_each(|a| alternative(&mut out, a));
    out.bytes(&r.attempts.to_le_bytes());
    out.maybe(r.status, |out, status| out.bytes(&status.to_le_bytes()));
    out.maybe(r.token_source, Out::text);
    out.maybe(r.ttft_ms, Out::float);
    out.float(r.total_ms);
    out.float(r.overhead_us);
    out.maybe(r.session, |out, session| out.bytes(&session.to_le_bytes()));
    if layout >= CHECKED {
        out.maybe(r.verdict, Out::text);
        [r.confidence, r.wasted_usd, r.wasted_seconds].into_iter().for_each(|x| out.maybe(x, Out::float));
    }
    if layout >= WIDER {
        out.maybe(r.tier, Out::text);
        [r.router_joules, r.judged].into_iter().for_each(|x| out.maybe(x, Out::float));
    }
    out.0
}

fn alternative(out: &mut Out, a: &Alternative) {
    out.text(&a.backend);
    out.byte(u8::from(a.place == Place::Cloud));
    out.float(a.p_correct);
    out.float(a.chance.mean);
    out.float(a.chance.low);
    out.float(a.chance.high);
    out.bytes(&a.chance.n.to_le_bytes());
    out.text(a.chance.source);
    out.text(a.joules.basis.name());
    let Joules { low, mid, high, basis: _ } = a.joules;
    [low, mid, high, a.usd, a.seconds].into_iter().for_each(|x| out.maybe(x, Out::float));
    out.byte(u8::from(a.eligible));
    out.maybe(a.why_not.as_deref(), Out::text);
}

/// The packed fields by name, as `journal export` writes them; none if the bytes are of no known layout.
pub fn unpack(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut read = In(bytes);
    let layout = read.byte().filter(|layout| KNOWN.contains(layout))?;
    let mut fields = Map::new();
    let mut field = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    field("request_id", read.text()?.into());
    field("decision_id", read.text()?.into());
    field("model_asked", read.text()?.into());
    field("stream", (read.byte()? != 0).into());
    // As the column of version 1 held it.
    field("domain_p", f64::from(f32::from_le_bytes(read.array()?)).into());
    let posterior = (0..read.count()?).map(|_| Some(f32::from_le_bytes(read.array()?)));
    field("posterior", posterior.collect::<Option<Vec<f32>>>()?.into());
    field("policy", read.text()?.into());
    field("policy_hash", read.text()?.into());
    field("propensity", read.float()?.into());
    field("reason", read.text()?.into());
    let alternatives = (0..read.count()?).map(|_| read_alternative(&mut read));
    field("alternatives", alternatives.collect::<Option<Vec<Value>>>()?.into());
    field("attempts", u32::from_le_bytes(read.array()?).into());
    field("status", read.maybe(|read| Some(u16::from_le_bytes(read.array()?).into()))?);
    field("token_source", read.maybe(|read| Some(read.text()?.into()))?);
    field("ttft_ms", read.maybe(|read| Some(read.float()?.into()))?);
    field("total_ms", read.float()?.into());
    field("overhead_us", read.float()?.into());
    field("session", read.maybe(|read| Some(format!("{:016x}", u64::from_le_bytes(read.array()?)).into()))?);
    if layout >= CHECKED {
        field("verdict", read.maybe(|read| Some(read.text()?.into()))?);
        for name in ["confidence", "wasted_usd", "wasted_seconds"] {
            field(name, read.maybe(|read| Some(read.float()?.into()))?);
        }
    }
    if layout >= WIDER {
        field("tier", read.maybe(|read| Some(read.text()?.into()))?);
        for name in ["router_joules", "judged"] {
            field(name, read.maybe(|read| Some(read.float()?.into()))?);
        }
    }
    read.0.is_empty().then_some(fields)
}

/// What a replay needs of the packed fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Glance<'a> {
    /// Id of the decision; empty where nothing was decided.
    pub decision_id: &'a str,
    /// Distribution over the domains; empty where nothing was decided.
    pub posterior: Vec<f32>,
    /// Probability of the choice.
    pub propensity: f64,
    /// Backends that the policy could choose from: local ones, cloud ones.
    pub eligible: [u32; 2],
    /// Attempts made.
    pub attempts: u32,
    /// What came of the check of a local answer.
    pub verdict: Option<&'a str>,
}

/// Reads these and passes over the rest; none where [`unpack`] gives none.
pub fn glance(bytes: &[u8]) -> Option<Glance<'_>> {
    let mut read = In(bytes);
    let layout = read.byte().filter(|layout| KNOWN.contains(layout))?;
    read.text()?;
    let decision_id = read.text()?;
    read.text()?;
    read.take(1 + 4)?;
    let posterior =
        (0..read.count()?).map(|_| Some(f32::from_le_bytes(read.array()?))).collect::<Option<Vec<f32>>>()?;
    read.text()?;
    read.text()?;
    let propensity = read.float()?;
    read.text()?;
    let mut eligible = [0; 2];
    for _ in 0..read.count()? {
        read.text()?;
        let place = usize::from(read.byte()?);
        read.take(4 * 8 + 4)?;
        read.text()?;
        read.text()?;
        (0..5).try_for_each(|_| read.pass(8))?;
        let can = read.byte()? != 0;
        if let Some(n) = eligible.get_mut(place).filter(|_| can) {
            *n += 1;
        }
        read.maybe_text()?;
    }
    let attempts = u32::from_le_bytes(read.array()?);
    read.pass(2)?;
    read.maybe_text()?;
    read.pass(8)?;
    read.take(8 + 8)?;
    read.pass(8)?;
    let verdict = if layout >= CHECKED { read.maybe_text()? } else { None };
    Some(Glance { decision_id, posterior, propensity, eligible, attempts, verdict })
}

/// As `explain --json` writes one.
fn read_alternative(read: &mut In<'_>) -> Option<Value> {
    let backend = read.text()?;
    let place = if read.byte()? == 0 { Place::Local } else { Place::Cloud };
    let [p_correct, mean, low, high] = [read.float()?, read.float()?, read.float()?, read.float()?];
    let (n, source) = (u32::from_le_bytes(read.array()?), read.text()?);
    let basis = read.text()?;
    let mut figure = || read.maybe(|read| Some(read.float()?.into()));
    let [j_low, j_mid, j_high, usd, seconds] = [figure()?, figure()?, figure()?, figure()?, figure()?];
    let eligible = read.byte()? != 0;
    let why_not = read.maybe(|read| Some(read.text()?.into()))?;
    Some(json!({
        "backend": backend,
        "place": place.name(),
        "p_correct": p_correct,
        "chance": { "mean": mean, "low": low, "high": high, "n": n, "source": source },
        "joules": { "low": j_low, "mid": j_mid, "high": j_high, "basis": basis },
        "usd": usd,
        "seconds": seconds,
        "eligible": eligible,
        "why_not": why_not,
    }))
}

struct Out(Vec<u8>);

impl Out {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// SQLite's columns hold no NaN and a sum no infinity; nor does this.
    fn float(&mut self, x: f64) {
        self.bytes(&if x.is_finite() { x } else { 0.0 }.to_le_bytes());
    }

    fn count(&mut self, mut n: usize) {
        while n >= 0x80 {
            self.byte((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.byte(n as u8);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn float(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.array()?))
    }

    fn count(&mut self) -> Option<usize> {
        let mut n = 0;
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            n |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let n = self.count()?;
        std::str::from_utf8(self.take(n)?).ok()
    }

    /// Passes over what may be missing and is so many bytes long.
    fn pass(&mut self, bytes: usize) -> Option<()> {
        match self.byte()? {
            0 => Some(()),
            1 => self.take(bytes).map(drop),
            _ => None,
        }
    }

    fn maybe_text(&mut self) -> Option<Option<&'a str>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.text().map(Some),
            _ => None,
        }
    }

    fn maybe(&mut self, read: impl FnOnce(&mut Self) -> Option<Value>) -> Option<Value> {
        match self.byte()? {
            0 => Some(Value::Null),
            1 => read(self),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::load;
    use crate::policy::sample::any_signals;

    fn record(signals: &crate::policy::types::Signals) -> Record {
        let decision = load("balanced", None).unwrap().decide(signals);
        Record {
            id: "r-1".to_owned(),
            decision_id: "d".repeat(300),
            posterior: Some(decision.posterior),
            reason: decision.reason,
            alternatives: decision.alternatives,
            status: Some(200),
            token_source: Some("upstream"),
            session: Some(u64::MAX),
            attempts: 2,
            total_ms: 12.5,
            ..Record::default()
        }
    }

    #[test]
    fn what_came_of_a_check_is_packed_where_there_was_one() {
        let plain = Record { id: "r".into(), ..Record::default() };
        assert!(!unpack(&pack(&plain)).unwrap().contains_key("verdict"));
        let fields = unpack(&pack(&Record { verdict: Some("kept"), confidence: Some(0.75), ..plain })).unwrap();
        assert_eq!((&fields["verdict"], &fields["confidence"]), (&json!("kept"), &json!(0.75)));
        assert_eq!((&fields["wasted_seconds"], &fields["wasted_usd"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn which_tier_classified_is_packed_where_there_is_more_than_one() {
        let tiered = Record { id: "r".into(), tier: Some("encoder"), router_joules: Some(0.25), ..Record::default() };
        let packed = pack(&tiered);
        let fields = unpack(&packed).unwrap();
        assert_eq!((&fields["tier"], &fields["router_joules"]), (&json!("encoder"), &json!(0.25)));
        assert_eq!((&fields["verdict"], glance(&packed).unwrap().verdict), (&Value::Null, None));
        let checked = Record { verdict: Some("kept"), ..tiered };
        assert_eq!(glance(&pack(&checked)).unwrap().verdict, Some("kept"));
        assert!(!unpack(&pack(&Record { tier: None, ..checked })).unwrap().contains_key("tier"));
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_again_as_it_was(signals in any_signals()) {
            let record = record(&signals);
            let fields = unpack(&pack(&record)).unwrap();
            // Through text on both sides, as an export goes.
            let told = serde_json::to_string(&*record.alternatives).unwrap();
            let read = serde_json::to_string(&fields["alternatives"]).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), serde_json::from_str::<Value>(&read).unwrap());
            prop_assert_eq!(&fields["reason"], &*record.reason);
            prop_assert_eq!(&fields["decision_id"], &record.decision_id);
            prop_assert_eq!(&fields["posterior"], &json!(record.posterior.unwrap().0.to_vec()));
            prop_assert_eq!(&fields["session"], "ffffffffffffffff");
            let packed = pack(&record);
            let seen = glance(&packed).unwrap();
            prop_assert_eq!((seen.decision_id, seen.attempts, seen.verdict), (&*record.decision_id, 2, None));
            prop_assert_eq!(json!(seen.posterior), fields["posterior"].clone());
            let can = |place| record.alternatives.iter().filter(|a| a.eligible && a.place == place).count() as u32;
            prop_assert_eq!(seen.eligible, [can(Place::Local), can(Place::Cloud)]);
            prop_assert_eq!((&fields["status"], &fields["ttft_ms"], &fields["attempts"]), (&json!(200), &Value::Null, &json!(2)));
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_and_never_panic(signals in any_signals(), at in any::<usize>(), with: u8) {
            let good = pack(&record(&signals));
            let mut bad = good.clone();
            let at = at % good.len();
            bad[at] = with;
            let _ = (unpack(&bad), glance(&bad));
            prop_assert_eq!(unpack(&good[..at]), None);
            let _ = glance(&good[..at]);
            bad.push(0);
            let _ = (unpack(&bad), glance(&bad));
        }
    }
}
