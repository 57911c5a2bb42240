"""Who is compared: how each is set up between the load and the server, and which of its processes are measured.

A peer's `start` gives where the load connects. What it needs and what is not here it says in `missing`.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# How long a program may take to listen.
PATIENCE = 20

# Before a command: it does not interrupt whoever runs when something comes for it. So it finds more at once, and takes fewer turns.
BATCH = ("chrt", "--batch", 0)


class Failed(Exception):
    """A program did not do what it was started for."""


def start(peer, server_port, running, results):
    """Starts it, until `running` ends. Gives the port for the load; `None`, and says so, where it does not work."""
    running.callback(peer.stop)
    try:
        return peer.start(server_port)
    except Failed as failed:
        leave_out(results, peer.name, failed)
        return None


def leave_out(results, name, why):
    results["missing"][name] = str(why)
    print(f"bench: without {name}: {why}", file=sys.stderr)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Places:
    """Where things run, and by which addresses they are reached: all on this machine's loopback, or far apart."""

    # Words before a command that is to run there.
    host: tuple = ()
    relay: tuple = ()
    # Where hosts come from, which is where the server is too.
    host_address: str = "127.0.0.1"
    relay_for_hosts: str = "127.0.0.1"
    relay_for_clients: str = "127.0.0.1"
    listen: str = "127.0.0.1"


HERE = Places()


def listens(port, pid):
    """Whether somebody listens on `port`, where `pid` is."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == "0A" and int(local.rsplit(":", 1)[1], 16) == port:
                    return True
    return False


def wait_for(port, process):
    """Until somebody listens on `port`, in the network of `process`."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Failed(f"{process.name} has ended with {process.returncode}: {process.log.read_text().strip()[-300:]}")
        if listens(port, process.pid):
            return
        time.sleep(0.02)
    raise Failed(f"{process.name} does not listen on port {port}")


class Peer:
    """One of those who are compared."""

    name = ""
    # What the processes are that are measured, in the order of `measured`.
    roles = ()
    hops = 1
    program = None
    tls = False
    # Words before the command that moves the bytes: how it is scheduled.
    scheduling = ()

    def __init__(self, tools, folder, places=HERE):
        self.tools = tools
        self.places = places
        self.folder = Path(folder) / re.sub(r"\W+", "-", self.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = []
        self.measured = []

    def missing(self):
        """What is not here, in words; `None` where all is."""
        if self.program and not self.tools.get(self.program):
            return self.tools.why.get(self.program, f"{self.program} is not installed")
        if self.scheduling and not shutil.which(self.scheduling[0]):
            return f"{self.scheduling[0]} is not here: it is in util-linux"
        return None

    def start(self, server):
        """Between the load and `server`, a port of this machine. Gives the port for the load."""
        raise NotImplementedError

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes, self.measured = [], []

    def run(self, *line, at=(), measured=True):
        """Starts a command. `at` are words before it: where it runs, and how it is scheduled. They become it, and the process is its own."""
        path = self.folder / f"{len(self.processes)}.log"
        with path.open("wb") as log:
            words = [str(word) for word in (*at, *line)]
            process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        process.log, process.name = path, str(line[0])
        self.processes.append(process)
        if measured:
            self.measured.append(process.pid)
        return process

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path


class Server(Peer):
    """What the load talks to, behind whichever peer."""

    name = "server"

    def start(self, server):
        line = (self.tools["relayserver"], "bench", "server", f"{self.places.listen}:{server}")
        wait_for(server, self.run(*line, at=self.places.host))
        return server


class Direct(Peer):
    name = "direct"
    hops = 0

    def start(self, server):
        return server


class Rathole(Peer):
    name = "rathole"
    roles = ("server", "client")
    hops = 2
    program = "rathole"

    def start(self, server):
        at = self.places
        control, clients = free_port(), free_port()
        server_transport, client_transport = self.transports()
        token = 'default_token = "benchmark"\n'
        config = self.write(
            "server.toml",
            f'[server]\nbind_addr = "{at.listen}:{control}"\n{token}{server_transport}'
            f'[server.services.it]\nbind_addr = "{at.listen}:{clients}"\nnodelay = true\n',
        )
        first = self.run(self.tools["rathole"], "--server", config, at=at.relay)
        wait_for(control, first)
        config = self.write(
            "client.toml",
            f'[client]\nremote_addr = "{at.relay_for_hosts}:{control}"\n{token}{client_transport}'
            f'[client.services.it]\nlocal_addr = "127.0.0.1:{server}"\nnodelay = true\n',
        )
        self.run(self.tools["rathole"], "--client", config, at=at.host)
        wait_for(clients, first)
        return clients

    def transports(self):
        return "", ""


class RatholeNoise(Rathole):
    name = "rathole, noise"
    tls = True

    def transports(self):
        keys = subprocess.run(
            [self.tools["rathole"], "--genkey"], capture_output=True, text=True, check=True
        ).stdout.split()
        private, public = keys[2], keys[-1]
        return (
            f'[server.transport]\ntype = "noise"\n[server.transport.noise]\nlocal_private_key = "{private}"\n',
            f'[client.transport]\ntype = "noise"\n[client.transport.noise]\nremote_public_key = "{public}"\n',
        )


class Bore(Peer):
    name = "bore"
    roles = ("server", "client")
    hops = 2
    program = "bore"

    def start(self, server):
        at = self.places
        clients = free_port()
        first = self.run(self.tools["bore"], "server", "--bind-addr", at.listen, "--min-port", "1024", at=at.relay)
        # Where its own clients come is fixed.
        wait_for(7835, first)
        line = ["local", server, "--local-host", "127.0.0.1", "--to", at.relay_for_hosts, "--port", clients]
        self.run(self.tools["bore"], *line, at=at.host)
        wait_for(clients, first)
        return clients


class HAProxy(Peer):
    name = "haproxy"
    roles = ("proxy",)
    program = "haproxy"
    maxconn = 9000
    tuning, options = "", ""

    def start(self, server):
        clients = free_port()
        config = self.write(
            "haproxy.cfg",
            f"global\n  maxconn {self.maxconn}\n{self.tuning}"
            f"defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n{self.options}"
            f"listen it\n  bind 127.0.0.1:{clients}\n  server it 127.0.0.1:{server}\n",
        )
        wait_for(clients, self.run(self.tools["haproxy"], "-db", "-f", config, at=self.scheduling))
        return clients


class SplicingHAProxy(HAProxy):
    name = "haproxy, splicing"
    # It reckons with pipes for a quarter of its sessions, and does not start if they do not fit in 20,000 descriptors.
    maxconn = 7950
    tuning = "  tune.pipesize 1048576\n"
    options = "  option splice-request\n  option splice-response\n"
    # What ours is given.
    scheduling = BATCH


class Nginx(Peer):
    name = "nginx stream"
    program = "nginx"

    def start(self, server):
        clients = free_port()
        module = next(iter(Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so")), None)
        load = f"load_module {module};\n" if module else ""
        config = self.write(
            "nginx.conf",
            f"{load}worker_processes auto;\nworker_rlimit_nofile 18000;\ndaemon off;\npid {self.folder}/pid;\n"
            f"error_log {self.folder}/error.log;\nevents {{ worker_connections 18000; }}\n"
            f"stream {{ server {{ listen 127.0.0.1:{clients}; proxy_pass 127.0.0.1:{server}; }} }}\n",
        )
        process = self.run(self.tools["nginx"], "-e", self.folder / "error.log", "-c", config)
        wait_for(clients, process)
        # It listens before its workers are there.
        until = time.monotonic() + PATIENCE
        while len(children(process.pid)) < os.cpu_count():
            if time.monotonic() > until:
                raise Failed("nginx has not started its workers")
            time.sleep(0.02)
        self.measured = children(process.pid)
        self.roles = tuple("worker" for _ in self.measured)
        return clients


class Ours(Peer):
    """Relay, and a host that forwards: what rathole does."""

    name = "relayserver"
    roles = ("relay", "host")
    hops = 2
    program = "relayserver"
    target = ("--forward", "127.0.0.1:{server}")
    scheduling = BATCH
    # Nothing else is to run on the machine, and there is room for 8,000 sessions where there are 20,000 descriptors.
    settings = (
        "--pin-threads",
        "--clients-max", 8200, "--channels-max", 8600, "--commands-max", 64, "--handshakes-max", 512,
    )

    def start(self, server):
        at = self.places
        hosts, command, clients = free_port(), free_port(), free_port()
        ours = self.tools["relayserver"]
        relay = ("relay", hosts, command, clients, *self.settings, *self.open())
        wait_for(clients, self.run(ours, *relay, at=(*at.relay, *self.scheduling)))
        target = [word.format(server=server) for word in self.target]
        host = self.run(ours, "host", *self.relay(hosts, command), *target, at=at.host, measured=self.hops == 2)
        until = time.monotonic() + PATIENCE
        while "host ready" not in (self.folder / "1.log").read_text():
            if host.poll() is not None or time.monotonic() > until:
                raise Failed(f"the host is not ready: see {self.folder}")
            time.sleep(0.02)
        return clients

    def open(self):
        """Whom the relay serves, beside its own machine."""
        return () if self.places is HERE else ("--bind", self.places.listen, "--v1-allow", f"{self.places.host_address}/32")

    def relay(self, hosts, command):
        return (self.places.relay_for_hosts, hosts, command)


class OursOneHop(Ours):
    """Relay, and a server that is made with the SDK."""

    name = "relayserver, one hop"
    roles = ("relay",)
    hops = 1
    target = ("--bench-target",)


class OursTls(Ours):
    name = "relayserver, TLS"
    tls = True

    def open(self):
        state = self.folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        return ("--public", "127.0.0.1", "--bind", "127.0.0.1", "--state-dir", state)

    def relay(self, hosts, command):
        return ("--join-file", next((self.folder / "state").glob("*join*")))


PEERS = [Direct, Rathole, Bore, HAProxy, SplicingHAProxy, Nginx, Ours, OursOneHop, RatholeNoise, OursTls]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return [int(child) for child in listed.read().split()]


def rss(pid):
    """The resident memory of a process, in bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
