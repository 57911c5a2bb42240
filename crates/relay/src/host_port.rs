//! A connection on the host port, of either version: who it is, whether it may come in here, and which of the two channels it is
//! to be.

use std::net::SocketAddr;
use std::sync::Arc;

use relayserver_core::{HostId, Reason};
use relayserver_transport::net::TcpStream;
use relayserver_transport::{Stream, close_politely, options};
use relayserver_wire::hello::{Answer, AnswerV2, HelloV2, Refusal as Refused, Role};
use relayserver_wire::{DETAIL_LEN_MAX, hello};
use tracing::{debug, info};

use crate::admission::Place;
use crate::assignment::ChannelGuard;
use crate::channel;
use crate::context::Context;
use crate::handshake::{self, Arrival, Refusal};
use crate::member;

/// Serves a connection on the host port.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    options::prepare_accepted_waiting(&stream, peer.ip(), context.user_timeout);
    let served = Box::pin(greet(stream, peer, &context)).await;
    if let Err(refusal) = &served {
        context.assignments.count_refused_host(refusal.reason);
    }
    match served {
        // It waits in a task of its own, with no room for anything that came before.
        Ok(Some(Newcomer { stream, guard })) => {
            let entered = channel::enter(stream, guard, Arc::clone(&context));
            context.tasks.spawn(entered);
        }
        Ok(None) => {}
        // In a flood of silent connections, a line each would be a flood of its own.
        Err(Refusal { reason: reason @ Reason::HandshakeLimit, detail }) => {
            debug!(host.addr = %peer, %reason, detail, "host refused");
        }
        Err(Refusal { reason, detail }) => {
            info!(host.addr = %peer, %reason, detail, "host refused");
        }
    }
}

/// A data channel that has its id and its answer, and is to wait.
struct Newcomer {
    stream: Stream,
    guard: ChannelGuard,
}

impl Newcomer {
    /// It is to carry one session after another, for as long as the host wants that and the book takes it back.
    fn for_many(self) -> Newcomer {
        Newcomer { stream: self.stream.for_many(None), ..self }
    }
}

/// Hears who it is and answers. Gives a data channel back, which has a long life still; others have had theirs.
async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    context: &Context,
) -> Result<Option<Newcomer>, Refusal> {
    let arrived = tokio::select! {
        arrived = handshake::greet(stream, peer.ip(), context) => arrived?,
        () = context.leaving.cancelled() => return Ok(None),
    };
    let Arrival { stream, hello, place } = arrived;
    match hello.v2 {
        Some(hello) => of_version_2(stream, hello, place, peer, context).await,
        None => of_version_1(stream, place, peer, context).await.map(Some),
    }
}

/// A data channel of version 1, which has no authentication: the network that it comes from decides.
async fn of_version_1(
    stream: Stream,
    place: Place,
    peer: SocketAddr,
    context: &Context,
) -> Result<Newcomer, Refusal> {
    let host = HostId::from_address(peer.ip());
    if !context.v1 || stream.is_encrypted() {
        let detail = match context.v1 {
            true => "version 1 is not spoken inside TLS",
            false => "only hosts with a join line are served here",
        };
        return Err(Refusal { reason: Reason::Version1Off, detail: detail.to_owned() });
    }
    if !context.access.allows(peer.ip()) {
        let detail = "name its network in `allow` of [relay.v1], or with --v1-allow".to_owned();
        return Err(Refusal { reason: Reason::NetworkNotAllowed, detail });
    }
    let guard = context
        .assignments
        .reserve_channel(host, context.service_of_v1.clone(), None)
        .map_err(|reason| Refusal { reason, detail: "no channel for this host".to_owned() })?;
    welcome(stream, guard, None, place, context).await
}

/// Answers a data channel, which has its id with that.
async fn welcome(
    mut stream: Stream,
    guard: ChannelGuard,
    v2: Option<AnswerV2>,
    place: Place,
    context: &Context,
) -> Result<Newcomer, Refusal> {
    let answer = answer(guard.channel.get(), &stream, v2, context)?;
    channel::send(&mut stream, &answer, context.hello_timeout).await?;
    context.assignments.count_taken_host();
    drop(place);
    Ok(Newcomer { stream, guard })
}

async fn of_version_2(
    mut stream: Stream,
    hello: HelloV2,
    place: Place,
    peer: SocketAddr,
    context: &Context,
) -> Result<Option<Newcomer>, Refusal> {
    let HelloV2 { host_id, role, features } = hello;
    let host = HostId::Process(u128::from_be_bytes(host_id.0));
    let mut place = place;
    let may = if !stream.is_encrypted() && !context.access.allows(peer.ip()) {
        Err(why_not_plain(context))
    } else {
        Ok(())
    };
    let refusal = match (may, role) {
        (Err(refusal), _) => refusal,
        (Ok(()), Role::Command { token, services, last_key, capacity }) => {
            let asked = member::Asked { host, token, services, last_key, capacity };
            match member::admit(asked, &mut place, peer, context).await {
                Ok(admitted) => {
                    drop(place);
                    let served = Box::pin(member::serve(stream, admitted, peer, context)).await;
                    return served.map(|()| None);
                }
                Err(refusal) => refusal,
            }
        }
        (Ok(()), Role::Data { channel_key, service }) => {
            match member::channel(host, &channel_key, &service, context) {
                Ok(guard) => {
                    let features: Vec<u32> =
                        features.into_iter().filter(|it| *it == hello::MANY_SESSIONS).collect();
                    let is_for_many = !features.is_empty();
                    let welcome = hello::Welcome { features, ..hello::Welcome::default() };
                    let welcome = Some(AnswerV2::Welcome(welcome));
                    let newcomer = self::welcome(stream, guard, welcome, place, context).await?;
                    return Ok(Some(if is_for_many { newcomer.for_many() } else { newcomer }));
                }
                Err(refusal) => refusal,
            }
        }
        (Ok(()), Role::Client | Role::Relay | Role::Unknown(_)) => {
            let detail = "hosts are served here, in roles 1 and 2".to_owned();
            Refusal { reason: Reason::UnsupportedVersion, detail }
        }
    };
    if refusal.reason != Reason::HandshakeLimit {
        // Whoever does not stay to hear it was refused for the same reason.
        let _told = Box::pin(refuse(&mut stream, &refusal, place, context)).await;
    }
    Err(refusal)
}

/// Why a plain connection from elsewhere is not taken.
fn why_not_plain(context: &Context) -> Refusal {
    let (reason, detail) = match context.tls {
        Some(_) => (Reason::TlsRequired, "hosts need a join line here"),
        None => (Reason::NetworkNotAllowed, "name its network with --v1-allow to accept it"),
    };
    Refusal { reason, detail: detail.to_owned() }
}

/// Tells a host of version 2 why it is not served, and ends the connection so that it can read it.
async fn refuse(
    stream: &mut Stream,
    refusal: &Refusal,
    place: Place,
    context: &Context,
) -> Result<(), Refusal> {
    let refused = Refused {
        reason: refusal.reason.code().to_owned(),
        detail: Some(refusal.detail.clone()).filter(|it| it.len() <= DETAIL_LEN_MAX),
        retry_after_ms: None,
    };
    let answer = answer(0, stream, Some(AnswerV2::Refused(refused)), context)?;
    channel::send(stream, &answer, context.hello_timeout).await?;
    // It was told; whoever stays to listen does not stand in the way of others.
    drop(place);
    let Ok(_lingering) = context.farewells.try_acquire() else { return Ok(()) };
    let bound = relayserver_core::limits::LINGER_TIMEOUT;
    let closing = close_politely(stream, bound, bound);
    context.over.run_until_cancelled(closing).await;
    Ok(())
}

/// An answer with what version 1 requires.
pub(crate) fn answer(
    channel_id: i32,
    stream: &Stream,
    v2: Option<AnswerV2>,
    context: &Context,
) -> Result<Answer, Refusal> {
    Ok(Answer {
        channel_id,
        relay_host: stream.local_addr()?.ip().to_canonical().to_string(),
        relay_port: context.clients_port_of_v1.to_string(),
        v2,
    })
}
