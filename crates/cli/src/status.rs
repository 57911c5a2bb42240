//! `relayserver status`: asks the relay of this machine what it is doing, over the socket in its state directory, and prints it. It
//! changes nothing.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use relayserver_relay::STATUS_SOCKET;
use serde_json::{Map, Value};

use crate::exit::{self, Exit};
use crate::operator::Which;

/// How long the relay may take to answer. It is on this machine, and the answer a megabyte at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Tell what a relay on this machine is doing.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    which: Which,

    /// Print the JSON as the relay gives it
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(crate) fn run(args: &StatusArgs) -> Exit {
    match status(args) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                exit::failure(&format!("cannot print: {error}"))
            }
            _ => Exit::Success,
        },
        Err(message) => exit::failure(&message),
    }
}

fn status(args: &StatusArgs) -> Result<String, String> {
    let directory = args.which.state_path()?;
    let path = directory.join(STATUS_SOCKET);
    let text = ask(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no relay runs with the state directory {}", directory.display())
        }
        _ => format!("cannot ask the relay at {}: {error}", path.display()),
    })?;
    let status: Value = serde_json::from_str(&text)
        .map_err(|error| format!("the relay's answer is cut off, or no status: {error}"))?;
    Ok(if args.json { text } else { tables(&status) })
}

fn ask(path: &std::path::Path) -> io::Result<String> {
    let mut relay = UnixStream::connect(path)?;
    relay.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut text = String::new();
    relay.read_to_string(&mut text)?;
    Ok(text)
}

/// What the JSON says, for people.
fn tables(status: &Value) -> String {
    let relay = &status["relay"];
    let uptime = Duration::from_secs(relay["uptime_ms"].as_u64().unwrap_or_default() / 1000);
    let leaving = if relay["draining"] == true { ", leaving" } else { "" };
    let version = cell(&relay["version"]);
    let uptime = humantime::format_duration(uptime);
    let mut text = format!("relayserver {version}, up for {uptime}{leaving}\n");
    let services = rows(&status["services"], |it| {
        let names = ["name", "idle", "wanted", "waiting", "sessions", "sessions_max"];
        names.iter().map(|name| cell(&it[*name])).collect()
    });
    text += &table(&["SERVICE", "IDLE", "WANTED", "WAITING", "SESSIONS", "MAX"], services);
    let hosts = rows(&status["hosts"], |it| {
        let counts = |field: &str| dash(it[field].as_object().map(pairs).unwrap_or_default());
        vec![
            cell(&it["id"]),
            cell(&it["token"]),
            counts("idle"),
            counts("wanted"),
            cell(&it["sessions"]),
            round_trip(it),
            state(it),
            last_refusal(it),
        ]
    });
    let title = ["HOST", "TOKEN", "IDLE", "WANTED", "SESSIONS", "RTT", "STATE", "LAST REFUSAL"];
    text += &table(&title, hosts);
    for (field, title) in [
        ("ended", "SESSIONS ENDED"),
        ("refused_clients", "CLIENTS REFUSED"),
        ("refused_hosts", "HOSTS REFUSED"),
    ] {
        let counts = status[field].as_object().into_iter().flatten();
        let counts = counts.map(|(reason, count)| vec![reason.clone(), cell(count)]).collect();
        text += &table(&[title, "COUNT"], counts);
    }
    text
}

fn state(host: &Value) -> String {
    let is = |field: &str| host[field] == true;
    // Of version 1, what has no command channel of its own is told on those of others.
    let is_away = !is("has_command") && host["version"] != 1;
    let state = match (is_away, is("suspect"), is("leaving")) {
        (true, _, _) => "away",
        (false, true, _) => {
            let since = host["suspect_for_ms"].as_u64().map(Duration::from_millis);
            return format!("suspect for {}", seconds(since.unwrap_or_default()));
        }
        (false, false, true) => "leaving",
        (false, false, false) => "up",
    };
    state.to_owned()
}

fn round_trip(host: &Value) -> String {
    let rtt = host["rtt_us"].as_u64().map(|micros| micros as f64 / 1000.0);
    rtt.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms"))
}

fn last_refusal(host: &Value) -> String {
    let refusal = &host["last_refusal"];
    match (refusal["reason"].as_str(), refusal["ago_ms"].as_u64()) {
        (Some(reason), Some(ago)) => {
            format!("{reason}, {} ago", seconds(Duration::from_millis(ago)))
        }
        _ => "-".to_owned(),
    }
}

fn seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn pairs(map: &Map<String, Value>) -> String {
    map.iter().map(|(name, count)| format!("{name}:{count}")).collect::<Vec<_>>().join(" ")
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A title and rows in columns, with an empty line ahead; nothing where there are no rows.
fn table(title: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let title: Vec<String> = title.iter().map(|it| (*it).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(title).chain(rows).collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let mut text = "\n".to_owned();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or_default();
            // A `String` takes whatever is written to it.
            let _written = write!(line, "{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_relay_says_stands_in_tables() {
        let host = |id: &str, has_command, suspect: bool, leaving: bool| {
            json!({
                "id": id, "version": 2, "token": "home", "services": ["ssh"], "idle": {"ssh": 3, "web": 12},
                "wanted": {"ssh": 4}, "sessions": 1, "has_command": has_command, "suspect": suspect,
                "suspect_for_ms": suspect.then_some(7_900), "leaving": leaving, "rtt_us": 25_160,
                "last_refusal": leaving.then(|| json!({"reason": "rejected", "ago_ms": 62_000})),
            })
        };
        let v1 = json!({
            "id": "192.0.2.7", "version": 1, "token": null, "idle": {}, "sessions": 0, "has_command": false,
        });
        let status = json!({
            "format": 1,
            "relay": {"version": "0.1.0", "uptime_ms": 3_605_900, "draining": true},
            "services": [{"name": "ssh", "idle": 3, "wanted": 4, "waiting": 0, "sessions": 1, "sessions_max": null}],
            "hosts": [v1, host("ab", true, false, false), host("cd", false, false, false),
                host("ef", true, true, false), host("01", true, false, true)],
            "ended": {"finished": 7},
            "refused_clients": {},
            "refused_hosts": {"token_unknown": 12},
        });
        assert_eq!(
            tables(&status),
            "\
relayserver 0.1.0, up for 1h 5s, leaving

SERVICE  IDLE  WANTED  WAITING  SESSIONS  MAX
ssh      3     4       0        1         -

HOST       TOKEN  IDLE          WANTED  SESSIONS  RTT      STATE           LAST REFUSAL
192.0.2.7  -      -             -       0         -        up              -
ab         home   ssh:3 web:12  ssh:4   1         25.2 ms  up              -
cd         home   ssh:3 web:12  ssh:4   1         25.2 ms  away            -
ef         home   ssh:3 web:12  ssh:4   1         25.2 ms  suspect for 7s  -
01         home   ssh:3 web:12  ssh:4   1         25.2 ms  leaving         rejected, 1m 2s ago

SESSIONS ENDED  COUNT
finished        7

HOSTS REFUSED  COUNT
token_unknown  12
"
        );
    }

    #[test]
    fn without_a_relay_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let args = |config: Option<PathBuf>, state_dir| StatusArgs {
            which: Which { config, state_dir },
            json: true,
        };
        let expected =
            Err(format!("no relay runs with the state directory {}", directory.path().display()));
        assert_eq!(status(&args(None, Some(directory.path().to_owned()))), expected);
        let listener = std::os::unix::net::UnixListener::bind(directory.path().join(STATUS_SOCKET));
        drop(listener.unwrap());
        let file = directory.path().join("relay.toml");
        fs::write(&file, format!("[relay]\nstate_dir = {:?}\n", directory.path())).unwrap();
        assert_eq!(status(&args(Some(file), None)), expected, "a relay that has died");
    }

    #[test]
    fn the_json_is_printed_as_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATUS_SOCKET);
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let text = "{\"format\": 1,  \"new\": []}\n";
        let telling = std::thread::spawn(move || {
            listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap();
        });
        let state_dir = Some(directory.path().to_owned());
        assert_eq!(
            status(&StatusArgs { which: Which { config: None, state_dir }, json: true }),
            Ok(text.to_owned())
        );
        telling.join().unwrap();
    }
}
