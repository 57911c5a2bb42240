//! What the operator's commands share: which state directory and which file are meant, and how join lines are made. `relay`, `token`,
//! `key` and `status` use it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use relayserver_config::{RelayFile, Tls};
use relayserver_relay::state::{StateDir, StateError};
use relayserver_transport::{HostPort, Join, Pin, ServerTls, Token};

/// The most that a configuration file may hold, in bytes: a thousand services take a tenth of it.
const FILE_MAX: u64 = 1 << 20;

/// Where hosts dial unless something else is said.
pub(crate) const HOSTS_PORT: u16 = 8000;

/// Which relay is meant, for commands that need none to run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Which {
    /// The relay's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The relay's state directory
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// A relay as its operator has set it up.
pub(crate) struct Operator {
    pub(crate) file: Option<RelayFile>,
    pub(crate) state: StateDir,
}

impl Which {
    /// Reads the configuration, where one is named, and opens the state directory, which must be there.
    pub(crate) fn open(&self) -> Result<Operator, String> {
        // Whether the relay may be open to others is its own matter, when it starts.
        let insecure = true;
        let file =
            self.config.as_deref().map(|path| read_relay_file(path, insecure)).transpose()?;
        let path = state_path(file.as_ref(), self.state_dir.as_deref())?;
        let state = StateDir::existing(&path).map_err(|error| about_state(&error))?;
        Ok(Operator { file, state })
    }

    /// The same, where the state directory is made if there is none.
    pub(crate) fn open_or_make(&self) -> Result<Operator, String> {
        let file = self.config.as_deref().map(|path| read_relay_file(path, true)).transpose()?;
        Operator::open(file, self.state_dir.as_deref())
    }

    /// The state directory, which may not be there.
    pub(crate) fn state_path(&self) -> Result<PathBuf, String> {
        let file = self.config.as_deref().map(|path| read_relay_file(path, true)).transpose()?;
        state_path(file.as_ref(), self.state_dir.as_deref())
    }
}

impl Operator {
    pub(crate) fn open(
        file: Option<RelayFile>,
        state_dir: Option<&Path>,
    ) -> Result<Operator, String> {
        let path = state_path(file.as_ref(), state_dir)?;
        let state = StateDir::open(&path).map_err(|error| about_state(&error))?;
        Ok(Operator { file, state })
    }

    /// What join lines name: `--public`, else what the configuration says, else the address that is listened on, where that is one.
    pub(crate) fn public(&self, flag: Option<&HostPort>) -> Result<HostPort, String> {
        let public = self.public_or_none(flag)?;
        // Nobody can dial port 0, nor what no join line can say.
        let token = Token::generate("sample").map_err(|error| error.to_string())?;
        Join::new(token, vec![public.clone()], Vec::new()).map_err(|error| error.to_string())?;
        Ok(public)
    }

    fn public_or_none(&self, flag: Option<&HostPort>) -> Result<HostPort, String> {
        let listen = self.file.as_ref().map(|file| file.relay.listen);
        let said = self.file.as_ref().and_then(|file| file.relay.public.clone());
        let port = listen.map_or(HOSTS_PORT, |listen| listen.port());
        if let Some(HostPort { host, port: said }) = flag {
            return Ok(HostPort {
                host: host.clone(),
                port: if *said == 0 { port } else { *said },
            });
        }
        if let Some(said) = said {
            return Ok(HostPort { host: said.host, port: said.port.unwrap_or(port) });
        }
        match listen {
            Some(listen) if !listen.ip().to_canonical().is_unspecified() => {
                Ok(HostPort { host: listen.ip().to_string(), port })
            }
            _ => Err("a join line must name an address that hosts can dial, and none is guessed: name it \
                      with --public, or as `public` in [relay] of the configuration"
                .to_owned()),
        }
    }

    /// The relay's TLS; `None` where it is off.
    pub(crate) fn tls(&self, public: Option<&HostPort>) -> Result<Option<ServerTls>, String> {
        match self.kind() {
            Tls::Off => Ok(None),
            Tls::Auto => {
                let identity = self.state.identity(&names(public));
                identity.map(Some).map_err(|error| about_state(&error))
            }
            Tls::Files { cert, key } => {
                let [chain, private] = [&cert, &key].map(|path| read(path));
                let tls = ServerTls::from_pem(&chain?, &private?);
                tls.map(Some)
                    .map_err(|error| format!("{}, {}: {error}", cert.display(), key.display()))
            }
        }
    }

    /// The pins that a join line names. An operator's own certificate is judged by name and date, and pinned only where that is
    /// asked for.
    pub(crate) fn pins_of_join(
        &self,
        public: &HostPort,
        pins_certificate: bool,
    ) -> Result<Vec<Pin>, String> {
        match self.kind() {
            Tls::Off => Err("join lines take TLS, which is off in the configuration".to_owned()),
            Tls::Files { .. } if !pins_certificate => Ok(Vec::new()),
            _ => self.pins(Some(public)),
        }
    }

    /// The join line with `token`.
    pub(crate) fn join(token: Token, public: HostPort, pins: Vec<Pin>) -> Result<Join, StateError> {
        Join::new(token, vec![public], pins).map_err(|error| StateError::Useless(error.to_string()))
    }

    /// The pins of the relay's key, and of the one that is to follow.
    pub(crate) fn pins(&self, public: Option<&HostPort>) -> Result<Vec<Pin>, String> {
        match self.kind() {
            Tls::Off => Err("TLS is off in the configuration".to_owned()),
            Tls::Auto => self.state.pins(&names(public)).map_err(|error| about_state(&error)),
            Tls::Files { .. } => Ok(self.tls(public)?.iter().map(ServerTls::pin).collect()),
        }
    }

    pub(crate) fn kind(&self) -> Tls {
        self.file.as_ref().map_or(Tls::Auto, |file| file.relay.tls.clone())
    }
}

/// What the relay's own certificate is made out to.
pub(crate) fn names(public: Option<&HostPort>) -> Vec<String> {
    public.map(|public| public.host.clone()).into_iter().collect()
}

/// What is wrong, and that it is with the state directory.
pub(crate) fn about_state(error: &StateError) -> String {
    format!("state directory: {error}")
}

/// Reads `relay.toml`, every error in it at once.
pub(crate) fn read_relay_file(path: &Path, insecure: bool) -> Result<RelayFile, String> {
    let text = read_text(path)?;
    let parsed = RelayFile::parse(&text, &path.display().to_string(), insecure);
    parsed.map_err(|errors| errors.to_string())
}

/// Reads a configuration file, whichever it is.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path)?).map_err(|_| format!("{} is no text in UTF-8", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("{} exceeds {FILE_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

/// The flag, else the configuration, else what the service manager names, else where such things are kept.
fn state_path(file: Option<&RelayFile>, flag: Option<&Path>) -> Result<PathBuf, String> {
    let of_file = file.and_then(|file| file.relay.state_dir.clone());
    if let Some(path) = flag.map(Path::to_owned).or(of_file) {
        return Ok(path);
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    // systemd may name several, divided by colons.
    if let Some(first) = variable("STATE_DIRECTORY")
        .and_then(|paths| std::env::split_paths(&paths).find(|path| path.is_absolute()))
    {
        return Ok(first);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/relayserver"));
    }
    let of_user = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let of_home = || variable("HOME").map(|home| Path::new(&home).join(".local/state"));
    of_user
        .or_else(of_home)
        .map(|path| path.join("relayserver"))
        .ok_or_else(|| "no state directory: name one with --state-dir".to_owned())
}
