from __future__ import annotations

import torch

from secformer_rt.ring.slab import Slab
from tests.ring.helpers import words


def test_a_slab_holds_copies_until_it_is_full() -> None:
    slab, planes, x = Slab(60), torch.arange(5, dtype=torch.uint8), words(1, 2, 3).T
    assert slab.nbytes == 64
    kept = [slab.keep(planes), slab.keep(x)]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(kept, (planes, x), strict=True))
    assert kept[1].is_contiguous()
    planes[:] = 0
    assert kept[0].tolist() == [0, 1, 2, 3, 4]
    over = words(2, 2)
    assert slab.keep(over) is over
    slab.clear()
    assert slab.keep(over).data_ptr() == kept[0].data_ptr()
