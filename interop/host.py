#!/usr/bin/env python
"""A host of protocol version 1, in the manner of the original of 2013. It shares nothing with the Rust code.

    python host.py [RELAY_HOST] [DPORT] [CPORT] [-n N] [--app echo|greet|upper]

It opens the command channel, on which it says nothing, and N data channels; it serves a session on each and replaces
those that are used or lost. What happens goes to standard output, a line each:

    command up | command down      the command channel
    channel ID RELAY_HOST PORT     a data channel was accepted
    ready                          the command channel is up and N channels are idle, for the first time
    open ID | drop ID              an announcement arrived, about any channel
    session ID                     one of our channels has a client: announced, or its first byte came
    end ID IN OUT                  that session's connection ended, after so many bytes in and out
    lost ID                        an idle channel was lost (ID 0: before the relay answered)
"""

import argparse
from collections import OrderedDict

from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ReconnectingClientFactory
from twisted.protocols.basic import Int32StringReceiver
from zope.interface import implementer

import frames

DELAY_FIRST, DELAY_MAX = 0.25, 30.0
EARLY_MAX = 1000  # announcements remembered for channels that were not answered yet


def say(*words):
    print(*words, flush=True)


class Host:
    """What the process holds: its command channel, its data channels by id."""

    def __init__(self, options):
        self.options = options
        self.command_up = False
        self.idle = {}  # channel id -> DataChannel
        self.early = OrderedDict()  # ids announced ahead of their answer: the two come on different connections
        self.said_ready = False
        self.delay = DELAY_FIRST

    def start(self):
        reactor.connectTCP(self.options.relay, self.options.command_port, CommandFactory(self))
        for _ in range(self.options.n):
            self.dial()

    def dial(self):
        reactor.connectTCP(self.options.relay, self.options.data_port, DataFactory(self))

    def dial_later(self):
        reactor.callLater(self.delay, self.dial)
        self.delay = min(self.delay * 2, DELAY_MAX)

    def command_changed(self, up):
        self.command_up = up
        say("command", "up" if up else "down")
        self.say_if_ready()

    def channel_answered(self, channel, response):
        self.delay = DELAY_FIRST
        say("channel", response.session_id, response.relay_host, response.relay_port)
        self.idle[response.session_id] = channel
        self.say_if_ready()
        if self.early.pop(response.session_id, False):
            channel.begin()

    def channel_used(self, channel):
        """Its session began, so that another must take its place."""
        del self.idle[channel.id]
        self.dial()

    def channel_lost(self, channel):
        if channel.id:
            del self.idle[channel.id]
        say("lost", channel.id)
        self.dial_later()

    def announced(self, command):
        if command.message_type == frames.CONNECTION_OPEN:
            channel_id = command.open_properties.assigned_to_session
            say("open", channel_id)
            if channel_id in self.idle:
                self.idle[channel_id].begin()
            else:
                self.early[channel_id] = True
                if len(self.early) > EARLY_MAX:
                    self.early.popitem(last=False)
        else:
            say("drop", command.drop_properties.session_id)  # advice only: the connection itself will end

    def say_if_ready(self):
        if not self.said_ready and self.command_up and len(self.idle) == self.options.n:
            self.said_ready = True
            say("ready")


class CommandChannel(Int32StringReceiver):
    MAX_LENGTH = frames.FRAME_MAX

    def connectionMade(self):
        self.factory.resetDelay()
        self.factory.host.command_changed(up=True)

    def stringReceived(self, string):
        self.factory.host.announced(frames.Command.FromString(string))

    def connectionLost(self, reason):
        self.factory.host.command_changed(up=False)


class CommandFactory(ReconnectingClientFactory):
    protocol = CommandChannel
    initialDelay, maxDelay = DELAY_FIRST, DELAY_MAX

    def __init__(self, host):
        self.host = host


class DataChannel(Protocol):
    """Hello, answer, idle, session, in that order."""

    def __init__(self, host, app):
        self.host, self.app = host, app
        self.id = 0
        self.buffer = b""
        self.in_session = False
        self.bytes_in = self.bytes_out = 0

    def connectionMade(self):
        self.writer = frames.Writer(reactor, self.transport, split=self.host.options.split)
        self.writer.frame(frames.hello())

    def dataReceived(self, data):
        if not self.id:
            self.buffer += data
            taken = frames.take_frame(self.buffer)
            if taken is None:
                return
            payload, data = taken
            response = frames.HostProcessHelloResponse.FromString(payload)
            self.id = response.session_id
            self.host.channel_answered(self, response)
        if data:
            self.begin()
            self.bytes_in += len(data)
            self.app.received(self, data)

    def begin(self):
        if not self.in_session:
            self.in_session = True
            say("session", self.id)
            self.host.channel_used(self)
            self.app.opened(self)

    def send(self, data):
        self.bytes_out += len(data)
        self.writer.raw(data)

    def connectionLost(self, reason):
        if self.in_session:
            say("end", self.id, self.bytes_in, self.bytes_out)
        else:
            self.host.channel_lost(self)


@implementer(IHalfCloseableProtocol)
class PoliteDataChannel(DataChannel):
    """Sends what it still owes when the client has said its last. Twisted by itself throws that away."""

    def readConnectionLost(self):
        self.transport.loseConnection()

    def writeConnectionLost(self):
        pass


class DataFactory(ClientFactory):
    def __init__(self, host):
        self.host = host

    def buildProtocol(self, address):
        kind = DataChannel if self.host.options.no_half_close else PoliteDataChannel
        return kind(self.host, APPS[self.host.options.app]())

    def clientConnectionFailed(self, connector, reason):
        self.host.dial_later()


class Echo:
    """What a client sends comes back. The original's interface: one call when a session opens, one for its bytes."""

    def opened(self, session):
        pass

    def received(self, session, data):
        session.send(data)


class Greet(Echo):
    """Speaks first, on the strength of the announcement."""

    def opened(self, session):
        session.send(b"welcome\r\n")


class Upper(Echo):
    def received(self, session, data):
        session.send(data.upper())


APPS = {"echo": Echo, "greet": Greet, "upper": Upper}


def main():
    parser = argparse.ArgumentParser(description="A host of protocol version 1, for interop tests.")
    parser.add_argument("relay", nargs="?", default="localhost")
    parser.add_argument("data_port", nargs="?", type=int, default=8000)
    parser.add_argument("command_port", nargs="?", type=int, default=8001)
    parser.add_argument("-n", type=int, default=10, help="idle data channels to hold")
    parser.add_argument("--app", choices=sorted(APPS), default="echo")
    parser.add_argument("--split", action="store_true", help="send the hello a byte at a time")
    parser.add_argument(
        "--no-half-close",
        action="store_true",
        help="end a session at the client's FIN, with what is still unsent, as Twisted does by itself",
    )
    Host(parser.parse_args()).start()
    reactor.run()


if __name__ == "__main__":
    main()
