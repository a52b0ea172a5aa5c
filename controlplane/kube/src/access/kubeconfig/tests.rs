//! One good kubeconfig, and each way to spoil it.

use super::*;

struct Made {
    ca: String,
    chain: String,
    key: String,
}

fn made() -> Made {
    let issued = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
    let certificate = STANDARD.encode(issued.cert.pem());
    Made { ca: certificate.clone(), chain: certificate, key: STANDARD.encode(issued.signing_key.serialize_pem()) }
}

fn config(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u, namespace: x}}}}, {{name: d, context: {{cluster: k, user: v}}}}]\n\
         clusters: [{{name: k, cluster: {{{cluster}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}, {{name: v, user: {{exec: {{command: evil}}}}}}]\n"
    )
}

fn good_cluster() -> String {
    format!("server: 'https://10.0.0.1:6443', certificate-authority-data: {}", made().ca)
}

#[test]
fn a_token_or_a_certificate_is_taken_and_other_contexts_do_not_matter() {
    let entry = read(&config(&good_cluster(), "token: abc")).unwrap();
    assert_eq!((entry.server.to_string().as_str(), entry.ca.len()), ("https://10.0.0.1:6443/", 1));
    assert!(matches!(entry.credential, Credential::Token(token) if token == "abc"));
    let Made { chain, key, .. } = made();
    let user = format!("client-certificate-data: {chain}, client-key-data: {key}, exec: null, as: ''");
    let entry = read(&config(&good_cluster(), &user)).unwrap();
    assert!(matches!(entry.credential, Credential::Certificate { .. }));
    assert!(!format!("{entry:?}").contains(&key[..20]));
}

#[test]
fn what_runs_reads_files_or_weakens_tls_is_refused_by_name() {
    let Made { ca, key, .. } = made();
    let users = [
        ("exec: {command: /bin/sh, args: [-c, id]}", "users[u].user.exec"),
        ("auth-provider: {name: gcp}", "users[u].user.auth-provider"),
        ("client-certificate: /etc/shadow", "users[u].user.client-certificate"),
        ("client-key: k.pem", "users[u].user.client-key"),
        ("tokenFile: /var/run/secrets/token", "users[u].user.tokenFile"),
        ("token: a, username: b", "users[u].user.username"),
        ("token: a, as: system:admin", "users[u].user.as"),
        ("token: a, shiny: new", "users[u].user.shiny"),
        ("token: 'a b'", "users[u].user.token"),
        ("token: 7", "users[u].user.token"),
        ("", "users[u].user"),
        ("client-certificate-data: '%%%'", "users[u].user.client-certificate-data"),
    ];
    for (user, field) in users {
        let error = read(&config(&good_cluster(), user)).unwrap_err();
        assert_eq!(error.field, field, "{user}: {error}");
    }
    let alone = read(&config(&good_cluster(), &format!("client-key-data: {key}"))).unwrap_err();
    assert!(alone.problem.contains("without its certificate"), "{alone}");
    let good = format!("server: 'https://a', certificate-authority-data: {ca}");
    let clusters = [
        (format!("{good}, insecure-skip-tls-verify: true"), "insecure-skip-tls-verify"),
        (format!("{good}, proxy-url: 'socks5://b'"), "proxy-url"),
        ("server: 'https://a', certificate-authority: /etc/ssl/ca.pem".to_owned(), "certificate-authority"),
        ("server: 'https://a'".to_owned(), "certificate-authority-data"),
        (format!("server: 'https://a', certificate-authority-data: {key}"), "certificate-authority-data"),
        (format!("server: 'http://a', certificate-authority-data: {ca}"), "server"),
        (format!("server: 'https://root:pw@a', certificate-authority-data: {ca}"), "server"),
        (format!("server: 'https://a/b', certificate-authority-data: {ca}"), "server"),
        (format!("server: 'https://a/\", token: \"x', certificate-authority-data: {ca}"), "server"),
        (format!("server: 'https://a/{{x}}', certificate-authority-data: {ca}"), "server"),
        (format!("server: 'https://a/?x=y', certificate-authority-data: {ca}"), "server"),
        (format!("certificate-authority-data: {ca}"), "server"),
    ];
    for (cluster, field) in clusters {
        let error = read(&config(&cluster, "token: abc")).unwrap_err();
        assert_eq!(error.field, format!("clusters[k].cluster.{field}"), "{error}");
    }
    read(&config(&format!("{good}, insecure-skip-tls-verify: false"), "token: abc")).unwrap();
}

#[test]
fn what_is_not_there_or_there_twice_is_named() {
    let cases = [
        ("current-context: x\n", "contexts[x]"),
        ("contexts: []\n", "contexts"),
        (
            "contexts: [{name: a, context: {cluster: k, user: u}}, {name: b, context: {cluster: k, user: u}}]\n",
            "current-context",
        ),
        ("contexts: [{name: a, context: {cluster: k, user: u}}]\nclusters: null\n", "clusters[k]"),
        (
            "contexts: [{name: a, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {}}, {name: k, cluster: {}}]\n",
            "clusters[k]",
        ),
        ("- a\n", "kubeconfig"),
        ("token: [secret", "kubeconfig"),
    ];
    for (text, field) in cases {
        let error = read(text).unwrap_err();
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(read(&"#".repeat(SIZE_MAX + 1)).unwrap_err().problem.contains("at most"));
}

#[test]
fn aliases_cannot_be_piled_up() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    assert_eq!(read(&format!("{bomb}contexts: *a11\n")).unwrap_err().field, "kubeconfig");
}
