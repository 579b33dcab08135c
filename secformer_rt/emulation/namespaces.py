"""Places for processes and sockets: network namespaces without a name, which end with their last user."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from secformer_rt.errors import SecformerError

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


class Place(Protocol):
    """Where a process or a socket can be."""

    address: str

    def call(self, work: Callable[[], T]) -> T:
        """Do something there: sockets, devices and child processes that it makes belong there."""


class Here:
    """This process's own namespace, by its loopback interface."""

    address = "127.0.0.1"

    def call(self, work: Callable[[], T]) -> T:
        """Just do it."""
        return work()


class Namespace:
    """A network namespace; the kernel removes it, and what is in it, when nobody uses it any more.

    Attributes:
        address: Of this host, the same on all of its links.
    """

    def __init__(self, address: str) -> None:
        """Make one.

        Raises:
            OSError: the kernel does not allow it.
        """
        self.address = address
        self._fd = _in_thread(_unshared)

    def call(self, work: Callable[[], T]) -> T:
        """Do something there, in a thread that enters it and ends; see :class:`Place`."""

        def enter() -> T:
            _check(_libc().setns(self._fd, _CLONE_NEWNET))
            return work()

        return _in_thread(enter)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def ip(*words: str) -> None:
    """Run ``ip`` of iproute2 in this thread's namespace.

    Raises:
        SecformerError: it is missing, or refuses.
    """
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SecformerError("There is no ip command: install iproute2.") from None
    except subprocess.CalledProcessError as error:
        raise SecformerError(f"ip {' '.join(words)} failed: {error.stderr.strip()}.") from None


def _in_thread(work: Callable[[], T]) -> T:
    """Namespaces belong to threads: what enters one must not be a thread that lives on."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _unshared() -> int:
    _check(_libc().unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # os.setns and os.unshare need Python 3.12


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
