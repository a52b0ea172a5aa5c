//! What every resource carries, and conditions.

use croft_core::condition::{Condition, ConditionStatus};
use croft_core::meta::{Labels, Meta, check_annotations, check_labels};
use croft_core::validate::Violations;
use croft_proto::v1;

use super::time;
use crate::mask::Chosen;

#[must_use]
pub fn out(meta: &Meta) -> v1::Metadata {
    v1::Metadata {
        uid: meta.uid.clone(),
        generation: meta.generation,
        etag: meta.etag(),
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        create_time: Some(time::out(meta.create_time)),
        update_time: Some(time::out(meta.update_time)),
        delete_time: meta.delete_time.map(time::out),
    }
}

/// What a caller may say of them; the rest is output only and ignored (AIP-203).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    pub labels: Labels,
    pub annotations: Labels,
    pub etag: String,
}

impl Sent {
    /// Labels and annotations, as far as an update writes them.
    pub fn write(self, chosen: &Chosen, meta: &mut Meta) {
        self.write_to(chosen, &mut meta.labels, &mut meta.annotations);
    }

    /// For what has no [`Meta`].
    pub fn write_to(self, chosen: &Chosen, labels: &mut Labels, annotations: &mut Labels) {
        if chosen.writes("metadata.labels", !self.labels.is_empty()) {
            *labels = self.labels;
        }
        if chosen.writes("metadata.annotations", !self.annotations.is_empty()) {
            *annotations = self.annotations;
        }
    }
}

/// `noun` is the resource's field in the request, for the paths in the complaints.
pub fn into(noun: &str, metadata: Option<v1::Metadata>, violations: &mut Violations) -> Sent {
    let v1::Metadata { labels, annotations, etag, .. } = metadata.unwrap_or_default();
    check_labels(&format!("{noun}.metadata.labels"), &labels, violations);
    check_annotations(&format!("{noun}.metadata.annotations"), &annotations, violations);
    Sent { labels, annotations, etag }
}

#[must_use]
pub fn condition_out(condition: &Condition) -> v1::Condition {
    use v1::condition::Status;
    let status = match condition.status {
        ConditionStatus::True => Status::True,
        ConditionStatus::False => Status::False,
        ConditionStatus::Unknown => Status::Unknown,
    };
    v1::Condition {
        r#type: condition.kind.clone(),
        status: status.into(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: Some(time::out(condition.last_transition_time)),
    }
}

#[must_use]
pub fn condition_into(condition: v1::Condition) -> Condition {
    use v1::condition::Status;
    let status = match condition.status() {
        Status::True => ConditionStatus::True,
        Status::False => ConditionStatus::False,
        Status::Unknown | Status::Unspecified => ConditionStatus::Unknown,
    };
    Condition {
        kind: condition.r#type,
        status,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: condition.last_transition_time.map(time::into).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use croft_core::Timestamp;

    use super::*;

    #[test]
    fn labels_survive_and_output_only_fields_are_ignored() {
        let labels = Labels::from([("croft.dev/team".into(), "ml".into())]);
        let meta = Meta::new("01890000-0000-7000-8000-000000000001".into(), labels, Labels::new(), Timestamp(5));
        let mut violations = Violations::new();
        let sent = into("tenant", Some(out(&meta)), &mut violations);
        assert!(violations.finish().is_ok());
        assert_eq!((sent.labels, sent.etag), (meta.labels.clone(), meta.etag()));
    }

    #[test]
    fn a_bad_label_is_named_with_its_path() {
        let metadata = v1::Metadata { labels: Labels::from([("a b".into(), String::new())]), ..Default::default() };
        let mut violations = Violations::new();
        into("tenant", Some(metadata), &mut violations);
        let error = violations.finish().unwrap_err().to_string();
        assert!(error.starts_with("tenant.metadata.labels[a b]: "), "{error}");
    }

    #[test]
    fn conditions_come_back_as_they_went() {
        for status in [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown] {
            let condition = Condition {
                kind: "GuestReady".into(),
                status,
                reason: "GuestAgentAnswers".into(),
                message: "m".into(),
                last_transition_time: Timestamp(7),
            };
            assert_eq!(condition_into(condition_out(&condition)), condition);
        }
    }
}
