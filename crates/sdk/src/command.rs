//! The command channel: asked for, then followed to its end. What answers decides which version is spoken: an original makes a
//! data channel of the connection, and its command channel is dialled where originals have it.

use std::sync::Arc;
use std::time::Duration;

use relayserver_core::liveness::Patience;
use relayserver_transport::{HostPort, Stream};
use relayserver_wire::FRAME_MAX;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::{self, Decoder};
use relayserver_wire::hello::{AnswerV2, Welcome};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::contact::Contact;
use crate::report::{CommandReport, CommandReporter, Fault, Port, Trouble};
use crate::shared::Shared;
use crate::status::Served;
use crate::talk::{self, Ended};

/// How long a server of another protocol gets to greet whoever connects to what was taken for a command port. It is a wrong port
/// number then, and better said at once than found out when the first client comes.
const GREETING: Duration = Duration::from_millis(100);

/// Asks for a command channel, says what is in `announcements` on it, and reports what it hears, to its end or until the listener is over.
pub(crate) async fn run(
    shared: Arc<Shared>,
    reporter: CommandReporter,
    announcements: mpsc::Receiver<Announcement>,
) {
    let contact = shared.contact();
    let last = tokio::select! {
        last = follow(&shared, &contact, &reporter, announcements) => last,
        () = shared.over.cancelled() => return,
    };
    reporter.tell(last).await;
}

async fn follow(
    shared: &Shared,
    contact: &Contact,
    reporter: &CommandReporter,
    announcements: mpsc::Receiver<Announcement>,
) -> CommandReport {
    let link = &shared.link;
    let address = link.hosts().clone();
    let said = link.say(&link.hello_of_command(), FRAME_MAX).await;
    let refused = |trouble| {
        link.try_next_address();
        CommandReport::Failed(trouble)
    };
    let (stream, answer) = match said {
        Ok(said) => said,
        Err(trouble) => return refused(trouble),
    };
    match (answer.v2.clone(), link.command()) {
        (Some(AnswerV2::Welcome(welcome)), _) => {
            let channel = CommandChannel { stream, welcome, announcements };
            member(channel, &address, (shared, contact), reporter).await
        }
        (Some(AnswerV2::Refused(refusal)), _) => refused(Trouble::refused(&address, &refusal)),
        (None, None) => refused(Trouble::version_1_behind_a_join_line(&address)),
        (None, Some(command)) => {
            link.forget_key();
            reporter.tell(CommandReport::Original { stream, answer }).await;
            original(command, shared, reporter).await
        }
    }
}

/// A command channel of version 2 that was answered, and what is to be said on it.
struct CommandChannel {
    stream: Stream,
    welcome: Welcome,
    announcements: mpsc::Receiver<Announcement>,
}

/// A command channel of version 2, from its answer to its end.
async fn member(
    CommandChannel { stream, welcome, announcements }: CommandChannel,
    address: &HostPort,
    (shared, contact): (&Shared, &Contact),
    reporter: &CommandReporter,
) -> CommandReport {
    let Some(key) = welcome.channel_key else {
        let fault = Fault::NotARelay("an answer without a channel key".to_owned());
        return CommandReport::Failed(Trouble::at(Port::Hosts, address, fault));
    };
    let patience = patience(&welcome);
    shared.link.set_key(key);
    let was_away = contact.begin(patience.suspect_after);
    if was_away {
        reporter.tell(CommandReport::Silence).await;
    }
    let services = welcome.services.into_iter().map(Served::from).collect();
    reporter.tell(CommandReport::Answered { services }).await;
    match talk::run((stream, announcements), (shared, contact), reporter, patience).await {
        Ended::Lost(fault) => CommandReport::Lost(Trouble::at(Port::Hosts, address, fault)),
        Ended::Silent => CommandReport::Silence,
    }
}

/// As the relay says, and as ours do where it does not.
fn patience(welcome: &Welcome) -> Patience {
    let or_default = |millis: Option<u32>, default| {
        millis.map_or(default, |millis| Duration::from_millis(u64::from(millis.max(1))))
    };
    let Patience { suspect_after, gone_after } = Patience::default();
    Patience {
        suspect_after: or_default(welcome.suspect_after_ms, suspect_after),
        gone_after: or_default(welcome.gone_after_ms, gone_after),
    }
}

/// An original's command channel.
async fn original(
    address: &HostPort,
    shared: &Shared,
    reporter: &CommandReporter,
) -> CommandReport {
    let mut stream = match shared.link.dial(address, Port::Command).await {
        Ok(stream) => stream,
        Err(trouble) => return CommandReport::Failed(trouble),
    };
    if let Err(fault) = says_nothing_else(&mut stream).await {
        return CommandReport::Failed(Trouble::at(Port::Command, address, fault));
    }
    reporter.tell(CommandReport::Up).await;
    let fault = match listen(&mut stream, reporter).await {
        Ok(()) => Fault::Lost("closed the command channel".to_owned()),
        Err(fault) => fault,
    };
    CommandReport::Lost(Trouble::at(Port::Command, address, fault))
}

/// Waits a moment for what other servers say to whoever connects. An original says nothing, or a frame.
async fn says_nothing_else(stream: &mut Stream) -> Result<(), Fault> {
    let mut first = [0];
    if let Some(socket) = stream.tcp()
        && let Ok(1) = timeout(GREETING, socket.peek(&mut first)).await.unwrap_or(Ok(0))
    {
        let [byte] = first;
        frame::payload_len([byte, 0, 0, 0], FRAME_MAX).map_err(Fault::not_a_relay)?;
    }
    Ok(())
}

/// Reports every announcement, to the end of the channel.
async fn listen(stream: &mut Stream, reporter: &CommandReporter) -> Result<(), Fault> {
    let mut decoder = Decoder::new(FRAME_MAX);
    let mut buffer = [0; 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        let mut input = buffer.get(..len).unwrap_or_default();
        if input.is_empty() {
            return Ok(());
        }
        while let Some(payload) = decoder.next(&mut input).map_err(Fault::not_a_relay)? {
            let announcement = Announcement::decode(&payload).map_err(Fault::not_a_relay)?;
            reporter.tell(CommandReport::Announced(announcement)).await;
        }
    }
}
