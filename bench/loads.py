"""What each load is: a line of `relayserver bench`, and what of it is compared."""

import json
import subprocess
from dataclasses import dataclass

# For how many seconds a load may go on: far beyond what any takes.
PATIENCE = 180


@dataclass(frozen=True)
class Load:
    name: str
    line: tuple
    # What is compared: so much a second, or, in milliseconds, which quantile. And whether more is better.
    unit: str
    quantile: str = ""
    more: bool = True
    over_tls: bool = False

    def run(self, ours, to, pids, seconds, enter=()):
        """Against `to`; `enter` leads to where the load is."""
        what, *flags = self.line
        line = [*enter, ours, "bench", what, to, *flags, "--time", f"{seconds}s", "--json"]
        if pids:
            line += ["--cpu-of", ",".join(map(str, pids))]
        try:
            done = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": 1, "error": f"not done after {PATIENCE} s"}
        if done.returncode != 0:
            return {"failed": 1, "error": done.stderr.strip()}
        return json.loads(done.stdout)

    def value(self, figures):
        """The one figure, in its unit; `None` where it did not work."""
        if "error" in figures:
            return None
        return {
            "GB/s": lambda: figures["bytes_per_second"] / 1e9,
            "1/s": lambda: figures["done_per_second"],
            "ms": lambda: figures["micros"][self.quantile] / 1e3,
        }[self.unit]()

    def short(self, figures):
        value = self.value(figures)
        if value is None:
            return f"failed: {figures['error']}"
        cpu = cpu_per(self, figures)
        said = f"{value:10.3f} {self.unit}" if value < 100 else f"{value:10.0f} {self.unit}"
        if cpu is not None:
            said += f"  {cpu:8.3f} CPU {cpu_unit(self)}"
        if figures.get("failed"):
            said += f"  {figures['failed']} failed"
        return said


def wanted(name, chosen):
    """Whether a name is one of those that were chosen by how they begin; all are, where none were."""
    return not chosen or any(name.startswith(begin) for begin in chosen)


def cpu_unit(load):
    return "s/GB" if load.unit == "GB/s" else "ms/1000"


def cpu_per(load, figures):
    """Processor time of the peer, for a gigabyte or for a thousand of what is done."""
    cpu = figures.get("cpu_seconds")
    if cpu is None:
        return None
    if load.unit == "GB/s":
        return cpu / max(figures["bytes"] / 1e9, 1e-9)
    return 1e6 * cpu / max(figures["done"], 1)


LOADS = [
    *(Load(f"bulk, {n}", ("bulk", "--connections", n), "GB/s", over_tls=True) for n in (1, 8)),
    *(
        Load(f"requests, {size} B, {n}", ("requests", "--size", size, "--connections", n), "1/s", over_tls=True)
        for size in (64, 4096)
        for n in (1, 64, 512)
    ),
    *(Load(f"sessions, {n}", ("sessions", "--at-a-time", n), "1/s") for n in (1, 32, 256)),
    # About as many bytes as a relay of ours sends ahead of the host's word.
    Load("early bytes, 32", ("sessions", "--at-a-time", 32, "--size", 16_000), "1/s", over_tls=True),
    Load("first byte, warm", ("first-byte",), "ms", "p50", more=False),
    Load("first byte, 500 at once", ("first-byte", "--at-once", 500), "ms", "p99", more=False),
]
