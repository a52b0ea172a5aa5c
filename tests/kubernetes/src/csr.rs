//! What a kubelet sends to get a certificate, and what an impostor would send.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::authority::subject;

/// The two kinds of certificate that a kubelet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// To speak to the API server as `system:node:<name>`.
    Client,
    /// To be spoken to by it: logs, exec.
    Serving,
}

/// A key and a certificate signing request for it.
#[derive(Debug, Clone)]
pub struct KubeletCsr {
    pub key_pem: String,
    pub csr_pem: String,
}

impl KubeletCsr {
    /// As a kubelet of this node makes it.
    pub fn client(node: &str) -> Self {
        Self::of(&format!("system:node:{node}"), Some("system:nodes"), &[])
    }

    /// As a kubelet makes it for the names and addresses under which it serves.
    pub fn serving(node: &str, reached_as: &[&str]) -> Self {
        Self::of(&format!("system:node:{node}"), Some("system:nodes"), reached_as)
    }

    /// Whatever one likes to ask for.
    pub fn of(common_name: &str, organisation: Option<&str>, reached_as: &[&str]) -> Self {
        let names: Vec<String> = reached_as.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names and addresses");
        params.distinguished_name = subject(common_name, organisation).distinguished_name;
        let key = KeyPair::generate().expect("a key");
        let csr = params.serialize_request(&key).expect("a request");
        Self { key_pem: key.serialize_pem(), csr_pem: csr.pem().expect("PEM") }
    }

    /// The object to create in the cluster.
    pub fn object(&self, name: &str, signer: Signer) -> Value {
        let usage = match signer {
            Signer::Client => "client auth",
            Signer::Serving => "server auth",
        };
        self.object_with(name, signer, &["digital signature", usage])
    }

    /// The same, with usages of one's own.
    pub fn object_with(&self, name: &str, signer: Signer, usages: &[&str]) -> Value {
        let signer = match signer {
            Signer::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Signer::Serving => "kubernetes.io/kubelet-serving",
        };
        json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"signerName": signer, "usages": usages, "request": STANDARD.encode(&self.csr_pem)},
        })
    }
}
