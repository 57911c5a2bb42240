//! `relayserver token`: makes tokens and takes them back, whether a relay runs or not. One that runs hears of it within half a second.

use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use relayserver_relay::state::{TokenEntry, TokenTerms};
use relayserver_relay::{Role, ServicePattern};
use relayserver_transport::HostPort;

use crate::args;
use crate::exit::{self, Exit};
use crate::operator::{Operator, Which, about_state};

/// Make tokens for hosts, and take them back.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a token, and print its join line: the one time that it is shown
    Create(CreateArgs),
    /// List the tokens; what is secret of them is kept nowhere
    List(Which),
    /// Take a token back: its hosts are cut off, and their sessions end
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What it is called, in logs and lists: 1 to 32 of A-Z, a-z, 0-9, - and _
    #[arg(value_name = "NAME")]
    name: String,

    /// A service that it covers, where * stands for anything (repeatable); all of them, unless this is said
    #[arg(long, value_name = "GLOB")]
    service: Vec<ServicePattern>,

    /// Whom it is for. Clients need none today
    #[arg(long, value_enum, default_value_t = RoleArg::Host)]
    role: RoleArg,

    /// How long it is valid, like 12h or 30d; for ever, unless this is said
    #[arg(long, value_name = "TIME", value_parser = args::positive_duration)]
    expires: Option<Duration>,

    /// The address that the join line names, where the configuration does not: HOST or HOST:PORT
    #[arg(long, value_name = "ADDR", value_parser = args::public_address)]
    public: Option<HostPort>,

    /// Name the pin of the operator's own certificate too
    #[arg(long)]
    pin: bool,

    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The token
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Host,
    Client,
}

fn help() -> String {
    format!(
        "\
Examples:
  relayserver token create laptop --service ssh --config relay.toml > join
          a token for one service, its join line in a file to bring to the host
  relayserver token revoke laptop --config relay.toml
          cut off whoever has it, within a second

{}",
        exit::HELP
    )
}

/// Does what is asked, and prints what there is to print.
pub(crate) fn run(args: &TokenArgs) -> Exit {
    let done = match &args.what {
        What::Create(args) => create(args),
        What::List(which) => list(which),
        What::Revoke(args) => revoke(args),
    };
    match done {
        Ok(text) => exit::print(&text),
        Err(message) => exit::failure(&message),
    }
}

fn create(args: &CreateArgs) -> Result<String, String> {
    let operator = args.which.open_or_make()?;
    let public = operator.public(args.public.as_ref())?;
    let everything = || "*".parse().into_iter().collect();
    let services = if args.service.is_empty() { everything() } else { args.service.clone() };
    let role = match args.role {
        RoleArg::Host => Role::Host,
        RoleArg::Client => Role::Client,
    };
    let expires = match args.expires {
        None => None,
        Some(lasts) => {
            let expires = SystemTime::now().checked_add(lasts);
            Some(expires.ok_or("it would expire beyond all calendars: name a shorter time")?)
        }
    };
    let terms = TokenTerms { role, services, expires };
    // Before the token is stored: it takes the lock too.
    let pins = operator.pins_of_join(&public, args.pin)?;
    let join = |token| Operator::join(token, public, pins);
    let join = operator.state.create_token(&args.name, terms, join);
    join.map(|join| format!("{}\n", join.expose())).map_err(|error| about_state(&error))
}

fn revoke(args: &RevokeArgs) -> Result<String, String> {
    let operator = args.which.open()?;
    operator.state.revoke_token(&args.name).map_err(|error| about_state(&error))?;
    Ok(String::new())
}

fn list(which: &Which) -> Result<String, String> {
    let tokens = which.open()?.state.tokens().map_err(|error| about_state(&error))?;
    let mut rows =
        vec![["NAME", "ROLE", "SERVICES", "CREATED", "EXPIRES", "STATE"].map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| row(token, SystemTime::now())));
    Ok(table(&rows))
}

fn row(TokenEntry { name, record, created }: &TokenEntry, now: SystemTime) -> [String; 6] {
    let services: Vec<String> = record.services.iter().map(ToString::to_string).collect();
    let date = |time| humantime::format_rfc3339_seconds(time).to_string();
    let state = if record.revoked {
        "revoked"
    } else if record.expires.is_some_and(|expires| expires <= now) {
        "expired"
    } else {
        "valid"
    };
    let role = match record.role {
        Role::Host => "host",
        Role::Client => "client",
    };
    [
        name.clone(),
        role.to_owned(),
        services.join(","),
        date(*created),
        record.expires.map_or_else(|| "never".to_owned(), date),
        state.to_owned(),
    ]
}

/// Columns as wide as what stands in them.
fn table(rows: &[[String; 6]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let line = |row: &[String; 6]| {
        let cells = row.iter().enumerate();
        let padded: String = cells
            .map(|(at, cell)| format!("{cell:width$}  ", width = width(at).unwrap_or(0)))
            .collect();
        format!("{}\n", padded.trim_end())
    };
    rows.iter().map(line).collect()
}
