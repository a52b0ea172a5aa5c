//! Reads a `.proto` file as far as naming rules need it: messages with fields, enums with values, services with methods.
//!
//! The build compiles the same files with protox; whatever does not parse is its to refuse, so this reader forgives.

/// What a file declares.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) messages: Vec<Message>,
    pub(super) enums: Vec<Enum>,
    pub(super) methods: Vec<Method>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: String,
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Enum {
    pub(super) name: String,
    pub(super) values: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) name: String,
    pub(super) request: String,
    pub(super) response: String,
    pub(super) streams_requests: bool,
    pub(super) permission: Option<String>,
}

enum Scope {
    /// Index into `messages`; a oneof stands in its message's scope.
    Message(usize),
    Enum(usize),
    Service(String),
    Method(usize),
    Other,
}

/// Reads a whole file.
pub(super) fn read(text: &str) -> Declared {
    let mut declared = Declared::default();
    let mut scopes: Vec<Scope> = Vec::new();
    let mut statement: Vec<String> = Vec::new();
    for token in tokens(text) {
        match token.as_str() {
            "{" => {
                let scope = open(&statement, scopes.last(), &mut declared);
                scopes.push(scope);
                statement.clear();
            }
            "}" => {
                scopes.pop();
                statement.clear();
            }
            ";" => {
                close(&statement, scopes.last(), &mut declared);
                statement.clear();
            }
            _ => statement.push(token),
        }
    }
    declared
}

fn open(statement: &[String], inside: Option<&Scope>, declared: &mut Declared) -> Scope {
    let words: Vec<&str> = statement.iter().map(String::as_str).collect();
    match (words.as_slice(), inside) {
        (["message", name], _) => {
            declared.messages.push(Message { name: (*name).to_owned(), fields: Vec::new() });
            Scope::Message(declared.messages.len() - 1)
        }
        (["enum", name], _) => {
            declared.enums.push(Enum { name: (*name).to_owned(), values: Vec::new() });
            Scope::Enum(declared.enums.len() - 1)
        }
        (["service", name], _) => Scope::Service((*name).to_owned()),
        (["oneof", _], Some(Scope::Message(index))) => Scope::Message(*index),
        (["rpc", ..], Some(Scope::Service(service))) => {
            declared.methods.extend(method(&words, service));
            Scope::Method(declared.methods.len().saturating_sub(1))
        }
        _ => Scope::Other,
    }
}

fn close(statement: &[String], inside: Option<&Scope>, declared: &mut Declared) {
    let words: Vec<&str> = statement.iter().map(String::as_str).collect();
    if let (["rpc", ..], Some(Scope::Service(service))) = (words.as_slice(), inside) {
        declared.methods.extend(method(&words, service));
        return;
    }
    let Some(equals) = words.iter().position(|w| *w == "=") else { return };
    match inside {
        Some(Scope::Method(index))
            if words[..equals].contains(&"permission") || words[..equals].contains(&"croft.v1.permission") =>
        {
            let text = words.get(equals + 1).map(|w| w.trim_matches('"').to_owned());
            declared.methods[*index].permission = text;
        }
        Some(Scope::Message(index)) if words[0] != "option" && equals > 0 => {
            declared.messages[*index].fields.push(words[equals - 1].to_owned());
        }
        Some(Scope::Enum(index)) if words[0] != "option" => {
            let number = words.get(equals + 1).copied().unwrap_or_default().to_owned();
            declared.enums[*index].values.push((words[0].to_owned(), number));
        }
        _ => {}
    }
}

/// `rpc Name ( [stream] Request ) returns ( [stream] Response )`
fn method(words: &[&str], service: &str) -> Option<Method> {
    let inside = |from: usize| {
        let open = words.iter().skip(from).position(|w| *w == "(")? + from;
        let end = words.iter().skip(open).position(|w| *w == ")")? + open;
        Some((words.get(open + 1) == Some(&"stream") && end > open + 2, words.get(end - 1)?.to_string(), end))
    };
    let (streams_requests, request, end) = inside(1)?;
    let (_, response, _) = inside(end)?;
    let (service, name) = (service.to_owned(), words.get(1)?.to_string());
    Some(Method { service, name, request, response, streams_requests, permission: None })
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
            tokens.push(rest[..end].to_owned());
            end
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        syntax = "proto3"; // not { a brace }
        service Things {
          rpc GetThing(GetThingRequest) returns (Thing) { option (permission) = "things.get"; }
          rpc Talk(stream Word) returns (stream .croft.v1.Word);
        }
        message Thing {
          option deprecated = false;
          string name = 1; /* an old
          string gone = 2; */
          map<string, int32> sizes = 3;
          oneof kind { Small small_one = 4; }
          enum State { STATE_UNSPECIFIED = 0; GOOD = 1; }
          message Small { repeated string words = 1 [deprecated = true]; }
          State state = 5;
        }"#;

    #[test]
    fn fields_of_oneofs_belong_to_their_message() {
        let declared = read(TEXT);
        let thing = &declared.messages[0];
        assert_eq!((thing.name.as_str(), thing.fields.join(" ").as_str()), ("Thing", "name sizes small_one state"));
        assert_eq!(declared.messages[1].fields, ["words"]);
    }

    #[test]
    fn enums_and_methods() {
        let declared = read(TEXT);
        assert_eq!(declared.enums[0].values[0], ("STATE_UNSPECIFIED".to_owned(), "0".to_owned()));
        let [get, talk] = declared.methods.as_slice() else { panic!("{:?}", declared.methods) };
        assert_eq!((get.request.as_str(), get.response.as_str()), ("GetThingRequest", "Thing"));
        assert_eq!(get.permission.as_deref(), Some("things.get"));
        assert!(talk.streams_requests && talk.permission.is_none() && !get.streams_requests);
    }
}
