from __future__ import annotations

import torch

from secformer_rt.ring.slab import Slab
from tests.ring.helpers import words


def test_tensors_lie_in_a_slab_until_it_is_full() -> None:
    slab, planes, x = Slab(60), torch.arange(5, dtype=torch.uint8), words(1, 3, 2)
    assert slab.nbytes == 64
    kept = [slab.place(tuple(t.shape), t.dtype).copy_(t) for t in (planes, x)]
    assert all(torch.equal(a, b) and a.is_contiguous() for a, b in zip(kept, (planes, x), strict=True))
    assert kept[1].data_ptr() - kept[0].data_ptr() == 8
    over = slab.place((2, 2), torch.int64)
    assert over.shape == (2, 2) and not 0 <= over.data_ptr() - kept[0].data_ptr() < slab.nbytes
    slab.clear()
    assert slab.place((2, 2), torch.int64).data_ptr() == kept[0].data_ptr()
