"""secformer_rt: ask somebody else's BERT about private text, with neither side showing the other anything."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secformer_rt.api import Answers, Classification, Cluster, Costs, Estimate, Model, estimate

__version__ = "0.1.0"
__all__ = ["Answers", "Classification", "Cluster", "Costs", "Estimate", "Model", "estimate"]


def __getattr__(name: str) -> Any:
    """The Python interface, imported when it is first used: a party does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from secformer_rt import api

    return getattr(api, name)
