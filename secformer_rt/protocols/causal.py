"""The causal mask, which is public: shares of scores that nobody may use are replaced by a number."""

from __future__ import annotations

from secformer_rt.graph.causal import Hidden, past
from secformer_rt.protocols.core import Secret


def hide_future(scores: Secret, hidden: Hidden) -> Secret:
    """Scores (..., T, T) with those of later keys replaced, and the others moved, as ``hidden`` says.

    Cost: 0 rounds; nothing is opened, and nothing dealt.
    """
    seen = past(scores.share)
    unit = 2**scores.frac
    public = seen * round(hidden.shift * unit) + ~seen * round(hidden.future * unit)
    return scores.local(scores.share * seen).plus_public(public)
