"""Four hosts and the links between them, emulated packet by packet on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from secformer_rt.emulation.namespaces import Namespace, ip
from secformer_rt.emulation.tun import DEVICE, MTU, open_tun
from secformer_rt.errors import SecformerError
from secformer_rt.scheduler.network import Network

HOSTS = ("server0", "server1", "dealer", "client")
LINKS: dict[str, tuple[str, str]] = {
    "server0_server1": ("server0", "server1"),
    "dealer_server0": ("dealer", "server0"),
    "dealer_server1": ("dealer", "server1"),
    "client_server0": ("client", "server0"),
    "client_server1": ("client", "server1"),
}
SUBNET = "10.77.0."
QUEUE_PACKETS = 10_000  # that a device holds until the relay takes them; what is dropped is its decision
STOP_S = 5.0


def check_emulation() -> None:
    """Refuse early what cannot work.

    Raises:
        SecformerError: the sentence says what is missing.
    """
    if not sys.platform.startswith("linux"):
        raise SecformerError("Emulated links need Linux: run this in a virtual machine.")
    if os.geteuid() != 0:
        raise SecformerError("Emulated links need root, to make network namespaces: run this as root.")
    if not Path(DEVICE).exists():
        raise SecformerError(f"Emulated links need {DEVICE}: load the kernel's module tun.")


@contextmanager
def emulated_hosts(network: Network) -> Iterator[Mapping[str, Namespace]]:
    """Hosts by name, every link of :data:`LINKS` with the rate and the delay of ``network``.

    Nothing has a name outside this process, so nothing is left behind, however it ends.

    Raises:
        SecformerError: this machine does not allow it.
    """
    check_emulation()
    with ExitStack() as stack:
        try:
            hosts: dict[str, Namespace] = {}
            for number, name in enumerate(HOSTS, start=1):
                hosts[name] = Namespace(f"{SUBNET}{number}")
                stack.callback(hosts[name].close)
            devices = [_link(stack, name, hosts[a], hosts[b]) for name, (a, b) in LINKS.items()]
        except OSError as error:
            raise SecformerError(
                f"This kernel does not allow emulated links ({error.strerror}):"
                " run it outside a container, or with CAP_SYS_ADMIN and CAP_NET_ADMIN."
            ) from error
        stack.enter_context(_relaying(network, devices))
        yield hosts


def _link(stack: ExitStack, name: str, first: Namespace, second: Namespace) -> tuple[int, int]:
    """A device on each side, which sends whatever is for the other side's address."""
    device = name.replace("server", "s")[:15]
    fds = []
    for here, there in ((first, second), (second, first)):
        fd = here.call(partial(open_tun, device))
        stack.callback(os.close, fd)
        fds.append(fd)
        here.call(partial(ip, "address", "add", here.address, "peer", there.address, "dev", device))
        up = ("mtu", str(MTU), "txqueuelen", str(QUEUE_PACKETS), "up")
        here.call(partial(ip, "link", "set", "dev", device, *up))
    return fds[0], fds[1]


@contextmanager
def _relaying(network: Network, devices: Sequence[tuple[int, int]]) -> Iterator[None]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "secformer_rt.emulation.relay"),
            *(network.model_dump_json(), json.dumps(devices)),
        ],
        stdin=subprocess.PIPE,
        pass_fds=[fd for pair in devices for fd in pair],
        start_new_session=True,  # a Ctrl-C is for this process, which then closes the relay's input
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
