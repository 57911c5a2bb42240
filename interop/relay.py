#!/usr/bin/env python
"""A relay of protocol version 1, in the manner of the original of 2013. It shares nothing with the Rust code.

    python relay.py [DPORT] [CPORT] [TPORT]        8000 8001 8002; 0 takes a free port

It keeps the original's ways: a single command channel (the last to connect wins), a client refused at once when no
command channel is up or no channel is idle, the data channel closed 5 seconds after its client went, no half-close, no
back-pressure. What happens goes to standard output, a line each:

    listening DPORT CPORT TPORT
    command up | command down      the command channel in force
    channel ID                     a data channel joined the pool
    lost ID                        an idle channel was lost
    open ID                        a client was assigned to it
    drop ID                        its client went first
    end ID                         its data channel has ended
    refused no_command | refused no_channel
"""

import argparse
import random
from collections import OrderedDict

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

import frames

DROP_TO_CLOSE_SECONDS = 5
CHANNEL_ID_MAX = 2**31 - 1


def say(*words):
    print(*words, flush=True)


class Relay:
    """The book: the command channel, the idle channels in the order in which they came, the ids in use."""

    def __init__(self, options):
        self.options = options
        self.command = None
        self.idle = OrderedDict()  # channel id -> DataChannel
        self.ids_in_use = set()
        self.next_id = options.first_id or random.randint(1, CHANNEL_ID_MAX)
        self.clients_port = None

    def start(self):
        options = self.options
        ports = [
            reactor.listenTCP(port, RelayFactory(self, protocol), interface=options.interface).getHost().port
            for port, protocol in (
                (options.data_port, DataChannel),
                (options.command_port, CommandChannel),
                (options.clients_port, Client),
            )
        ]
        self.clients_port = ports[2]
        say("listening", *ports)

    def writer(self, transport):
        return frames.Writer(reactor, transport, coalesce=self.options.coalesce, split=self.options.split)

    def take_id(self):
        while self.next_id in self.ids_in_use:
            self._advance_id()
        taken = self.next_id
        self.ids_in_use.add(taken)
        self._advance_id()
        return taken

    def _advance_id(self):
        self.next_id = self.next_id + 1 if self.next_id < CHANNEL_ID_MAX else 1

    def assign(self, client):
        """The channel that has waited longest, or None."""
        if self.command is None or not self.idle:
            say("refused", "no_channel" if self.command else "no_command")
            return None
        channel_id, channel = self.idle.popitem(last=False)
        channel.client = client
        say("open", channel_id)
        self.announce(frames.connection_open(channel_id))
        return channel

    def announce(self, command):
        if self.command is not None:
            self.command.writer.frame(command)


class RelayFactory(Factory):
    def __init__(self, relay, protocol):
        self.relay, self.protocol = relay, protocol


class CommandChannel(Protocol):
    def connectionMade(self):
        self.relay = self.factory.relay
        self.writer = self.relay.writer(self.transport)
        self.relay.command = self
        say("command", "up")

    def connectionLost(self, reason):
        if self.relay.command is self:
            self.relay.command = None
            say("command", "down")


class DataChannel(Protocol):
    """Hello, answer, idle, session, in that order."""

    def connectionMade(self):
        self.relay = self.factory.relay
        self.writer = self.relay.writer(self.transport)
        self.id = 0
        self.buffer = b""
        self.client = None

    def dataReceived(self, data):
        if not self.id:
            self.buffer += data
            self._welcome()
        elif self.client is not None:
            self.client.transport.write(data)

    def _welcome(self):
        taken = frames.take_frame(self.buffer)
        if taken is None:
            return
        if frames.Hello.FromString(taken[0]).version != frames.VERSION:
            self.transport.loseConnection()
            return
        self.id = self.relay.take_id()
        address = self.transport.getHost().host
        self.writer.frame(frames.hello_response(self.id, address, self.relay.clients_port))
        self.relay.idle[self.id] = self
        say("channel", self.id)

    def client_lost(self):
        self.client = None
        say("drop", self.id)
        self.relay.announce(frames.connection_drop(self.id))
        reactor.callLater(DROP_TO_CLOSE_SECONDS, self.writer.close)

    def connectionLost(self, reason):
        if not self.id:
            return
        self.relay.ids_in_use.discard(self.id)
        if self.relay.idle.pop(self.id, None) is not None:
            say("lost", self.id)
            return
        say("end", self.id)
        if self.client is not None:
            self.client.channel = None
            self.client.transport.loseConnection()


class Client(Protocol):
    def connectionMade(self):
        self.channel = self.factory.relay.assign(self)
        if self.channel is None:
            self.transport.loseConnection()

    def dataReceived(self, data):
        if self.channel is not None:
            self.channel.writer.raw(data)

    def connectionLost(self, reason):
        if self.channel is not None:
            self.channel.client_lost()


def main():
    parser = argparse.ArgumentParser(description="A relay of protocol version 1, for interop tests.")
    parser.add_argument("data_port", nargs="?", type=int, default=8000)
    parser.add_argument("command_port", nargs="?", type=int, default=8001)
    parser.add_argument("clients_port", nargs="?", type=int, default=8002)
    parser.add_argument("--interface", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--first-id", type=int, default=0, help="the first channel id; random by default")
    manner = parser.add_mutually_exclusive_group()
    manner.add_argument("--coalesce", action="store_true", help="messages of 50 ms go out in one write")
    manner.add_argument("--split", action="store_true", help="messages go out a byte at a time")
    Relay(parser.parse_args()).start()
    reactor.run()


if __name__ == "__main__":
    main()
