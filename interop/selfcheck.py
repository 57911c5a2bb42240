#!/usr/bin/env python
"""Runs host.py against relay.py with clients on plain sockets, and compares what they said and what they heard.

    python selfcheck.py

It shows that the two speak protocol version 1 with each other before the Rust code is measured against them.
"""

import random
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue

HERE = Path(__file__).parent
DEADLINE = 20
HELLO = bytes.fromhex("00000002 0801")
FIRST_ID = b"\xff\xff\xff\xff\x07"  # 2^31-1


class Program:
    """A script of this folder as a child process; its lines can be waited for."""

    def __init__(self, script, *arguments):
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.lines = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())

    def wait_for(self, first_word):
        """The next line that opens with this word; those before it are passed over."""
        while True:
            try:
                line = self.lines.get(timeout=DEADLINE)
            except Empty:
                raise AssertionError(f"no line '{first_word}' within {DEADLINE} s") from None
            if line[0] == first_word:
                return line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(DEADLINE)


def client(port):
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def read_exactly(stream, size):
    heard = bytearray()
    while len(heard) < size:
        data = stream.recv(min(size - len(heard), 65536))
        assert data, f"ended after {len(heard)} of {size} bytes"
        heard += data
    return bytes(heard)


def converse(port, said, expected):
    """Says it while reading, and compares all that comes back."""
    with client(port) as stream:
        sender = threading.Thread(target=stream.sendall, args=(said,))
        sender.start()
        heard = read_exactly(stream, len(expected))
        sender.join()
    assert heard == expected, f"{len(expected)} bytes came back changed"


def many_clients_at_once(port):
    failures = Queue()

    def one(seed):
        try:
            said = random.Random(seed).randbytes(seed * 9973 + 1)
            converse(port, said, said)
        except Exception as failure:
            failures.put(failure)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not failures.empty():
        raise failures.get()


def serves(relay_options=(), host_options=()):
    """Each application, the announcements and the replacement of used channels."""
    with Program("relay.py", 0, 0, 0, *relay_options) as relay:
        _, data, command, clients = relay.wait_for("listening")
        with Program("host.py", "127.0.0.1", data, command, "-n", 25, *host_options) as host:
            host.wait_for("ready")
            converse(int(clients), b"one line\n", b"one line\n")
            opened = host.wait_for("open")[1]
            assert host.wait_for("drop")[1] == opened
            many_clients_at_once(int(clients))
        for app, expected in (("greet", b"welcome\r\nabc"), ("upper", b"ABC")):
            with Program("host.py", "127.0.0.1", data, command, "--app", app, *host_options) as host:
                host.wait_for("ready")
                converse(int(clients), b"abc", expected)


def replaces():
    """A channel that was used is replaced, one at a time."""
    with Program("relay.py", 0, 0, 0) as relay:
        _, data, command, clients = relay.wait_for("listening")
        with Program("host.py", "127.0.0.1", data, command, "-n", 1) as host:
            host.wait_for("ready")
            for round in range(5):
                converse(int(clients), b"%d" % round, b"%d" % round)
                host.wait_for("channel")


def refuses():
    """A client is closed when there is no command channel, and when there is no idle channel."""
    with Program("relay.py", 0, 0, 0) as relay:
        _, data, command, clients = relay.wait_for("listening")
        with client(int(data)) as channel:
            channel.sendall(HELLO)
            relay.wait_for("channel")
            assert_refused(int(clients))
            assert relay.wait_for("refused")[1] == "no_command"
        relay.wait_for("lost")
        with Program("host.py", "127.0.0.1", data, command, "-n", 0) as host:
            host.wait_for("ready")
            assert_refused(int(clients))
            assert relay.wait_for("refused")[1] == "no_channel"


def assert_refused(port):
    with client(port) as stream:
        assert stream.recv(1) == b""


def on_the_wire(*relay_options):
    """What a host sees: ids that wrap after 2^31-1, the longest-waiting channel, its announcements, the end."""
    with Program("relay.py", 0, 0, 0, "--first-id", 2**31 - 1, *relay_options) as relay:
        _, data, command, clients = relay.wait_for("listening")
        port = clients.encode()
        rest = b"\x12\x09127.0.0.1\x1a" + bytes([len(port)]) + port
        with client(int(command)) as announcements, client(int(data)) as first, client(int(data)) as second:
            relay.wait_for("command")
            for stream in (first, second):
                stream.sendall(HELLO)
                relay.wait_for("channel")
            with client(int(clients)) as visitor:
                visitor.sendall(b"first bytes")
                expect(first, framed(b"\x08" + FIRST_ID + rest) + b"first bytes")
                expect(announcements, framed(b"\x08\x01\x10\x00\x1a\x06\x08" + FIRST_ID))
            expect(announcements, framed(b"\x08\x01\x10\x01\x22\x06\x08" + FIRST_ID))
            expect(second, framed(b"\x08\x01" + rest))
            with client(int(clients)) as visitor:
                expect(announcements, framed(b"\x08\x01\x10\x00\x1a\x02\x08\x01"))
                second.close()
                assert visitor.recv(1) == b""


def framed(payload):
    return struct.pack("!I", len(payload)) + payload


def expect(stream, expected):
    heard = read_exactly(stream, len(expected))
    assert heard == expected, f"{heard.hex()} is not {expected.hex()}"


def ports_that_stay_free():
    """Below those that the system gives out by itself, so that nobody takes them while the relay is away."""
    ports = []
    while len(ports) < 3:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            if port not in ports and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return ports


def host_returns():
    """The host comes back to a relay that was away."""
    ports = ports_that_stay_free()
    with Program("relay.py", *ports) as relay:
        relay.wait_for("listening")
        host = Program("host.py", "127.0.0.1", *ports[:2], "-n", 2)
        host.wait_for("ready")
    with host:
        host.wait_for("lost")
        with Program("relay.py", *ports) as relay:
            relay.wait_for("channel")
            while host.wait_for("command")[1] != "up":
                pass
            converse(ports[2], b"again", b"again")


CHECKS = (
    ("the host serves through the relay", serves),
    ("the same with announcements that arrive together", lambda: serves(["--coalesce"])),
    ("the same with every message a byte at a time", lambda: serves(["--split"], ["--split"])),
    ("the same with a host that stops at the client's FIN", lambda: serves([], ["--no-half-close"])),
    ("a used channel is replaced", replaces),
    ("a client without a channel is refused", refuses),
    ("its messages are these bytes", on_the_wire),
    ("a session's bytes stay behind a late answer", lambda: on_the_wire("--coalesce")),
    ("a host returns to its relay", host_returns),
)


def main():
    for name, check in CHECKS:
        check()
        print("ok", name, flush=True)
    print(f"{len(CHECKS)} passed, 0 failed")


if __name__ == "__main__":
    main()
