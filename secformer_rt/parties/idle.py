"""What a server does while it serves no run: it returns memory, and expands the inference that comes next.

To expand shares is no use of them: nothing is opened with them, and nothing of them leaves this process,
before a run has taken the inference and its id is struck. A process that ends meanwhile leaves it as it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

import torch

from secformer_rt.parties.heartbeat import heartbeat
from secformer_rt.parties.logs import RUN_DIGITS, bound, say
from secformer_rt.parties.memory import give_back
from secformer_rt.parties.offline import Offline, restored
from secformer_rt.parties.room import Room
from secformer_rt.parties.sealed import Reader
from secformer_rt.parties.stock import Stock
from secformer_rt.ring.slab import Slab
from secformer_rt.scheduler.plan import Plan
from secformer_rt.transport.link import Link

logger = logging.getLogger(__name__)

PAUSE_S: Final = 0.1
"""How long nothing is done first: a client hears of its run's end meanwhile, and may ask again at once."""

Aim = tuple[str, Plan]
"""What may be asked for: a model's id, and the plan of a shape."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expanded:
    """A prepared inference in memory, with as many of its shares expanded as there was time for."""

    run_id: str  # that dealt it
    offline: Offline
    slab: Slab


class Idle:
    """One server's work ahead, for what was asked for last; several threads may use it.

    No more is in memory than runs alone would need: a run that does not use what is expanded has it put away
    before it expands shares of its own.
    """

    def __init__(self, server: int, role: str, stock: Stock | None, room: Room) -> None:
        """``stock`` is where prepared inferences are; without one there is nothing to do."""
        self.server, self._role, self._stock, self._room = server, role, stock, room
        self._lock = threading.Lock()
        self._runs = 0
        self._closed = False
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self._aim: Aim | None = None
        self._first: Callable[[], Aim | None] = lambda: None
        self._expanded: Expanded | None = None  # only the thread touches it while there is one

    def begin(self, first: Callable[[], Aim | None]) -> None:
        """Work ahead before the first run, too, for what this tells: it may take a while."""
        with self._lock:
            self._first = first
            self._start(None)

    @contextmanager
    def halted(self, client: Link, aim: Aim | None = None, *, more: bool = False) -> Iterator[Turn]:
        """A run has its turn in this block, and nothing is expanded ahead until all such blocks have ended.

        Args:
            client: who asks, and is sent signs of life until the turn begins.
            aim: what is asked for.
            more: whether the client has said that it will ask again at once.
        """
        with heartbeat([client]), self._lock:
            self._stop()
            self._runs += 1
        turn = Turn(self, self._room)
        try:
            yield turn
        finally:
            turn.release()
            with self._lock:
                self._aim = aim or self._aim
                started = self._runs == 1 and not self._closed and self._start(turn, ahead=not more)
                self._runs -= 1
            if not started:
                turn.clean_up()

    def _start(self, turn: Turn | None, *, ahead: bool = True) -> bool:
        """Whether the system has a thread for it."""
        self._halt = threading.Event()
        arguments = (turn, ahead, self._halt)
        thread = threading.Thread(target=self._work, args=arguments, name="idle", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _stop(self) -> None:
        if self._thread is not None:
            self._halt.set()
            self._thread.join()
            self._thread = None

    def at_rest(self) -> bool:
        """Whether there is neither a run nor anything to do before the next one."""
        # Without the lock, which is held while a thread ends: runs count until their thread has been noted.
        runs, thread = self._runs, self._thread
        return not runs and (thread is None or not thread.is_alive())

    def close(self) -> None:
        """Stop for good."""
        with self._lock:
            self._closed = True
            self._stop()

    def take(self, run_id: str) -> Expanded | None:
        """Hand over what is expanded, if it is this one."""
        with self._lock:
            if self._expanded is None or self._expanded.run_id != run_id:
                return None
            expanded, self._expanded = self._expanded, None
            return expanded

    def put_away(self) -> None:
        """Forget what is expanded, in a run's turn; the stock still has it."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        expanded, self._expanded = self._expanded, None
        if expanded is not None:
            self._room.give(expanded.slab)

    def _work(self, turn: Turn | None, ahead: bool, halt: threading.Event) -> None:
        halt.wait(PAUSE_S)
        if turn is not None:
            turn.clean_up()
        if self._stock is None or not ahead or not self._room.size:
            return
        with bound(role=self._role), torch.inference_mode():
            try:
                _go_on(halt)
                aim = self._aim or self._first()
                if aim is not None:
                    self._expand(self._stock, *aim, halt)
            except _Halted:
                pass
            except Exception as error:  # the run that takes it will see, and both servers hear of it then
                self._forget()
                say(logger, "not expanded ahead", logging.WARNING, reason=type(error).__name__)

    def _expand(self, stock: Stock, model_id: str, plan: Plan, halt: threading.Event) -> None:
        began, expanded = time.perf_counter(), self._next(stock, model_id, plan, halt)
        if expanded is None:
            return
        material = expanded.offline.material
        before = material.expanded_bytes
        material.expand(expanded.slab, halt.is_set)
        if size := material.expanded_bytes - before:
            run_id, seconds = expanded.run_id[:RUN_DIGITS], time.perf_counter() - began
            say(logger, "expanded ahead", prepared=run_id, bytes=size, seconds=seconds)

    def _next(self, stock: Stock, model_id: str, plan: Plan, halt: threading.Event) -> Expanded | None:
        """What is in memory already if it is still held, else the oldest of the stock."""
        held = stock.held((model_id, plan.digest().hex()))
        if self._expanded is not None and self._expanded.run_id in held:
            return self._expanded
        self._forget()
        if not held:
            return None
        offline = restored(plan, self.server, stock.peek(held[0], partial(_go_on, halt)))
        self._expanded = Expanded(held[0], offline, self._room.take(plan.expanded_bytes(inf)))
        return self._expanded


class _Halted(Exception):  # noqa: N818 - no error
    """A run has come."""


def _go_on(halt: threading.Event) -> None:
    if halt.is_set():
        raise _Halted


class Turn:
    """What one run has of a server's memory."""

    def __init__(self, idle: Idle, room: Room) -> None:
        self._idle, self._room = idle, room
        self._claimed: Expanded | None = None
        self._slab: Slab | None = None
        self._rest = ExitStack()

    def claim(self, run_id: str) -> None:
        """What is expanded of a prepared inference, if it is, is this run's: it is about to be struck."""
        self._claimed = self._idle.take(run_id)
        if self._claimed is not None:
            self._slab = self._claimed.slab

    def keep(self, reader: Reader) -> None:
        """Close a file in the end: its name is gone, and to free its pages takes the system a while."""
        self._rest.callback(reader.close)

    def restored(self, plan: Plan, reader: Reader) -> Offline:
        """What this run has struck: from memory if it was expanded, else from its file.

        Raises:
            StoreError: the file is damaged.
        """
        if self._claimed is not None:
            return self._claimed.offline
        return restored(plan, self._idle.server, reader.tensors(mapped=True))

    def put_back(self) -> None:
        """What was claimed is not used after all, by anybody."""
        self._claimed = None
        if self._slab is not None:
            self._slab.clear()

    def grant(self, wanted: int) -> Slab:
        """Memory to expand shares in, as much as is wanted or left; with those that are expanded already."""
        if self._slab is None:
            self.make_room()
            self._slab = self._room.take(wanted)
        return self._slab

    def make_room(self) -> None:
        """Have what is expanded for other runs put away."""
        self._idle.put_away()

    def release(self) -> None:
        """Let other runs have the memory."""
        self._claimed = None
        if self._slab is not None:
            self._room.give(self._slab)
            self._slab = None

    def clean_up(self) -> None:
        """Return to the system what the run leaves, which takes a while."""
        self._rest.close()
        give_back()
