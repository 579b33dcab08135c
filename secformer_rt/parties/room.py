"""How much memory all runs of a server together may use for what could be computed later."""

from __future__ import annotations

import threading

from secformer_rt.ring.slab import Slab


class Room:
    """So many bytes, which runs share: the first come are served. What one has used is kept for the next."""

    def __init__(self, size: float) -> None:
        self.size = self._left = int(size)
        self._free: list[Slab] = []
        self._lock = threading.Lock()

    def take(self, wanted: int) -> Slab:
        """Memory until it is given back: as much as is wanted, or is left."""
        with self._lock:
            return self._found(wanted)

    def give(self, slab: Slab) -> None:
        """Give back what was taken: what is in it counts no more."""
        slab.clear()
        with self._lock:
            self._free.append(slab)

    def _found(self, wanted: int) -> Slab:
        fitting = [slab for slab in self._free if slab.nbytes >= wanted]
        if fitting:
            best = min(fitting, key=lambda slab: slab.nbytes)
            self._free.remove(best)
            return best
        while self._free and self._left < wanted:
            self._left += self._free.pop().nbytes
        slab = Slab(max(0, min(wanted, self._left)))
        self._left -= slab.nbytes
        return slab
