from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secformer_rt.ring.bit_planes import chunk_lookup, pack_bits, unpack_bits
from secformer_rt.ring.buffers import as_stream
from secformer_rt.ring.packing import (
    pack_chosen,
    pack_differences,
    pack_words,
    packed_size,
    room_words,
    unpack_onto,
    unpack_sum,
    unpack_words,
)
from tests.ring.helpers import BACKENDS, EXTREMES, using, words

seeds = st.integers(0, 2**32)
elements = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(EXTREMES)


@given(st.lists(elements, max_size=20), st.integers(1, 64))
def test_words_round_trip(values: list[int], bits: int) -> None:
    x = torch.tensor(values, dtype=torch.int64)
    wire = pack_words(x, bits)
    assert wire.dtype == np.uint8 and wire.shape == (packed_size(len(values), bits),)
    stream = sum((v % 2**bits) << (bits * i) for i, v in enumerate(values))
    assert bytes(wire.tolist()) == stream.to_bytes(packed_size(len(values), bits), "little")
    assert [v % 2**64 for v in unpack_words(wire, (len(values),), bits).tolist()] == [
        v % 2**bits for v in values
    ]


@pytest.mark.parametrize("bits", [5, 8, 20, 32, 40, 57, 64])
def test_long_and_strided_tensors(bits: int) -> None:
    x = words(bits, 300, 131)
    mask = 2**bits - 1 if bits < 64 else -1
    for view in (x, x.T, x[::3, 1::2], x[:0], x.view(2, 150, 131)):
        again = unpack_words(pack_words(view, bits), tuple(view.shape), bits)
        assert torch.equal(again, view & mask)


@given(st.integers(1, 64))
def test_surplus_bits_are_ignored(bits: int) -> None:
    buffer = np.full(packed_size(3, bits), 255, np.uint8)
    expected = 2**bits - 1 if bits < 64 else -1
    assert unpack_words(buffer, (3, 1), bits).tolist() == [[expected]] * 3


def test_whole_words_are_not_copied() -> None:
    x = words(1, 3, 4)
    wire = pack_words(x, 64)
    assert wire.ctypes.data == x.data_ptr()
    assert unpack_words(wire, (3, 4), 64).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("bits", [16, 40, 61, 64])
@pytest.mark.parametrize("offset", [1, 8])
def test_a_buffer_may_start_anywhere(bits: int, offset: int) -> None:
    x = words(2, 5)
    data = bytes(offset) + pack_words(x, bits).tobytes()
    mask = 2**bits - 1 if bits < 64 else -1
    assert torch.equal(unpack_words(as_stream(memoryview(data))[offset:], (5,), bits), x & mask)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [7, 32, 63])
def test_streams_are_written_where_they_are_wanted(backend: str, bits: int) -> None:
    x, mask, public = (words(seed, 130) for seed in (bits, 2, 3))
    with using(backend):
        place = np.empty(room_words(packed_size(130, bits)), np.uint64)
        for write in (
            lambda out: pack_words(x, bits, mask, out=out),
            lambda out: pack_chosen(x, mask, public, 20, bits, out),
        ):
            stream = write(place)
            assert np.array_equal(stream, write(None))
            assert np.shares_memory(stream, place) == (backend != "plain")


def test_meta() -> None:
    x = torch.empty(3, 5, dtype=torch.int64, device="meta")
    plane = pack_bits(x.to(torch.uint8))
    assert plane.is_meta and plane.shape == (2,) and plane.dtype == torch.uint8
    bits = unpack_bits(plane, (3, 5))
    assert bits.is_meta and bits.shape == (3, 5) and bits.dtype == torch.uint8
    real = torch.zeros(5, dtype=torch.int64)
    for planes in chunk_lookup(x.to(torch.int16), real, (0,), 0, 12, 1):
        assert planes.is_meta and planes.shape == (3, 1) and planes.dtype == torch.uint8


def test_wrong_arguments() -> None:
    byte, word = torch.zeros(9, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64)
    with pytest.raises(ValueError, match="bits"):
        pack_words(word, 65)
    with pytest.raises(ValueError, match="take 8 bytes, not 9"):
        unpack_words(byte.numpy(), (1,), 64)
    with pytest.raises(ValueError, match="take 1 bytes, not 9"):
        unpack_bits(byte, (3,))
    with pytest.raises(TypeError):
        pack_words(byte, 8)
    with pytest.raises(TypeError):
        unpack_words(word.numpy(), (9,), 64)
    with pytest.raises(TypeError):
        pack_bits(word)
    table, values = torch.zeros(1, 2, dtype=torch.int16), torch.zeros(2, dtype=torch.int64)
    for first, bits in ((2, 4), (0, 5), (0, 0)):
        with pytest.raises(ValueError, match="first"):
            chunk_lookup(table, values, (0,), 0, bits, first)
    with pytest.raises(ValueError, match="fit"):
        chunk_lookup(table, values[:1], (0,), 0, 4, 0)
    with pytest.raises(TypeError):
        chunk_lookup(table, byte[:2], (0,), 0, 4, 0)


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.integers(1, 64), st.integers(0, 70), st.integers(0, 9), seeds)
def test_adding_what_was_packed(backend: str, bits: int, count: int, offset: int, seed: int) -> None:
    share, mask, other = (words(seed + n, count) for n in range(3))
    with using(backend):
        mine = pack_words(share, bits, mask)
        buffer = np.concatenate([np.zeros(offset, np.uint8), pack_words(other, bits)])[offset:]
        found = unpack_sum(mine, buffer, (count,), bits)
        assert np.array_equal(mine, pack_words(share + mask, bits))
        if count:
            with pytest.raises(ValueError, match="bytes"):
                unpack_sum(mine, buffer[:-1], (count,), bits)
            with pytest.raises(ValueError, match="shape"):
                pack_words(share, bits, mask[1:])
    assert torch.equal(found, (share + mask + other) & (2**bits - 1 if bits < 64 else -1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [1, 13, 32, 57, 63, 64])
@pytest.mark.parametrize("block", [64, 4096])
def test_differences_are_packed_block_by_block(backend: str, bits: int, block: int) -> None:
    x, other = words(bits, 61, 71), words(block, 61 * 71)
    with using(backend):
        found = pack_differences(x, [part.numpy() for part in other.split(block)], bits)
        assert np.array_equal(found, pack_words(x.reshape(-1) - other, bits))
        if bits <= 32:
            narrow = [part.numpy().astype(np.uint32) for part in other.split(block)]
            assert np.array_equal(pack_differences(x, narrow, bits), found)
        place = torch.empty(61, 71, dtype=torch.int64)
        assert unpack_words(found, (61, 71), bits, place) is place
        assert torch.equal(place, unpack_words(found, (61, 71), bits))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", range(1, 64))
def test_streams_of_several_blocks(backend: str, bits: int) -> None:
    for count in (64, 2047, 4099):
        share, mask = words(bits, count), words(count, count)
        with using(backend):
            stream, alone = pack_words(share, bits, mask), pack_words(share, bits)
            narrow = pack_words(share.to(torch.int32), bits, mask, min(3, 64 - bits), 7)
            found, twice = unpack_words(stream, (count,), bits), unpack_sum(stream, alone, (count,), bits)
        with using("plain"):
            assert np.array_equal(stream, pack_words(share + mask, bits))
            assert np.array_equal(alone, pack_words(share, bits))
            halves = share.to(torch.int32).long()
            assert np.array_equal(narrow, pack_words(halves, bits, mask, min(3, 64 - bits), 7))
        assert torch.equal(found, (share + mask) & (2**bits - 1))
        assert torch.equal(twice, (2 * share + mask) & (2**bits - 1))


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.data(), st.integers(1, 63), st.integers(0, 150), seeds)
def test_bits_are_cut_off_before_a_mask_is_added(
    backend: str, data: st.DataObject, bits: int, count: int, seed: int
) -> None:
    cut = data.draw(st.integers(0, 64 - bits))
    up = data.draw(st.integers(0, (1 << min(62, cut + bits)) - 1))
    x, mask = words(seed, count), words(seed + 1, count)
    narrow = x.to(torch.int32)
    with using(backend):
        found = unpack_words(pack_words(x, bits, mask, cut, up), (count,), bits)
        assert np.array_equal(
            pack_words(narrow, bits, mask, cut, up), pack_words(narrow.long(), bits, mask, cut, up)
        )
        assert np.array_equal(pack_words(narrow, bits), pack_words(x, bits)) or bits > 32
    assert torch.equal(found, (((x + up) >> cut) + mask) & ((1 << bits) - 1))


@pytest.mark.parametrize("cut", [-1, 33])
def test_so_many_bits_cannot_be_cut_off(cut: int) -> None:
    with pytest.raises(ValueError, match="cannot be cut off"):
        pack_words(words(1, 3), 32, words(2, 3), cut)
    with pytest.raises(ValueError, match="without a mask"):
        pack_words(words(1, 3), 32, cut=1)


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.data(), st.integers(1, 64), st.integers(0, 200), seeds)
def test_upper_bits_that_an_opening_adds(
    backend: str, data: st.DataObject, bits: int, count: int, seed: int
) -> None:
    left = data.draw(st.integers(1, 63))
    share, bit, public, other = (words(seed + n, count) for n in range(4))
    with using(backend):
        mine, theirs = pack_chosen(share, bit, public, left, bits), pack_words(other, bits)
        found = unpack_onto(public, left, mine, theirs, bits)
        if count:
            with pytest.raises(ValueError, match="bytes"):
                unpack_onto(public, left, mine, theirs[:-1], bits)
            with pytest.raises(ValueError, match="shapes"):
                pack_chosen(share, bit[1:], public, left, bits)
    opened = share + torch.where((public >> (left - 1)) & 1 == 0, bit, 0)
    assert np.array_equal(mine, pack_words(opened, bits))
    assert torch.equal(found, public + (unpack_sum(mine, theirs, (count,), bits) << left))


@pytest.mark.parametrize("bits", range(1, 64))
def test_upper_bits_of_several_blocks(bits: int) -> None:
    for shape in ((3, 43), (64, 65), (128, 32)):
        share, bit, public, other = (words(bits + n, *shape) for n in range(4))
        mine, theirs = pack_chosen(share, bit.mT.contiguous().mT, public, 18, bits), pack_words(other, bits)
        opened = share + (1 - ((public >> 17) & 1)) * bit
        assert np.array_equal(mine, pack_words(opened, bits))
        want = public + (((opened + other) & ((1 << bits) - 1)) << 18)
        assert torch.equal(unpack_onto(public, 18, mine, theirs, bits), want)
