//! The API's habits, after the Google AIPs: names, zero values, requests named after their method, paging, idempotency.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use super::Findings;
use super::proto_reader::{Declared, Enum, Method, read};
use crate::workspace::{files, root};

/// Conversations, whose two directions are not a request and its answer.
const CONVERSATIONS: &[&str] = &["Agent.Session", "Agent.Tunnel"];

/// A method that begins so changes nothing; every other one takes a `request_id`, unless it is a stream of requests.
const READING: &[&str] = &["Get", "List", "Watch", "Wait", "Explain", "Read", "Fetch"];

/// Idempotent by what they carry: the token and the CSR.
const NATURALLY_IDEMPOTENT: &[&str] = &["Enrolment.Enrol", "Agent.RenewCertificate"];

pub(super) fn check() -> Result<Findings> {
    let mut declared = Declared::default();
    let protos: Vec<String> = files()?.into_iter().filter(|f| f.ends_with(".proto")).collect();
    if protos.is_empty() {
        bail!("found no .proto file");
    }
    for file in protos {
        let text = fs::read_to_string(root().join(&file)).with_context(|| format!("cannot read {file}"))?;
        let more = read(&text);
        declared.messages.extend(more.messages);
        declared.enums.extend(more.enums);
        declared.methods.extend(more.methods);
    }
    Ok(Findings { faults: faults(&declared), warnings: Vec::new() })
}

fn faults(declared: &Declared) -> Vec<String> {
    let mut faults = Vec::new();
    for message in &declared.messages {
        for field in message.fields.iter().filter(|f| !is_lower_snake(f)) {
            faults.push(format!("{}.{field}: a field's name is lower_snake_case", message.name));
        }
    }
    declared.enums.iter().for_each(|e| enum_faults(e, &mut faults));
    let fields: BTreeMap<&str, &[String]> =
        declared.messages.iter().map(|m| (m.name.as_str(), m.fields.as_slice())).collect();
    declared.methods.iter().for_each(|m| method_faults(m, &fields, &mut faults));
    faults
}

fn enum_faults(one: &Enum, faults: &mut Vec<String>) {
    // Nested enums too: `Host.State` has STATE_UNSPECIFIED.
    let zero = format!("{}_UNSPECIFIED", upper_snake(&one.name));
    match one.values.first() {
        Some((name, number)) if *name == zero && number == "0" => {}
        Some((name, number)) => {
            faults.push(format!("enum {}: the first value is {zero} = 0, not {name} = {number}", one.name));
        }
        None => faults.push(format!("enum {} is empty", one.name)),
    }
    for (value, _) in
        one.values.iter().filter(|(value, _)| !is_lower_snake(&value.to_lowercase()) || *value != value.to_uppercase())
    {
        faults.push(format!("enum {}: {value}: a value's name is UPPER_SNAKE_CASE", one.name));
    }
}

fn method_faults(method: &Method, fields: &BTreeMap<&str, &[String]>, faults: &mut Vec<String>) {
    let name = format!("{}.{}", method.service, method.name);
    let mut fault = |text: String| faults.push(format!("{name}: {text}"));
    if method.permission.as_deref().is_none_or(|p| p != "public" && p != "host" && !p.contains('.')) {
        fault("declares no permission of the form noun.verb, public or host".to_owned());
    }
    if CONVERSATIONS.contains(&name.as_str()) {
        return;
    }
    if method.request != format!("{}Request", method.name) {
        fault(format!("takes {}Request, not {}", method.name, method.request));
    }
    // Or the resource itself, or an Operation.
    if method.response.ends_with("Response") && method.response != format!("{}Response", method.name) {
        fault(format!("returns {}Response or a resource, not {}", method.name, method.response));
    }
    let Some(request) = fields.get(method.request.as_str()) else { return };
    let lacks = |field: &str| !request.iter().any(|f| f == field);
    if method.name.starts_with("List") && (lacks("page_size") || lacks("page_token")) {
        fault("a list takes page_size and page_token (AIP-158)".to_owned());
    }
    let reads = READING.iter().any(|verb| method.name.starts_with(verb));
    if !reads && !method.streams_requests && !NATURALLY_IDEMPOTENT.contains(&name.as_str()) && lacks("request_id") {
        fault("changes something, so it takes a request_id (AIP-155)".to_owned());
    }
}

fn is_lower_snake(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(allowed)
        && !name.contains("__")
        && !name.ends_with('_')
}

fn upper_snake(camel: &str) -> String {
    let mut snake = String::new();
    for (index, c) in camel.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_uppercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_habit_is_missed() {
        let text = r#"
            service S {
              rpc CreateThing(CreateThingRequest) returns (Thing) { option (permission) = "things.create"; }
              rpc ListThings(ListThingsRequest) returns (ThingList) { option (permission) = "things.list"; }
              rpc GetThing(ThingName) returns (Thing) {}
            }
            message CreateThingRequest { string thingId = 1; }
            message ListThingsRequest { int32 page_size = 1; }
            enum HostState { UNKNOWN = 0; Bad = 1; }"#;
        let faults = faults(&read(text)).join("\n");
        for expected in [
            "CreateThingRequest.thingId",
            "S.CreateThing: changes something",
            "S.ListThings: a list takes",
            "S.GetThing: declares no permission",
            "S.GetThing: takes GetThingRequest",
            "the first value is HOST_STATE_UNSPECIFIED",
            "enum HostState: Bad",
        ] {
            assert!(faults.contains(expected), "{expected} is not in\n{faults}");
        }
        assert_eq!(faults.lines().count(), 7, "{faults}");
    }

    #[test]
    fn a_well_mannered_file_has_no_faults() {
        let text = r#"
            service S {
              rpc ListThings(ListThingsRequest) returns (ListThingsResponse) { option (permission) = "things.list"; }
              rpc StopThing(StopThingRequest) returns (Operation) { option (permission) = "things.stop"; }
              rpc Console(stream ConsoleRequest) returns (stream ConsoleResponse) { option (permission) = "things.console"; }
            }
            message ListThingsRequest { int32 page_size = 1; string page_token = 2; }
            message StopThingRequest { string name = 1; string request_id = 2; }
            message ConsoleRequest { bytes data = 1; }
            message Thing { enum State { STATE_UNSPECIFIED = 0; GOOD = 1; } State state = 1; }"#;
        assert_eq!(faults(&read(text)), Vec::<String>::new());
    }
}
