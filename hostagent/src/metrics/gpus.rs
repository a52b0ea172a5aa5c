//! The GPUs of this host: how each is, and who has it. Health and holder are apart, so that a graph of health does not break
//! when a GPU changes hands; `croft_gpu_info` joins them by (host, host_bdf), and DCGM's series by `uuid`.

use std::fmt;

use croft_proto::v1::device::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use uuid::Uuid;

use super::source::healthy;

#[derive(Debug, Clone)]
pub struct Gpu {
    pub address: String,
    pub uuid: String,
    pub model: String,
    pub state: State,
    /// Empty: nothing is wrong.
    pub reason: String,
    pub holders: Vec<Holder>,
}

#[derive(Debug, Clone, Default)]
pub struct Holder {
    pub uid: Uuid,
    pub tenant: String,
    pub instance: String,
    pub function: String,
    pub guest: String,
    pub profile: String,
}

#[derive(Debug)]
pub struct Gpus(pub Vec<Gpu>);

type Labels = Vec<(&'static str, String)>;

impl Collector for Gpus {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let own = |gpu: &Gpu| vec![("host_bdf", gpu.address.clone()), ("uuid", gpu.uuid.clone())];
        let health = self.0.iter().map(|gpu| (own(gpu), i64::from(healthy(gpu.state))));
        let help = "1 while nothing keeps a GPU from being used; 0: croft_gpu_fault says what.";
        gauges(&mut encoder, "gpu_healthy", help, health)?;
        let faults = self.0.iter().filter(|gpu| !healthy(gpu.state)).map(|gpu| {
            let more = [("state", word(gpu.state)), ("reason", gpu.reason.clone())];
            (own(gpu).into_iter().chain(more).collect(), 1)
        });
        gauges(&mut encoder, "gpu_fault", "1 for what is wrong with a GPU: its state and its reason.", faults)?;
        let help = "One series for each GPU and who holds some of it, with the address that the guest sees.";
        gauges(&mut encoder, "gpu_info", help, self.0.iter().flat_map(info).map(|labels| (labels, 1)))
    }
}

fn word(state: State) -> String {
    state.as_str_name().to_owned()
}

fn info(gpu: &Gpu) -> Vec<Labels> {
    let one = |holder: &Holder, uid: String| {
        vec![
            ("host_bdf", gpu.address.clone()),
            ("uuid", gpu.uuid.clone()),
            ("model", gpu.model.clone()),
            ("tenant", holder.tenant.clone()),
            ("instance", holder.instance.clone()),
            ("uid", uid),
            ("function", holder.function.clone()),
            ("guest_bdf", holder.guest.clone()),
            ("profile", holder.profile.clone()),
        ]
    };
    if gpu.holders.is_empty() {
        return vec![one(&Holder::default(), String::new())];
    }
    gpu.holders.iter().map(|holder| one(holder, holder.uid.to_string())).collect()
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = (Labels, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
