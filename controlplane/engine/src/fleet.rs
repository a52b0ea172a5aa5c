//! The hosts as last seen, less what this placer has placed since.

use std::collections::BTreeMap;

use croft_core::device::Assignment;
use croft_core::id::HostId;
use croft_core::placement::device::{Catalogue, Effort, Wishes};
use croft_core::placement::view::Claim;
use croft_core::placement::{self, HostView, Placement, Request};
use croft_core::{Error, Result};
use croft_store::{Extension, Store};

#[derive(Debug, Default)]
pub struct Fleet {
    hosts: BTreeMap<HostId, HostView>,
}

impl Fleet {
    /// Reads again what moved.
    pub async fn refresh(&mut self, store: &Store) -> Result<()> {
        let versions: BTreeMap<HostId, i64> = store.host_versions().await?.into_iter().collect();
        self.hosts.retain(|id, _| versions.contains_key(id));
        let moved: Vec<&HostId> = versions
            .iter()
            .filter(|(id, version)| self.hosts.get(id).map(|view| view.version) != Some(**version))
            .map(|(id, _)| id)
            .collect();
        if moved.len() > versions.len() / 2 {
            self.hosts = store.host_views().await?.into_iter().map(|view| (view.id.clone(), view)).collect();
            return Ok(());
        }
        for id in moved {
            match store.host_view(id).await? {
                Some(view) => self.hosts.insert(id.clone(), view),
                None => self.hosts.remove(id),
            };
        }
        Ok(())
    }

    pub fn views(&self) -> Vec<HostView> {
        self.hosts.values().cloned().collect()
    }

    /// To be read again.
    pub fn forget(&mut self, host: &HostId) {
        self.hosts.remove(host);
    }

    pub fn forget_all(&mut self) {
        self.hosts.clear();
    }

    pub fn take(&mut self, host: &HostId, claim: &Claim) {
        if let Some(view) = self.hosts.get_mut(host) {
            view.take(claim);
        }
    }

    /// What GPUs there are, and what they can be cut into.
    pub fn catalogue(&self) -> Catalogue {
        let mut catalogue = Catalogue::default();
        self.hosts.values().for_each(|view| catalogue.add(&view.devices));
        catalogue
    }

    /// What one request may cost here, however often it is asked.
    pub fn effort(&self) -> Effort {
        Effort::among(self.hosts.len())
    }

    /// Where it goes, what it takes there, and the version that this rests on.
    pub fn place(&self, request: &Request, effort: &Effort) -> Result<(Placement, Claim, i64)> {
        let placement = placement::place_within(self.hosts.values(), request, effort)?;
        let view =
            self.hosts.get(&placement.host).ok_or_else(|| Error::internal("placed on a host that is not there"))?;
        let claim = view.claim(request, &placement);
        Ok((placement, claim, view.version))
    }

    /// One device more, where `placement` is.
    pub fn extend(&self, placement: &Placement, wishes: &Wishes) -> Result<Extension> {
        let host = &placement.host;
        let view = self.hosts.get(host).ok_or_else(|| Error::internal("an instance on a host that is not there"))?;
        let mut given: Vec<Assignment> = placement::extend(view, wishes, &placement.pins)?;
        let assignment = given.pop().ok_or_else(|| Error::internal("nothing was asked for"))?;
        let claims = view.devices.claims(&assignment);
        Ok(Extension { host: host.clone(), version: view.version, assignment, claims })
    }
}
