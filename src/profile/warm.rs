//! Warm-up: the first questions of a level, asked in short and counted nowhere.
//!
//! Invariant: one question that always fails is no reason to give the backend up; all of them are.

use super::asker::Trouble;
use super::run::{ATTEMPTS, End, Plan, Run, backoff};

/// Tokens of a warm-up answer.
const TOKENS: u32 = 16;

/// Asks the first questions without counting them; how the run ends, if the backend does not answer.
pub async fn up(run: &mut Run<'_>, plan: &Plan) -> Option<End> {
    let (mut asked, mut unanswered) = (0_u32, Vec::new());
    for item in plan.items.iter().cycle().take(plan.warm_up) {
        asked += 1;
        let text = item.question.text();
        let mut stop = run.stop.clone();
        let trouble = tokio::select! {
            trouble = ask(run, &text) => trouble,
            _ = stop.wait_for(|stop| *stop) => return Some(End::Stopped),
        };
        match trouble {
            None | Some(Trouble::Refused(_)) => {}
            Some(Trouble::Fatal(why) | Trouble::Away(why)) => return Some(End::Died(why)),
            Some(Trouble::Passing(why, _)) => unanswered.push(why),
        }
    }
    let all = u32::try_from(unanswered.len()).is_ok_and(|n| n == asked) && asked > 1;
    unanswered.pop().filter(|_| all).map(End::Died)
}

/// Asks until there is an answer or no hope for one.
async fn ask(run: &Run<'_>, text: &str) -> Option<Trouble> {
    let mut failed = 0;
    loop {
        let trouble = run.asker.ask(text, TOKENS).await.trouble;
        failed += 1;
        match trouble {
            Some(passing @ (Trouble::Passing(..) | Trouble::Away(_))) if failed < ATTEMPTS => {
                tokio::time::sleep(backoff(failed, passing.after())).await;
            }
            other => return other,
        }
    }
}
