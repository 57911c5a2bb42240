"""A long way: client, relay and host in namespaces of their own, with a link program between two and two of them."""

import contextlib
import fcntl
import os
import struct
import subprocess
import tempfile
import time

import loads
import network
import peers

# Of each of the two links, in both directions.
DELAY, MBIT, QUEUE = "25ms", 100, 512 * 1024
LOSSES = (0, 1)

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLIENT, HOST = "10.77.1.1", "10.77.2.1"
RELAY_TO_CLIENTS, RELAY_TO_HOSTS = "10.77.1.2", "10.77.2.2"

# What is measured on it, which quantile counts, and for how many seconds a round repeats it: without loss, and with. Where packets are
# lost, chance takes more of them: for a median within 2 % some hundred, which five rounds have of 100 KB and of 1 MB.
KINDS = (
    ("first byte", ("first-byte",), "p50", 2, 4),
    ("100 KB", ("fetch", "--size", 100_000), "p50", 2, 10),
    ("1 MB", ("fetch", "--size", 1_000_000), "p50", 3, 15),
    ("20 MB", ("fetch", "--size", 20_000_000), "p50", 5, 10),
    ("50 at once", ("first-byte", "--at-once", 50), "p99", 1, 2),
)


def name_of(kind, loss):
    return f"wan, {loss} % loss: {kind}"


def loads_of(loss):
    """Each with its seconds."""
    return [
        (loads.Load(name_of(kind, loss), line, "ms", quantile, more=False), with_loss if loss else seconds)
        for kind, line, quantile, seconds, with_loss in KINDS
    ]

LOADS = [load for loss in LOSSES for load, _ in loads_of(loss)]
PEERS = [peers.Direct, peers.Rathole, peers.Bore, peers.Ours]


class Namespace:
    """A network of its own, for as long as the process lives that holds it."""

    def __init__(self):
        own = os.readlink("/proc/self/ns/net")
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        until = time.monotonic() + 10
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == own:
            if self.holder.poll() is not None or time.monotonic() > until:
                raise peers.Failed("no network namespace")
            time.sleep(0.01)
        self.enter = ("nsenter", "--net", "--target", str(self.holder.pid))
        self.do("ip", "link", "set", "lo", "up")
        # What a connection has learned of the way is not to help the next: each peer would profit from those before it.
        for name, value in {**network.settings(), "tcp_no_metrics_save": "1"}.items():
            self.do("sh", "-c", f"echo {value} > {network.path(name)}")
        # With a packet of a hundred lost, cubic takes a minute for what BBR takes two seconds for. Not all have it, or may use it here.
        without = "echo bench: a long way without BBR >&2"
        self.do("sh", "-c", f"echo bbr > {network.path('tcp_congestion_control')} || {without}")

    def do(self, *line):
        subprocess.run([*self.enter, *line], check=True)

    def take(self, device, address, other):
        """Has `device`, which leads to `other`."""
        subprocess.run(["ip", "link", "set", device, "netns", str(self.holder.pid)], check=True)
        self.do("ip", "address", "add", address, "peer", other, "dev", device)
        self.do("ip", "link", "set", device, "up")

    def close(self):
        self.holder.kill()
        self.holder.wait()


class World:
    """Client, relay and host, and the two links."""

    def __init__(self, ours, loss):
        self.closing = contextlib.ExitStack()
        try:
            self.client, self.relay, self.host = (self.keep(Namespace()) for _ in range(3))
            self.link(ours, loss, 1, (self.client, CLIENT), (self.relay, RELAY_TO_CLIENTS))
            self.link(ours, loss, 3, (self.host, HOST), (self.relay, RELAY_TO_HOSTS))
            # So that there is a direct way too.
            self.relay.do("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            self.client.do("ip", "route", "add", "default", "via", RELAY_TO_CLIENTS)
            self.host.do("ip", "route", "add", "default", "via", RELAY_TO_HOSTS)
        except BaseException:
            self.close()
            raise

    def keep(self, it):
        self.closing.callback(it.close)
        return it

    def link(self, ours, loss, seed, *ends):
        devices = [tun(f"rs{os.getpid() % 100000}x{seed + index}") for index in range(2)]
        (one, address), (other, address_of_other) = ends
        one.take(devices[0][1], address, address_of_other)
        other.take(devices[1][1], address_of_other, address)
        line = [ours, "bench", "link", "--delay", DELAY, "--mbit", MBIT, "--loss", loss, "--queue", QUEUE, "--seed", seed]
        link = subprocess.Popen([str(word) for word in line], stdin=devices[0][0], stdout=devices[1][0])
        for file, _ in devices:
            os.close(file)
        self.closing.callback(link.wait)
        self.closing.callback(link.terminate)

    def close(self):
        self.closing.close()


def tun(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file, name


def missing():
    """Why there is no long way here; `None` where there is one."""
    try:
        file, _ = tun(f"rs{os.getpid() % 100000}")
    except OSError as error:
        return f"no TUN device: {error}"
    os.close(file)
    return None


def measure(arguments, have, results, keep):
    """`keep` is called after each round."""
    why = missing()
    for loss in LOSSES if why is None else ():
        try:
            with contextlib.closing(World(have["relayserver"], loss)) as world, tempfile.TemporaryDirectory() as folder:
                in_world(arguments, have, results, keep, world, loss, folder)
        except (OSError, subprocess.CalledProcessError, peers.Failed) as error:
            why = str(error)
    if why:
        peers.leave_out(results, "wan", why)


def in_world(arguments, have, results, keep, world, loss, folder):
    places = peers.Places(
        host=world.host.enter,
        relay=world.relay.enter,
        host_address=HOST,
        relay_for_hosts=RELAY_TO_HOSTS,
        relay_for_clients=RELAY_TO_CLIENTS,
        listen="0.0.0.0",
    )
    with contextlib.ExitStack() as running:
        server = peers.Server(have, folder, places)
        running.callback(server.stop)
        server_port = server.start(peers.free_port())
        present = []
        for kind in PEERS:
            peer = kind(have, folder, places)
            if peer.missing() or not (kind is peers.Direct or loads.wanted(kind.name, arguments.peer)):
                continue
            port = peers.start(peer, server_port, running, results)
            to = HOST if kind is peers.Direct else RELAY_TO_CLIENTS
            if port:
                present.append((peer.name, f"{to}:{port}"))
        for number in range(arguments.rounds):
            for load, seconds in loads_of(loss):
                for name, to in present:
                    # What else it would tell is how long a way of twice the length is.
                    if name == peers.Direct.name and load.name != name_of("first byte", loss):
                        continue
                    figures = load.run(have["relayserver"], to, [], seconds, world.client.enter)
                    results["figures"].setdefault(load.name, {}).setdefault(name, []).append(figures)
                    print(f"round {number + 1}  {load.name:<24} {name:<22} {load.short(figures)}", flush=True)
            keep()
