//! `relayserver relay`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relayserver_relay::{
    Access, Config, Limits, Relay, Service, ServiceLimits, ServiceName, Version1,
};

use crate::args::RelayArgs;
use crate::exit::{self, Exit};
use crate::signals::Leaving;

/// Runs a relay until it is told to leave.
pub(crate) async fn run(args: RelayArgs) -> Exit {
    let mut leaving = match Leaving::new(args.until_stdin_closes) {
        Ok(leaving) => leaving,
        Err(error) => return exit::failure(&format!("cannot listen for signals: {error}")),
    };
    let relay = match Relay::bind(config(args)) {
        Ok(relay) => relay,
        Err(error) => return exit::failure(&error.to_string()),
    };
    let handle = relay.handle();
    let serving = async {
        relay.run().await;
        Exit::Success
    };
    leaving.drain_on_signal(serving, || handle.drain(), || handle.abort()).await
}

fn config(args: RelayArgs) -> Config {
    let access = if args.insecure {
        Access::Insecure
    } else if args.v1_allow.is_empty() {
        Access::Loopback
    } else {
        Access::Networks(args.v1_allow)
    };
    let on = |port| SocketAddr::new(args.bind, port);
    let service = ServiceName::default();
    let limits = ServiceLimits {
        assign_timeout: args.assign_timeout,
        queue_max: args.queue_max,
        sessions_max: None,
    };
    let listen = args.listen_clients.unwrap_or_else(|| on(args.clients_port));
    let command = args.listen_command.unwrap_or_else(|| on(args.command_port));
    Config {
        hosts: args.listen_hosts.unwrap_or_else(|| on(args.hosts_port)),
        v1: Some(Version1 { command, service: service.clone(), mixed: false }),
        services: BTreeMap::from([(service, Service { listen, limits })]),
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
        record: args.record,
        ..Config::default()
    }
}
