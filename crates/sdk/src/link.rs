//! The relay as this host reaches it: where, over what, and what the two have told each other.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use relayserver_core::limits::{self, DIAL_TIMEOUT};
#[cfg(feature = "tls")]
use relayserver_transport::ClientTls;
#[cfg(feature = "tls")]
use relayserver_transport::Join;
use relayserver_transport::options::prepare_waiting;
use relayserver_transport::{HostPort, Stream, dial_from};
use relayserver_wire::hello::{self, Answer, Capacity, Hello, HelloV2, Role};
use relayserver_wire::secret::ChannelKey;
#[cfg(feature = "tls")]
use relayserver_wire::secret::Token;
use relayserver_wire::{HEADER_LEN, HostId, VERSION, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::report::{Fault, Port, Trouble};

/// How this host reaches its relay.
pub(crate) struct Link {
    relay: Relay,
    /// The address of this machine to dial from.
    bind_addr: Option<IpAddr>,
    services: Vec<String>,
    /// How much it takes, beside other hosts.
    capacity: Capacity,
    host_id: HostId,
    told: Mutex<Told>,
}

/// Whom to dial, and whom to trust.
pub(crate) enum Relay {
    /// Whoever answers there.
    Anyone {
        hosts: HostPort,
        /// Where an original takes command channels.
        command: HostPort,
    },
    /// The one of the join line, and nobody else.
    #[cfg(feature = "tls")]
    Joined { join: Join, tls: ClientTls },
}

/// What changes as they talk.
#[derive(Default)]
struct Told {
    /// Which of the join line's addresses is dialled.
    address: usize,
    /// The key that data channels present. `None`: the relay is an original, or has not answered yet.
    key: Option<ChannelKey>,
    /// The key of the last command channel.
    last_key: Option<ChannelKey>,
    /// How many keys there were.
    keys: u64,
}

impl Link {
    pub(crate) fn new(
        relay: Relay,
        bind_addr: Option<IpAddr>,
        services: Vec<String>,
        capacity: Capacity,
    ) -> Link {
        let host_id = HostId(fastrand::u128(..).to_be_bytes());
        Link { relay, bind_addr, services, capacity, host_id, told: Mutex::default() }
    }

    /// Where data channels are dialled, and, in version 2, the command channel.
    pub(crate) fn hosts(&self) -> &HostPort {
        match &self.relay {
            Relay::Anyone { hosts, .. } => hosts,
            #[cfg(feature = "tls")]
            Relay::Joined { join, .. } => {
                let addresses = join.addresses();
                let index = self.told().address % addresses.len();
                addresses.get(index).unwrap_or_else(|| unreachable!("a join line has an address"))
            }
        }
    }

    /// How many addresses the relay has.
    pub(crate) fn addresses_len(&self) -> usize {
        match &self.relay {
            Relay::Anyone { .. } => 1,
            #[cfg(feature = "tls")]
            Relay::Joined { join, .. } => join.addresses().len(),
        }
    }

    /// Where an original's command port is. `None` behind a join line, which none is behind.
    pub(crate) fn command(&self) -> Option<&HostPort> {
        match &self.relay {
            Relay::Anyone { command, .. } => Some(command),
            #[cfg(feature = "tls")]
            Relay::Joined { .. } => None,
        }
    }

    /// The one that was dialled does not serve: the next one's turn.
    pub(crate) fn try_next_address(&self) {
        let mut told = self.told();
        told.address = told.address.wrapping_add(1);
    }

    /// What the relay has answered on a command channel of version 2.
    pub(crate) fn set_key(&self, key: ChannelKey) {
        let mut told = self.told();
        told.key = Some(key);
        told.last_key = Some(key);
        told.keys += 1;
    }

    /// The relay is an original.
    pub(crate) fn forget_key(&self) {
        self.told().key = None;
    }

    /// How many keys the relay has given so far: with each, what came with the one before is of no more use once it has served.
    pub(crate) fn keys(&self) -> u64 {
        self.told().keys
    }

    /// The services that this host serves.
    pub(crate) fn services(&self) -> &[String] {
        &self.services
    }

    /// What asks for a command channel.
    pub(crate) fn hello_of_command(&self) -> Hello {
        let token = match &self.relay {
            Relay::Anyone { .. } => None,
            #[cfg(feature = "tls")]
            Relay::Joined { join, .. } => Some(Token::new(join.token().expose())),
        };
        let (services, last_key) = (self.services.clone(), self.told().last_key);
        let capacity = self.capacity;
        self.hello(Role::Command { token, services, last_key, capacity }, Vec::new())
    }

    /// What asks for a data channel of the service at `index`: of version 1, where the relay is an original.
    pub(crate) fn hello_of_channel(&self, index: usize) -> Hello {
        match (self.told().key, self.services.get(index)) {
            (Some(channel_key), Some(service)) => {
                let role = Role::Data { channel_key, service: service.clone() };
                self.hello(role, vec![hello::MANY_SESSIONS])
            }
            _ => Hello { version: VERSION, v2: None },
        }
    }

    fn hello(&self, role: Role, features: Vec<u32>) -> Hello {
        let v2 = HelloV2 { host_id: self.host_id, role, features };
        Hello { version: VERSION, v2: Some(v2) }
    }

    /// Dials a connection on which nothing was said.
    pub(crate) async fn dial(&self, address: &HostPort, port: Port) -> Result<Stream, Trouble> {
        let dialled = dial_from(address, self.bind_addr, DIAL_TIMEOUT).await;
        let stream = dialled.map_err(|error| Trouble::dial(port, &error))?;
        prepare_waiting(&stream, limits::USER_TIMEOUT);
        Ok(Stream::Tcp(stream))
    }

    /// Dials the host port, verifies who is there where a join line says who it must be, says `hello`, and reads the answer, of
    /// `answer_max` bytes at most.
    pub(crate) async fn say(
        &self,
        hello: &Hello,
        answer_max: usize,
    ) -> Result<(Stream, Answer), Trouble> {
        let address = self.hosts().clone();
        let stream = self.dial(&address, Port::Hosts).await?;
        let saying = async {
            let mut stream = self.secure(stream, &address).await?;
            let answer = exchange(&mut stream, hello, answer_max).await;
            answer
                .map(|answer| (stream, answer))
                .map_err(|fault| Trouble::at(Port::Hosts, &address, fault))
        };
        match timeout(limits::HELLO_TIMEOUT, saying).await {
            Ok(said) => said,
            Err(_elapsed) => Err(Trouble::unanswered(&address, limits::HELLO_TIMEOUT)),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn secure(&self, stream: Stream, _address: &HostPort) -> Result<Stream, Trouble> {
        Ok(stream)
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: Stream, address: &HostPort) -> Result<Stream, Trouble> {
        match (&self.relay, stream) {
            (Relay::Joined { tls, .. }, Stream::Tcp(stream)) => tls
                .connect(stream, &address.host)
                .await
                .map_err(|error| Trouble::tls(address, &error)),
            (_, stream) => Ok(stream),
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says hello and reads the answer, and no byte beyond it.
async fn exchange(stream: &mut Stream, hello: &Hello, answer_max: usize) -> Result<Answer, Fault> {
    stream.write_all(&hello.encode()).await?;
    stream.flush().await?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let len = frame::payload_len(header, answer_max).map_err(Fault::not_a_relay)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await?;
    Answer::decode(&payload).map_err(Fault::not_a_relay)
}
