//! Events of nodes: what `kubectl describe node` shows.

use croft_core::join::cluster::{Fault, NodeEvent, Severity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::request::Request;
use sha2::{Digest as _, Sha256};

use crate::connection::{Connection, text};
use crate::rights::{EVENT_CREATE, EVENT_NAMESPACE};

const CONTROLLER: &str = "croft.dev/controlplane";
const ACTION: &str = "Watch";
/// The API server's own limits, in bytes.
const NOTE_MAX: usize = 1024;
const REASON_MAX: usize = 128;

/// Its name comes from what it says: said again within the hour that the cluster keeps events, it is the same one.
pub(crate) async fn create(connection: &Connection, event: &NodeEvent) -> Result<(), Fault> {
    let digest = Sha256::digest(format!("{}\n{}\n{}", event.uid, event.reason, event.message));
    let name = format!("{}.{}", event.node, hex::encode(&digest[..8]));
    let at = Timestamp::from_microsecond(event.at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    let body = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(EVENT_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(event.node.clone()),
            uid: Some(event.uid.clone()),
            ..ObjectReference::default()
        }),
        type_: Some(match event.severity {
            Severity::Normal => "Normal".to_owned(),
            Severity::Warning => "Warning".to_owned(),
        }),
        reason: Some(cut(&event.reason, REASON_MAX).to_owned()),
        note: Some(cut(&event.message, NOTE_MAX).to_owned()),
        action: Some(ACTION.to_owned()),
        event_time: Some(MicroTime(at)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some("croft".to_owned()),
        ..Event::default()
    };
    let events = Request::new(Event::url_path(&(), Some(EVENT_NAMESPACE)));
    match connection.say(&EVENT_CREATE.of(&name), events.create(&PostParams::default(), text(&body))).await {
        Ok(_) | Err(Fault::Conflict { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
