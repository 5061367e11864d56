"""A star of network namespaces: each worker's link to the hub is shaped both ways, as a cloud function's is.

Everything lies inside the namespaces, whose names carry the process: nothing of the machine's own network is touched,
and with the namespaces all of it is gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smlt.core.errors import SmltError

CLONE_NEWNET = 0x40000000
NETWORK = "10.83.7"
HUB = f"{NETWORK}.254"
BURST, LATENCY = "256kb", "50ms"
NEEDED = (
    "run it as root (it needs CAP_SYS_ADMIN and CAP_NET_ADMIN) on Linux, with the programs ip and tc (package "
    "iproute2) and the kernel's veth, bridge and tbf"
)


class NoStarError(SmltError):
    """This machine does not let us make namespaces."""


class Star:
    """See `star`.

    Attributes:
        hub: name of the namespace in the middle.
        workers: names of the others.
    """

    def __init__(self, workers: int) -> None:
        prefix = f"smlt-{os.getpid()}"
        self.hub = f"{prefix}-hub"
        self.workers = [f"{prefix}-w{number}" for number in range(workers)]

    def make(self, mbit: float) -> None:
        """Namespaces, links and their rates."""
        for name in (self.hub, *self.workers):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", self.hub, "addr", "add", f"{HUB}/24", "dev", "br0")
        _run("ip", "-n", self.hub, "link", "set", "br0", "up")
        shape = ("root", "tbf", "rate", f"{mbit:g}mbit", "burst", BURST, "latency", LATENCY)
        for number, name in enumerate(self.workers):
            own, end = ("ip", "-n", name), _end(number)
            _run("ip", "-n", self.hub, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
            _run(*own, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", "eth0")
            _run(*own, "link", "set", "eth0", "up")
            _run("ip", "-n", self.hub, "link", "set", end, "master", "br0", "up")
            _run("tc", "-n", name, "qdisc", "replace", "dev", "eth0", *shape)
            _run("tc", "-n", self.hub, "qdisc", "replace", "dev", end, *shape)

    def remove(self) -> None:
        """All of it; what is not there is no error."""
        for name in (*self.workers, self.hub):
            with suppress(NoStarError):
                _run("ip", "netns", "del", name)

    def dropped(self) -> int:
        """Packets that the shaping has dropped so far, on all links and both ways."""
        ends = [(name, "eth0") for name in self.workers] + [(self.hub, _end(n)) for n in range(len(self.workers))]
        said = (json.loads(_run("tc", "-n", name, "-s", "-j", "qdisc", "show", "dev", end)) for name, end in ends)
        return sum(qdisc["drops"] for each in said for qdisc in each)


@contextmanager
def star(workers: int, mbit: float) -> Iterator[Star]:
    """A hub and workers, each with its link; removed afterwards.

    Raises:
        NoStarError: that is not allowed here, or a part is missing; nothing is left.
    """
    made = Star(workers)
    try:
        made.make(mbit)
        yield made
    finally:
        made.remove()


def enter(namespace: str) -> None:
    """Move this thread, and the threads and processes that it starts from now on, into a namespace."""
    with (Path("/run/netns") / namespace).open() as file:
        _set(file.fileno())


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in a namespace for a while; what it starts meanwhile stays there."""
    with Path("/proc/thread-self/ns/net").open() as before:
        enter(namespace)
        try:
            yield
        finally:
            _set(before.fileno())


def _set(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise NoStarError(f"a network namespace cannot be entered: {os.strerror(code)}", NEEDED)


def _end(number: int) -> str:
    """The hub's end of a worker's link."""
    return f"w{number}"


def _run(program: str, *arguments: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise NoStarError(f"network namespaces need the program {program}, which is not here", NEEDED)
    done = subprocess.run(
        [found, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True
    )
    if done.returncode:
        raise NoStarError(f"`{program} {' '.join(arguments)}` failed: {done.stderr.strip()}", NEEDED)
    return done.stdout
