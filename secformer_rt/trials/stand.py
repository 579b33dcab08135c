"""Three parties and a client on this machine, every link between them through a relay."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.errors import PeerUnreachableError
from secformer_rt.parties.settings import ROLES, Role, Settings, Store
from secformer_rt.trials.cases import LINKS, LinkName
from secformer_rt.trials.relay import Relay
from secformer_rt.trials.witness import Witness

START_S: Final = 120.0  # that a process may take to come up, on a busy machine


class Client:
    """The asker's process."""

    def __init__(self, config: Path, preset: str, tokens: int) -> None:
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        module = "secformer_rt.trials.asker"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(config), preset, str(tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if self.reply(START_S) is None:
            raise PeerUnreachableError("The client of the trial did not start.")

    def ask(self, *words: str) -> None:
        """Give a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def reply(self, timeout_s: float) -> dict[str, Any] | None:
        """What came of the command; None if the client has died.

        Raises:
            TimeoutError: nothing has come.
        """
        try:
            line = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if not line:
            self.process.wait()
            return None
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def replied(self) -> bool:
        """Whether something has come that nobody has taken, be it the client's end."""
        return not self._replies.empty()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self._reader.join(1.0)
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._replies.put(line)
        self._replies.put("")


class Stand:
    """The deployment of a trial; a context manager that leaves no process behind."""

    def __init__(self, timeouts: Mapping[str, float], *, preset: str, tokens: int) -> None:
        self.witness = Witness()
        self.relays: dict[LinkName, Relay] = {}
        self._preset, self._tokens = preset, tokens
        self._stack = ExitStack()
        self._settings = loopback_settings(timeouts=dict(timeouts))
        self._client: Client | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secformer-rt-trial-")))
            # With a store parties have something to write, which can fail.
            store = Store(directory=directory / "store")
            self._settings = self._settings.model_copy(update={"store": store})
            for caller, called in LINKS:
                relay = Relay(_port(self._settings, called))  # type: ignore[arg-type]
                stack.callback(relay.close)
                self.relays[caller, called] = relay
            words = {role: self._words(role) for role in ROLES}
            self.cluster = stack.enter_context(
                LocalCluster(self._settings, log=self.witness, words=words)  # type: ignore[arg-type]
            )
            self._config = directory / "client.yaml"
            self._config.write_text(yaml.safe_dump(self._client_settings()), encoding="utf-8")
            stack.callback(self._end_client)
            for role in ROLES:
                self.wait_ready(role)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def client(self) -> Client:
        """The client, started again if it has died."""
        if self._client is not None and self._client.process.poll() is not None:
            self._end_client()
        if self._client is None:
            self._client = Client(self._config, self._preset, self._tokens)
        return self._client

    def restart(self, role: Role) -> None:
        """Start a party again; see `wait_ready`."""
        self.witness.forget(role)
        self.cluster.start(role)

    def wait_ready(self, role: Role) -> None:
        """Wait until a party can take a run.

        Raises:
            PeerUnreachableError: it does not come up.
        """
        if not self.witness.wait_ready(role, START_S):
            raise self.cluster.failure() or PeerUnreachableError(f"{role} is not ready within {START_S:g} s.")

    def heal(self) -> None:
        """Let all links work."""
        for relay in self.relays.values():
            relay.disarm()
            relay.heal()

    def _words(self, role: str) -> tuple[str, ...]:
        ours = [(called, relay) for (caller, called), relay in self.relays.items() if caller == role]
        return tuple(f"{called}.address=127.0.0.1:{relay.port}" for called, relay in ours)

    def _client_settings(self) -> dict[str, Any]:
        given: dict[str, Any] = self.cluster.settings.model_dump(mode="json")
        for role in ("server0", "server1"):
            given[role]["address"] = f"127.0.0.1:{self.relays['client', role].port}"
        return given

    def _end_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _port(settings: Settings, role: Role) -> int:
    return int(settings.endpoint(role).bind.rsplit(":", 1)[1])
