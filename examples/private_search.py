"""Search by meaning: the servers see neither the corpus nor the query, nor what was found.

    python examples/private_search.py [CHECKPOINT]

CHECKPOINT is a Hugging Face or sentence-transformers directory. Without one, the model is tiny and random:
it finds words in common rather than meanings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_checkpoint import run_example

from secformer_rt import Cluster

CORPUS = (
    "Mix flour, water, salt and yeast, and bake the bread in a hot oven.",
    "Antibiotics are given against bacterial infections of the lung.",
    "Penguins live on the coasts of Antarctica.",
    "The central bank raised its interest rate on Thursday.",
    "Shakespeare wrote Hamlet, Macbeth and many other dramas.",
    "The train to Oslo leaves at seven from platform three.",
    "A violin has four strings.",
    "Our cat sleeps all day on the warm radiator.",
    "Lists can be sorted in place.",
    "Volcanoes form where plates move apart.",
)
QUERY = "How do I bake bread with yeast?"


def search(checkpoint: Path) -> None:
    """Embed the corpus once, then ask."""
    with Cluster.local(preset="exact") as cluster:
        model = cluster.provision(checkpoint)  # the model owner's part
        corpus = model.embed(CORPUS)  # whoever owns the corpus keeps this
        found = model.ask([QUERY])  # whoever has a question
    query = found.outputs[0]
    cosines = corpus @ query / (np.linalg.norm(corpus, axis=1) * np.linalg.norm(query))
    print(QUERY)
    for index in cosines.argsort()[::-1][:3]:
        print(f"  {cosines[index]:.3f}  {CORPUS[index]}")
    print(f"{found.costs.rounds} rounds and {found.costs.bytes / 1e6:.1f} MB for the query")


if __name__ == "__main__":
    run_example(search, [*CORPUS, QUERY])
