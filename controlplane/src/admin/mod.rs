//! What is done with the data directory in one's hands and without the API. Works while the plane runs, too: the database
//! takes care of two who write, and a plane of another version is not touched.

mod backup;
mod restore;

use std::sync::Arc;

use anyhow::{Result, bail};
use croft_core::time::SystemClock;
use croft_store::{Options, Schema, Store};

use crate::bootstrap;
use crate::config::{Admin, Place};
use crate::datadir::{DataDir, told};

pub use backup::backup;
pub use restore::{release_agents, restore};

pub async fn run(command: Admin) -> Result<()> {
    match command {
        Admin::ResetToken(place) => {
            let (directory, store) = open(&place).await?;
            let token = bootstrap::reset_token(&store, &directory).await;
            store.close().await;
            println!("{}", token?);
            eprintln!("the token `admin` has this new secret, which is also in {}", directory.admin_token().display());
            Ok(())
        }
        Admin::Backup { place, to } => {
            let (directory, store) = open(&place).await?;
            let made = backup(&directory, &store, &to).await;
            store.close().await;
            made
        }
        Admin::Restore { data_dir, from } => {
            restore(&data_dir, &from)?;
            println!(
                "restored into {}. Agents are held off: start the control plane, look at what docs/operations.md \
                 (\"Restore\") lists, then run `croft-controlplane admin release-agents`",
                data_dir.display()
            );
            Ok(())
        }
        Admin::ReleaseAgents(place) => release_agents(&DataDir::find(&place.data_dir)?),
        Admin::Schema(place) => schema(&place).await,
        Admin::Check(place) => check(&place).await,
    }
}

async fn open(place: &Place) -> Result<(DataDir, Store)> {
    let directory = DataDir::find(&place.data_dir)?;
    directory.ensure_same_version()?;
    let store = directory.store(place, Arc::new(SystemClock), false).await?;
    Ok((directory, store))
}

/// Also beside a plane of another version, since it only reads: the package of an older one asks before it takes the place
/// of a newer one (packaging/controlplane/preinst).
async fn schema(place: &Place) -> Result<()> {
    let url = match place.database()? {
        Some(url) => url.to_owned(),
        None => Options::in_dir(&place.data_dir, Arc::new(SystemClock)).url,
    };
    let schema = Schema::of(&url).await.map_err(|error| anyhow::anyhow!(told(&error)))?;
    println!("program {}", schema.program);
    println!("database {}", schema.database.map_or_else(|| "none".to_owned(), |version| version.to_string()));
    Ok(())
}

async fn check(place: &Place) -> Result<()> {
    let (_, store) = open(place).await?;
    let found = store.consistency().await.map_err(|error| anyhow::anyhow!(told(&error)));
    store.close().await;
    let found = found?;
    for difference in &found {
        println!("{difference}");
    }
    match found.len() {
        0 => {
            println!("ok: everything that is counted exists, and everything that exists is counted");
            Ok(())
        }
        n => bail!("{n} inconsistencies; keep a backup of this state and report them"),
    }
}
