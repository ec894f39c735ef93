"""Two hosts on one machine: network namespaces joined by a virtual cable, an SSH server in each.

Each has its own name and its own /etc/hosts. A host is its SSH server's namespaces and ends with it:
nothing is left where a test is killed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster.processes import PROJECT, Daemon, daemon, wait_until

TOOLS = ("hostname", "ip", "mount", "nsenter", "ssh", "ssh-keygen", "sshd", "unshare")
INTERFACE = "link0"
ADDRESSES = {"host1": "10.99.0.1", "host2": "10.99.0.2"}
SEARCH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

SERVER = """
HostKey {folder}/server_key
AuthorizedKeysFile {folder}/client_key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""
CLIENT = """
IdentityFile {folder}/client_key
UserKnownHostsFile {folder}/known_hosts
LogLevel ERROR
"""
START = """
hostname "$1"
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
exec {sshd} -D -e -f {folder}/sshd_config
"""


def missing() -> str | None:
    """Why there can be no such hosts here."""
    lacking = [name for name in TOOLS if shutil.which(name, path=SEARCH) is None]
    if lacking:
        return f"not found: {', '.join(lacking)}. Install openssh-server, openssh-client and iproute2."
    if os.geteuid() != 0:
        return "network namespaces need root"
    if subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True).returncode:
        return "this machine allows no network namespaces"
    return None


@dataclass(frozen=True)
class Hosts:
    """servers: each host's SSH server; processes: their process ids."""

    servers: list[Daemon]
    processes: list[int]

    def on_first(self, command: list[str]) -> list[str]:
        """The command that runs a command on host1."""
        return on_host(self.processes[0], command)

    def sent_bytes(self) -> list[int]:
        """What each host has sent over the cable so far."""
        shown = [ip("-s", "-j", "link", "show", INTERFACE, host=pid) for pid in self.processes]
        return [json.loads(text)[0]["stats64"]["tx"]["bytes"] for text in shown]


def on_host(server: int, command: list[str]) -> list[str]:
    """The command that runs a command on the host of an SSH server."""
    return ["nsenter", "--target", str(server), "--net", "--uts", "--mount", f"--wd={PROJECT}", *command]


@contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Two hosts with keys and logs in a folder."""
    write_files(folder)
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd wants to shut its children up
    start = ["unshare", "--net", "--uts", "--mount", "sh", "-e", str(folder / "start.sh")]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(daemon([*start, name], folder / f"{name}.log", dict(os.environ)))
            for name in ADDRESSES
        ]
        wait_until(lambda: all("listening" in server.log.read_text() for server in servers), 30, servers)
        hosts = Hosts(servers, [listener(server).pid for server in servers])
        connect(hosts.processes)
        yield hosts


def write_files(folder: Path) -> None:
    """Keys, what SSH's server and client are told, and the script that makes a host."""
    for name in ("server_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in ADDRESSES.items())]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    sshd = shutil.which("sshd", path=SEARCH)
    for name, text in {"sshd_config": SERVER, "ssh_config": CLIENT, "start.sh": START}.items():
        (folder / name).write_text(text.format(folder=folder, sshd=sshd))


def listener(server: Daemon) -> psutil.Process:
    """The SSH server itself, the only child of its nursery."""
    [child] = psutil.Process(server.guard.pid).children()
    return child


def connect(processes: list[int]) -> None:
    """Lay the cable and give both ends an address."""
    one, two = map(str, processes)
    ip("link", "add", INTERFACE, "netns", one, "type", "veth", "peer", "name", INTERFACE, "netns", two)
    for pid, address in zip(processes, ADDRESSES.values(), strict=True):
        ip("addr", "add", f"{address}/24", "dev", INTERFACE, host=pid)
        for interface in ("lo", INTERFACE):
            ip("link", "set", interface, "up", host=pid)


def ip(*arguments: str, host: int | None = None) -> str:
    """Run `ip`, here or on a host; its output."""
    command = ["ip", *arguments] if host is None else on_host(host, ["ip", *arguments])
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
