//! `relayserver explain`: what a reason means and what to do about it. It prints what the list of reasons says, and looks at nothing
//! else.

use std::io::{self, Write};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use relayserver_relay::Reason;

use crate::exit::{self, Exit};

/// Tell what a reason means, and what to do about it.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The word that stands in a log or in an error, like no_channel; all of them, where none is named
    #[arg(value_name = "REASON", value_parser = reason(), hide_possible_values = true)]
    reason: Option<Reason>,
}

/// Prints one reason, or all.
pub(crate) fn run(args: ExplainArgs) -> Exit {
    let text = match args.reason {
        Some(reason) => explained(reason),
        None => Reason::ALL.iter().map(|it| explained(*it)).collect::<Vec<_>>().join("\n"),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            exit::failure(&format!("cannot print: {error}"))
        }
        _ => Exit::Success,
    }
}

fn explained(reason: Reason) -> String {
    format!("{reason}\n    {}\n    What to do: {}\n", reason.meaning(), reason.advice())
}

/// Reads the code of a reason; for any other word it names the nearest.
fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.code()))
        .try_map(|code| code.parse::<Reason>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn parse(word: &str) -> Result<Option<Reason>, clap::Error> {
        Command::try_parse_from(["explain", word]).map(|command| command.args.reason)
    }

    #[test]
    fn every_reason_is_read_and_explained() {
        for &reason in Reason::ALL {
            assert_eq!(parse(reason.code()).unwrap(), Some(reason));
        }
        assert_eq!(
            explained(Reason::Replaced),
            "replaced\n    The host opened a newer command channel.\n    What to do: Nothing: the newer one is in use.\n"
        );
    }

    #[test]
    fn of_an_unknown_word_the_nearest_is_named() {
        let error = parse("no_chanel").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("a similar value exists: 'no_channel'"), "{error}");
        assert!(parse("No_Channel").is_err(), "codes are in lower case");
    }
}
