from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from secformer_rt.errors import BadCheckpointError, BadInputError
from secformer_rt.graph.calibration import bundled_texts
from secformer_rt.graph.checkpoint import Checkpoint
from secformer_rt.graph.tokenizer import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "Hello", "##s", "world", "caf", "##e", "##é"]


def directory(tmp_path: Path, words: Sequence[str] = WORDS, **settings: Any) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tmp_path


def names(tokenizer: Tokenizer, text: str) -> list[str]:
    return [WORDS[index] for index in tokenizer.encode([text]).token_ids[0].tolist()]


def test_word_piece_from_a_vocabulary(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(directory(tmp_path))
    assert names(tokenizer, "HELLO worlds") == ["[CLS]", "hello", "world", "##s", "[SEP]"]
    assert names(tokenizer, "café") == ["[CLS]", "caf", "##e", "[SEP]"]
    assert names(tokenizer, "?") == ["[CLS]", "[UNK]", "[SEP]"]


def test_cased_vocabulary(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(directory(tmp_path, do_lower_case=False))
    assert names(tokenizer, "Hello café") == ["[CLS]", "Hello", "caf", "##é", "[SEP]"]


def test_minilm_ids(minilm_tokenizer: Tokenizer) -> None:
    batch = minilm_tokenizer.encode(["Hello, world!", "Hi"])
    # The file asks for 128 tokens of padding and truncation: both must be off.
    assert batch.token_ids.tolist() == [[101, 7592, 1010, 2088, 999, 102], [101, 7632, 102, 0, 0, 0]]
    assert batch.lengths.tolist() == [6, 3]
    assert batch.padded
    assert not batch.type_ids.any()
    assert minilm_tokenizer.encode(["word " * 300]).tokens == 302


def test_both_files_agree(minilm: Checkpoint, minilm_tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm.directory / name).read_bytes())
    other = Tokenizer.load(tmp_path)
    texts = bundled_texts()
    assert torch.equal(other.encode(texts).token_ids, minilm_tokenizer.encode(texts).token_ids)
    pair = other.encode(["a b"], ["c"]), minilm_tokenizer.encode(["a b"], ["c"])
    assert pair[0].type_ids.tolist() == pair[1].type_ids.tolist() == [[0, 0, 0, 0, 1, 1]]


def test_pad_to(minilm_tokenizer: Tokenizer) -> None:
    batch = minilm_tokenizer.encode(["Hi"]).pad_to(5)
    assert batch.token_ids.tolist() == [[101, 7632, 102, 0, 0]]
    assert batch.lengths.tolist() == [3]
    with pytest.raises(ValueError, match="cannot be padded to 4"):
        batch.pad_to(4)


def test_select(tmp_path: Path) -> None:
    batch = Tokenizer.load(directory(tmp_path)).encode(["hello", "hello world", "hello " * 5])
    chosen = batch.select([1, 0])
    assert torch.equal(chosen.token_ids, batch.token_ids[[1, 0], :4])
    assert (chosen.lengths.tolist(), chosen.type_ids.shape) == ([4, 3], (2, 4))
    assert not batch.select([0]).padded


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "👨‍👩‍👧‍👦🇳🇴",
        "e\u0301\u0301\u0301",
        "\u202eabc\u202c",
        "\U0001d573\U0001d58a",
        "ﷺ",
        "\x00a\x00",
        "日本語のテキスト",
        "ß" * 100,
        "z" * 3000,
        "[SEP]",
    ],
)
def test_unusual_text(minilm_tokenizer: Tokenizer, text: str) -> None:
    batch = minilm_tokenizer.encode([text])
    assert 3 <= batch.tokens <= 512
    assert int(batch.token_ids.max()) < 30522


@pytest.mark.parametrize("text", ["", "  \t\r\n ", "\u00a0\u2003", "\x00", "\u200b", "\ufeff", "\ue000"])
def test_nothing_to_read(minilm_tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(BadInputError, match="Text 1 is empty or holds nothing but blanks"):
        minilm_tokenizer.encode(["fine", text])
    with pytest.raises(BadInputError, match="Text 0 is empty"):
        minilm_tokenizer.encode(["fine"], [text])


def test_too_long_is_counted(minilm_tokenizer: Tokenizer) -> None:
    assert minilm_tokenizer.encode(["word " * 510]).tokens == 512
    with pytest.raises(BadInputError, match="Text 1 has 513 tokens, more than 512"):
        minilm_tokenizer.encode(["fine", "word " * 511])
    with pytest.raises(BadInputError, match="Text 0 has 603 tokens"):
        minilm_tokenizer.encode(["word " * 300], ["word " * 300])


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["list"], float("nan")])
def test_not_text(minilm_tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(BadInputError, match=rf"Text 1 is of type {type(text).__name__}"):
        minilm_tokenizer.encode(["fine", text])


def test_half_a_surrogate_pair(minilm_tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInputError, match="Text 0 holds half a surrogate pair"):
        minilm_tokenizer.encode(["a\ud800b"])


def test_wrong_lists(minilm_tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInputError, match="put it into a list"):
        minilm_tokenizer.encode("a single text")
    with pytest.raises(BadInputError, match="There is no text"):
        minilm_tokenizer.encode([])
    with pytest.raises(BadInputError, match="2 texts cannot be paired with 1"):
        minilm_tokenizer.encode(["a", "b"], ["c"])


def test_positions_come_from_the_config(tmp_path: Path) -> None:
    path = directory(tmp_path)
    assert Tokenizer.load(path).positions == 512
    (path / "config.json").write_text('{"max_position_embeddings": 4}', encoding="utf-8")
    assert Tokenizer.load(path, positions=8).positions == 8
    with pytest.raises(BadInputError, match="5 tokens, more than 4"):
        Tokenizer.load(path).encode(["hello hello hello"])


@pytest.mark.parametrize("content", ["{", "{}", '{"model": {"type": "Nonsense"}}', "\n\n"])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadCheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpointError, match=r"no tokenizer\.json, vocab\.txt or vocab\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(BadCheckpointError, match=r"vocab\.txt is not a tokenizer"):
        Tokenizer.load(directory(tmp_path, ["only", "words"]))


PAIRS = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w")]


def byte_pairs(tmp_path: Path, **settings: Any) -> Path:
    words = ["<s>", "<pad>", "</s>", "<unk>", *"abcdehlorwÃ©Ġ", *("".join(pair) for pair in PAIRS), "<mask>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "".join(f"{a} {b}\n" for a, b in PAIRS)
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tmp_path


def test_byte_pairs(tmp_path: Path) -> None:
    words = json.loads((byte_pairs(tmp_path) / "vocab.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.load(tmp_path)

    def ids(*names: str) -> list[int]:
        return [words[name] for name in names]

    batch = tokenizer.encode(["hello world", "é"])
    assert batch.token_ids[0].tolist() == ids("<s>", "hello", "Ġw", "o", "r", "l", "d", "</s>")
    assert batch.token_ids[1].tolist() == ids("<s>", "Ã", "©", "</s>", *["<pad>"] * 4)
    assert tokenizer.encode(["a <mask>"]).token_ids[0].tolist() == ids("<s>", "a", "Ġ", "<mask>", "</s>")
    pair = tokenizer.encode(["a"], ["b"])
    assert pair.token_ids[0].tolist() == ids("<s>", "a", "</s>", "</s>", "b", "</s>")
    assert not pair.type_ids.any()
    with pytest.raises(BadInputError, match="Text 0 is empty"):
        tokenizer.encode(["  \n"])


def test_byte_pairs_with_a_blank_first(tmp_path: Path) -> None:
    words = json.loads((byte_pairs(tmp_path, add_prefix_space=True) / "vocab.json").read_text("utf-8"))
    first = Tokenizer.load(tmp_path).encode(["world"]).token_ids[0, 1]
    assert first == words["Ġw"]


def test_broken_byte_pairs(tmp_path: Path) -> None:
    (byte_pairs(tmp_path) / "merges.txt").unlink()
    with pytest.raises(BadCheckpointError, match=r"vocab\.json is not a tokenizer"):
        Tokenizer.load(tmp_path)
    byte_pairs(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "h": 1}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    with pytest.raises(BadCheckpointError, match="lacks <s> or </s>"):
        Tokenizer.load(tmp_path)


def test_roberta_reads_fewer_tokens_than_it_has_positions(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 10, "pad_token_id": 1}
    (byte_pairs(tmp_path) / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert Tokenizer.load(tmp_path).positions == 8
