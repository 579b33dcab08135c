"""Products of masked values, element by element and of any degree, from what was opened already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product as combinations

from torch import Tensor

from secformer_rt.protocols.core import (
    Form,
    Protocol,
    Secret,
    Term,
    broadcast,
    deal,
    parallel,
    shapes_only,
    without_values,
)
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.protocols.masking import open_elementwise
from secformer_rt.ring.multilinear import multilinear


@dataclass(frozen=True, slots=True)
class Products(Correlation):
    """Element-wise products of dealt tensors, broadcast; ``bits[i]`` bits of the i-th are shared."""

    factors: tuple[tuple[Ref, ...], ...]
    shapes: tuple[Shape, ...]
    bits: tuple[int, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """One derived field a product."""
        return tuple(
            Field(shape, Source.DERIVED, bits) for shape, bits in zip(self.shapes, self.bits, strict=True)
        )

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Every factor once."""
        return tuple(sorted({ref for factors in self.factors for ref in factors}, key=str))

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The products."""
        known = dict(zip(self.refs, inputs, strict=True))
        results = []
        for factors in self.factors:
            value = known[factors[0]]
            for ref in factors[1:]:
                value = value * known[ref]
            results.append(value)
        return results


def product(*forms: Form, weights: Tensor | None = None, plus: Tensor | None = None) -> Protocol[Secret]:
    """The product of masked values, element by element.

    Expand the product of sums; each monomial is a public coefficient times a product of dealt
    tensors, of which T deals shares. Monomials whose powers of two vanish in the ring are dropped,
    and of the others only as many bits are dealt as survive. With ``weights``, public (J,), the result's
    first axis, of length J, is added up times these. ``plus`` is this server's share of what is added to the
    product, which it broadcasts to, with as many fraction bits; not together with weights.

    For two plain openings this is Beaver's triple: ``xy = XY - X b - Y a + ab``.

    Cost: 0 rounds; 0 bytes; dealer: one word an element and monomial of degree two or more (one for a
    plain product; three for two truncated values).
    """
    assert plus is None or weights is None
    ring = min(form.ring for form in forms)
    server, frac = forms[0].server, sum(form.frac for form in forms)
    keys = _expand(tuple(tuple((t.exponent, t.ref, t.bit) for t in form.terms) for form in forms), ring)
    singles = {term.ref: term for form in forms for term in form.terms if term.ref is not None}
    shares: dict[_Key, Tensor] = {(ref,): _share(term) for ref, term in singles.items()}
    exponents: dict[_Key, int] = {}
    for chosen, key in keys.items():
        exponent = sum(form.terms[i].exponent for form, i in zip(forms, chosen, strict=True))
        if len(key) > 1:
            exponents[key] = min(exponent, exponents.get(key, ring))
    if exponents:
        dealt = yield from deal(
            Products(
                tuple(exponents),
                tuple(broadcast(*(tuple(_share(singles[ref]).shape) for ref in key)) for key in exponents),
                tuple(ring - exponent for exponent in exponents.values()),
            )
        )
        shares.update(zip(exponents, dealt.shares, strict=True))
    if shapes_only(*forms):
        found = without_values(*forms)
        return Secret(server, found if weights is None else found[0], frac, ring)
    # The public part falls to server 0.
    leaves = {chosen: shares[key] if key else 1 for chosen, key in keys.items() if key or server == 0}
    coefficients = [[(term.coefficient, term.exponent) for term in form.terms] for form in forms]
    if plus is not None:
        # One more leaf, whose coefficients are 1.
        leaves[tuple(len(of_form) for of_form in coefficients)] = plus
        for of_form in coefficients:
            of_form.append((1, 0))
    return Secret(server, multilinear(coefficients, leaves, _shape(forms), weights), frac, ring)


_Key = tuple[Ref, ...]


@lru_cache(maxsize=4096)
def _expand(
    forms: tuple[tuple[tuple[int, Ref | None, bool], ...], ...], ring: int
) -> dict[tuple[int, ...], _Key]:
    """For each choice of terms its dealt factors, without those whose power of two vanishes.

    Terms are (exponent, ref, bit). Run after run multiplies the same ones out.
    """
    keys: dict[tuple[int, ...], _Key] = {}
    for chosen in combinations(*(range(len(terms)) for terms in forms)):
        terms = [form[i] for form, i in zip(forms, chosen, strict=True)]
        if sum(exponent for exponent, _, _ in terms) >= ring:
            continue
        factors: list[Ref] = []
        for _, ref, bit in terms:
            if ref is not None and not (bit and ref in factors):
                factors.append(ref)
        keys[chosen] = tuple(sorted(factors, key=str))
    return keys


def _shape(forms: tuple[Form, ...]) -> Shape:
    found = (t for form in forms for term in form.terms for t in (term.coefficient, term.share))
    return broadcast(*(tuple(t.shape) for t in found if isinstance(t, Tensor)))


def _share(term: Term) -> Tensor:
    assert term.share is not None
    return term.share


def multiply(x: Secret, y: Secret) -> Protocol[Secret]:
    """X times y, element by element, with the fraction bits of both.

    Cost: 1 round, 0 if both were opened; 8 bytes an element and operand each way; dealer: see
    :func:`product`.
    """
    if x is y:
        opened = yield from open_elementwise(x)
        return (yield from product(opened.form, opened.form))
    left, right = yield from parallel(open_elementwise(x), open_elementwise(y))
    return (yield from product(left.form, right.form))
