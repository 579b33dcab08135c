from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from secformer_rt.graph.ir import Add, Graph, Input, Linear, Node, Parameter, ParameterKind
from secformer_rt.protocols.core import (
    Dealt,
    Later,
    Open,
    Parallel,
    Protocol,
    Secret,
    Wait,
    awaited,
    beside,
    booked,
    parallel,
)
from secformer_rt.protocols.correlations import Correlation
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.protocols.masking import Mask, WidenedMask, open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.scheduler.engine import Engine, Label
from secformer_rt.scheduler.plan import plan_graph
from tests.protocols.common import plain, preset
from tests.scheduler.conftest import lowered


class Echo:
    """Opens what it is given, and notes the order of everything."""

    def __init__(self) -> None:
        self.rounds: list[list[tuple[str, list[int]]]] = []
        self.deals: list[tuple[str, Correlation]] = []
        self.seconds = 0.0

    def deal(self, correlation: Correlation, label: Label) -> Dealt:
        self.deals.append((label.op, correlation))
        zeros = tuple(torch.zeros(f.shape, dtype=torch.int64) for f in correlation.fields)
        return Dealt(len(self.deals) - 1, zeros)

    def exchange(self, openings: Sequence[tuple[Label, Open]]) -> list[Tensor]:
        self.rounds.append([(label.op, opening.share.tolist()) for label, opening in openings])
        return [opening.share for _, opening in openings]

    def spent(self, label: Label, seconds: float) -> None:
        self.seconds += seconds


def shows(*values: int) -> Protocol[list[int]]:
    """Open one number a round."""
    seen = []
    for value in values:
        public: Tensor = yield Open(plain(value))
        seen.append(int(public))
    return seen


def run(protocol: Protocol[Any], op: str = "") -> tuple[Any, Echo, Engine]:
    echo = Echo()
    engine = Engine(echo)
    return engine.run(protocol, Label("", op, "")), echo, engine


def opened(echo: Echo) -> list[list[int]]:
    return [[value for _, values in record for value in values] for record in echo.rounds]


def test_protocols_side_by_side_share_rounds() -> None:
    results, echo, engine = run(parallel(shows(1, 2, 3), shows(10), shows(20, 21)))
    assert results == [[1, 2, 3], [10], [20, 21]]
    assert opened(echo) == [[1, 10, 20], [2, 21], [3]]
    assert engine.rounds == 3


def test_one_after_the_other_takes_a_round_each() -> None:
    def both() -> Protocol[list[int]]:
        first = yield from shows(1, 2)
        return first + (yield from shows(3))

    results, echo, _ = run(both())
    assert results == [1, 2, 3] and opened(echo) == [[1], [2], [3]]


def test_forks_nest() -> None:
    def outer() -> Protocol[list[Any]]:
        inner: Protocol[Any] = parallel(shows(1), parallel(shows(2), shows(3, 4)))  # type: ignore[arg-type]
        return (yield from parallel(inner, shows(5)))

    results, echo, _ = run(outer())
    assert results == [[[1], [[2], [3, 4]]], [5]]
    assert sorted(opened(echo)[0]) == [1, 2, 3, 5] and opened(echo)[1:] == [[4]]


def test_protocols_that_open_nothing_take_no_round() -> None:
    def nothing() -> Protocol[str]:
        return "done"
        yield

    results, echo, _ = run(parallel(nothing(), nothing()))
    assert results == ["done", "done"] and echo.rounds == []


def test_costs_are_booked_under_the_name_given() -> None:
    def outer() -> Protocol[list[int]]:
        first = yield from booked("inner", shows(1))
        return first + (yield from shows(2))

    results, echo, _ = run(outer(), "outer")
    assert results == [1, 2]
    assert echo.rounds == [[("inner", [1])], [("outer", [2])]]
    assert echo.seconds > 0


def test_whoever_waits_resumes_after_the_round() -> None:
    events: list[str] = []

    def opens() -> Protocol[None]:
        yield Open(plain(7))
        events.append("opened")

    def waits() -> Protocol[None]:
        events.append("waits")
        yield Wait()
        events.append("resumed")

    _, echo, _ = run(parallel(waits(), opens()))
    assert events == ["waits", "opened", "resumed"] and len(echo.rounds) == 1


def test_waiting_for_nobody_is_an_error() -> None:
    def waits() -> Protocol[None]:
        yield Wait()

    with pytest.raises(RuntimeError, match="nobody"):
        run(waits())


def test_an_unknown_request_is_an_error() -> None:
    def asks() -> Protocol[None]:
        yield "something else"  # type: ignore[misc]

    with pytest.raises(TypeError, match="str"):
        run(asks())


def test_an_error_in_a_protocol_reaches_the_caller() -> None:
    def breaks() -> Protocol[None]:
        yield Open(plain(1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(parallel(breaks(), shows(1, 2)))


def test_a_protocol_runs_on_beside_the_one_that_has_started_it() -> None:
    def starts() -> Protocol[list[int]]:
        later = yield from beside(shows(10, 20, 30))
        first = yield from shows(1)
        assert later.result is None
        return [*first, *(yield from awaited(later)), *(yield from awaited(later))]

    results, echo, _ = run(starts())
    assert results == [1, 10, 20, 30, 10, 20, 30]
    assert opened(echo) == [[1, 10], [20], [30]]


@pytest.mark.parametrize("alone", [False, True])
def test_a_result_is_awaited_in_whatever_order_protocols_end(alone: bool) -> None:
    def starts() -> Protocol[list[int]]:
        later = yield from beside(shows(10))
        mine = [] if alone else (yield from shows(1))  # ends in the round in which the other does
        return [*mine, *(yield from awaited(later))]

    assert run(starts())[0] == ([10] if alone else [1, 10])


def test_what_never_ends_is_not_awaited_for_ever() -> None:
    with pytest.raises(RuntimeError, match="that nobody makes"):
        run(awaited(Later[int]()))


def test_a_wire_is_opened_once_for_all_who_use_it() -> None:
    x = Secret(0, plain(1, 2, 3), 0)

    def uses() -> Protocol[list[Any]]:
        first = yield from parallel(*(open_masked(x) for _ in range(3)))
        return [*first, (yield from open_masked(x))]

    results, echo, _ = run(uses())
    assert len(echo.rounds) == 1 and echo.deals == [("", Mask((3,), 64))]
    assert all(view is results[0] for view in results)


def qkv_graph(size: int = 4) -> Graph:
    parameters, nodes = [], []
    for name in ("q", "k", "v"):
        parameters += [
            Parameter(f"{name}.weight", (size, size), ParameterKind.MATRIX),
            Parameter(f"{name}.bias", (size,), ParameterKind.OFFSET),
        ]
        shape = (1, 2, size)
        nodes.append(Node(name, "layer", Linear(), ("x",), (f"{name}.weight", f"{name}.bias"), shape))
    nodes.append(Node("qk", "layer", Add(), ("q", "k"), (), (1, 2, size)))
    nodes.append(Node("sum", "layer", Add(), ("qk", "v"), (), (1, 2, size)))
    return Graph((Input("x", (1, 2, size), integer=False),), tuple(parameters), tuple(nodes), ("sum",))


def test_queries_keys_and_values_open_their_input_once() -> None:
    plan = plan_graph(Lowering(qkv_graph(), preset("exact"), None))
    assert plan.rounds == 1 and plan.server_bytes == 8 * 2 * 4
    masks = [deal for deal in plan.deals if isinstance(deal.correlation, Mask)]
    assert len(masks) == 1 and len(plan.deals) == 4


def test_in_bert_too() -> None:
    plan = plan_graph(lowered("exact"))
    projected = [deal for deal in plan.deals if deal.label.node.endswith(("query", "key", "value"))]
    assert len([d for d in projected if isinstance(d.correlation, WidenedMask)]) == 2  # one a layer


def test_wires_are_dropped_after_their_last_use_unless_kept() -> None:
    lowering = Lowering(qkv_graph(), preset("exact"), None)
    from secformer_rt.scheduler.plan import Planner, meta_model

    x = Secret(0, torch.empty(1, 2, 4, dtype=torch.int64, device="meta"), 16)
    for keep, names in ((False, {"sum"}), (True, {"x", "q", "k", "v", "qk", "sum"})):
        model: Model = meta_model(lowering.graph, lowering)
        wires = Engine(Planner()).run_graph(lowering, model, {"x": x}, keep)
        assert set(wires) == names


def test_the_order_of_everything_is_the_same_every_time() -> None:
    one, two = (plan_graph(lowered("secformer")) for _ in (0, 1))
    assert one.deals == two.deals
    assert one.ledger.rounds == two.ledger.rounds


def test_parallel_results_keep_their_places_whatever_ends_first() -> None:
    request = Parallel((shows(1, 2, 3), shows(4), shows()))

    def asks() -> Protocol[list[Any]]:
        results: list[Any] = yield request
        return results

    assert run(asks())[0] == [[1, 2, 3], [4], []]
