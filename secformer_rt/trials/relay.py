"""A link's cable: passes the bytes of TCP connections on, counts them, and breaks when it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final, Literal

Direction = Literal["out", "back"]  # from whoever calls, and from whoever is called
DIRECTIONS: Final[tuple[Direction, Direction]] = ("out", "back")
_CHUNK: Final = 1 << 16


class Relay:
    """Listens on a port of the loopback interface for one link; cannot read it, since the link is encrypted.

    Attributes:
        port: Where whoever calls should connect to.
    """

    def __init__(self, target: int) -> None:
        """Pass everything on to this port of the loopback interface."""
        self._target = target
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._swallowed: frozenset[Direction] = frozenset()
        self._is_cut = self._closed = False
        self._carried: dict[Direction, int] = {"out": 0, "back": 0}
        self._open = {direction: threading.Event() for direction in DIRECTIONS}
        self._trip: tuple[Direction, int, Callable[[], None]] | None = None
        self.heal()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        _start(self._accept)

    def trip(self, direction: Direction, after_bytes: int, action: Callable[[], None]) -> None:
        """Do something once so many more bytes have come, before the last of them are passed on."""
        with self._lock:
            self._trip = (direction, self._carried[direction] + max(1, after_bytes), action)

    def disarm(self) -> None:
        """Forget what was to be done."""
        with self._lock:
            self._trip = None

    def hold(self, direction: Direction) -> None:
        """Pass nothing on in one direction, and lose nothing, until `release`."""
        self._open[direction].clear()

    def release(self) -> None:
        """Pass on what was held."""
        for is_open in self._open.values():
            is_open.set()

    def cut(self) -> None:
        """End all connections, and take no others until `heal`."""
        self._is_cut = True
        self._drop()

    def swallow(self, *directions: Direction) -> None:
        """Lose every byte that comes, while all connections stay open, until `heal`."""
        self._swallowed = frozenset(directions)

    def heal(self) -> None:
        """Work again. Connections that have lost bytes end."""
        lossy, self._swallowed, self._is_cut = bool(self._swallowed), frozenset(), False
        if lossy:
            self._drop()
        self.release()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.heal()
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut or self._closed:
                caller.close()
                continue
            try:
                called = socket.create_connection(("127.0.0.1", self._target), 5.0)
            except OSError:
                caller.close()
                continue
            called.settimeout(None)
            for each in (caller, called):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {caller, called}
            done = threading.Semaphore(0)
            _start(self._pump, "out", caller, called, done)
            _start(self._pump, "back", called, caller, done)
            _start(self._bury, caller, called, done)

    def _pump(
        self, direction: Direction, source: socket.socket, sink: socket.socket, done: threading.Semaphore
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._pass(direction, data, sink)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        done.release()

    def _pass(self, direction: Direction, data: bytes, sink: socket.socket) -> None:
        action = None
        with self._lock:
            self._carried[direction] += len(data)
            trip = self._trip
            if trip is not None and trip[0] == direction and self._carried[direction] >= trip[1]:
                action, self._trip = trip[2], None
        if action is not None:
            action()
        self._open[direction].wait()
        if direction not in self._swallowed:
            sink.sendall(data)

    def _bury(self, caller: socket.socket, called: socket.socket, done: threading.Semaphore) -> None:
        """Close both sockets once nobody uses them any more."""
        for _ in DIRECTIONS:
            done.acquire()
        with self._lock:
            self._sockets -= {caller, called}
        caller.close()
        called.close()


def _start(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, name="relay", daemon=True).start()
