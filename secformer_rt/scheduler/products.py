"""The multiply-accumulates of a plan's matrix products, from shapes alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod

from secformer_rt.protocols.correlations import Ref
from secformer_rt.protocols.linear import MatrixProduct, WeightProduct
from secformer_rt.scheduler.plan import Plan


@dataclass(slots=True)
class Products:
    """Multiply-accumulates by bits that are kept: of one server online and offline, and of the dealer.

    Bits are rounded up to bytes, since a kernel for bytes leaves out whole ones.

    With a provisioned weight, a server does one product online (``X W``) and one offline (``R F``); between
    two secrets it does two online. The dealer does one of either.
    """

    online: Counter[int] = field(default_factory=Counter)
    offline: Counter[int] = field(default_factory=Counter)
    dealer: Counter[int] = field(default_factory=Counter)


def products(plan: Plan) -> Products:
    """Count a plan's products."""
    found = Products()
    for planned in plan.deals:
        correlation = planned.correlation
        if isinstance(correlation, WeightProduct):
            macs, online, offline = prod(correlation.shape) * _columns(plan, correlation.activation), 1, 1
        elif isinstance(correlation, MatrixProduct):
            macs, online, offline = prod(correlation.shape) * _columns(plan, correlation.left), 2, 0
        else:
            continue
        width = -(-correlation.bits // 8) * 8
        found.online[width] += online * macs
        found.offline[width] += offline * macs
        found.dealer[width] += macs
    return found


def _columns(plan: Plan, ref: Ref) -> int:
    """The length of a dealt matrix's rows."""
    assert isinstance(ref.deal, int)  # an activation's mask, never a parameter's
    return plan.deals[ref.deal].correlation.fields[ref.position].shape[-1]
