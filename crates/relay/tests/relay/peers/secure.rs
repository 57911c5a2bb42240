//! A relay as one would put on the open internet: TLS and tokens, no version 1, and services besides the default one.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use relayserver_core::Role;
use relayserver_relay::{Access, Config, FixedGrants, Service, ServiceName, TokenRecord, Tokens};
use relayserver_transport::{ClientTls, ServerTls, Stream, Token, generate_identity};

use super::{Member, TestRelay, connect_from, within};

pub(crate) struct Secure {
    pub(crate) relay: TestRelay,
    pub(crate) grants: Arc<FixedGrants>,
    pub(crate) tls: ClientTls,
    /// Whether hosts connect without it.
    is_plain: bool,
}

impl Secure {
    pub(crate) fn start() -> Secure {
        Secure::with(|_| {})
    }

    /// With the services `default`, `ssh` and `web`.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Secure {
        let identity = generate_identity(&["localhost".to_owned()]).unwrap();
        let key = identity.key_pem.as_bytes();
        let server = ServerTls::from_pem(identity.certificate_pem.as_bytes(), key).unwrap();
        let tls = ClientTls::pinned(&[server.pin()]).unwrap();
        let grants = Arc::new(FixedGrants::new(Tokens::new()));
        let relay = TestRelay::with(|config| {
            let clients = config.default_service().listen;
            for name in ["ssh", "web"] {
                let mut service = Service::on(clients);
                service.limits = config.default_service().limits;
                config.services.insert(ServiceName::new(name), service);
            }
            config.v1 = None;
            config.access = Access::TlsOnly;
            config.tls = Some(server);
            config.grants = Some(Arc::clone(&grants) as _);
            change(config);
        });
        Secure { relay, grants, tls, is_plain: false }
    }

    /// The same on this machine alone, for hosts that connect without TLS.
    pub(crate) fn plain() -> Secure {
        Secure::plain_with(|_| {})
    }

    pub(crate) fn plain_with(change: impl FnOnce(&mut Config)) -> Secure {
        let relay = Secure::with(|config| {
            config.access = Access::Loopback;
            change(config);
        });
        Secure { is_plain: true, ..relay }
    }

    /// A new token for a host that may serve `services`.
    pub(crate) fn token(&self, id: &str, services: &[&str]) -> Token {
        self.token_with(id, services, |_| {})
    }

    /// Tells the relay of a token that there is.
    pub(crate) fn token_of(&self, token: &Token, services: &[&str]) {
        self.tell(token, services, |_| {});
    }

    pub(crate) fn token_with(
        &self,
        id: &str,
        services: &[&str],
        change: impl FnOnce(&mut TokenRecord),
    ) -> Token {
        let token = Token::generate(id).unwrap();
        self.tell(&token, services, change);
        token
    }

    fn tell(&self, token: &Token, services: &[&str], change: impl FnOnce(&mut TokenRecord)) {
        let mut record = TokenRecord {
            secret_hash: token.secret_hash(),
            role: Role::Host,
            services: services.iter().map(|it| it.parse().unwrap()).collect(),
            expires: None::<SystemTime>,
            revoked: false,
        };
        change(&mut record);
        self.grants.change(|tokens| tokens.insert(token.id(), record));
    }

    /// A connection to the host port, inside TLS unless hosts are plain here.
    pub(crate) async fn connect_from(&self, address: Ipv4Addr) -> Stream {
        let stream = connect_from(address, self.relay.hosts).await;
        if self.is_plain { Stream::Tcp(stream) } else { self.connect(stream).await }
    }

    pub(crate) async fn connect(&self, stream: tokio::net::TcpStream) -> Stream {
        within("a TLS handshake", self.tls.connect(stream, "localhost")).await.unwrap()
    }

    /// A host with a token of its own for everything, that is to serve `services`.
    pub(crate) async fn member(&self, id: &str, services: &[&str]) -> Member {
        let token = self.token(id, &["*"]);
        Member::join(self, Some(&token), services).await.unwrap()
    }

    pub(crate) fn hosts_addr(&self) -> SocketAddr {
        self.relay.hosts
    }
}

impl Deref for Secure {
    type Target = TestRelay;

    fn deref(&self) -> &TestRelay {
        &self.relay
    }
}
