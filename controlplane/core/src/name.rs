//! Resource names (AIP-122): `tenants/acme/instances/train-1` and back.

use crate::error::{Error, Result};
use crate::id::{DeviceId, HostId, NetworkId, OperationUid, PoolId, TenantId, TokenId};

/// Splits `name` along `pattern`, whose `{}` segments are returned: `parse("name", "tenants/acme", "tenants/{}")`.
/// `field` is the request's field for the error.
pub fn parse<'a, const N: usize>(field: &str, name: &'a str, pattern: &str) -> Result<[&'a str; N]> {
    let wrong = || {
        let shape = pattern.replace("{}", "…");
        Err(Error::invalid(field, format!("`{name}` is not of the form `{shape}`")))
    };
    let mut found = [""; N];
    let mut next = 0;
    let (mut segments, mut expected) = (name.split('/'), pattern.split('/'));
    loop {
        match (segments.next(), expected.next()) {
            (None, None) if next == N => return Ok(found),
            (Some(segment), Some("{}")) if !segment.is_empty() && next < N => {
                found[next] = segment;
                next += 1;
            }
            (Some(segment), Some(literal)) if segment == literal => {}
            _ => return wrong(),
        }
    }
}

pub fn tenant(field: &str, name: &str) -> Result<TenantId> {
    parse::<1>(field, name, "tenants/{}").map(|[id]| id.into())
}

pub fn host(field: &str, name: &str) -> Result<HostId> {
    parse::<1>(field, name, "hosts/{}").map(|[id]| id.into())
}

pub fn network(field: &str, name: &str) -> Result<NetworkId> {
    parse::<1>(field, name, "networks/{}").map(|[id]| id.into())
}

pub fn token(field: &str, name: &str) -> Result<TokenId> {
    parse::<1>(field, name, "tokens/{}").map(|[id]| id.into())
}

pub fn pool(field: &str, name: &str) -> Result<PoolId> {
    parse::<1>(field, name, "pools/{}").map(|[id]| id.into())
}

pub fn device(field: &str, name: &str) -> Result<(HostId, DeviceId)> {
    parse::<2>(field, name, "hosts/{}/devices/{}").map(|[host, id]| (host.into(), id.into()))
}

/// Of `hosts/{host}/layout`: the host.
pub fn layout(field: &str, name: &str) -> Result<HostId> {
    parse::<1>(field, name, "hosts/{}/layout").map(|[host]| host.into())
}

/// Of `clusters/prod` or `tenants/acme/clusters/prod`: whose, and the id.
pub fn cluster(field: &str, name: &str) -> Result<(Option<TenantId>, String)> {
    if name.starts_with("tenants/") {
        return parse::<2>(field, name, "tenants/{}/clusters/{}")
            .map(|[tenant, id]| (Some(tenant.into()), id.to_owned()));
    }
    parse::<1>(field, name, "clusters/{}").map(|[id]| (None, id.to_owned()))
}

pub fn instance(field: &str, name: &str) -> Result<(TenantId, String)> {
    parse::<2>(field, name, "tenants/{}/instances/{}").map(|[tenant, id]| (tenant.into(), id.to_owned()))
}

pub fn operation(field: &str, name: &str) -> Result<OperationUid> {
    let [uid] = parse::<1>(field, name, "operations/{}")?;
    OperationUid::parse(uid).ok_or_else(|| Error::invalid(field, format!("`{name}` is not of the form `operations/…`")))
}

/// `tenants/acme/quotas/vcpus`; the resource may hold slashes.
pub fn quota(field: &str, name: &str) -> Result<(TenantId, String)> {
    let parts: Vec<&str> = name.splitn(4, '/').collect();
    match parts.as_slice() {
        ["tenants", tenant, "quotas", resource] if !tenant.is_empty() && !resource.is_empty() => {
            Ok(((*tenant).into(), (*resource).to_owned()))
        }
        _ => Err(Error::invalid(field, format!("`{name}` is not of the form `tenants/…/quotas/…`"))),
    }
}

/// An image of the platform (`images/x`) or of a tenant (`tenants/t/images/x`).
pub fn image(field: &str, name: &str) -> Result<(Option<TenantId>, String)> {
    if let Ok([id]) = parse::<1>(field, name, "images/{}") {
        return Ok((None, id.to_owned()));
    }
    match parse::<2>(field, name, "tenants/{}/images/{}") {
        Ok([tenant, id]) => Ok((Some(tenant.into()), id.to_owned())),
        Err(_) => Err(Error::invalid(field, format!("`{name}` is not of the form `images/…` or `tenants/…/images/…`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_wrong_ones_named() {
        assert_eq!(instance("name", "tenants/a/instances/i").unwrap(), ("a".into(), "i".to_owned()));
        assert_eq!(quota("name", "tenants/a/quotas/gpus/h100").unwrap(), ("a".into(), "gpus/h100".to_owned()));
        assert_eq!(image("name", "images/d").unwrap(), (None, "d".to_owned()));
        let vf = device("name", "hosts/h1/devices/0000:41:00.1").unwrap();
        assert_eq!(vf, ("h1".into(), "0000:41:00.1".into()));
        for wrong in ["", "tenants/", "tenants/a/instances", "tenants/a/instances/i/x", "hosts/a/instances/i"] {
            let error = instance("name", wrong).unwrap_err().to_string();
            assert!(error.contains("tenants/…/instances/…"), "{error}");
        }
    }
}
