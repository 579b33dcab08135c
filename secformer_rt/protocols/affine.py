"""LayerNorm's place taken by gain and offset alone, for models that are trained so."""

from __future__ import annotations

from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.layernorm import Gain
from secformer_rt.protocols.masking import open_elementwise
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import truncate


def affine(x: Secret, gain: Gain, offset: Secret, *, frac: int) -> Protocol[Secret]:
    """``gain x + offset``: gain is public under its own mask, so that only x is opened.

    Args:
        x: (..., H), truncated to ``frac`` fraction bits if it has more.
        gain: gamma (H,), provisioned.
        offset: beta (H,).
        frac: fraction bits of x; the result has those of the gain as well.

    Cost: the truncation's; dealer: a word an element more for the product, and as many bits as are cut off.
    Error: x's rounding times the gain.
    Security: the opening is a truncation's, or masked by :func:`~.masking.open_masked`.
    Source: THE-X (arXiv 2206.00216), section 3.2.
    """
    x = yield from truncate(x, frac)
    opened = yield from open_elementwise(x)
    result = yield from product(opened.form, gain.form(x.server))
    return result.local(result.share + offset.at(result.frac).share)
