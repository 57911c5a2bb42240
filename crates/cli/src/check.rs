//! `relayserver check`: whether a configuration file is right, without starting anything.

use std::path::{Path, PathBuf};

use clap::Args;
use relayserver_config::{Effective, FileKind, HostFile, RelayFile, kind_of};

use crate::exit::{self, Exit};
use crate::operator::read_text;

/// Tell all that is wrong with a configuration file, without starting anything.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// relay.toml or host.toml, told by what is in it
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print every value that it comes to, and where each came from
    #[arg(long)]
    effective: bool,

    /// As for a relay that is started with --insecure
    #[arg(long)]
    insecure: bool,
}

/// Checks and prints.
pub(crate) fn run(args: &CheckArgs) -> Exit {
    match check(&args.file, args.insecure) {
        Ok((_, effective)) if args.effective => {
            exit::print(&effective.iter().map(|it| format!("{it}\n")).collect::<String>())
        }
        Ok((kind, _)) => exit::print(&format!("{}: a sound {kind}\n", args.file.display())),
        Err(message) => exit::failed_check(&message),
    }
}

fn check(path: &Path, insecure: bool) -> Result<(&'static str, Vec<Effective>), String> {
    let (text, name) = (read_text(path)?, path.display().to_string());
    let kind = kind_of(&text).map_err(|unknown| format!("{name}: {unknown}"))?;
    match kind {
        FileKind::Relay => {
            let file = RelayFile::parse(&text, &name, insecure).map_err(|it| it.to_string())?;
            has_services(&name, file.services.len(), "listen")?;
            Ok(("relay.toml", file.effective().to_vec()))
        }
        FileKind::Host => {
            let file = HostFile::parse(&text, &name).map_err(|it| it.to_string())?;
            has_services(&name, file.services.len(), "forward")?;
            Ok(("host.toml", file.effective().to_vec()))
        }
    }
}

/// A file without services is of no use to anybody.
pub(crate) fn has_services(file: &str, count: usize, key: &str) -> Result<(), String> {
    match count {
        0 => Err(format!("{file} names no service: add [services.default] with `{key}`")),
        _ => Ok(()),
    }
}
