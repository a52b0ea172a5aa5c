//! The matrix of who may do what, checked in as a text: whoever changes a role or adds an RPC sees what that opens.

use std::fmt::Write as _;

use croft_core::access::{Principal, Role};

use super::*;

const ROLES: [(&str, Role); 5] = [
    ("admin", Role::PlatformAdmin),
    ("viewer", Role::PlatformViewer),
    ("t-admin", Role::TenantAdmin),
    ("t-oper", Role::TenantOperator),
    ("t-view", Role::TenantViewer),
];

fn token(role: Role) -> Principal {
    Principal::Token { id: "t".into(), role, tenant: role.is_tenants().then(|| "acme".into()) }
}

#[test]
fn who_may_call_what() {
    let mut table = format!("{:<48}{:<24}", "method", "permission");
    for (title, _) in ROLES {
        write!(table, "{title:<9}").unwrap();
    }
    table.push_str("host     nobody\n");
    for (path, permission) in croft_proto::PERMISSIONS {
        write!(table, "{:<48}{permission:<24}", path.trim_start_matches("/croft.")).unwrap();
        let mark = |principal: Principal| if principal.may(permission) { "yes" } else { "-" };
        for (_, role) in ROLES {
            write!(table, "{:<9}", mark(token(role))).unwrap();
        }
        writeln!(table, "{:<9}{}", mark(Principal::Host("h1".into())), mark(Principal::Anonymous)).unwrap();
    }
    insta::assert_snapshot!(table);
}

#[test]
fn only_our_own_methods_have_a_row() {
    assert_eq!(
        method("/croft.v1.Instances/CreateInstance"),
        Some(("/croft.v1.Instances/CreateInstance", "instances.create"))
    );
    for wrong in ["", "/", "/croft.v1.Instances", "/croft.v1.Instances/", "/croft.v1.Instances/CreateInstanceX"] {
        assert_eq!(method(wrong), None, "{wrong}");
    }
}

#[test]
fn a_denial_names_the_role_and_what_it_lacks() {
    let message = denial(&token(Role::TenantViewer), "instances.create");
    assert_eq!(message, "token:t has the role TENANT_VIEWER, which lacks instances.create");
    assert!(denial(&token(Role::PlatformAdmin), "host").contains("only an enrolled host's certificate"));
}
