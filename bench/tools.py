"""The programs that are compared: where they are, which version, and how they are installed where they are not."""

import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Of crates.io, at these versions, into bench/.tools. What rathole's own lock file names does not compile any more.
CRATES = {"rathole": ("rathole", "0.5.0", False), "bore": ("bore-cli", "0.6.0", True)}

# Of Debian: program, package, and the file that shows that it is there.
PACKAGES = {
    "haproxy": ("haproxy", None),
    "nginx": ("libnginx-mod-stream", "/usr/lib/nginx/modules/ngx_stream_module.so"),
}


class Tools(dict):
    """The path of each program that is here, and why the others are not."""

    def __init__(self, ours, install):
        super().__init__(relayserver=ours)
        self.why = {}
        for name, crate in CRATES.items():
            self.find(name, HERE / ".tools/bin" / name, lambda: cargo_install(*crate), install)
        for name, (package, shows) in PACKAGES.items():
            found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
            if shows and not Path(shows).exists():
                found = None
            self.find(name, Path(found) if found else None, lambda: apt_install(package), install)

    def find(self, name, path, installs, install):
        if not (path and path.exists()) and install:
            self.why[name] = installs()
            path = path or Path(shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") or "/nonexistent")
        if path and path.exists():
            self[name] = path
            self.why.pop(name, None)
        else:
            self.why[name] = self.why.get(name) or f"{name} is not here; bench/run installs it with --install"

    def version(self, name):
        flag = {"haproxy": "-v", "nginx": "-v"}.get(name, "--version")
        told = subprocess.run([self[name], flag], capture_output=True, text=True, check=False)
        if name == "rathole":
            # It tells a commit.
            return CRATES[name][1]
        found = re.search(r"\d+\.\d+\S*", told.stdout + told.stderr)
        return found.group() if found else "?"


def cargo_install(crate, version, is_locked):
    line = ["cargo", "install", "--quiet", "--root", HERE / ".tools", "--version", version, crate]
    line += ["--locked"] if is_locked else []
    print(f"bench: installing {crate} {version}", flush=True)
    done = subprocess.run(line, check=False)
    return None if done.returncode == 0 else f"cargo install {crate} failed"


def apt_install(package):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"the Debian package {package} is not installed"
    print(f"bench: installing {package}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    line = ["apt-get", "install", "-qqy", "--no-install-recommends", package]
    done = subprocess.run(line, env=environment, stdout=subprocess.DEVNULL, check=False)
    return None if done.returncode == 0 else f"apt-get install {package} failed"
