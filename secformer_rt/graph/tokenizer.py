"""From text to token ids, with the tokenizer of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import tokenizers
import torch
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer
from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing

from secformer_rt.errors import BadCheckpointError, BadInputError
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.families import FAMILIES
from secformer_rt.graph.files import read_object
from secformer_rt.graph.huggingface import read_sentence_model

__all__ = ["Batch", "Tokenizer", "find_tokenizer"]

_POSITIONS = 512
_GPT2_END = "<|endoftext|>"


def find_tokenizer(directory: Path) -> Path | None:
    """The tokenizer file of a directory: tokenizer.json if there is one, else vocab.txt or vocab.json.

    Where sentence-transformers keeps the encoder in a directory of its own, the file may be there.

    Raises:
        BadCheckpointError: a JSON file is broken.
        UnsupportedModelError: there is no such file, and the modules are not what this runtime computes.
    """
    candidates = (directory / name for name in _READERS)
    if (found := next((path for path in candidates if path.is_file()), None)) is not None:
        return found
    encoder = read_sentence_model(directory).directory
    return None if encoder == directory else find_tokenizer(encoder)


class Tokenizer:
    """WordPiece, byte-pair encoding or what else tokenizer.json says, as the checkpoint was trained with."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, positions: int) -> None:
        # Files often carry the padding and truncation of their author's last run.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.positions = positions
        self.pad_id: int = tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0

    @classmethod
    def load(cls, directory: Path, positions: int | None = None) -> Tokenizer:
        """Read tokenizer.json, or else vocab.txt with the settings of tokenizer_config.json, or vocab.json.

        Args:
            directory: a checkpoint, or a directory with its tokenizer files only.
            positions: most tokens a text may have; by default as many as config.json has positions, else
                512.

        Raises:
            BadCheckpointError: there is no tokenizer, or it is broken.
        """
        path = find_tokenizer(directory)
        if path is None:
            raise BadCheckpointError(
                f"{directory} has no tokenizer.json, vocab.txt or vocab.json: give a checkpoint with its"
                " tokenizer."
            )
        try:
            tokenizer = _READERS[path.name](path)
        except BadCheckpointError:
            raise
        except Exception as error:  # the library raises bare Exception
            reason = " ".join(str(error).split())
            raise BadCheckpointError(f"{path} is not a tokenizer ({reason}): download it again.") from error
        return cls(tokenizer, _positions(directory) if positions is None else positions)

    def reading(self, positions: int) -> Tokenizer:
        """The same for a model, or a caller, with room for another number of tokens."""
        return Tokenizer(self._tokenizer, positions)

    def spell(self, token: int) -> str:
        """A token as JSON text: in quotes, with its blanks and controls to be seen."""
        return json.dumps(self._tokenizer.decode([token], skip_special_tokens=False), ensure_ascii=False)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Batch:
        """Token ids of the texts (or pairs of texts), padded to the longest.

        Raises:
            BadInputError: a text is no text, holds nothing to read, or has more tokens than the model has
                positions; the text is named by its index.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise BadInputError(
                "A single text was given where a list of texts is expected: put it into a list."
            )
        if not texts:
            raise BadInputError("There is no text: give at least one.")
        if pairs is not None and len(pairs) != len(texts):
            raise BadInputError(
                f"{len(texts)} texts cannot be paired with {len(pairs)}: give as many of each."
            )
        seconds: Sequence[str | None] = [None] * len(texts) if pairs is None else pairs
        encoded = [
            self._encode(index, text, second)
            for index, (text, second) in enumerate(zip(texts, seconds, strict=True))
        ]
        longest = max(len(ids) for ids, _ in encoded)
        token_ids = torch.full((len(encoded), longest), self.pad_id, dtype=torch.int64)
        type_ids = torch.zeros_like(token_ids)
        for row, (ids, types) in enumerate(encoded):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            type_ids[row, : len(ids)] = torch.tensor(types)
        lengths = torch.tensor([len(ids) for ids, _ in encoded])
        return Batch(token_ids, type_ids, lengths, self.pad_id)

    def _encode(self, index: int, text: str, second: str | None) -> tuple[list[int], list[int]]:
        for part in (text,) if second is None else (text, second):
            if not isinstance(part, str):
                raise BadInputError(f"Text {index} is of type {type(part).__name__}: give a string.")
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise BadInputError(f"Text {index} holds half a surrogate pair: give valid Unicode.")
        encoding = self._tokenizer.encode(text, second)
        wanted = {0} if second is None else {0, 1}
        blank = not text.strip() or (second is not None and not second.strip())  # byte-level BPE reads them
        if blank or not wanted <= set(encoding.sequence_ids):
            raise BadInputError(
                f"Text {index} is empty or holds nothing but blanks and controls: give it words."
            )
        if len(encoding.ids) > self.positions:
            raise BadInputError(
                f"Text {index} has {len(encoding.ids)} tokens, more than {self.positions}: shorten it."
            )
        return encoding.ids, encoding.type_ids


def _word_piece(vocabulary: Path) -> tokenizers.Tokenizer:
    path = vocabulary.with_name("tokenizer_config.json")
    config = read_object(path) if path.is_file() else {}
    wrapper = BertWordPieceTokenizer(
        str(vocabulary),
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
    )
    return tokenizers.Tokenizer.from_str(wrapper.to_str())


def _byte_pairs(vocabulary: Path) -> tokenizers.Tokenizer:
    """As RoBERTa's and GPT-2's first files have it: vocab.json, and merges.txt beside it."""
    path = vocabulary.with_name("tokenizer_config.json")
    blank_first = bool((read_object(path) if path.is_file() else {}).get("add_prefix_space", False))
    wrapper = ByteLevelBPETokenizer(
        str(vocabulary), str(vocabulary.with_name("merges.txt")), add_prefix_space=blank_first
    )
    tokenizer = tokenizers.Tokenizer.from_str(wrapper.to_str())
    first, last = (tokenizer.token_to_id(name) for name in ("<s>", "</s>"))
    if first is None and tokenizer.token_to_id(_GPT2_END) is not None:  # which puts nothing around a text
        tokenizer.add_special_tokens([_GPT2_END])
        return tokenizer
    if first is None or last is None:
        raise BadCheckpointError(f"{vocabulary} lacks <s> or </s>: give a RoBERTa's or a GPT-2's vocabulary.")
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer.add_special_tokens([name for name in special if tokenizer.token_to_id(name) is not None])
    tokenizer.post_processor = RobertaProcessing(("</s>", last), ("<s>", first), add_prefix_space=blank_first)
    return tokenizer


_READERS: dict[str, Callable[[Path], tokenizers.Tokenizer]] = {
    "tokenizer.json": lambda path: tokenizers.Tokenizer.from_file(str(path)),
    "vocab.txt": _word_piece,
    "vocab.json": _byte_pairs,
}


def _positions(directory: Path) -> int:
    path = directory / "config.json"
    config = read_object(path) if path.is_file() else {}
    value = config.get("max_position_embeddings", config.get("n_positions"))  # GPT-2's spelling
    family = FAMILIES.get(str(config.get("model_type")))
    if isinstance(value, int) and family is not None:
        value -= family.unread_positions(config)
    return value if isinstance(value, int) and value > 0 else _POSITIONS
