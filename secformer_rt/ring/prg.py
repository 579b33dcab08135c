"""Secret seeds and the pseudorandom generator that expands them."""

from __future__ import annotations

import functools
import hmac
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn, Self

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.ring.jit import compiled, empty, has

SEED_BYTES = 32

BLOCK = 1 << 15  # words at a time: they stay in the L2 cache

# The keystream is the encryption of zeros.
_ZEROS = memoryview(bytes(8 * BLOCK))


class SecretSeed:
    """32 secret bytes that never show themselves: not printed, not pickled, compared in constant time."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """Wrap received bytes.

        Raises:
            ValueError: there are not 32 of them.
        """
        if len(secret) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(secret)}")
        self._secret = bytes(secret)

    @classmethod
    def fresh(cls) -> SecretSeed:
        """A new seed from the operating system."""
        return cls(os.urandom(SEED_BYTES))

    def derive(self, *info: str) -> SecretSeed:
        """The seed for a use of its own, by HKDF-SHA256; different info gives unrelated seeds.

        Args:
            info: any number of labels. Each is prefixed by its length, so that ("ab", "c") and
                ("a", "bc") differ.
        """
        return SecretSeed(self._expand("seed", *info))

    def key(self, purpose: str) -> SecretSeed:
        """The key of one stream, for somebody who may read that one and no other: see :meth:`Prg.keyed`."""
        return SecretSeed(self._expand("prg", purpose))

    def reveal(self) -> bytes:
        """The 32 bytes, for sending over a protected channel."""
        return self._secret

    def _expand(self, *labels: str) -> bytes:
        encoded = [label.encode() for label in ("secformer-rt ring v2", *labels)]
        info = b"".join(len(label).to_bytes(4, "big") + label for label in encoded)
        return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=info).derive(self._secret)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretSeed):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    # A hash would be a function of the secret that sets and dictionaries expose by their order.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "SecretSeed(<hidden>)"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a SecretSeed cannot be pickled or copied; send what reveal() returns")


class Prg:
    """A deterministic stream of uniform bytes: AES-256 in counter mode, up to 64 GiB.

    The key comes from the seed and the purpose alone and the counter starts at 2. Equal seeds, purposes
    and sequences of calls therefore give equal numbers on every machine, and two readers of one seed and
    purpose give the same numbers: use every pair for one stream. Not safe for concurrent use.
    """

    __slots__ = ("_stream",)

    def __init__(self, seed: SecretSeed, purpose: str) -> None:
        """Start the stream of a seed for a purpose."""
        self._stream = _keystream(seed._expand("prg", purpose))

    @classmethod
    def keyed(cls, key: SecretSeed) -> Self:
        """Start the stream that this is the key of: see :meth:`SecretSeed.key`."""
        prg = cls.__new__(cls)
        prg._stream = _keystream(key.reveal())
        return prg

    def fill(self, out: Tensor) -> Tensor:
        """Write the next bytes of the stream to the memory of a contiguous tensor, and return it."""
        if not out.is_contiguous():
            raise ValueError("only contiguous memory can be filled")
        self._write(out.reshape(-1).view(torch.uint8).numpy())
        return out

    def bytes(self, n: int) -> Tensor:
        """The next n bytes of the stream, as a uint8 tensor of shape (n,)."""
        if n < 0:
            raise ValueError(f"cannot read {n} bytes")
        return self.fill(empty((n,), torch.uint8))

    def words(self, shape: tuple[int, ...], bits: int = 64, out: Tensor | None = None) -> Tensor:
        """Uniform numbers in [0, 2^bits), or in all of Z_2^64 if bits is 64.

        Args:
            shape: of the result.
            bits: 1 to 64. Every element takes 8 bytes of the stream, or 4 up to 32 bits, little-endian.
            out: a contiguous int64 tensor of this shape to write to; new memory if not given.

        Returns:
            int64 tensor.
        """
        out = empty(tuple(shape), torch.int64) if out is None else out
        room = _room(bits)
        for part in _parts(out):
            _keep(self._draw(part, room), bits, part)
        return out

    def raw(self, count: int, bits: int) -> Iterator[NDArray[np.uint32] | NDArray[np.int64]]:
        """The numbers of :meth:`words` with any upper bits, :data:`BLOCK` at a time.

        A block overwrites the one before. Up to 32 bits its numbers are uint32, else int64.
        """
        block, room = np.empty(BLOCK, np.int64), _room(bits)
        for start in range(0, count, BLOCK):
            yield self._draw(block[: count - start], room)

    def planes(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform bytes, each of which is eight packed bits, as a uint8 tensor of the given shape."""
        return self.bytes(math.prod(shape)).view(tuple(shape))

    def _write(self, out: NDArray[np.uint8]) -> None:
        for start in range(0, out.size, len(_ZEROS)):
            part = out[start : start + len(_ZEROS)]
            self._stream.update_into(_ZEROS[: part.size], part.data)

    def _draw(
        self, out: NDArray[np.int64], room: NDArray[np.uint32]
    ) -> NDArray[np.uint32] | NDArray[np.int64]:
        """As many numbers as there is place for, at most a block: in the room for them, if there is one."""
        drawn = room[: out.size] if room.size else out
        self._write(drawn.view(np.uint8))
        if sys.byteorder == "big":
            drawn.byteswap(inplace=True)
        return drawn

    def __repr__(self) -> str:
        return "Prg(<hidden>)"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Prg cannot be pickled or copied")


def _keystream(key: bytes) -> CipherContext:
    """What encrypts with AES-256 in counter mode, from 2 on.

    That is also what GCM encrypts with after a nonce of zeros. OpenSSL has vector instructions for GCM only,
    and where they are the widest it is twice as fast, tag and all.
    """
    mode = GCM(bytes(12)) if _has_wide_aes() else CTR((2).to_bytes(16, "big"))
    return Cipher(AES(key), mode).encryptor()


@functools.cache
def _has_wide_aes() -> bool:
    with suppress(ImportError):
        return has("vaes") and has("avx512f")
    return False


def summed(first: Prg, second: Prg, shape: tuple[int, ...], bits: int) -> Tensor:
    """The sum of the next words of two streams, modulo ``2^bits``.

    Returns:
        int64 tensor with values in [0, 2^bits), at 64 bits in all of Z_2^64.
    """
    out, room = empty(tuple(shape), torch.int64), _room(bits)
    for part, other in zip(_parts(out), second.raw(math.prod(shape), bits), strict=True):
        drawn = first._draw(part, room)
        drawn += other  # both uint32, or both int64
        _keep(drawn, bits, part)
    return out


def _room(bits: int) -> NDArray[np.uint32]:
    """Where a block is drawn to that takes four bytes a number."""
    if not 1 <= bits <= 64:
        raise ValueError(f"bits must be between 1 and 64, not {bits}")
    return np.empty(BLOCK if bits <= 32 else 0, np.uint32)


def _keep(drawn: NDArray[np.uint32] | NDArray[np.int64], bits: int, out: NDArray[np.int64]) -> None:
    """Write the low bits of what was drawn, which may have been drawn to the same place."""
    if drawn.itemsize == 8:
        if bits < 64:
            np.bitwise_and(drawn, (1 << bits) - 1, out=out)
    elif compiled():
        from secformer_rt.ring import fused

        fused.low_bits(drawn.view(np.int32), bits, out)
    else:
        np.bitwise_and(drawn, np.uint32((1 << bits) - 1), out=out, casting="unsafe")


def _parts(x: Tensor) -> Iterator[NDArray[np.int64]]:
    """A contiguous tensor's memory, block by block."""
    flat = x.view(-1).numpy()
    return (flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK))
