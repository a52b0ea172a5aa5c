//! `croft pool`: named sets of interchangeable devices, which operators define. A tenant's limit on `devices/POOL` is its grant.

use clap::{Args, Subcommand, ValueEnum};
use croft_proto::v1::{self, device::Kind, pool::Match};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{Change, Guard, all_pages, pair};
use crate::labels::{LabelEdits, Labels, Mask};
use crate::output::{Resource, age, cell, named, table::Column};
use crate::{names, noun::device};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Define a pool of devices that are as good as each other
    #[command(after_help = "Examples:\n  \
        croft pool create nic-vf --kind virtual-function --match-id 8086:10ca\n  \
        croft pool create nvme --kind function --match-class 0108 --host-selector rack=7\n  \
        croft pool create hsm --kind usb --match-id 1050:0030 --match-device h1/usb-0000:00:14.0-2\n  \
        croft pool create gpu-h100 --match kind=gpu,id=10de:2330 --match host=rack=7\n\n\
        What is set must all hold; of values that are given again, one. Then grant it:\n  \
        croft quota set --tenant acme devices/nic-vf=4")]
    Create(Create),
    /// Show one pool
    #[command(visible_alias = "show")]
    Get { pool: String },
    /// Show the pools that you may see
    List,
    /// Change what belongs to it, the description, labels or annotations; what is held stays held
    Update(Update),
    /// Delete a pool that no instance holds anything of
    Delete {
        pool: String,
        #[command(flatten)]
        guard: Guard,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Whole GPUs
    Gpu,
    /// A PCI function that is neither a GPU nor virtual
    Function,
    /// A virtual function of an SR-IOV card
    #[value(alias = "vf")]
    VirtualFunction,
    Usb,
}

impl KindArg {
    fn kind(self) -> Kind {
        match self {
            Self::Gpu => Kind::Gpu,
            Self::Function => Kind::Function,
            Self::VirtualFunction => Kind::VirtualFunction,
            Self::Usb => Kind::Usb,
        }
    }
}

#[derive(Debug, Clone, Default, Args)]
struct Matches {
    /// All of it in one: kind, id, class, device and host (a label), for example kind=gpu,id=10de:2330,host=rack=7; may be
    /// given again
    #[arg(long = "match", value_name = "WORD=VALUE,…", value_delimiter = ',', value_parser = term)]
    terms: Vec<Term>,
    /// Vendor and device, for example 8086:10ca; may be given again
    #[arg(long = "match-id", value_name = "VENDOR:DEVICE")]
    ids: Vec<String>,
    /// The first two to six hex digits of a PCI class: 0200 is every Ethernet controller; may be given again
    #[arg(long = "match-class", value_name = "CLASS")]
    classes: Vec<String>,
    /// One device: HOST/DEVICE; may be given again
    #[arg(long = "match-device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Only on hosts with this label; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    host_selector: Vec<(String, String)>,
}

/// One word of `--match`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Kind(KindArg),
    Id(String),
    Class(String),
    Device(String),
    Host(String, String),
}

fn term(text: &str) -> Result<Term, String> {
    let (word, value) = pair(text)?;
    Ok(match word.as_str() {
        "kind" => Term::Kind(KindArg::from_str(&value, true)?),
        "id" => Term::Id(value),
        "class" => Term::Class(value),
        "device" => Term::Device(value),
        "host" => pair(&value).map(|(key, value)| Term::Host(key, value))?,
        other => return Err(format!("`{other}` is none of kind, id, class, device, host")),
    })
}

impl Matches {
    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.classes.is_empty() && self.devices.is_empty() && self.host_selector.is_empty()
    }

    /// `--match` is another way to write the other options. `kind`: of `--kind`.
    fn spread(&mut self, kind: &mut Option<KindArg>) -> Result<()> {
        for term in std::mem::take(&mut self.terms) {
            match term {
                Term::Kind(said) if kind.replace(said).is_some_and(|other| other != said) => {
                    return Err(Failure::usage("a pool is of one kind"));
                }
                Term::Kind(_) => {}
                Term::Id(id) => self.ids.push(id),
                Term::Class(class) => self.classes.push(class),
                Term::Device(device) => self.devices.push(device),
                Term::Host(key, value) => self.host_selector.push((key, value)),
            }
        }
        Ok(())
    }

    fn with(self, kind: i32) -> Result<Match> {
        Ok(Match {
            kind,
            ids: self.ids,
            classes: self.classes,
            devices: self.devices.iter().map(|device| device::name(device)).collect::<Result<_>>()?,
            host_selector: self.host_selector.into_iter().collect(),
        })
    }
}

#[derive(Debug, Args)]
pub struct Create {
    /// 1 to 40 of a-z, 0-9 and -, beginning with a letter
    pool: String,
    #[arg(long, value_enum, help = "What kind of device")]
    kind: Option<KindArg>,
    #[command(flatten)]
    matches: Matches,
    #[arg(long, default_value = "", hide_default_value = true, help = "A word for people")]
    description: String,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croft pool update nic-vf --match-id 8086:10ca --match-id 8086:1889\n\n\
    With any of --kind, --match-… and --host-selector, they are the whole match from then on; a kind that is not given stays.")]
pub struct Update {
    pool: String,
    #[arg(long, value_enum, help = "What kind of device")]
    kind: Option<KindArg>,
    #[command(flatten)]
    matches: Matches,
    #[arg(long, help = "A word for people")]
    description: Option<String>,
    #[command(flatten)]
    labels: LabelEdits,
    #[command(flatten)]
    change: Change,
}

named!(v1::Pool => "croft.v1.Pool");

impl Resource for v1::Pool {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |pool| names::id(&pool.name).into()),
        Column::new("KIND", |pool| of(pool, |matches| device::kind_word(matches.kind()).to_owned())),
        Column::new("MATCHES", |pool| of(pool, what)),
        Column::new("HOSTS", |pool| of(pool, hosts)),
        Column::new("AGE", |pool| age::since(pool.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("DESCRIPTION", |pool| pool.description.as_str().into()),
        Column::wide("LABELS", |pool| cell::labels(pool.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn of(pool: &v1::Pool, show: fn(&Match) -> String) -> cell::Text {
    pool.r#match.as_ref().map(show).unwrap_or_default().into()
}

/// `id 8086:10ca, class 0200`
fn what(matches: &Match) -> String {
    let devices = matches.devices.iter().map(|name| device::short(name));
    let parts =
        [("id", matches.ids.clone()), ("class", matches.classes.clone()), ("device", devices.collect::<Vec<_>>())];
    let said = parts.iter().filter(|(_, values)| !values.is_empty());
    said.map(|(word, values)| format!("{word} {}", values.join("|"))).collect::<Vec<_>>().join(", ")
}

fn hosts(matches: &Match) -> String {
    let pairs = matches.host_selector.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => self::create(app, create).await,
        Command::Get { pool } => app.out.one(&get(app, names::top("pools", &pool)?).await?),
        Command::List => app.out.list("pools", &list(app).await?),
        Command::Update(update) => self::update(app, update).await,
        Command::Delete { pool, guard } => delete(app, &pool, guard).await,
    }
}

async fn create(app: &App, mut create: Create) -> Result<()> {
    create.matches.spread(&mut create.kind)?;
    let Some(kind) = create.kind else {
        return Err(Failure::usage("say what kind of device it has: --kind gpu, function, virtual-function or usb"));
    };
    if create.matches.ids.is_empty() && create.matches.classes.is_empty() && create.matches.devices.is_empty() {
        return Err(Failure::usage(
            "say what belongs to it: --match-id, --match-class or --match-device (or --match id=…, class=…, device=…)",
        ));
    }
    let pool = v1::Pool {
        metadata: create.labels.metadata(),
        description: create.description,
        r#match: Some(create.matches.with(kind.kind().into())?),
        ..v1::Pool::default()
    };
    let request = v1::CreatePoolRequest {
        pool_id: names::id(&names::top("pools", &create.pool)?).to_owned(),
        pool: Some(pool),
        request_id: create.change.request_id(),
        validate_only: create.change.dry_run,
    };
    let made = app.plane()?.call(request, async |plane, r| plane.pools().create_pool(r).await).await?;
    app.out.did(&made, &create.change.say("created"))
}

pub async fn get(app: &App, name: String) -> Result<v1::Pool> {
    let request = v1::GetPoolRequest { name };
    app.plane()?.call(request, async |plane, r| plane.pools().get_pool(r).await).await
}

pub async fn list(app: &App) -> Result<Vec<v1::Pool>> {
    let plane = app.plane()?;
    all_pages(async |page_token| {
        let request = v1::ListPoolsRequest { page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.pools().list_pools(r).await).await?;
        Ok((page.pools, page.next_page_token))
    })
    .await
}

async fn update(app: &App, mut update: Update) -> Result<()> {
    update.matches.spread(&mut update.kind)?;
    let mut pool = get(app, names::top("pools", &update.pool)?).await?;
    let mut mask = Mask::default();
    if update.kind.is_some() || !update.matches.is_empty() {
        let current = pool.r#match.take().unwrap_or_default();
        let kind = update.kind.map_or(current.kind, |kind| kind.kind().into());
        pool.r#match = Some(match update.matches.is_empty() {
            true => Match { kind, ..current },
            false => update.matches.with(kind)?,
        });
        mask.add("match");
    }
    if let Some(description) = update.description {
        pool.description = description;
        mask.add("description");
    }
    update.labels.apply(&mut pool.metadata, &mut mask);
    let request = v1::UpdatePoolRequest {
        pool: Some(pool),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let pool = app.plane()?.call(request, async |plane, r| plane.pools().update_pool(r).await).await?;
    app.out.did(&pool, &update.change.say("updated"))
}

async fn delete(app: &App, pool: &str, guard: Guard) -> Result<()> {
    let name = names::top("pools", pool)?;
    let request = v1::DeletePoolRequest {
        name: name.clone(),
        request_id: guard.change.request_id(),
        validate_only: guard.change.dry_run,
        etag: guard.etag.clone(),
    };
    app.plane()?.call(request, async |plane, r| plane.pools().delete_pool(r).await).await?;
    app.out.did_to(&name, &guard.change.say("deleted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_in_one_option_is_the_same_as_in_several() {
        let terms = ["kind=gpu", "id=10de:2330", "class=0302", "device=h1/0000:41:00.0", "host=rack=7"];
        let terms = terms.map(|text| term(text).unwrap()).into();
        let (mut matches, mut kind) = (Matches { terms, ..Matches::default() }, None);
        matches.spread(&mut kind).unwrap();
        assert_eq!(kind, Some(KindArg::Gpu));
        assert_eq!(
            (matches.ids.as_slice(), matches.classes.as_slice()),
            (&["10de:2330".into()][..], &["0302".into()][..])
        );
        assert_eq!(matches.devices, ["h1/0000:41:00.0"]);
        assert_eq!(matches.host_selector, [("rack".to_owned(), "7".to_owned())]);

        let mut twice = Matches { terms: vec![Term::Kind(KindArg::Usb)], ..Matches::default() };
        assert!(twice.spread(&mut Some(KindArg::Gpu)).is_err());
        for (text, part) in [("model=x", "none of kind, id"), ("host=rack", "is not KEY=VALUE"), ("kind=nic", "nic")] {
            assert!(term(text).unwrap_err().contains(part), "{text}");
        }
    }
}
