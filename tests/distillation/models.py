"""A classifier small enough to be taught in a test, and texts in its few words."""

from __future__ import annotations

from pathlib import Path

from tests.graph.checkpoints import VOCABULARY, tiny_config, tiny_state, write_checkpoint

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *SPECIAL,
    *("the", "a", "cat", "dog", "bird", "fish", "sees", "likes"),
    *("small", "large", "old", "red", "blue", "very"),
)
TEXTS = [
    f"the {size} {colour} {who} {does} a {whom}"
    for size in ("small", "large", "very old")
    for colour in ("red", "blue")
    for who, whom in (("cat", "dog"), ("bird", "fish"))
    for does in ("sees", "likes")
]


def write_teacher(directory: Path, **changes: object) -> Path:
    """A classifier of two labels, with its tokenizer."""
    state = tiny_state()
    state["classifier.weight"], state["classifier.bias"] = (
        state["classifier.weight"][:2].contiguous(),
        state["classifier.bias"][:2].contiguous(),
    )
    config = tiny_config(id2label={"0": "not_entailment", "1": "entailment"}, **changes)
    write_checkpoint(directory, state, config)
    unused = [f"unused{number}" for number in range(VOCABULARY - len(WORDS))]
    (directory / "vocab.txt").write_text("\n".join([*WORDS, *unused]) + "\n", encoding="utf-8")
    return directory


def write_texts(path: Path) -> Path:
    """A text a line."""
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path
