//! The files of the control plane, and the flags by which its programs find them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::KeyPair;

use crate::{Authority, Credentials, Identity, kubeconfig};

/// A directory, and what lies in it.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
}

impl Files {
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// `--flag=<dir>/name`.
    fn file(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.dir.join(name).display())
    }

    fn write_identity(&self, name: &str, identity: &Identity) {
        self.write(&format!("{name}.crt"), &identity.certificate_pem);
        self.write(&format!("{name}.key"), &identity.key_pem);
    }

    /// Everybody's certificates and kubeconfigs. Returns who signed them.
    pub(crate) fn write_certificates(&self, server: SocketAddr, also_reached_as: &[String]) -> Authority {
        let authority = Authority::new("kubernetes-ca");
        self.write("ca.crt", &authority.certificate_pem);
        self.write("ca.key", &authority.key_pem);
        // Without one the others log its absence without end.
        self.write("front-proxy-ca.crt", &Authority::new("front-proxy-ca").certificate_pem);
        let mut names = vec![server.ip().to_string(), "127.0.0.1".to_owned(), "kubernetes".to_owned()];
        names.extend(also_reached_as.iter().cloned());
        names.dedup();
        self.write_identity("apiserver", &authority.server("kube-apiserver", &names));
        // By which it reads logs of kubelets and runs commands through them.
        let to_kubelets = authority.client("kube-apiserver-kubelet-client", Some("system:masters"));
        self.write_identity("apiserver-kubelet", &to_kubelets);
        let service_accounts = KeyPair::generate().expect("a key");
        self.write("service-accounts.key", &service_accounts.serialize_pem());
        self.write("service-accounts.pub", &service_accounts.public_key_pem());
        for (name, user, group) in [
            ("admin", "admin", Some("system:masters")),
            ("controller-manager", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
        ] {
            let identity = authority.client(user, group);
            let text = kubeconfig(
                &format!("https://{server}"),
                &authority.certificate_pem,
                Credentials::Certificate(&identity),
            );
            self.write(&format!("{name}.kubeconfig"), &text);
        }
        authority
    }

    pub(crate) fn etcd(&self, client: &str, peer: &str) -> Vec<String> {
        vec![
            self.file("data-dir", "etcd"),
            // Nothing of it outlives the test; waiting for a busy disk would only make it doubt that it is alive.
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ]
    }

    pub(crate) fn api_server(&self, address: SocketAddr, etcd: &str) -> Vec<String> {
        let ip = address.ip();
        let mut flags = vec![
            format!("--etcd-servers={etcd}"),
            format!("--bind-address={ip}"),
            format!("--advertise-address={ip}"),
            format!("--secure-port={}", address.port()),
            self.file("tls-cert-file", "apiserver.crt"),
            self.file("tls-private-key-file", "apiserver.key"),
            self.file("client-ca-file", "ca.crt"),
            self.file("kubelet-client-certificate", "apiserver-kubelet.crt"),
            self.file("kubelet-client-key", "apiserver-kubelet.key"),
            self.file("kubelet-certificate-authority", "ca.crt"),
            self.file("service-account-key-file", "service-accounts.pub"),
            self.file("service-account-signing-key-file", "service-accounts.key"),
            self.file("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ];
        let fixed = [
            // No DNS here knows a node's name.
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--authorization-mode=Node,RBAC",
            "--enable-bootstrap-token-auth",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--allow-privileged",
            // It may listen on loopback, which no endpoint of a service may name.
            "--endpoint-reconciler-type=none",
        ];
        flags.extend(fixed.map(str::to_owned));
        flags
    }

    pub(crate) fn controller_manager(&self, certificates_live: &str) -> Vec<String> {
        let mut flags = self.client_of("controller-manager");
        flags.extend([
            "--use-service-account-credentials".to_owned(),
            // Whoever approves kubelets' certificates is what is tested.
            "--controllers=*,bootstrapsigner,tokencleaner,-csrapproving".to_owned(),
            self.file("cluster-signing-cert-file", "ca.crt"),
            self.file("cluster-signing-key-file", "ca.key"),
            format!("--cluster-signing-duration={certificates_live}"),
            self.file("service-account-private-key-file", "service-accounts.key"),
            self.file("root-ca-file", "ca.crt"),
        ]);
        flags
    }

    pub(crate) fn scheduler(&self) -> Vec<String> {
        self.client_of("scheduler")
    }

    /// What the two clients of the API server share. Nobody asks them anything, so they listen nowhere.
    fn client_of(&self, name: &str) -> Vec<String> {
        let kubeconfig = format!("{name}.kubeconfig");
        vec![
            self.file("kubeconfig", &kubeconfig),
            self.file("authentication-kubeconfig", &kubeconfig),
            self.file("authorization-kubeconfig", &kubeconfig),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]
    }
}
