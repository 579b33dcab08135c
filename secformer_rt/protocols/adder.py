"""Comparison by a binary adder: the sign of a difference, from the bits of its two additive shares.

``x - t = a + b`` modulo ``2^k``, where a is server 0's share and b server 1's, so each knows all bits of one
summand. The top bit of the sum is ``a_top ^ b_top ^ carry``, and a tree of generate and propagate bits gives
the carry. All bits of one weight lie in one packed plane.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secformer_rt.protocols.bits import bit_planes, bit_products
from secformer_rt.protocols.core import Bits, Opened, Protocol, parallel
from secformer_rt.protocols.truncation import evaluate


def less_than_by_adder(x: Opened, thresholds: tuple[int, ...], *, bits: int) -> Protocol[Bits]:
    """XOR shares of ``x < t`` for every public threshold (in units of x), shape (len(t), *x.shape).

    Exact if ``x - t`` lies in ``[-2^(bits-1), 2^(bits-1))``; only the low ``bits`` (at least 2) of the shares
    are looked at. x's shares are those of its form; its opening itself is not used. Of the summands' bits
    ``p = a ^ b`` is XOR-shared as it is, ``g = a b`` takes an AND, and neighbours combine to
    ``g = g_hi ^ p_hi g_lo`` and ``p = p_hi p_lo`` until one g is left: the carry into the top bit.

    Cost: ``1 + ceil(log2(bits - 1))`` rounds: 7 for 64 bits, the papers' log2(64) + 1. An element and
    threshold, each way (and from the dealer): ``2 (bits - 1)`` bits (``bits - 1``) for g, then ``3m - 1``
    (``2m - 1``) for a level of m pairs. 64 bits: 306 (181); 24 bits: 107 (62). The papers count 3,456
    in both directions.
    Security: every opened bit is hidden by a fresh dealt bit (see :func:`bit_products`).
    Source: SecFormer (arXiv 2401.00793), section 3, Pi_LT; CrypTen (arXiv 2109.00984), A2B by a carry tree.
    """
    share = evaluate(x.form).share
    # Server 0 subtracts the thresholds.
    words = torch.stack([share - t if x.server == 0 else share for t in thresholds])
    planes = bit_planes(words, bits)
    carry = yield from _carry(x.server, planes[:-1])
    return Bits(planes[-1] ^ carry, tuple(words.shape))


def _carry(server: int, own: Tensor) -> Protocol[Tensor]:
    """The carry out of the sum of both servers' numbers, each given as its owner's bit planes."""
    nothing = torch.zeros_like(own)
    summands = (own, nothing) if server == 0 else (nothing, own)
    (generate,) = yield from _ands(server, torch.stack(summands), ((0, 1),))
    propagate = own
    while len(generate) > 1:
        generate, propagate = yield from _level(server, generate, propagate)
    return generate[0]


def _level(server: int, generate: Tensor, propagate: Tensor) -> Protocol[tuple[Tensor, Tensor]]:
    """Combine neighbouring groups; the lowest group's propagate bit is of no use and not computed."""
    pairs = len(generate) // 2
    even = 2 * pairs
    factors = torch.stack([propagate[1:even:2], generate[0:even:2], propagate[0:even:2]])
    jobs = [_ands(server, factors[:2, :1], ((0, 1),))]
    if pairs > 1:
        jobs.append(_ands(server, factors[:, 1:], ((0, 1), (0, 2))))
    results = yield from parallel(*jobs)
    carried = torch.cat([group[0] for group in results])
    # What stands for the lowest group keeps its place in the list; nobody reads it.
    through = torch.cat([propagate[:1], *(group[1] for group in results[1:])])
    # A group without a neighbour goes up as it is.
    return (
        torch.cat([generate[1:even:2] ^ carried, generate[even:]]),
        torch.cat([through, propagate[even:]]),
    )


def _ands(server: int, factors: Tensor, terms: tuple[tuple[int, ...], ...]) -> Protocol[list[Tensor]]:
    """The ANDs of factors (F, rows, n) over each of ``terms``, (rows, n) each, in one round."""
    rows = tuple(factors.shape[1:])
    products = yield from bit_products(server, factors.flatten(1), terms)
    return [product.reshape(rows) for product in products]
