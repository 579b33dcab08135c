"""A provisioned model as one server holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from secformer_rt.protocols.core import Secret
from secformer_rt.protocols.layernorm import Gain
from secformer_rt.protocols.linear import Weight


@dataclass(slots=True, repr=False)
class Model:
    """What one server holds of a provisioned model."""

    weights: dict[str, Weight] = field(default_factory=dict)
    gains: dict[str, Gain] = field(default_factory=dict)
    offsets: dict[str, Secret] = field(default_factory=dict)
