//! ExplainInstance: the same predicates as admission, told host by host.

use croft_core::audit::Call;
use croft_core::condition::ConditionStatus;
use croft_core::device::Paths;
use croft_core::instance::{Instance, State};
use croft_core::join::machine::told;
use croft_core::placement::{Outcome, Verdict};
use croft_core::ports::NewInstance;
use croft_core::{Error, Result};
use croft_proto::v1;

use super::{create, find};
use crate::api::Api;
use crate::caller::Caller;

pub async fn explain(
    api: Api,
    caller: Caller,
    request: v1::ExplainInstanceRequest,
) -> Result<v1::ExplainInstanceResponse> {
    let (summary, new) = match (request.name.as_str(), request.create) {
        ("", Some(create)) => prospective(&api, &caller, create).await?,
        (name, None) if !name.is_empty() => {
            let instance = find(&api, &caller, name).await?;
            (existing(&instance), another_like(instance))
        }
        _ => return Err(Error::invalid("name", "set either name (of an existing instance) or create, not both")),
    };
    let verdicts = api.deps.admission.explain(new).await?;
    Ok(v1::ExplainInstanceResponse { summary, hosts: verdicts.iter().map(verdict).collect() })
}

/// Tries it, without changing anything: quota, names and images can be in the way too.
async fn prospective(api: &Api, caller: &Caller, create: v1::CreateInstanceRequest) -> Result<(String, NewInstance)> {
    let call = Call {
        principal: caller.principal.clone(),
        method: caller.method,
        request_id: String::new(),
        body_digest: [0; 32],
        peer: caller.peer.clone(),
        validate_only: true,
    };
    let new = create::new_instance(api, &call, create).await?;
    let summary = match api.deps.admission.create(call, new.clone()).await {
        Ok(admitted) => match admitted.instance.host() {
            Some(host) => format!("it would be placed on hosts/{host}"),
            None => "it would be accepted".to_owned(),
        },
        Err(error @ (Error::Internal { .. } | Error::Unavailable { .. })) => return Err(error),
        Err(refusal) => format!("it would be refused: {refusal}"),
    };
    Ok((summary, new))
}

fn existing(instance: &Instance) -> String {
    let name = instance.name();
    let status = &instance.status;
    let why = match (status.reason.as_str(), status.message.as_str()) {
        ("", "") => String::new(),
        ("", text) | (text, "") => format!(": {text}"),
        (reason, message) => format!(": {reason}: {message}"),
    };
    let why = format!("{why}{}", of_its_node(instance));
    let state = status.state.as_str();
    match (status.state, instance.host()) {
        (State::Placing, _) | (_, None) => format!("{name} is {state}{why}; below, per host, what stands in its way"),
        (_, Some(host)) => {
            format!("{name} is {state} on hosts/{host}{why}; below, per host, whether another one like it would fit")
        }
    }
}

/// How it stands with the node that it is to be; empty when that is Ready.
fn of_its_node(instance: &Instance) -> String {
    let Some(node) = &instance.node else { return String::new() };
    let condition = told::condition(node);
    if condition.status == ConditionStatus::True {
        return String::new();
    }
    let message = if node.message.is_empty() { String::new() } else { format!(": {}", node.message) };
    format!("; its node {} has not joined: {}{message}", node.name, condition.reason)
}

fn another_like(instance: Instance) -> NewInstance {
    NewInstance {
        tenant: instance.tenant,
        id: instance.id,
        labels: instance.meta.labels,
        annotations: instance.meta.annotations,
        spec: instance.spec,
        device_paths: Paths::default(),
        power: instance.intent.power,
        restart: instance.intent.restart,
        stop_timeout: instance.intent.stop_timeout,
        // Places nothing and seeds nobody.
        user_data: String::new(),
    }
}

fn verdict(verdict: &Verdict) -> v1::explain_instance_response::HostVerdict {
    let host = format!("hosts/{}", verdict.host);
    match &verdict.outcome {
        Outcome::Fits { rank } => v1::explain_instance_response::HostVerdict {
            host,
            fits: true,
            rank: i32::try_from(*rank).unwrap_or(i32::MAX),
            ..Default::default()
        },
        Outcome::Fails { predicate, message, fix } => v1::explain_instance_response::HostVerdict {
            host,
            fits: false,
            predicate: predicate.as_str().to_owned(),
            message: message.clone(),
            fix: fix.clone(),
            rank: 0,
        },
    }
}
