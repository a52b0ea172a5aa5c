//! Looks at every domain of the host, once for everybody who asks at the same time.
//!
//! A driver that has just acted needs a look that began after its action; two hundred drivers that act at once need one
//! such look, not two hundred. What a failed look did not see is *not seen*, never *not there*.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::hypervisor::{Domain, Error, Hypervisor, Survey};
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use uuid::Uuid;

/// A hypervisor that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The outcome of one look.
#[derive(Debug, Clone)]
pub struct Look {
    pub boot_id: String,
    pub outcome: Result<Survey, String>,
}

impl Look {
    /// Of Croft's, by uid.
    #[must_use]
    pub fn domain(&self, uid: Uuid) -> Option<&Domain> {
        self.outcome.as_ref().ok()?.ours.iter().find(|domain| domain.uid == uid)
    }
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Surveyor {
    requests: mpsc::Sender<oneshot::Sender<Arc<Look>>>,
    latest: watch::Receiver<Option<Arc<Look>>>,
}

impl Surveyor {
    pub fn spawn(hypervisor: Arc<dyn Hypervisor>, metrics: Metrics, tasks: &Tasks) -> Self {
        let (requests, mut inbox) = mpsc::channel::<oneshot::Sender<Arc<Look>>>(1024);
        let (publish, latest) = watch::channel(None);
        tasks.spawn_vital("the surveyor", async move {
            let mut waiting = Vec::new();
            let mut silence = String::new();
            while inbox.recv_many(&mut waiting, 1024).await > 0 {
                let look = Arc::new(look(&*hypervisor, &metrics).await);
                tell(&look, &mut silence);
                publish.send_replace(Some(Arc::clone(&look)));
                for asker in waiting.drain(..) {
                    let _ = asker.send(Arc::clone(&look));
                }
            }
        });
        Self { requests, latest }
    }

    /// A look that began after this call.
    pub async fn fresh(&self) -> Arc<Look> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(reply).await.is_ok()
            && let Ok(look) = answer.await
        {
            return look;
        }
        // The agent is ending: nobody is to conclude anything any more.
        std::future::pending().await
    }

    /// The last look, as each one ends.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Look>>> {
        self.latest.clone()
    }
}

/// Once for each reason: a hypervisor that is away for a night must not fill a disk with saying so.
fn tell(look: &Look, silence: &mut String) {
    match &look.outcome {
        Ok(_) if silence.is_empty() => {}
        Ok(_) => {
            silence.clear();
            tracing::info!("the hypervisor can be surveyed again");
        }
        Err(message) if message == silence => tracing::debug!("the hypervisor can not be surveyed: {message}"),
        Err(message) => {
            silence.clone_from(message);
            tracing::warn!("the hypervisor can not be surveyed: {message}");
        }
    }
}

async fn look(hypervisor: &dyn Hypervisor, metrics: &Metrics) -> Look {
    let silent = || Error::Unavailable(format!("no answer in {} s", PATIENCE.as_secs()));
    let both = async { Ok((hypervisor.boot_id().await?, hypervisor.survey().await?)) };
    match tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| Err(silent())) {
        Ok((boot_id, survey)) => Look { boot_id, outcome: Ok(survey) },
        Err(error) => {
            metrics.hypervisor_error("survey");
            Look { boot_id: String::new(), outcome: Err(error.to_string()) }
        }
    }
}
