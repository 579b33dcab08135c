"""``bench inference`` on real processes, and what it makes of its measurements."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from rich.console import Console

from secformer_rt.cli import main
from secformer_rt.clients.bench_growth import Grown, as_planned, grow
from secformer_rt.clients.bench_inference import bench_inference
from secformer_rt.clients.bench_inference_show import KINDS, inference_summary, show_inference
from secformer_rt.clients.bench_job import bench_job
from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.limits import Limits, Roofline
from secformer_rt.clients.main_job import Job
from secformer_rt.clients.network_asker import Seconds
from secformer_rt.emulation.hosts import LINKS
from secformer_rt.errors import BadConfigError, BadInputError, DesyncError
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.preset import load_preset
from secformer_rt.scheduler.network import Network
from secformer_rt.scheduler.plan import plan_graph
from secformer_rt.scheduler.predict import Prediction
from tests.clients.deployment import PRESETS, Small, padded_batch, small_model
from tests.graph.checkpoints import POSITIONS, tiny_config, tiny_state, write_checkpoint

ROOT = Path(__file__).parents[1]
LIMITS = Limits({32: 20.0, 64: 10.0}, Network(name="measured", rtt_ms=2.0, mbit=800.0))

LIMITS_OF_THREE = Limits({32: 20.0, 64: 40.0}, Network(name="measured", rtt_ms=2.0, mbit=800.0))
TAKES = Prediction(88.5, 8.5)


def test_limits_are_the_middle_of_several() -> None:
    found = [
        Limits({32: peak, 64: 2 * peak}, Network(name="measured", rtt_ms=trip, mbit=rate))
        for peak, trip, rate in ((20.0, 3.0, 700.0), (10.0, 1.0, 900.0), (90.0, 2.0, 800.0))
    ]
    assert Limits.middle(found) == LIMITS_OF_THREE
    assert Limits.middle(found[:1]) == found[0]


def full(tokens: int, batch: int) -> Batch:
    return padded_batch((tokens,) * batch)


def ran(*more: str) -> dict[str, Any]:
    """What the command says of bert-tiny."""
    words = [sys.executable, "-m", "secformer_rt", "bench", "inference", "--synthetic", "bert-tiny", "--json"]
    words += ["--tokens", "8", "--repeats", "2", *more]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_json_of_real_parties(tmp_path: Path) -> None:
    page = tmp_path / "inference.html"
    found = ran("--in-flight", "2", "--report", str(page))

    assert (found["tokens"], found["batch"], found["preset"], found["insecure"]) == (8, 1, "exact", False)
    assert found["rounds"] == found["planned_rounds"] > 0
    planned = found["bytes"].pop("planned_payload")
    assert planned == {link: seen["payload"] for link, seen in found["bytes"].items()}
    assert planned.keys() == LINKS.keys()
    assert found["dealer_bytes"] == planned["dealer_server0"] + planned["dealer_server1"] > 0
    assert found["seconds"].keys() == {"offline", "online", "total", "plaintext"}
    assert all(len(runs) == 2 and min(runs) > 0 for runs in found["seconds"].values())
    assert all(
        total > offline
        for total, offline in zip(found["seconds"]["total"], found["seconds"]["offline"], strict=True)
    )
    assert found["cosine_min"] > 0.999
    assert found["cosine_min_of_preset"] > 0.999
    assert found["prepared"] == 0
    assert found["prepare_seconds"] is None
    assert found["total_ratio_to_plaintext"] > found["ratio_to_plaintext"] > 0

    assert found["profile"].keys() == {"offline", "online"}
    for kinds in found["profile"].values():
        assert kinds.keys() == KINDS.keys()
        assert all(taken > 0 for kind, taken in kinds.items() if kind in ("matmul", "receive"))
    assert found["profile"]["online"]["send"] > 0
    # Shares are expanded ahead.
    assert found["profile"]["offline"]["prg"] > found["profile"]["online"].get("prg", 0.0) == 0

    roof = found["roofline"]
    assert roof["macs"].keys() == {"online", "offline", "dealer"}
    assert all(rate > 0 for rate in roof["gmac_per_s"].values())
    assert roof["rtt_ms"] > 0
    assert roof["mbit"] > 0
    total = roof["seconds"].pop("total")
    assert all(part > 0 for part in roof["seconds"].values())
    assert total == pytest.approx(sum(roof["seconds"].values()))
    assert 0 < found["ratio_to_roofline_least"] <= found["ratio_to_roofline"]
    assert found["ratio_to_roofline"] < found["ratio_to_roofline_without_elementwise"]
    counted = found["profile"]["online"]
    assert roof["seconds"]["elementwise"] < counted["elementwise"] + counted["packing"]
    assert found["throughput"]["in_flight"] == 2
    assert found["throughput"]["at_once_per_s"] == pytest.approx(2 / found["throughput"]["seconds"])
    assert found["growth"] == []
    assert found["machine"]["cores"] >= 1
    assert "times plaintext" in page.read_text(encoding="utf-8")


def test_prepared_inferences_are_online_only() -> None:
    found = ran("--prepared")
    assert found["prepared"] == 2
    assert found["prepare_seconds"] > 0
    assert found["dealer_bytes"] > found["bytes"]["dealer_server0"]["payload"] == 0


@pytest.fixture(scope="module")
def small() -> Small:
    return small_model("secformer")


def test_on_running_parties(small: Small, cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    samples = (full(4, 1), full(12, 1))
    job = Job("[small]", small.architecture, small.parameters, (padded_batch((6, 4)),), samples, ())
    found = bench_inference(job, load_preset("secformer", PRESETS), 1, cluster.settings, running=True)
    assert cluster.failure() is None
    told = json.loads(json.dumps(inference_summary(found)))
    assert told["throughput"] is None
    assert len(told["seconds"]["plaintext"]) == 1
    sized = Grown(16, 16, 1_000, 123_400_000, 10**10, Seconds(offline=99.5, online=9.5, total=120), TAKES)
    show_inference(replace(found, grown=(sized,)), Console(width=80))
    out = capsys.readouterr().out
    assert "[small], preset secformer, 2 x 6 tokens" in out
    assert "Python and the rest" in out
    assert "10,000.0" in out
    assert "…" not in out


def test_growth_is_as_planned(small: Small, servers: Servers) -> None:
    owner = small.owner(servers, small.provision(servers).model_id)
    sizes = [(4, 1), (8, 1), (4, 2), (40, 1)]
    found = grow(owner, full, LIMITS, 32, sizes)
    assert [(size.tokens, size.batch) for size in found] == sizes[:-1]
    assert len({size.rounds for size in found}) == 1
    one, longer, two = (size.server_bytes for size in found)
    assert one < longer
    assert one < two
    assert all(size.predicted.online > 0 for size in found)

    answer = owner.infer(full(4, 1))
    answer.plan.ledger.rounds.pop()
    with pytest.raises(DesyncError, match="were planned"):
        as_planned(answer)


def test_a_bound_by_hand(small: Small) -> None:
    plan = plan_graph(small.manifest.lowering(1, 4, False))
    roof = Roofline.of(plan, LIMITS, 0.75)
    assert roof.online.products == pytest.approx(roof.products.online[64] / 10e9)
    assert roof.online.elementwise == 0.75
    assert roof.online.rounds == pytest.approx(plan.rounds * 1e-3)
    assert roof.online.bytes == pytest.approx(plan.server_bytes * 8 / 800e6)
    assert roof.product_s({32: 10**9, 64: 10**9}) == pytest.approx(0.15)
    unlimited = replace(LIMITS, network=Network(name="measured", rtt_ms=2.0))
    assert Roofline.of(plan, unlimited, 0.75).online.bytes == 0


def test_a_checkpoints_request_has_exactly_so_many_tokens(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, tiny_state(), tiny_config())
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ascii_lowercase]
    words += [f"##{letter}" for letter in ascii_lowercase]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    job, make = bench_job(None, directory, 9, 2, (16, 512))
    (batch,) = job.batches
    assert (batch.size, batch.tokens, batch.padded) == (2, 9, False)
    assert batch.token_ids[:, 0].tolist() == [words.index("[CLS]")] * 2
    assert batch.token_ids[:, -1].tolist() == [words.index("[SEP]")] * 2
    assert not torch.equal(batch.token_ids[0], batch.token_ids[1])
    assert {9, 16} <= {sample.tokens for sample in job.calibration_batches}
    assert make(POSITIONS, 1).tokens == POSITIONS
    with pytest.raises(BadInputError, match=f"{POSITIONS} positions"):
        bench_job(None, directory, POSITIONS + 1, 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--synthetic", "bert-huge"], "There is no architecture 'bert-huge'"),
        (["--synthetic", "bert-tiny", "--tokens", "513"], "512 positions: ask for no more tokens"),
        (["--synthetic", "bert-tiny", "--checkpoint", "x"], "exclude each other: give one of them"),
        (["--preset", "fast"], "There is no preset 'fast'"),
        (["--report", "no/such/page.html"], "no/such is not a directory"),
        (["--config", "no/such.yaml"], "cannot be read"),
    ],
)
def test_wrong_options_start_nothing(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["secformer-rt", "bench", "inference", *words])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code in (BadConfigError.exit_code, BadInputError.exit_code)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
