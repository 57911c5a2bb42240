//! Hosts of version 2: how a command channel and its data channels are let in, and the command channel's life.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use relayserver_core::{
    Capacity, ChannelKey, GrantId, HostId, Membership, Reason, ServiceName, limits,
};
use relayserver_transport::{Stream, Token, random_bytes, sha256};
use relayserver_wire::hello::{self, AnswerV2, ServedService, Welcome};
use relayserver_wire::secret;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::admission::Place;
use crate::assignment::{ChannelGuard, CommandGuard, CommandHandle};
use crate::channel;
use crate::context::Context;
use crate::handshake::Refusal;
use crate::host_port;
use crate::talk::{self, Talk};

/// How long whoever shows a wrong token waits for the answer, so that nobody tries many.
const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);

/// What the hello of a command channel asks for.
pub(crate) struct Asked {
    pub(crate) host: HostId,
    pub(crate) token: Option<secret::Token>,
    pub(crate) services: Vec<String>,
    pub(crate) last_key: Option<secret::ChannelKey>,
    pub(crate) capacity: hello::Capacity,
}

/// A command channel that the book has taken, and that is still to be answered.
pub(crate) struct Admitted {
    host: HostId,
    grant: Option<GrantId>,
    services: BTreeSet<ServiceName>,
    key: secret::ChannelKey,
    guard: CommandGuard,
    talk: Talk,
}

/// Lets a command channel in, with its grant. A wrong token is answered late.
pub(crate) async fn admit(
    asked: Asked,
    place: &mut Place,
    peer: SocketAddr,
    context: &Context,
) -> Result<Admitted, Refusal> {
    let Asked { host, token, services, last_key, capacity } = asked;
    let grant = match token {
        Some(token) => Some(match grant_of(&token, context) {
            Ok(grant) => grant,
            Err(_wrong) => {
                place.punish();
                tokio::select! {
                    () = sleep(WRONG_TOKEN_DELAY) => {}
                    // Too many of those at this address: closed without an answer, which would come too soon.
                    () = place.lost() => {
                        let detail = "a wrong token, among many from there".to_owned();
                        return Err(Refusal { reason: Reason::HandshakeLimit, detail });
                    }
                    () = context.leaving.cancelled() => {}
                }
                // One that was made a moment ago may not have been heard of yet.
                grant_of(&token, context)?
            }
        }),
        // Where version 1 is served, whoever may be of version 1 may do without.
        None if context.access.allows(peer.ip()) => None,
        None => {
            let detail = "no token: hosts need a join line here".to_owned();
            return Err(Refusal { reason: Reason::TokenRequired, detail });
        }
    };
    let key = random_bytes().map(secret::ChannelKey::new).map_err(|error| {
        let detail = format!("no channel key: {error}");
        Refusal { reason: Reason::CommandLimit, detail }
    })?;
    let services: BTreeSet<ServiceName> = services.iter().map(|it| ServiceName::new(it)).collect();
    let membership = Membership {
        grant: grant.clone(),
        services: services.clone(),
        key: digest(&key),
        last_key: last_key.as_ref().map(digest),
        capacity: Capacity {
            weight: capacity.weight,
            sessions_max: capacity.sessions_max.and_then(|max| usize::try_from(max).ok()),
        },
    };
    let (announcements, queue) = mpsc::channel(limits::ANNOUNCEMENTS_MAX);
    let (overflow, refusal) = (Arc::new(Notify::new()), Arc::new(OnceLock::new()));
    let handle = CommandHandle {
        announcements,
        overflow: Arc::clone(&overflow),
        refusal: Arc::clone(&refusal),
    };
    let guard = context.assignments.command_up(host, Some(membership), handle);
    if let Some(&reason) = refusal.get() {
        let detail = why_not_taken(reason, grant.as_ref(), &services, context);
        return Err(Refusal { reason, detail });
    }
    Ok(Admitted { host, grant, services, key, guard, talk: Talk { queue, overflow, refusal } })
}

/// Answers, and talks to the host until one of them ends it.
pub(crate) async fn serve(
    mut stream: Stream,
    admitted: Admitted,
    peer: SocketAddr,
    context: &Context,
) -> Result<(), Refusal> {
    let Admitted { host, grant, services, key, guard, talk } = admitted;
    let millis = |time: Duration| u32::try_from(time.as_millis()).ok();
    let welcome = Welcome {
        channel_key: Some(key),
        services: services.iter().map(|name| served(name, context)).collect(),
        features: Vec::new(),
        suspect_after_ms: millis(context.patience.suspect_after),
        gone_after_ms: millis(context.patience.gone_after),
    };
    let answer = host_port::answer(0, &stream, Some(AnswerV2::Welcome(welcome)), context)?;
    channel::send(&mut stream, &answer, context.hello_timeout).await?;
    context.assignments.count_taken_host();
    if let (Some(grants), Some(id)) = (&context.grants, &grant) {
        grants.used(id.as_str());
    }
    let _home = context.places.host_at(peer.ip());
    let token = grant.map(tracing::field::display);
    debug!(host.id = %host, host.addr = %peer, token, "command channel up");
    let reason = talk::run(stream, host, &guard, talk, context).await;
    info!(host.id = %host, host.addr = %peer, %reason, "command channel ended");
    Ok(())
}

/// Lets a data channel in.
pub(crate) fn channel(
    host: HostId,
    key: &secret::ChannelKey,
    service: &str,
    context: &Context,
) -> Result<ChannelGuard, Refusal> {
    let key = Some(digest(key));
    context.assignments.reserve_channel(host, ServiceName::new(service), key).map_err(|reason| {
        let detail = match reason {
            Reason::ChannelKeyUnknown => "the command channel comes first".to_owned(),
            _ => format!("no channel for service {service}"),
        };
        Refusal { reason, detail }
    })
}

fn grant_of(token: &secret::Token, context: &Context) -> Result<GrantId, Refusal> {
    let wrong = |reason, detail: &str| Refusal { reason, detail: detail.to_owned() };
    let Ok(token) = token.expose().parse::<Token>() else {
        return Err(wrong(Reason::TokenUnknown, "not of the form that tokens have"));
    };
    let checked = context.tokens.check(&token, SystemTime::now());
    checked.map_err(|reason| wrong(reason, &format!("token {:?}", token.id())))
}

fn why_not_taken(
    reason: Reason,
    grant: Option<&GrantId>,
    services: &BTreeSet<ServiceName>,
    context: &Context,
) -> String {
    match context.assignments.refused_service(grant, services) {
        Some(service) => format!("service {service}"),
        None => reason.meaning().to_owned(),
    }
}

/// Where clients of a service connect.
fn served(name: &ServiceName, context: &Context) -> ServedService {
    ServedService { name: name.to_string(), clients: context.served.get(name).cloned() }
}

/// The book, and what is recorded of it, gets a digest of the key: from that nobody can make the key.
fn digest(key: &secret::ChannelKey) -> ChannelKey {
    let half = sha256(key.expose()).into_iter().take(16);
    ChannelKey::new(half.fold(0, |bits, byte| bits << 8 | u128::from(byte)))
}
