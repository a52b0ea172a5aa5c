//! `croft token`: API tokens of people and programs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use croft_proto::v1::{self, token::Role};

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::flags::{Change, RequestId, all_pages};
use crate::labels::{LabelEdits, Labels, Mask, Selector};
use crate::output::cell::{Mood, Text};
use crate::output::{Resource, age, cell, named, note, table::Column};
use crate::{config, duration, names};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token and print its secret, once
    #[command(after_help = "Examples:\n  \
        croft token create ci --tenant acme --role tenant-operator --ttl 720h --out ci.token\n  \
        croft token create ops2 --role platform-admin")]
    Create(Create),
    /// Show one token
    Get { token: String },
    /// Show the tokens of a tenant, or all that you may see
    List {
        /// Of all tenants, not only of the context's
        #[arg(short = 'A', long)]
        all: bool,
        #[command(flatten)]
        selector: Selector,
    },
    /// Change description, labels or annotations; what it may do never changes
    Update(Update),
    /// Refuse a token from now on; it can be deleted later
    Disable {
        token: String,
        #[command(flatten)]
        request: RequestId,
    },
    /// Delete a token
    Delete {
        token: String,
        #[command(flatten)]
        request: RequestId,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// 1 to 63 of a-z, 0-9 and -
    token: String,
    /// What it may do; a tenant role holds in the tenant (--tenant or the context's) and below it
    #[arg(long, value_enum)]
    role: RoleArg,
    #[arg(long, default_value = "", hide_default_value = true, help = "What it is for")]
    description: String,
    /// For how long it is good; without it for ever
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Write the secret to this file (mode 0600) instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
pub struct Update {
    token: String,
    #[arg(long, help = "What it is for")]
    description: Option<String>,
    #[command(flatten)]
    labels: LabelEdits,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Everything, in the whole plane
    PlatformAdmin,
    /// Reads everything
    PlatformViewer,
    /// Everything inside the tenant, but not its own quota
    TenantAdmin,
    /// Instances and images
    TenantOperator,
    /// Reads
    TenantViewer,
}

impl RoleArg {
    fn role(self) -> Role {
        match self {
            Self::PlatformAdmin => Role::PlatformAdmin,
            Self::PlatformViewer => Role::PlatformViewer,
            Self::TenantAdmin => Role::TenantAdmin,
            Self::TenantOperator => Role::TenantOperator,
            Self::TenantViewer => Role::TenantViewer,
        }
    }

    fn is_platform(self) -> bool {
        matches!(self, Self::PlatformAdmin | Self::PlatformViewer)
    }
}

named!(v1::Token => "croft.v1.Token", v1::CreateTokenResponse => "croft.v1.CreateTokenResponse");

impl Resource for v1::Token {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |token| names::id(&token.name).into()),
        Column::new("TENANT", |token| names::id(&token.tenant).into()),
        Column::new("ROLE", |token| token.role().as_str_name().to_ascii_lowercase().replace('_', "-").into()),
        Column::new("STATE", state),
        Column::new("EXPIRES", |token| token.expire_time.as_ref().map_or("never".into(), |t| age::until(Some(t)))),
        Column::new("LAST USED", |token| age::since(token.last_used_time.as_ref())),
        Column::new("AGE", |token| age::since(token.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("DESCRIPTION", |token| token.description.as_str().into()),
        Column::wide("LABELS", |token| cell::labels(token.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn state(token: &v1::Token) -> Text {
    if token.disabled {
        Text::new("disabled", Mood::Bad)
    } else if age::is_past(token.expire_time.as_ref()) {
        Text::new("expired", Mood::Bad)
    } else {
        Text::new("active", Mood::Good)
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => self::create(app, create).await,
        Command::Get { token } => app.out.one(&get(app, names::top("tokens", &token)?).await?),
        Command::List { all, selector } => list(app, all, &selector).await,
        Command::Update(update) => self::update(app, update).await,
        Command::Disable { token, request } => {
            let request = v1::DisableTokenRequest { name: names::top("tokens", &token)?, request_id: request.get() };
            let token = app.plane()?.call(request, async |plane, r| plane.tokens().disable_token(r).await).await?;
            app.out.did(&token, "disabled")
        }
        Command::Delete { token, request } => {
            let name = names::top("tokens", &token)?;
            let request = v1::DeleteTokenRequest { name: name.clone(), request_id: request.get() };
            app.plane()?.call(request, async |plane, r| plane.tokens().delete_token(r).await).await?;
            app.out.did_to(&name, "deleted")
        }
    }
}

async fn create(app: &App, create: Create) -> Result<()> {
    let token = v1::Token {
        tenant: if create.role.is_platform() { String::new() } else { app.tenant()? },
        role: create.role.role().into(),
        description: create.description,
        metadata: create.labels.metadata(),
        ..v1::Token::default()
    };
    let request = v1::CreateTokenRequest {
        token_id: names::id(&names::top("tokens", &create.token)?).to_owned(),
        token: Some(token),
        ttl: create.ttl.map(duration::to_proto),
        request_id: create.change.request_id(),
        validate_only: create.change.dry_run,
    };
    let mut made = app.plane()?.call(request, async |plane, r| plane.tokens().create_token(r).await).await?;
    let name = made.token.as_ref().map(|token| token.name.clone()).unwrap_or_default();
    if create.change.dry_run {
        return app.out.did_to(&name, &create.change.say("created"));
    }
    if made.secret.is_empty() {
        // The plane keeps only a hash, so a repeated request cannot show it again.
        return Err(Failure::local(format!(
            "{name} exists, and its secret was shown when it was first created; delete it and create another"
        )));
    }
    if let Some(file) = &create.out {
        config::write_private(file, format!("{}\n", made.secret).as_bytes())?;
        made.secret.clear();
        return app.out.message(&made, &format!("{name} created; its secret is in {}", file.display()));
    }
    if app.out.is_table() {
        note(&format!("{name} created; this is its secret, shown only now:"));
    }
    let secret = made.secret.clone();
    app.out.message(&made, &secret)
}

async fn get(app: &App, name: String) -> Result<v1::Token> {
    let request = v1::GetTokenRequest { name };
    app.plane()?.call(request, async |plane, r| plane.tokens().get_token(r).await).await
}

async fn update(app: &App, update: Update) -> Result<()> {
    let mut token = get(app, names::top("tokens", &update.token)?).await?;
    let mut mask = Mask::default();
    if let Some(description) = update.description {
        token.description = description;
        mask.add("description");
    }
    update.labels.apply(&mut token.metadata, &mut mask);
    let request = v1::UpdateTokenRequest {
        token: Some(token),
        update_mask: mask.finish()?,
        request_id: update.change.request_id(),
        validate_only: update.change.dry_run,
    };
    let token = app.plane()?.call(request, async |plane, r| plane.tokens().update_token(r).await).await?;
    app.out.did(&token, &update.change.say("updated"))
}

async fn list(app: &App, all: bool, selector: &Selector) -> Result<()> {
    let parent = app.tenant_or_all(all, "-")?;
    let plane = app.plane()?;
    let label_selector = selector.text()?;
    let tokens = all_pages(async |page_token| {
        let (parent, label_selector) = (parent.clone(), label_selector.clone());
        let request = v1::ListTokensRequest { parent, page_token, page_size: 0, label_selector };
        let page = plane.call(request, async |plane, r| plane.tokens().list_tokens(r).await).await?;
        Ok((page.tokens, page.next_page_token))
    });
    app.out.list("tokens", &tokens.await?)
}
