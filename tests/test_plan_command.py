"""``plan``: what it says is the plan, for every model, and as users meet it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from secformer_rt.cli import presets_directory
from secformer_rt.clients.main_job import Job, describe_job, synthetic_job
from secformer_rt.clients.plan_job import Asked, job_to_plan, plan_job, plan_presets, plan_summary
from secformer_rt.clients.plan_show import GROUPS, OTHER, group_costs
from secformer_rt.errors import BadConfigError, BadInputError, OutOfRangeError, SecformerError
from secformer_rt.graph.preset import Preset, load_preset
from secformer_rt.parties.manifest import Manifest
from secformer_rt.scheduler.network import NETWORKS
from secformer_rt.scheduler.plan import plan_graph
from secformer_rt.scheduler.predict import Machine, peak_memory

TINY = ("plan", "--synthetic", "bert-tiny", "--tokens", "5")
RUN_KEYS = {"model", "preset", "embedding", "tokens", "rounds", "bytes", "dealer_words", "operations"}


@cache
def tiny_manifest(preset: str = "exact") -> Manifest:
    """As `run --synthetic bert-tiny --tokens 5` describes it to the parties."""
    return describe_job(synthetic_job("bert-tiny", 5, 1), load_preset(preset, presets_directory()), "private")


def asked_json(ask: Any, *arguments: str) -> dict[str, Any]:
    code, out, err = ask(*arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("padded", [False, True])
def test_json_is_the_plan_that_parties_derive(ask: Any, padded: bool) -> None:
    lowering = tiny_manifest().lowering(3, 5, padded)
    plan = plan_graph(lowering)
    found = asked_json(ask, *TINY, "--batch", "3", *(["--padded"] if padded else []))
    assert set(found) == RUN_KEYS | {"peak_rss_bytes", "prepared_bytes", "seconds"}
    assert (found["model"], found["preset"], found["embedding"]) == ("bert-tiny", "exact", "private")
    assert found["tokens"] == [5, 5, 5]
    assert found["rounds"] == plan.rounds
    assert found["bytes"] == {link: {"payload": n} for link, n in plan.payload(lowering.graph).items()}
    assert found["dealer_words"] == sum(plan.dealer_bytes) // 8
    assert found["peak_rss_bytes"] == peak_memory(plan)
    assert list(found["seconds"]) == list(NETWORKS)
    for phases in found["seconds"].values():
        assert phases["total"] == pytest.approx(phases["offline"] + phases["online"])
    costs = {(o["layer"], o["op"]): o for o in found["operations"]}
    summary = plan.ledger.summary()
    assert costs.keys() == summary.keys()
    for key, cost in summary.items():
        told = costs[key]
        assert (told["rounds"], told["bytes"]) == (cost.rounds, 2 * cost.bytes)
        assert told["dealer_bytes"] == cost.dealer_bytes


def test_operations_add_up_to_the_links(ask: Any) -> None:
    found = asked_json(ask, *TINY, "--embedding", "public-tables")
    groups = group_costs(found)
    assert list(groups) == [*GROUPS, OTHER]
    assert sum(cost.bytes for cost in groups.values()) == found["bytes"]["server0_server1"]["payload"]
    dealt = found["bytes"]["dealer_server0"]["payload"] + found["bytes"]["dealer_server1"]["payload"]
    assert sum(cost.dealer_bytes for cost in groups.values()) == dealt
    assert groups["linear + matmul"].bytes == sum(
        o["bytes"] for o in found["operations"] if o["op"] in ("linear", "matmul")
    )
    assert groups["embedding"] == (0, 0, 0)


def test_a_calibrated_synthetic_model_needs_no_parameters(ask: Any, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    assert manifest.calibration is not None
    file = tmp_path / "ranges.yaml"
    manifest.calibration.save(file)
    assert not job_to_plan("bert-tiny", None, Asked(1, 5), calibrated=True).parameters
    once = asked_json(ask, *TINY, "--calibration", str(file))
    assert once == asked_json(ask, *TINY)


def test_the_default_checkpoint_is_planned_as_run_plans_it(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ("She slept.", "The river had risen overnight.")
    monkeypatch.setattr("secformer_rt.clients.main_job.bundled_texts", lambda: samples)  # few, to be quick
    asked = Asked(2, 7)
    job = job_to_plan(None, None, asked, calibrated=False)
    planned = plan_job(job, load_preset("exact", presets_directory()), "private", asked)
    found = asked_json(ask, "plan", "--tokens", "7", "--batch", "2")
    assert found == plan_summary(planned, tuple(NETWORKS.values()), Machine())
    assert found["model"] == "all-MiniLM-L6-v2"


def test_presets_side_by_side(ask: Any) -> None:
    found = asked_json(ask, *TINY, "--compare", "exact, secformer")
    assert set(found) == {"plans"}
    assert [plan["preset"] for plan in found["plans"]] == ["exact", "secformer"]
    for plan in found["plans"]:
        assert plan["rounds"] == plan_graph(tiny_manifest(plan["preset"]).lowering(1, 5, False)).rounds


def test_chosen_profiles(ask: Any) -> None:
    one = asked_json(ask, *TINY, "--profile", "wan", "--profile", "lan", "--profile", "wan")
    assert list(one["seconds"]) == ["wan", "lan"]
    assert one["seconds"]["wan"]["online"] > one["seconds"]["lan"]["online"]
    own = asked_json(ask, *TINY, "--profile", "custom", "--rtt-ms", "40", "--mbit", "200")
    assert own["seconds"] == {"custom": one["seconds"]["wan"]}
    every = asked_json(ask, *TINY, "--mbit", "50")
    assert list(every["seconds"]) == [*NETWORKS, "custom"]


def test_a_slower_machine(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text("gmac_per_s: 0.001\n")
    slow = asked_json(ask, *TINY, "--profile", "lan", "--machine", str(file))
    assert slow["seconds"]["lan"]["offline"] > asked_json(ask, *TINY)["seconds"]["lan"]["offline"]


def test_tables_for_people(ask: Any) -> None:
    code, out, err = ask(*TINY)
    assert (code, err) == (0, "")
    for expected in ("bert-tiny", "GeLU", "linear + matmul", "server0-server1", "wan-far", "rounds online"):
        assert expected in out
    code, out, err = ask(*TINY, "--compare", "exact,secformer", "--profile", "lan")
    assert (code, err) == (0, "")
    for expected in ("Whole inference", "secformer", "dealer, GB", "lan", "Rounds by operation", "softmax"):
        assert expected in out
    assert "wan" not in out


# What goes wrong: (arguments, error, what its sentence says).
FAILURES: dict[str, tuple[list[str], type[SecformerError], str]] = {
    "preset": (["--preset", "fast"], BadConfigError, "no preset 'fast': choose one of "),
    "compared preset": (["--compare", "exact,fast"], BadConfigError, "no preset 'fast': choose one of "),
    "nothing to compare": (["--compare", ","], BadConfigError, "--compare exact,secformer"),
    "profile": (["--profile", "moon"], BadConfigError, "no network profile 'moon': choose one of loopback, "),
    "no numbers": (["--profile", "custom"], BadConfigError, "--rtt-ms, --mbit or both"),
    "rate": (["--mbit", "-3"], BadConfigError, "mbit: "),
    "model": (["--synthetic", "gpt"], BadConfigError, "no architecture 'gpt': choose one of bert-tiny, "),
    "tokens": (["--tokens", "600"], BadInputError, "bert-tiny has 512 positions"),
    "embedding": (["--embedding", "none"], BadConfigError, "private or public-tables"),
    "machine": (["--machine", "nowhere.yaml"], BadConfigError, "nowhere.yaml cannot be read"),
    "calibration": (["--calibration", "nowhere.yaml"], BadConfigError, "nowhere.yaml cannot be read"),
    "both": (["--calibration", "x.yaml", "--compare", "all"], BadConfigError, "not both"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_sentence(name: str, ask: Any) -> None:
    arguments, error, pattern = FAILURES[name]
    code, out, err = ask("plan", "--synthetic", "bert-tiny", *arguments)
    assert code == error.exit_code
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.rstrip().endswith(".")
    assert re.search(pattern, err), err


def test_too_many_tokens_for_a_checkpoint() -> None:
    with pytest.raises(BadInputError, match="all-MiniLM-L6-v2 has 512 positions"):
        job_to_plan(None, None, Asked(1, 513), calibrated=False)


def test_a_failing_preset_among_several_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OutOfRangeError("A value is not finite.")

    monkeypatch.setattr("secformer_rt.clients.plan_job.describe_job", fail)
    job = job_to_plan("bert-tiny", None, Asked(1, 5), calibrated=True)
    with pytest.raises(OutOfRangeError, match=r"^Preset exact: A value is not finite\.$"):
        plan_presets(job, [load_preset("exact", presets_directory())], "private", Asked(1, 5))


def test_all_leaves_out_what_cannot_serve(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    def some(job: Job, preset: Preset, *arguments: Any) -> Manifest:
        if preset.name != "secformer":
            raise OutOfRangeError("A value is not finite.")
        return tiny_manifest("secformer")

    monkeypatch.setattr("secformer_rt.clients.plan_job.describe_job", some)
    code, out, err = ask(*TINY, "--compare", "all", "--json")
    assert (code, [plan["preset"] for plan in json.loads(out)["plans"]]) == (0, ["secformer"])
    assert "Left out: Preset the-x: A value is not finite.\n" in err
    code, out, err = ask(*TINY, "--compare", "exact,secformer", "--json")
    assert (code, out) == (OutOfRangeError.exit_code, "")
    assert "Preset exact: A value is not finite." in err
    monkeypatch.setattr(
        "secformer_rt.clients.plan_job.describe_job",
        lambda job, preset, *_: some(job, preset.model_copy(update={"name": "x"})),
    )
    code, out, err = ask(*TINY, "--compare", "all", "--json")
    assert (code, out) == (OutOfRangeError.exit_code, "")
    assert err.splitlines()[-1].startswith("error: Preset ")
