//! Croft's mark on a domain: the metadata element that makes a domain ours.
//!
//! A domain without it, or with one that names another uid than the domain's own, is foreign and is never touched.

use uuid::Uuid;

use super::xml::{Element, el};

/// Namespace of the element.
pub const NAMESPACE: &str = "https://croft.dev/libvirt/1";
const PREFIX: &str = "croft";

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub uid: Uuid,
    /// The desired generation that the domain was defined from.
    pub generation: i64,
    /// Of its root disk; 0: never rebuilt.
    pub disk_generation: i64,
}

/// The name that the domain of an instance has.
pub fn domain_name(uid: Uuid) -> String {
    format!("croft-{uid}")
}

/// The instance whose domain has this name.
pub fn uid_of_name(name: &str) -> Option<Uuid> {
    Uuid::parse_str(name.strip_prefix("croft-")?).ok()
}

impl Mark {
    /// As the content of `<metadata>`; tenant and name are for people who read `virsh dumpxml`.
    pub fn to_element(&self, tenant: &str, name: &str) -> Element {
        el(&format!("{PREFIX}:instance"))
            .attr(&format!("xmlns:{PREFIX}"), NAMESPACE)
            .attr("uid", self.uid)
            .attr("generation", self.generation)
            .attr("disk-generation", self.disk_generation)
            .attr("tenant", tenant)
            .attr("name", name)
    }

    /// Reads what libvirt gives back for our namespace, for the domain with this UUID. `None`: not ours.
    pub fn read(xml: &str, domain: Uuid) -> Option<Self> {
        let element = Element::parse(xml).ok().filter(|element| element.local_name() == "instance")?;
        let uid = Uuid::parse_str(element.get("uid")?).ok().filter(|uid| *uid == domain)?;
        // Marks of before there was a rebuild have none.
        let disk_generation = element.get("disk-generation").map_or(Ok(0), str::parse).ok()?;
        Some(Self { uid, generation: element.get("generation")?.parse().ok()?, disk_generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_only_on_its_own_domain() {
        let uid = Uuid::from_u128(7);
        let mark = Mark { uid, generation: 3, disk_generation: 2 };
        let text = mark.to_element("acme", "<train & co>").write().unwrap();
        assert_eq!(Mark::read(&text, uid), Some(mark.clone()));
        let older = text.replace(" disk-generation=\"2\"", "");
        assert_eq!(Mark::read(&older, uid), Some(Mark { disk_generation: 0, ..mark }));
        assert_eq!(Mark::read(&text, Uuid::from_u128(8)), None);
        assert_eq!(Mark::read("<instance/>", uid), None);
        assert_eq!(uid_of_name(&domain_name(uid)), Some(uid));
        assert_eq!(uid_of_name("croft-web"), None);
    }
}
