//! `relayserver key`: the pin of the relay's key, and the change of that key without losing a host.

use clap::Args;
use relayserver_config::Tls;

use crate::exit::{self, Exit};
use crate::operator::{Operator, Which, about_state, names};

/// Show the pin of the relay's key, and change the key.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the pin of the key, and on a second line that of the one that is to follow
    Show(Which),
    /// Make the key that is to follow, once, and print its pin: join lines name both from now on
    Next(Which),
    /// Put the next key in the place of the present one; the relay uses it from its next start on
    Switch(Which),
}

fn help() -> String {
    format!(
        "\
To change the key without losing a host: `key next`, new join lines for all hosts, `key switch`, and a restart of the relay.

{}",
        exit::HELP
    )
}

/// Does what is asked, and prints pins.
pub(crate) fn run(args: &KeyArgs) -> Exit {
    let done = match &args.what {
        What::Show(which) => show(which),
        What::Next(which) => own(which).and_then(|operator| {
            let public = operator.public(None).ok();
            let next = operator.state.next_pin(&names(public.as_ref()));
            next.map(|pin| format!("{pin}\n")).map_err(|error| about_state(&error))
        }),
        What::Switch(which) => own(which).and_then(|operator| {
            let switched = operator.state.switch_key().map_err(|error| about_state(&error))?;
            Ok(format!("{switched}\n"))
        }),
    };
    match done {
        Ok(text) => exit::print(&text),
        Err(message) => exit::failure(&message),
    }
}

fn show(which: &Which) -> Result<String, String> {
    let operator = which.open()?;
    let public = operator.public(None).ok();
    let pins = operator.pins(public.as_ref())?;
    Ok(pins.iter().map(|pin| format!("{pin}\n")).collect())
}

/// A relay whose key is in its state directory.
fn own(which: &Which) -> Result<Operator, String> {
    let operator = which.open()?;
    match operator.kind() {
        Tls::Auto => Ok(operator),
        Tls::Off => Err("TLS is off in the configuration".to_owned()),
        Tls::Files { key, .. } => Err(format!(
            "the key is the operator's own: put another in the place of {}",
            key.display()
        )),
    }
}
