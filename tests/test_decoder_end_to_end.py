"""Decoders over real processes, from a checkpoint's directory to the likeliest next token."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional

from secformer_rt import Cluster
from secformer_rt.cli import presets_directory
from secformer_rt.clients.ask import ask as ask_model
from secformer_rt.clients.ask import asked_summary, print_asked
from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.main_job import Job, checkpoint_job, run_job_on, summary
from secformer_rt.clients.show import show
from secformer_rt.errors import BadInputError, UnsupportedModelError
from secformer_rt.graph.preset import load_preset
from tests.graph.gpt2_checkpoints import BARE, HEADS, state, write, write_tokenizer
from tests.graph.reference import gpt2

TEXTS = ("the thin thread", "a", "thump")


@pytest.fixture(params=[False, True], ids=["gpt2", "softmax-only"])
def bare(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def job(directory: Path, bare: bool) -> Job:
    write_tokenizer(write(directory, state(bare=bare), **(BARE if bare else {})))
    return checkpoint_job(directory, TEXTS, 3, ["the long and short of it", "abc", "thin"])


def test_parties_predict_what_the_model_predicts(tmp_path: Path, bare: bool, cluster: LocalCluster) -> None:
    asked = job(tmp_path, bare)
    (batch,) = asked.batches
    assert batch.padded
    preset = load_preset("exact", presets_directory())
    outcome = run_job_on(cluster.settings, asked, preset, "private")
    tensors = state(bare=bare)
    hidden = gpt2(tensors, batch.token_ids, HEADS)[torch.arange(3), batch.lengths - 1]
    expected = hidden @ tensors["wte.weight"].double().t()
    (found,) = outcome.outputs
    assert float((found - expected).abs().max()) < 2e-2 * float(expected.abs().max())
    assert float(functional.cosine_similarity(found, expected).min()) > 0.9999
    told = summary(outcome)
    assert told["fidelity"]["top1_agreement"] == 1.0
    assert told["rounds"] == told["planned_rounds"] > 0
    links = {name: seen["payload"] for name, seen in told["bytes"].items() if name != "planned_payload"}
    assert links == told["bytes"]["planned_payload"]
    shown = io.StringIO()
    show(outcome, Console(file=shown, width=120))
    likeliest = [asked.spell(token) for token in expected.argmax(-1).tolist()]
    assert all(shown.getvalue().count(token) >= 2 for token in likeliest)
    assert "same likeliest token as the float32 model" in shown.getvalue()
    with Cluster(cluster.settings) as program:
        model = program.model(outcome.model.model_id, tmp_path)
        rows = model.ask(TEXTS, batch_size=2).outputs
        assert np.abs(rows - expected.numpy()).max() < 2e-2 * float(expected.abs().max())
        with pytest.raises(BadInputError, match="predicts tokens: use ask instead"):
            model.embed(TEXTS)
    with Servers(cluster.settings) as servers:
        answers = ask_model(servers, TEXTS[:1], outcome.model.model_id, tmp_path)
    best = asked_summary(answers)["next"][0]
    assert [token["token"] for token in best][:1] == likeliest[:1]
    probabilities = expected[0].softmax(-1).sort(descending=True).values[: len(best)]
    assert [token["probability"] for token in best] == pytest.approx(probabilities.tolist(), abs=1e-2)
    shown = io.StringIO()
    print_asked(answers, Console(file=shown, width=120))
    assert likeliest[0] in shown.getvalue()


def test_calibrate_and_plan(tmp_path: Path, ask: Any) -> None:
    ranges = tmp_path / "ranges.yaml"
    model = ("--synthetic", "aero-tiny", "--tokens", 5)
    code, _, err = ask("calibrate", *model, "--output", ranges)
    assert code == 0, err
    assert "layer.1.attention.scores:" in ranges.read_text("utf-8")
    plans = []
    for more in ((), ("--calibration", ranges)):
        code, out, err = ask("plan", *model, "--json", *more)
        assert code == 0, err
        plans.append(json.loads(out))
    assert plans[0] == plans[1]
    operations = {operation["op"] for operation in plans[0]["operations"]}
    assert operations == {"embedding", "linear", "matmul", "softmax", "local"}


@pytest.mark.parametrize(
    "command",
    [
        ("distill", "--text", "texts.txt", "--output", "student", "--teacher"),
        ("evaluate", "dev.tsv", "--task", "RTE", "--checkpoint"),
        ("bench", "inference", "--checkpoint"),
    ],
)
def test_what_serves_encoders_only(command: tuple[str, ...], tmp_path: Path, ask: Any) -> None:
    directory = write_tokenizer(write(tmp_path / "gpt2", state(positions=200), n_positions=200))
    (tmp_path / "texts.txt").write_text("the thin thread\n", "utf-8")
    (tmp_path / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tthe\tentailment\n", "utf-8")
    words = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in command]
    words = [str(tmp_path / word) if word == "student" else word for word in words]
    code, _, err = ask(*words, directory)
    assert code == UnsupportedModelError.exit_code, err
    assert "is a decoder, and" in err
    assert err.count("\n") == 1
