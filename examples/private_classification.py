"""Classification with the two roles apart: one has the weights, the other has the texts.

    python examples/private_classification.py [CHECKPOINT]

CHECKPOINT is a directory of a BERT, RoBERTa or DistilBERT for sequence classification. Without one, the model
is tiny and random, and its labels mean nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tiny_checkpoint import run_example

from secformer_rt import Classification, Cluster

MORNING = ("I loved every minute of it.", "It broke after two days, and support never answered.")
EVENING = ("A quiet and generous film.",)


def own_model(cluster: Cluster, checkpoint: Path) -> str:
    """The model owner, who has the weights, never sees a text."""
    return cluster.provision(checkpoint).model_id


async def own_texts(cluster: Cluster, model_id: str, tokenizer: Path) -> list[Classification]:
    """The data owner needs a tokenizer but no weights, and may ask several things at the same time."""
    model = cluster.model(model_id, tokenizer)
    return await asyncio.gather(*(model.aclassify(texts) for texts in (MORNING, EVENING)))


def classify(checkpoint: Path) -> None:
    """Both roles in one program; in earnest they are on different machines, with `Cluster.from_config`."""
    with Cluster.local(preset="exact") as cluster:
        model_id = own_model(cluster, checkpoint)
        answers = asyncio.run(own_texts(cluster, model_id, checkpoint))
    for texts, answer in zip((MORNING, EVENING), answers, strict=True):
        for text, label, row in zip(texts, answer.labels, answer.probabilities, strict=True):
            print(f"{label} ({row.max():.3f})  {text}")
        print(f"  {answer.costs.rounds} rounds, {answer.costs.bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    run_example(classify, [*MORNING, *EVENING], labels=("bad", "neither", "good"))
