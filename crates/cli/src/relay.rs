//! `relayserver relay`: what the command line and the configuration file say becomes a relay, with its state directory, and it runs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;

use relayserver_admin::Admin;
use relayserver_config::{RelayFile, Size};
use relayserver_relay::state::{FIRST_TOKEN, StateError, TokenSource, TokenTerms};
use relayserver_relay::{
    Access, Config, Limits, Network, Rates, Relay, Role, STATUS_SOCKET, Service, ServiceLimits,
    ServiceName, Version1,
};
use relayserver_transport::HostPort;
use tracing::info;

use crate::args::RelayArgs;
use crate::check::has_services;
use crate::descriptors;
use crate::exit::{self, Exit};
use crate::operator::{Operator, about_state, read_relay_file};
use crate::signals::Leaving;

/// Runs a relay until it is told to leave.
pub(crate) async fn run(args: RelayArgs) -> Exit {
    let mut leaving = match Leaving::new(args.until_stdin_closes) {
        Ok(leaving) => leaving,
        Err(error) => return exit::failure(&format!("cannot listen for signals: {error}")),
    };
    let (relay, admin) = match start(&args) {
        Ok(started) => started,
        Err(message) => return exit::failure(&message),
    };
    let handle = relay.handle();
    // A task of its own: whatever becomes of it, the relay goes on.
    let admin = admin.map(|admin| tokio::spawn(admin.run(handle.clone())));
    let serving = async {
        relay.run().await;
        if let Some(admin) = admin {
            admin.abort();
        }
        Exit::Success
    };
    leaving.drain_on_signal(serving, || handle.drain(), || handle.abort()).await
}

/// The relay with its ports bound, and that for metrics, where there is one.
fn start(args: &RelayArgs) -> Result<(Relay, Option<Admin>), String> {
    let file = args.config.as_ref().map(|path| read_relay_file(path, args.insecure)).transpose()?;
    let of_file = file.as_ref().and_then(|file| file.metrics.as_ref());
    let metrics = args.metrics.or(of_file.map(|metrics| metrics.listen));
    // First: a relay that starts shows the first join line, once.
    let admin = metrics.map(bind_admin).transpose()?;
    let relay = start_relay(args, file)?;
    if let Some(admin) = &admin {
        info!(metrics = %admin.address(), "metrics ready");
    }
    Ok((relay, admin))
}

fn bind_admin(address: SocketAddr) -> Result<Admin, String> {
    let admin = Admin::bind(address);
    admin.map_err(|error| format!("cannot listen for metrics on {address}: {error}"))
}

fn start_relay(args: &RelayArgs, file: Option<RelayFile>) -> Result<Relay, String> {
    let is_open = file.is_some() || args.public.is_some();
    let mut config = match &file {
        Some(file) => of_file(file, args)?,
        None => of_flags(args),
    };
    if !is_open && args.state_dir.is_none() {
        return bind(config);
    }
    let operator = Operator::open(file, args.state_dir.as_deref())?;
    config.status_socket = Some(operator.state.path().join(STATUS_SOCKET));
    if !is_open {
        return bind(config);
    }
    let public = args.public.clone().map(|HostPort { host, port }| {
        let port = if port == 0 { config.hosts.port() } else { port };
        HostPort { host, port }
    });
    let public = operator.public(public.as_ref()).ok();
    config.tls = operator.tls(public.as_ref())?;
    config.public_host = public.as_ref().map(|public| public.host.clone());
    if config.tls.is_some() {
        make_first_token(&operator, public.as_ref())?;
    }
    let tokens = TokenSource::follow(&operator.state).map_err(|error| about_state(&error))?;
    config.grants = Some(Arc::new(tokens));
    let relay = bind(config)?;
    show_first_join(&operator, &relay)?;
    Ok(relay)
}

/// Binds it with limits that fit the descriptors that there are.
fn bind(mut config: Config) -> Result<Relay, String> {
    let (limits, descriptors) = (config.limits, descriptors::raise_limit());
    if let Some(descriptors) = descriptors {
        config.limits = limits.within(descriptors);
    }
    let Limits { clients_max, channels_max, .. } = config.limits;
    let is_lowered = config.limits != limits;
    let relay = Relay::bind(config).map_err(|error| error.to_string())?;
    if is_lowered {
        info!(
            descriptors,
            clients_max, channels_max, "limits lowered to what ulimit -n leaves room for"
        );
    }
    Ok(relay)
}

/// Makes the first token, where none was ever made and its join line can name an address.
fn make_first_token(operator: &Operator, public: Option<&HostPort>) -> Result<(), String> {
    let state = &operator.state;
    if state.has_tokens().map_err(|error| about_state(&error))? {
        return Ok(());
    }
    let Some(public) = public else {
        info!("no token yet, and no address for its join line: name it with --public");
        return Ok(());
    };
    let pins = operator.pins_of_join(public, false)?;
    let services = "*".parse().into_iter().collect();
    let terms = TokenTerms { role: Role::Host, services, expires: None };
    let keep = |token| {
        let join = Operator::join(token, public.clone(), pins)?;
        state.write_first_join(&join.expose())
    };
    match state.create_token(FIRST_TOKEN, terms, keep) {
        // Another relay has just started here too.
        Err(StateError::TokenExists(_)) => Ok(()),
        made => made.map_err(|error| about_state(&error)),
    }
}

/// Shows the first join line once, on a terminal; where there is none, says where it is.
fn show_first_join(operator: &Operator, relay: &Relay) -> Result<(), String> {
    let state = &operator.state;
    let Some(line) = state.first_join().map_err(|error| about_state(&error))? else {
        return Ok(());
    };
    if !io::stdout().is_terminal() {
        info!(path = %state.first_join_path().display(), "the join line of the first host is in this file");
        return Ok(());
    }
    let service = ServiceName::default();
    let clients = relay
        .clients_addr(&service)
        .map_or_else(String::new, |clients| format!("   clients {clients} -> {service}"));
    let text = format!(
        "hosts {} (TLS, token){clients}\non the machine to reach, run (shown once):\n  relayserver host {line} --forward 22\n",
        relay.hosts_addr()
    );
    match exit::print(&text) {
        Exit::Success => {}
        _ => return Ok(()),
    }
    state.remove_first_join().map_err(|error| about_state(&error))
}

/// What the flags alone say.
fn of_flags(args: &RelayArgs) -> Config {
    let is_open = args.public.is_some();
    let access = if is_open {
        Access::TlsOnly
    } else if args.insecure {
        Access::Insecure
    } else if args.v1_allow.is_empty() {
        Access::Loopback
    } else {
        Access::Networks(args.v1_allow.clone())
    };
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let default = if is_open { everywhere } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let bind = args.bind.unwrap_or(default);
    let on = |port| SocketAddr::new(bind, port);
    let service = ServiceName::default();
    let limits = ServiceLimits {
        assign_timeout: args.assign_timeout,
        queue_max: args.queue_max,
        sessions_max: None,
    };
    let listen = args.listen_clients.unwrap_or_else(|| on(args.clients_port));
    let command = args.listen_command.unwrap_or_else(|| on(args.command_port));
    let v1 = Version1 { command, service: service.clone(), mixed: false };
    Config {
        hosts: args.listen_hosts.unwrap_or_else(|| on(args.hosts_port)),
        v1: (!is_open).then_some(v1),
        services: BTreeMap::from([(service, Service { listen, limits, rates: Rates::default() })]),
        access,
        limits: Limits {
            clients_max: args.clients_max,
            channels_max: args.channels_max,
            commands_max: args.commands_max,
            handshakes_max: args.handshakes_max,
            handshakes_per_address_max: Limits::default()
                .handshakes_per_address_max
                .min(args.handshakes_max),
        },
        drain_timeout: args.drain_timeout,
        record: args.record.clone(),
        ..Config::default()
    }
}

/// What the configuration file says.
fn of_file(file: &RelayFile, args: &RelayArgs) -> Result<Config, String> {
    let relay = &file.relay;
    let name = args.config.clone().unwrap_or_default().display().to_string();
    has_services(&name, file.services.len(), "listen")?;
    let services = file.services.iter().map(|(name, service)| {
        let limits = ServiceLimits {
            sessions_max: service.max_sessions.map(Into::into),
            queue_max: service.queue.depth,
            assign_timeout: service.queue.wait,
        };
        let rate = |rate: Option<Size>| rate.and_then(|rate| NonZeroU64::new(rate.0));
        let rates =
            Rates { service: rate(service.rate.service), session: rate(service.rate.session) };
        (ServiceName::new(name.as_str()), Service { listen: service.listen, limits, rates })
    });
    let limits = &relay.limits;
    Ok(Config {
        hosts: relay.listen,
        v1: relay.v1.as_ref().map(|v1| Version1 {
            command: v1.command,
            service: ServiceName::new(v1.service.as_str()),
            mixed: v1.mixed,
        }),
        services: services.collect(),
        access: access(file, args.insecure)?,
        limits: Limits {
            clients_max: limits.clients.into(),
            channels_max: limits.channels.into(),
            commands_max: limits.commands.into(),
            handshakes_max: limits.handshakes.into(),
            handshakes_per_address_max: limits.handshakes_per_address.into(),
        },
        hello_timeout: limits.hello_timeout,
        drain_timeout: limits.drain_timeout,
        record: args.record.clone(),
        ..Config::default()
    })
}

/// From where connections without TLS are taken.
fn access(file: &RelayFile, insecure: bool) -> Result<Access, String> {
    let relay = &file.relay;
    if insecure {
        return Ok(Access::Insecure);
    }
    let is_local = relay.listen.ip().to_canonical().is_loopback();
    let Some(v1) = &relay.v1 else {
        return Ok(if is_local { Access::Loopback } else { Access::TlsOnly });
    };
    let networks = v1.allow.iter().map(|cidr| {
        let network: Result<Network, _> = cidr.to_string().parse();
        network.map_err(|error| format!("allow in [relay.v1]: {error}"))
    });
    Ok(Access::Networks(networks.collect::<Result<_, _>>()?))
}
