from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secformer_rt.errors import OutOfRangeError
from secformer_rt.ring.fixed_point import decode, encode, encode_scalar

fracs = st.integers(0, 50)


@given(st.data(), fracs)
def test_encoding_is_exact(data: st.DataObject, frac: int) -> None:
    limit = math.nextafter(2.0 ** (62 - frac), 0)
    values = data.draw(st.lists(st.floats(-limit, limit), max_size=20))
    expected = [round(Fraction(v) * 2**frac) for v in values]
    assert encode(torch.tensor(values, dtype=torch.float64), frac).tolist() == expected
    assert [encode_scalar(v, frac) for v in values] == expected


@given(st.lists(st.floats(-1e3, 1e3, width=32), max_size=20), st.integers(0, 40))
def test_float32_is_encoded_as_its_value(values: list[float], frac: int) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    assert encode(x, frac).tolist() == [round(Fraction(v) * 2**frac) for v in values]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), fracs)
def test_decoding_rounds_once(values: list[int], frac: int) -> None:
    assert decode(torch.tensor(values, dtype=torch.int64), frac).tolist() == [v / 2**frac for v in values]


def test_ties_go_to_even() -> None:
    x = torch.tensor([0.5, 1.5, -0.5, -1.5, 2.5])
    assert encode(x, 0).tolist() == [0, 2, 0, -2, 2]
    assert [encode_scalar(v, 0) for v in x.tolist()] == [0, 2, 0, -2, 2]


@pytest.mark.parametrize("value", [2.0**45, -(2.0**45), 1e308, math.inf, -math.inf, math.nan])
def test_what_does_not_fit_is_refused(value: float) -> None:
    with pytest.raises(OutOfRangeError, match=r"less than 2\^45"):
        encode(torch.tensor([0.0, value], dtype=torch.float64), 17)
    with pytest.raises(OutOfRangeError, match=r"less than 2\^45"):
        encode_scalar(value, 17)


def test_the_refusal_of_a_tensor_names_no_element() -> None:
    with pytest.raises(OutOfRangeError) as refusal:
        encode(torch.tensor([123456789.0]), 60)
    assert "123456789" not in str(refusal.value)


def test_the_argument_is_left_alone() -> None:
    x = torch.tensor([0.3], dtype=torch.float64)
    encode(x, 0)
    assert x.tolist() == [0.3]


def test_shapes_and_types_are_kept() -> None:
    assert encode(torch.zeros(0, 3), 5).shape == (0, 3)
    assert encode(torch.tensor(1.25), 2).shape == ()
    with pytest.raises(TypeError):
        encode(torch.tensor([1]), 2)
    with pytest.raises(TypeError):
        decode(torch.tensor([1.0]), 2)
    with pytest.raises(ValueError, match="frac"):
        encode(torch.tensor([1.0]), 63)


def test_meta() -> None:
    encoded = encode(torch.empty(2, 3, device="meta"), 5)
    assert encoded.is_meta and encoded.dtype == torch.int64 and encoded.shape == (2, 3)
    decoded = decode(encoded, 5)
    assert decoded.is_meta and decoded.dtype == torch.float64 and decoded.shape == (2, 3)
