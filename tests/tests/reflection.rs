//! A client that was taught nothing: it asks for the services, reads their descriptors, and calls one.

use std::collections::BTreeSet;

use croft_tests::Fleet;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

async fn ask(fleet: &Fleet, question: MessageRequest) -> ServerReflectionResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(fleet.api.channel.clone());
    let stream = client.server_reflection_info(tokio_stream::once(request)).await.expect("reflection");
    stream.into_inner().message().await.expect("an answer").expect("one answer")
}

/// Speaks messages that it only knows by descriptor.
struct Untaught(MessageDescriptor);

impl Codec for Untaught {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }
    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for Untaught {
    type Item = DynamicMessage;
    type Error = Status;
    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Untaught {
    type Item = DynamicMessage;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_listed_and_called_untaught() {
    let fleet = Fleet::with_host("h1").await;
    fleet.api.running("acme", "web").await;
    let Some(MessageResponse::ListServicesResponse(list)) =
        ask(&fleet, MessageRequest::ListServices(String::new())).await.message_response
    else {
        panic!("no list")
    };
    let services: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
    for noun in ["Tenants", "Quotas", "Tokens", "Hosts", "Images", "Networks", "Instances", "Operations", "Events"] {
        assert!(services.contains(&format!("croft.v1.{noun}")), "{noun} in {services:?}");
    }
    assert!(services.contains("grpc.health.v1.Health"), "{services:?}");

    let question = MessageRequest::FileContainingSymbol("croft.v1.Instances".to_owned());
    let Some(MessageResponse::FileDescriptorResponse(files)) = ask(&fleet, question).await.message_response else {
        panic!("no descriptor")
    };
    let mut waiting: Vec<Vec<u8>> = files.file_descriptor_proto;
    let mut known: Vec<prost_types::FileDescriptorProto> = Vec::new();
    while let Some(bytes) = waiting.pop() {
        let file = prost_types::FileDescriptorProto::decode(bytes.as_slice()).unwrap();
        if known.iter().any(|other| other.name == file.name) {
            continue;
        }
        for import in &file.dependency {
            let question = MessageRequest::FileByFilename(import.clone());
            if let Some(MessageResponse::FileDescriptorResponse(more)) = ask(&fleet, question).await.message_response {
                waiting.extend(more.file_descriptor_proto);
            }
        }
        known.push(file);
    }
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(known).expect("complete descriptors");
    let service = pool.get_service_by_name("croft.v1.Instances").unwrap();
    let method = service.methods().find(|method| method.name() == "GetInstance").unwrap();

    let mut message = DynamicMessage::new(method.input());
    message.set_field_by_name("name", prost_reflect::Value::String("tenants/acme/instances/web".to_owned()));
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", fleet.api.token).parse().unwrap());
    let mut grpc = tonic::client::Grpc::new(fleet.api.channel.clone());
    grpc.ready().await.unwrap();
    let path = "/croft.v1.Instances/GetInstance".parse().unwrap();
    let answer = grpc.unary(request, path, Untaught(method.output())).await.expect("called").into_inner();
    let spec = answer.get_field_by_name("spec").unwrap();
    let vcpus = spec.as_message().unwrap().get_field_by_name("vcpus").unwrap();
    assert_eq!(vcpus.as_i32(), Some(1));
    fleet.end().await;
}
