"""When each phase is struck: relays see the bytes that belong to it, however long they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from secformer_rt.graph.architecture import synthetic_parameters
from secformer_rt.parties.manifest import Request
from secformer_rt.parties.plans import PlanCache
from secformer_rt.scheduler.provisioning import is_masked
from secformer_rt.trials.asker import TEXTS, architecture, manifest
from secformer_rt.trials.cases import Case
from secformer_rt.trials.relay import Direction, Relay
from secformer_rt.trials.stand import Stand

HELLO_BYTES: Final = 100  # that every hello exceeds, and no ping of an idle connection
MEETING_BYTES: Final = 200  # that servers exceed who tell each other that both have written an inference


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the phases: of the masked weights, from the dealer to each server, and online each way."""

    provision: int
    offline: tuple[int, int]
    online: int

    @classmethod
    def planned(cls, preset: str, tokens: int) -> Sizes:
        """Of the one request."""
        description, parameters = manifest(preset), synthetic_parameters(architecture())
        request = Request(model_id="0" * 32, batch=TEXTS, tokens=tokens, masked=False)
        _, plan = PlanCache().get(description, request)
        masked = [p.name for p in description.parameters().parameters if is_masked(p)]
        weights = sum(8 * parameters[name].numel() for name in masked)
        first, second = plan.dealer_bytes
        return cls(weights, (first, second), plan.server_bytes)


def arm(stand: Stand, sizes: Sizes, case: Case, strike: Callable[[], None]) -> None:
    """Strike when the case's moment comes.

    Args:
        stand: whose relays and witness see it.
        sizes: of the request.
        case: which moment.
        strike: called once, in a thread that passes bytes on and waits for it.
    """
    relays = stand.relays
    peer, client = relays["server1", "server0"], relays["client", f"server{case.server}"]
    dealer, dealt = relays[f"server{case.server}", "dealer"], sizes.offline[case.server]
    direction: Direction = "out" if case.server else "back"
    if case.phase == "handshake":
        if case.victim == "dealer":
            dealer.trip("out", HELLO_BYTES, strike)
        else:
            called = relays["client", case.victim] if case.victim != "client" else client
            called.trip("out", HELLO_BYTES, strike)
    elif case.phase == "provision":
        peer.trip("out", int(case.fraction * sizes.provision), strike)
    elif case.phase == "prepare" and case.fraction < 0.5:
        dealer.trip("back", int(2 * case.fraction * dealt), strike)
    elif case.phase == "prepare":  # once nearly all is dealt: while both write it, and tell each other so
        later = int((case.fraction - 0.5) * MEETING_BYTES)
        dealer.trip("back", int(0.99 * dealt), lambda: peer.trip(direction, later, strike))
    elif case.phase == "offline":
        dealer.trip("back", int(case.fraction * dealt), strike)
    elif case.phase == "spend":
        # Outwards neither server has struck anything out; on the way back server 0 has.
        peer.trip(direction, HELLO_BYTES, strike)
    elif case.phase == "online":
        peer.trip(direction, int(case.fraction * sizes.online), strike)
    else:
        _arm_output(stand, sizes, case, client, strike)


def _arm_output(stand: Stand, sizes: Sizes, case: Case, client: Relay, strike: Callable[[], None]) -> None:
    """Hold back what a server says from its last rounds on; strike when it has done its last."""
    stand.relays["server1", "server0"].trip("out", int(0.97 * sizes.online), lambda: client.hold("back"))

    def late() -> None:
        strike()
        client.release()

    stand.witness.when("server1" if case.server else "server0", "online done", late)
