//! Resource names: a short id where the context says the rest, or the full name everywhere.

use crate::failure::{Failure, Result};

/// What stands before the id of a noun that lives at the top: `tenants/acme`, `hosts/h1`.
pub fn top(collection: &str, text: &str) -> Result<String> {
    match text.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/')) {
        Some(id) if is_id(id) => Ok(text.to_owned()),
        None if is_id(text) => Ok(format!("{collection}/{text}")),
        _ => Err(Failure::usage(format!("`{text}` is neither an id nor a name like {collection}/ID"))),
    }
}

/// `web` in `tenants/acme` is `tenants/acme/instances/web`. The tenant is asked for only when it is needed.
pub fn within(tenant: impl FnOnce() -> Result<String>, collection: &str, text: &str) -> Result<String> {
    if is_id(text) {
        return Ok(format!("{}/{collection}/{text}", tenant()?));
    }
    match text.split('/').collect::<Vec<_>>()[..] {
        ["tenants", tenant, middle, id] if is_id(tenant) && middle == collection && is_id(id) => Ok(text.to_owned()),
        _ => Err(Failure::usage(format!("`{text}` is neither an id nor a name like tenants/TENANT/{collection}/ID"))),
    }
}

/// A quota's resource may hold slashes (`gpus/h100_sxm_80gb`), so only the full prefix tells.
pub fn quota(tenant: impl FnOnce() -> Result<String>, text: &str) -> Result<String> {
    if text.starts_with("tenants/") && text.contains("/quotas/") {
        return Ok(text.to_owned());
    }
    if text.is_empty() {
        return Err(Failure::usage("the resource is empty; write vcpus, memory_mib, disk_gib or instances"));
    }
    Ok(format!("{}/quotas/{text}", tenant()?))
}

/// The last part of a name: what people call the thing.
#[must_use]
pub fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// `acme` of `tenants/acme/instances/web`; empty where there is none.
#[must_use]
pub fn tenant_of(name: &str) -> &str {
    name.strip_prefix("tenants/").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// `tenants/acme` of `tenants/acme/instances/web`; empty for what lives at the top.
#[must_use]
pub fn parent_of(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>()[..] {
        [collection, id, _, ..] => format!("{collection}/{id}"),
        _ => String::new(),
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Result<String> {
        Ok("tenants/acme".to_owned())
    }

    #[test]
    fn short_and_full_names_meet() {
        assert_eq!(top("hosts", "h1").unwrap(), "hosts/h1");
        assert_eq!(top("hosts", "hosts/h1").unwrap(), "hosts/h1");
        assert_eq!(within(acme, "instances", "web").unwrap(), "tenants/acme/instances/web");
        let full = "tenants/other/instances/web";
        assert_eq!(within(|| unreachable!(), "instances", full).unwrap(), full);
        assert_eq!(quota(acme, "gpus/h100_sxm_80gb").unwrap(), "tenants/acme/quotas/gpus/h100_sxm_80gb");
        assert_eq!(quota(acme, "tenants/b/quotas/vcpus").unwrap(), "tenants/b/quotas/vcpus");
    }

    #[test]
    fn names_of_something_else_are_refused() {
        for text in ["", "tenants/a", "hosts/", "hosts/a/b"] {
            assert!(top("hosts", text).is_err(), "{text}");
        }
        for text in ["", "acme/web", "tenants/acme/images/web", "tenants//instances/web"] {
            assert!(within(acme, "instances", text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_names() {
        assert_eq!(id("tenants/acme/instances/web"), "web");
        assert_eq!(tenant_of("tenants/acme/instances/web"), "acme");
        assert_eq!(tenant_of("hosts/h1"), "");
        assert_eq!(parent_of("tenants/acme/instances/web"), "tenants/acme");
        assert_eq!(parent_of("images/debian"), "");
    }
}
