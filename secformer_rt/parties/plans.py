"""Plans by request: deriving one takes a moment, and requests of one shape share it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from secformer_rt.parties.logs import say
from secformer_rt.parties.manifest import Manifest, Request
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.scheduler.plan import Plan, plan_graph

logger = logging.getLogger(__name__)

KEPT = 32


class PlanCache:
    """The plans of one model, for the shapes asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: OrderedDict[tuple[int, int, bool], tuple[Lowering, Plan]] = OrderedDict()
        self.found = self.derived = 0  # how often a plan was there already, and how often not

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, manifest: Manifest, request: Request) -> tuple[Lowering, Plan]:
        """The plan of a request, derived if need be."""
        key = (request.batch, request.tokens, request.masked)
        with self._lock:
            if key in self._plans:
                self.found += 1
            else:
                lowering = manifest.lowering(*key)
                plan = plan_graph(lowering)
                if logger.isEnabledFor(logging.DEBUG):
                    _tell(request, plan)
                self._plans[key] = (lowering, plan)
                self.derived += 1
                while len(self._plans) > KEPT:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(key)
            return self._plans[key]


def _tell(request: Request, plan: Plan) -> None:
    digests = {name: value.hex()[:16] for name, value in plan.digests().items()}
    size = {"batch": request.batch, "tokens": request.tokens, "masked": request.masked}
    say(logger, "planned", logging.DEBUG, **size, **digests)
