//! The page's table of what policies would have earned by the log's own choices and rewards. Pure.

use std::fmt::Write;

use crate::picture::page::row;
use crate::picture::svg::escaped;
use crate::replay::offpolicy::CLIP;
use crate::replay::offpolicy::estimate::Estimate;
use crate::replay::outcome::Outcome;

/// The section; nothing where the log has no choices of known odds.
pub fn section(out: &mut String, outcome: &Outcome) {
    let Some(live) = &outcome.live else { return };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let shown = |e: &Estimate| format!("{:.3} ({:.3} to {:.3})", e.value, e.low, e.high);
    let _ = write!(
        out,
        "<h2>By the log's own choices and rewards</h2><p>Of {} choices {} have a reward; {} of these were drawn, so that another policy can be \
         judged by them. The policy that was live earned {} a query. Inverse propensity scores (Horvitz-Thompson), the same self-normalised, \
         and doubly robust with the mean reward of side and domain on other folds; weights above {CLIP} are cut. Queries that nobody scored \
         are not in it.</p><div class=\"wide\"><table><thead>",
        live.scored + live.unscored,
        live.scored,
        percent(live.drawn),
        shown(&live.reward),
    );
    row(out, "th", ["policy", "support", "effective n", "weights cut", "IPS (95 %)", "SNIPS", "doubly robust"]);
    out.push_str("</thead><tbody>");
    for policy in &outcome.policies {
        let Some(off) = &policy.off_policy else { continue };
        let [ips, snips, dr] =
            [off.ips, off.snips, off.dr].map(|e| e.as_ref().map_or_else(|| "not estimable".into(), shown));
        let counts = [percent(off.support), format!("{:.1}", off.effective_n), off.clipped.to_string()];
        row(out, "td", [policy.name.clone()].into_iter().chain(counts).chain([ips, snips, dr]));
    }
    out.push_str("</tbody></table></div>");
    for policy in &outcome.policies {
        if let Some(why) = policy.off_policy.as_ref().and_then(|off| off.why_not.as_deref()) {
            let _ = write!(out, "<p class=\"missing\">{}: {}</p>", escaped(&policy.name), escaped(why));
        }
    }
}
