"""What a checkpoint would cost, before anything is started: rounds and bytes are exact, seconds predicted.

    python examples/cost_of_my_checkpoint.py [CHECKPOINT]

Without a CHECKPOINT, the model is tiny and random.
"""

from __future__ import annotations

from pathlib import Path

from tiny_checkpoint import run_example

from secformer_rt import estimate

TOKENS = 32
WORDS = "a few words so that there is a vocabulary"


def tell(checkpoint: Path) -> None:
    """One text, in each of three presets."""
    print(f"{'preset':10} {'rounds':>7} {'MB':>8} {'server, GB':>11} {'lan, s':>8} {'wan, s':>8}")
    for preset in ("exact", "secformer", "mpcformer"):
        cost = estimate(checkpoint, tokens=TOKENS, preset=preset, networks=("lan", "wan"))
        sizes = f"{cost.bytes / 1e6:8.1f} {cost.memory / 1e9:11.2f}"
        print(f"{preset:10} {cost.rounds:7} {sizes} {cost.seconds['lan']:8.2f} {cost.seconds['wan']:8.2f}")


if __name__ == "__main__":
    run_example(tell, [WORDS])
