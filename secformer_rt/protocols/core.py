"""The language that protocols are written in.

A protocol is a generator. It yields requests, is sent their results, and returns its own result::

    def square(x):
        opened = yield from open_masked(x)
        return (yield from product(opened.form, opened.form))

A server answers requests by exchanging shares with its peer, the planner by counting. Protocols
never look at the values they are given, so both walk the same path.

Values are written in this algebra. A :class:`Secret` is one server's additive share. Opening a
secret under a dealt mask makes it *masked*: every server then knows

    x = sum over terms t of coefficient_t * 2^exponent_t * dealt_t

with public coefficients, where each ``dealt_t`` is 1 or a tensor that only the dealer knows and the
servers hold in shares. That is a :class:`Form`. The product of forms is a form whose dealt
tensors are products of dealt tensors, so the dealer can prepare any polynomial of masked values
ahead of time and the servers evaluate it without talking (see :mod:`secformer_rt.protocols.product`).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from secformer_rt.protocols.correlations import Correlation, Ref
from secformer_rt.ring.words import add, add_chosen, upper_bit_clear

T = TypeVar("T")


class Dealt(NamedTuple):
    """What a server holds of one correlation: its number in the plan and its share of each field."""

    number: int
    shares: tuple[Tensor, ...]

    def ref(self, position: int) -> Ref:
        """Name a field, so that later correlations can build on it."""
        return Ref(self.number, position)

    def __repr__(self) -> str:
        return f"Dealt({self.number})"


@dataclass(frozen=True, slots=True)
class Deal:
    """Ask for correlated randomness. Answered at once with :class:`Dealt`: it was dealt offline."""

    correlation: Correlation


@dataclass(frozen=True, slots=True, repr=False)
class Widening:
    """What is known of a number that an opening adds upper bits to: P, modulo ``2^left``, and shares of b."""

    public: Tensor
    bit: Tensor
    left: int


@dataclass(frozen=True, slots=True, repr=False)
class Open:
    """Open shares to both servers. Answered after the round with the public tensor.

    ``bits`` < 64 opens only the low bits of additive shares; ``xor`` opens bit planes (uint8). A ``mask``
    of the same shape is added to the share first, or for planes XORed; with one, the share may be int32, and
    what is opened may be ``((share + up) >> cut) + mask``. With a ``widening`` instead, ``z = share + w b``
    is opened, where w is 1 for P below ``2^(left - 1)``, else 0, and the answer is ``P + 2^left z``.
    """

    share: Tensor
    bits: int = 64
    xor: bool = False
    mask: Tensor | None = None
    cut: int = 0
    up: int = 0
    widening: Widening | None = None

    @property
    def value(self) -> Tensor:
        """The share that is opened, with its mask or its bit."""
        if self.widening is not None:
            return add_chosen(self.share, self.widening.bit, self.widening.public, self.widening.left)
        if self.mask is None:
            return self.share
        if self.xor:
            return self.share ^ self.mask
        return add((self.share.to(torch.int64) + self.up) >> self.cut, self.mask)


@dataclass(frozen=True, slots=True)
class Wait:
    """Resume after the next round: somebody else's opening is under way."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """Run protocols side by side. Answered with the list of their results.

    ``op``, if given, is what their costs are booked under.
    """

    protocols: tuple[Protocol[Any], ...]
    op: str | None = None


@dataclass(slots=True, repr=False, eq=False)
class Later(Generic[T]):
    """The result of a protocol that runs on beside the one that has started it; None until it has ended."""

    result: T | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """Start a protocol and go on. Answered at once with :class:`Later`."""

    protocol: Protocol[Any]


@dataclass(frozen=True, slots=True)
class Await:
    """Resume when a protocol that was started beside this one has ended. Answered with its result."""

    later: Later[Any]


Request = Deal | Open | Wait | Parallel | Beside | Await
Protocol = Generator[Request, Any, T]


@dataclass(frozen=True, slots=True, repr=False)
class Term:
    """``coefficient * 2^exponent * dealt``; a public term has ``ref`` None and no share.

    ``bit`` says that the dealt tensor holds only 0 and 1, so that its powers are itself.
    """

    coefficient: Tensor | int
    exponent: int = 0
    ref: Ref | None = None
    share: Tensor | None = None
    bit: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Form:
    """A value as a sum of terms, modulo ``2^ring``, with ``frac`` fraction bits, seen by one server."""

    server: int
    terms: tuple[Term, ...]
    frac: int
    ring: int = 64

    def scaled(self, factor: Tensor | int, frac: int = 0) -> Form:
        """The form times a public factor that itself has ``frac`` fraction bits."""
        if shapes_only(self) and isinstance(factor, int):
            return replace(self, frac=self.frac + frac)
        terms = tuple(replace(term, coefficient=term.coefficient * factor) for term in self.terms)
        return replace(self, terms=terms, frac=self.frac + frac)

    def plus(self, public: Tensor | int) -> Form:
        """The form plus a public value given at the form's own fraction bits."""
        return replace(self, terms=(Term(public), *self.terms))


def shapes_only(*forms: Form) -> bool:
    """Whether the forms have shapes but no values: a plan is being made."""
    return any(term.share is not None and term.share.is_meta for form in forms for term in form.terms)


@lru_cache(maxsize=4096)
def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that element-wise arithmetic on these shapes results in."""
    result: list[int] = []
    for shape in shapes:
        result = [1] * (len(shape) - len(result)) + result
        for axis, size in enumerate(reversed(shape), start=1):
            if size != 1:
                result[-axis] = size
    return tuple(result)


def without_values(*forms: Form) -> Tensor:
    """What element-wise arithmetic on forms without values results in.

    torch can tell as well, but takes its time: a plan would need half a minute.
    """
    tensors = (t for form in forms for term in form.terms for t in (term.coefficient, term.share))
    shape = broadcast(*(t.shape for t in tensors if isinstance(t, Tensor)))
    return torch.empty(shape, dtype=torch.int64, device="meta")


@dataclass(slots=True, repr=False, eq=False)
class Opened:
    """A secret after its masked opening: ``x = public - mask`` modulo ``2^ring``.

    ``form`` says the same modulo ``2^form_ring``. That may be more, after a truncation: over the integers
    ``x = public - mask + wrap * bit * 2^ring``, where ``wrap`` is public and ``bit`` dealt. The mask then is
    the uniform one and a truncation's room, up to ``2^ring`` and a quarter more; the public part lies in
    ``[0, 2^ring)``, but for what was added to it since (``added``).
    """

    server: int  # whose view this is
    public: Tensor
    mask: Ref
    share: Tensor  # of the mask
    frac: int
    ring: int
    form_ring: int
    bit: Ref | None = None
    bit_share: Tensor | None = None
    added: int = 0
    _wrap: Tensor | None = field(default=None, init=False)
    _form: Form | None = field(default=None, init=False)

    @property
    def wrap(self) -> Tensor | None:
        """1 where the opened number is below ``2^(ring-1)``, so that the bit tells whether it has wrapped."""
        if self._wrap is None and self.bit is not None:
            self._wrap = upper_bit_clear(self.public - self.added if self.added else self.public, self.ring)
        return self._wrap

    @property
    def form(self) -> Form:
        """What was opened, as a sum of dealt tensors."""
        if self._form is None:
            terms = [Term(self.public), Term(-1, 0, self.mask, self.share)]
            if self.wrap is not None:
                terms.append(Term(self.wrap, self.ring, self.bit, self.bit_share, bit=True))
            self._form = Form(self.server, tuple(terms), self.frac, self.form_ring)
        return self._form

    def plus(self, public: int) -> Opened:
        """The opening of x plus a public number of units."""
        return replace(self, public=self.public + public, added=self.added + public)


@dataclass(frozen=True, slots=True, repr=False)
class Masked:
    """What an input's owner has sent both servers: ``x + r`` for a dealt r of which it alone was told."""

    wire: str
    public: Tensor


@dataclass(slots=True, repr=False)
class Secret:
    """One server's share of a fixed-point tensor, additive modulo ``2^ring``."""

    server: int
    held: Tensor  # the share, as int32 where a product in a ring of at most 32 bits has left it so
    frac: int
    ring: int = 64
    opened: Opened | None = None  # by a plain masked opening, for every consumer of the wire
    opening: bool = False
    truncated: Opened | None = None  # by the truncation that made it, for element-wise consumers
    whole: Opened | None = None  # the same, before it was split into heads
    coarse: Secret | None = None  # the same value with fewer fraction bits, from the same truncation
    mean: Later[Secret] | None = None  # along the last axis, where the next LayerNorm has to subtract it
    normal: Secret | None = (
        None  # of a LayerNorm, before gain and offset: for matrices that have taken these over
    )
    masked: Masked | None = None  # of an input that came masked: ``share`` has no values then

    @property
    def share(self) -> Tensor:
        """This server's share, int64."""
        if self.held.dtype == torch.int32:
            self.held = self.held.to(torch.int64)
        return self.held

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.held.shape)

    def __repr__(self) -> str:
        return f"Secret(shape={self.shape}, frac={self.frac}, ring={self.ring})"

    def local(self, share: Tensor, frac: int | None = None) -> Secret:
        """A new secret of the same server and ring: the result of a local linear operation."""
        return Secret(self.server, share, self.frac if frac is None else frac, self.ring)

    def plus_public(self, public: Tensor | int) -> Secret:
        """Add a public value given at this secret's fraction bits: server 0 does."""
        return self.local(self.share + public if self.server == 0 else self.share)

    def at(self, frac: int) -> Secret:
        """The same value with more fraction bits, exactly (a left shift of the share)."""
        if frac < self.frac:
            raise ValueError("fewer fraction bits need a truncation")
        return self if frac == self.frac else self.local(self.share << (frac - self.frac), frac)


@dataclass(frozen=True, slots=True, repr=False)
class Bits:
    """XOR shares of one bit for each element of ``shape``, packed into planes (uint8)."""

    planes: Tensor
    shape: tuple[int, ...]


def deal(correlation: Correlation) -> Protocol[Dealt]:
    """Ask for correlated randomness."""
    dealt: Dealt = yield Deal(correlation)
    return dealt


def reveal(
    share: Tensor, bits: int = 64, xor: bool = False, mask: Tensor | None = None, cut: int = 0, up: int = 0
) -> Protocol[Tensor]:
    """Open shares, plus a mask if one is given: only for values that a fresh mask hides. One round.

    See :class:`Open` for ``cut`` and ``up``.
    """
    public: Tensor = yield Open(share, bits, xor, mask, cut, up)
    return public


def reveal_upper(share: Tensor, bits: int, widening: Widening) -> Protocol[Tensor]:
    """Open what a number lacks, for what is known of it; see :class:`Open`. One round."""
    public: Tensor = yield Open(share, bits, widening=widening)
    return public


def parallel(*protocols: Protocol[T], op: str | None = None) -> Protocol[list[T]]:
    """Run protocols side by side, sharing rounds."""
    results: list[T] = yield Parallel(protocols, op)
    return results


def beside(protocol: Protocol[T]) -> Protocol[Later[T]]:
    """Start a protocol whose result is wanted later; see :func:`awaited`."""
    later: Later[T] = yield Beside(protocol)
    return later


def awaited(later: Later[T]) -> Protocol[T]:
    """The result, once it is there."""
    result: T = yield Await(later)
    return result


def booked(op: str, protocol: Protocol[T]) -> Protocol[T]:
    """Run one protocol with its costs booked under ``op``."""
    results: list[T] = yield Parallel((protocol,), op)
    return results[0]
