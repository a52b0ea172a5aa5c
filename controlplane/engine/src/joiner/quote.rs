//! What a guest's own join said last, for people. Its host is asked beside the passes: one that does not answer holds up no other
//! node of the cluster.

use std::collections::BTreeMap;

use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use croft_core::join::machine::Phase;
use tokio::task::JoinHandle;

use crate::hooks::Console;

/// How each line of the program begins that the seed brings.
const JOIN_LINE: &str = "croft-join:";
const LINES: usize = 5;
const LINES_LENGTH: usize = 1000;
/// Consoles asked for at once; the others have their turn when these have answered.
const AT_ONCE: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Quotes(BTreeMap<InstanceUid, JoinHandle<String>>);

impl Quotes {
    /// `None`: not known yet; ask again. No other line of its console: that is for those who may read it.
    pub async fn of(&mut self, instance: &Instance, console: &Console) -> Option<String> {
        if let Some(asked) = self.0.get_mut(&instance.uid) {
            if !asked.is_finished() {
                return None;
            }
            // It is finished; one that died says nothing.
            let said = asked.await.unwrap_or_default();
            self.0.remove(&instance.uid);
            return Some(join_lines(&said));
        }
        if self.0.len() < AT_ONCE {
            self.0.insert(instance.uid, tokio::spawn(console(instance.clone())));
        }
        None
    }

    /// Those that still may miss their join.
    pub fn keep(&mut self, instances: &[Instance]) {
        let boots = |instance: &Instance| instance.node.as_ref().is_some_and(|node| node.phase == Phase::Booting);
        self.0.retain(|uid, _| instances.iter().any(|instance| instance.uid == *uid && boots(instance)));
    }
}

/// The last few lines of the program that joins.
fn join_lines(console: &str) -> String {
    let of_join = |line: &str| line.find(JOIN_LINE).map(|at| line[at + JOIN_LINE.len()..].trim().to_owned());
    let lines: Vec<String> = console.lines().filter_map(of_join).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    last.join(" | ").chars().map(plain).take(LINES_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::bed::joining;

    #[test]
    fn of_a_console_only_the_last_lines_of_the_join_are_told() {
        let console = "login: root\r\npassword: hunter2\r\n[  12.0] croft-join: begins\r\ncroft-join: cannot reach \u{1b}[1mit\r\n";
        assert_eq!(join_lines(console), "begins | cannot reach  [1mit");
        let many: String = (0..20).map(|n| format!("croft-join: {n}\n")).collect();
        assert_eq!(join_lines(&many), "15 | 16 | 17 | 18 | 19");
        assert_eq!(join_lines("nothing of it"), "");
    }

    #[tokio::test]
    async fn a_host_that_hangs_holds_up_nobody_and_not_too_many_are_asked_at_once() {
        let (asked, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counts, gate) = (asked.clone(), hangs.clone());
        let console: Console = Arc::new(move |_| {
            counts.fetch_add(1, Ordering::SeqCst);
            let gate = gate.clone();
            Box::pin(async move {
                gate.acquire_owned().await.unwrap().forget();
                "croft-join: gave up".to_owned()
            })
        });
        let instances: Vec<Instance> = (0..=AT_ONCE).map(|n| joining(&format!("n{n}"))).collect();
        let mut quotes = Quotes::default();
        for instance in &instances {
            assert_eq!(quotes.of(instance, &console).await, None);
        }
        hangs.add_permits(AT_ONCE);
        let said = loop {
            match quotes.of(&instances[0], &console).await {
                Some(said) => break said,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!((said.as_str(), asked.load(Ordering::SeqCst)), ("gave up", AT_ONCE));
        assert_eq!(quotes.of(&instances[AT_ONCE], &console).await, None, "its turn has come");
        assert_eq!(asked.load(Ordering::SeqCst), AT_ONCE + 1);
        quotes.keep(&[]);
        assert!(quotes.0.is_empty());
    }
}
