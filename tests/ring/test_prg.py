from __future__ import annotations

import copy
import hashlib
import hmac
import math
import pickle

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from secformer_rt.ring import prg as prg_module
from secformer_rt.ring.prg import BLOCK, Prg, SecretSeed, summed

SEED = SecretSeed(bytes(range(32)))


def hkdf(secret: bytes, *labels: str) -> bytes:
    """HKDF-SHA256 to 32 bytes (RFC 5869), independently of the library under test."""
    info = b"".join(len(label.encode()).to_bytes(4, "big") + label.encode() for label in labels)
    key = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def keystream(purpose: str, n: int) -> bytes:
    key = hkdf(SEED.reveal(), "secformer-rt ring v2", "prg", purpose)
    return Cipher(algorithms.AES(key), modes.CTR((2).to_bytes(16, "big"))).encryptor().update(bytes(n))


def test_the_stream_is_frozen() -> None:
    prg = Prg(SEED, "test")
    assert bytes(prg.bytes(5).tolist()).hex() == "dfe8131b37"
    assert prg.words((2,)).tolist() == [-8780976604005081163, 2867191457117628594]
    assert prg.words((1, 3), bits=20).tolist() == [[345955, 374952, 968089]]
    assert (
        SEED.derive("a", "b").reveal().hex()
        == "c59efa7f2595150af15343be7db1ca4fd395f4da6c0a1dbc526065f545fcf313"
    )


@pytest.mark.parametrize("wide", [False, True])
def test_the_stream_is_what_its_description_says(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prg_module, "_has_wide_aes", lambda: wide)
    expected = keystream("p", 2_000_000)
    prg = Prg(SEED, "p")
    got = b"".join(prg.bytes(n).numpy().tobytes() for n in (0, 1, 15, 16, 17, 1_000_000, 0, 999_951))
    assert got == expected


@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 64))
def test_words_are_little_endian_and_masked(shape: list[int], bits: int) -> None:
    size = 4 if bits <= 32 else 8
    words = Prg(SEED, "w").words(tuple(shape), bits)
    stream = keystream("w", size * words.numel())
    values = [int.from_bytes(stream[i : i + size], "little") % 2**bits for i in range(0, len(stream), size)]
    assert words.shape == tuple(shape) and words.dtype == torch.int64
    assert [w % 2**64 for w in words.flatten().tolist()] == values


def test_reads_are_sequential() -> None:
    prg = Prg(SEED, "s")
    first, planes, words = prg.bytes(3), prg.planes((2, 5)), prg.words((4,), 12)
    stream = keystream("s", 3 + 10 + 16)
    assert bytes(first.tolist()) == stream[:3]
    assert planes.shape == (2, 5) and bytes(planes.flatten().tolist()) == stream[3:13]
    expected = [int.from_bytes(stream[i : i + 4], "little") % 4096 for i in range(13, 29, 4)]
    assert words.tolist() == expected


@pytest.mark.parametrize("bits", [1, 31, 32, 33, 64])
def test_words_come_in_blocks_as_well(bits: int) -> None:
    count = 2 * BLOCK + 3
    words, other = (Prg(SEED, purpose).words((count,), bits) for purpose in ("s", "t"))
    kept = 2**bits - 1 if bits < 64 else -1
    blocks = [block.astype(np.int64) for block in Prg(SEED, "s").raw(count, bits)]
    assert [block.size for block in blocks] == [BLOCK, BLOCK, 3]
    assert torch.equal(torch.from_numpy(np.concatenate(blocks)) & kept, words)
    place = torch.empty(count, dtype=torch.int64)
    assert Prg(SEED, "s").words((count,), bits, place) is place and torch.equal(place, words)
    assert torch.equal(summed(Prg(SEED, "s"), Prg(SEED, "t"), (count,), bits), (words + other) & kept)


def test_memory_is_filled_with_the_stream() -> None:
    place = torch.empty(3, 2, dtype=torch.int32)
    assert Prg(SEED, "s").fill(place).numpy().tobytes() == keystream("s", 24)
    with pytest.raises(ValueError, match="contiguous"):
        Prg(SEED, "s").fill(place.T)


def test_results_are_not_shared() -> None:
    prg = Prg(SEED, "s")
    one, two = prg.words((8,)), prg.words((8,))
    before = two.clone()
    one.zero_()
    assert torch.equal(two, before)


def test_purposes_and_seeds_give_different_streams() -> None:
    seeds = [SEED, SEED.derive(), SEED.derive("a"), SEED.derive("b"), SecretSeed.fresh(), SecretSeed.fresh()]
    streams = {tuple(Prg(seed, purpose).words((4,)).tolist()) for seed in seeds for purpose in ("", "a", "b")}
    assert len(streams) == 18


def test_info_is_unambiguous() -> None:
    derived = [
        SEED.derive(*info).reveal()
        for info in ((), ("",), ("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"))
    ]
    assert len(set(derived)) == len(derived)
    assert SEED.derive("x") == SEED.derive("x")


def test_bits_are_balanced() -> None:
    words = Prg(SEED, "balance").words((4096,), bits=10)
    assert int(words.min()) >= 0 and int(words.max()) < 1024
    for bit in range(10):
        share = float((words >> bit & 1).double().mean())
        assert math.isclose(share, 0.5, abs_tol=0.05)


def test_a_seed_does_not_show() -> None:
    secret = SEED.reveal()
    for text in (repr(SEED), str(SEED), f"{SEED}", f"{[SEED]}", repr(Prg(SEED, "purpose"))):
        assert secret.hex() not in text and repr(secret) not in text and "\\x" not in text
    for thing in (SEED, Prg(SEED, "purpose")):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="copied"):
            copy.deepcopy(thing)
    assert not hasattr(SEED, "__dict__")


def test_seeds_compare_without_a_hash() -> None:
    assert SecretSeed(bytes(32)) == SecretSeed(bytes(32))
    assert SecretSeed(bytes(32)) != SEED
    assert SEED.reveal() != SEED
    with pytest.raises(TypeError, match="unhashable"):
        hash(SEED)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SecretSeed(bytes(31))
    with pytest.raises(ValueError, match="bits"):
        Prg(SEED, "p").words((1,), bits=65)
    with pytest.raises(ValueError, match="bits"):
        Prg(SEED, "p").words((1,), bits=0)
