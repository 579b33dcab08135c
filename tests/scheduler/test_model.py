"""bert-tiny, padded and in both presets, against its plan and against plaintext."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secformer_rt.graph.architecture import synthetic_parameters
from secformer_rt.graph.batch import random_batches
from secformer_rt.graph.bert import EMBEDDINGS, MASK, ONE_HOT, POOL_WEIGHTS, build_bert, client_inputs
from secformer_rt.graph.calibration import calibrate
from secformer_rt.graph.executor import execute
from secformer_rt.graph.ir import AddRows, FirstToken, Graph, Input, MeanPool, Node, Parameter, ParameterKind
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.scheduler.ledger import Ledger, OpCost
from tests.protocols.common import preset
from tests.scheduler.conftest import TINY, VOCABULARY, TinyRun
from tests.support import provision, run_model


def counts(ledger: Ledger) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Everything but seconds; operations that cost nothing may be missing from a plan."""
    summary: dict[tuple[str, str], OpCost] = ledger.summary()
    rows = {key: (c.rounds, c.bytes, c.dealer_bytes) for key, c in summary.items()}
    return {key: row for key, row in rows.items() if any(row)}


def test_what_ran_is_what_was_planned_by_operation(tiny: TinyRun) -> None:
    planned = counts(tiny.outcome.plan.ledger)
    assert {op for _, op in planned} >= {"linear", "matmul", "softmax", "layernorm", "gelu", "pooling"}
    assert {layer for layer, _ in planned} == {"embeddings", "layer.0", "layer.1", "head"}
    for backend in tiny.outcome.backends:
        assert counts(backend.ledger) == planned
        assert sum(cost.seconds for cost in backend.ledger.costs.values()) > 0
    for server in (0, 1):
        assert len(tiny.outcome.dealt[server]) == tiny.outcome.plan.dealer_bytes[server]
        assert sum(map(len, tiny.outcome.links[server].sent)) == tiny.outcome.plan.server_bytes


def test_operations_add_up_to_the_run(tiny: TinyRun) -> None:
    plan = tiny.outcome.plan
    rows = plan.ledger.summary().values()
    assert sum(row.bytes for row in rows) == plan.server_bytes
    assert sum(row.dealer_bytes for row in rows) == sum(plan.dealer_bytes)
    assert max(row.rounds for row in rows) < plan.rounds <= sum(row.rounds for row in rows)


def test_every_hidden_state_is_that_of_plaintext(tiny: TinyRun) -> None:
    graph = tiny.lowering.graph
    real = torch.arange(graph.shapes["layer.0.norm"][1]) < tiny.lengths[:, None]
    norms = [node.name for node in graph.nodes if node.name.endswith("norm")]
    assert len(norms) == 5
    for name in norms:
        got = tiny.outcome.value(lambda wires, name=name: wires[name])
        assert float((got - tiny.oracle[name])[real].abs().max()) < 2e-2, name
    (output,) = graph.outputs
    got = tiny.outcome.value(lambda wires: wires[output])
    assert float((got - tiny.oracle[output]).abs().max()) < 2e-2
    assert float(got.abs().max()) > 0.5  # not zeros against zeros


def test_fraction_bits_of_outputs_are_planned(tiny: TinyRun) -> None:
    (output,) = tiny.lowering.graph.outputs
    assert tiny.outcome.plan.output_fracs == {output: tiny.outcome.results[0][output].frac}


def test_narrow_products_of_odd_sizes() -> None:
    arch = TINY.model_copy(update={"intermediate": 37})
    parameters, chosen = synthetic_parameters(arch), preset("swift")
    calibration = calibrate(arch, parameters, random_batches(VOCABULARY, tokens=(4, 8)), chosen)
    lowering = Lowering(build_bert(arch, 1, 5, masked=False, embedding="private"), chosen, calibration)
    (batch,) = random_batches(VOCABULARY, 1, (5,), 1)
    inputs = client_inputs(arch, "private", batch.token_ids, batch.type_ids, batch.lengths, False, parameters)
    oracle = execute(lowering.graph, parameters, inputs, chosen, calibration)
    outcome = run_model(provision(lowering, parameters), inputs)
    (output,) = lowering.graph.outputs
    assert float((outcome.value(lambda wires: wires[output]) - oracle[output]).abs().max()) < 2e-2


def test_embedding_in_public_needs_no_table() -> None:
    from tests.scheduler.conftest import run_tiny

    private, public = (run_tiny("exact", e).outcome.plan for e in ("private", "public-tables"))
    assert ("embeddings", "embedding") in counts(private.ledger)
    assert ("embeddings", "embedding") not in counts(public.ledger)
    # Whoever owns the rows masks them: nothing is opened for them.
    assert private.server_bytes == public.server_bytes and private.rounds == public.rounds
    assert private.dealer_bytes > public.dealer_bytes
    assert list(private.input_masks()) == [ONE_HOT] and not public.input_masks()


def pooled(nodes: tuple[Node, ...], inputs: dict[str, Tensor], parameters: dict[str, Tensor]) -> Tensor:
    wires = tuple(Input(name, tuple(x.shape), integer=name == MASK) for name, x in inputs.items())
    kinds = tuple(Parameter(n, tuple(p.shape), ParameterKind.OFFSET) for n, p in parameters.items())
    graph = Graph(wires, kinds, nodes, (nodes[-1].name,))
    outcome = run_model(provision(Lowering(graph, preset("exact"), None), parameters), inputs)
    return outcome.value(lambda outputs: outputs[nodes[-1].name])


@pytest.mark.parametrize("tokens", [1, 7, 16])
def test_pooling(tokens: int) -> None:
    x = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(tokens))
    mean = Node("pool", "head", MeanPool(), (EMBEDDINGS,), (), (2, 6))
    assert float((pooled((mean,), {EMBEDDINGS: x}, {}) - x.mean(1)).abs().max()) < 2.0**-13
    first = Node("pool", "head", FirstToken(), (EMBEDDINGS,), (), (2, 6))
    assert float((pooled((first,), {EMBEDDINGS: x}, {}) - x[:, 0]).abs().max()) <= 2.0**-17
    weights = torch.zeros(2, tokens, dtype=torch.float64)
    weights[0], weights[1, : (tokens + 1) // 2] = 1 / tokens, 1 / ((tokens + 1) // 2)
    masked = Node("pool", "head", MeanPool(), (EMBEDDINGS, POOL_WEIGHTS), (), (2, 6))
    want = (weights[..., None] * x).sum(1)
    spoiled = torch.where(weights[..., None] == 0, 3e4, x)  # what padding holds is multiplied by exactly 0
    got = pooled((masked,), {EMBEDDINGS: spoiled, POOL_WEIGHTS: weights}, {})
    assert float((got - want).abs().max()) < 2.0**-12


def test_rows_are_added_from_where_they_start() -> None:
    x = torch.zeros(1, 3, 2, dtype=torch.float64)
    table = torch.arange(20, dtype=torch.float64).reshape(10, 2)
    node = Node("sum", "embeddings", AddRows(4), (EMBEDDINGS,), ("rows",), (1, 3, 2))
    assert pooled((node,), {EMBEDDINGS: x}, {"rows": table})[0].tolist() == table[4:7].tolist()
