"""What must never be written: every seed, and words of every share that travels."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secformer_rt.parties import server as server_module
from secformer_rt.parties.shares import SharesOut
from secformer_rt.protocols.masking import Mask
from secformer_rt.ring.prg import SecretSeed

SEEN = 64  # words of each tensor
BEGIN = 12  # letters by which a search looks first
TOLD_APART = 1 << 40  # a word as large as that is not there by chance


class Secrets:
    """Every seed that exists in this process, and words of every share that it sends."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seeds: set[bytes] = set()
        self.words: set[int] = set()
        made, returned = SecretSeed.__init__, server_module.send_words
        sent, sent_masked = SharesOut.send, SharesOut.send_masked

        def init(seed: SecretSeed, secret: bytes) -> None:
            made(seed, secret)
            self.note_seed(bytes(secret))

        def send(out: SharesOut, number: int, name: str, words: Tensor) -> None:
            self.note(words - torch.zeros_like(words))
            sent(out, number, name, words)

        def send_masked(out: SharesOut, number: int, words: Tensor, mask: Mask) -> None:
            self.note(words)
            sent_masked(out, number, words, mask)

        def give(link: object, tag: int, words: Tensor) -> None:
            self.note(words)
            returned(link, tag, words)  # type: ignore[arg-type]

        patch.setattr(SecretSeed, "__init__", init)
        patch.setattr(SharesOut, "send", send)
        patch.setattr(SharesOut, "send_masked", send_masked)
        patch.setattr(server_module, "send_words", give)

    def note_seed(self, seed: bytes) -> None:
        """Remember a seed."""
        self.seeds.add(seed)

    def note(self, words: Tensor) -> None:
        """Remember some words that could be told from any others."""
        self.words |= {word for word in words.reshape(-1)[:SEEN].tolist() if abs(word) > TOLD_APART}

    def spellings(self, plain: Iterable[str] = ()) -> set[str]:
        """All of them, in the ways in which something could have written them."""
        found = set(plain)
        for seed in self.seeds:
            found |= {seed.hex(), seed.hex().upper(), base64.b64encode(seed).decode(), repr(seed)[2:-1]}
            found |= {seed.hex(" "), ", ".join(map(str, seed))}
        for word in self.words:
            data = word.to_bytes(8, "little", signed=True)
            found |= {str(word), data.hex(), f"{word & (1 << 64) - 1:x}"}
        return found

    def found_in(self, text: str, plain: Iterable[str] = ()) -> list[str]:
        """What of all this a text holds."""
        begins = {text[place : place + BEGIN] for place in range(len(text))}
        return [
            spelling
            for spelling in self.spellings(plain)
            if (len(spelling) < BEGIN or spelling[:BEGIN] in begins) and spelling in text
        ]


class NotedSecrets(Secrets):
    """The same in a process of its own, which writes down what it notes for a test to read."""

    def __init__(self, patch: pytest.MonkeyPatch, path: Path) -> None:
        self._notes = path.open("a", encoding="utf-8", buffering=1)
        super().__init__(patch)

    def note_seed(self, seed: bytes) -> None:
        """Remember a seed, and write it down."""
        super().note_seed(seed)
        self._notes.write(json.dumps({"seed": seed.hex()}) + "\n")

    def note(self, words: Tensor) -> None:
        """Remember some words, and write them down."""
        before = set(self.words)
        super().note(words)
        self._notes.write(json.dumps({"words": list(self.words - before)}) + "\n")


def read_notes(secrets: Secrets, path: Path) -> None:
    """Take what a process has noted."""
    for line in path.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        if "seed" in note:
            secrets.seeds.add(bytes.fromhex(note["seed"]))
        secrets.words |= set(note.get("words", ()))
