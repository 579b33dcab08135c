"""``distill`` and ``evaluate`` as users meet them, and commands that choose a student's preset."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secformer_rt.errors import BadConfigError, BadInputError, SecformerError
from secformer_rt.graph.named_preset import name_preset
from tests.distillation.models import TEXTS, write_teacher, write_texts
from tests.protocols.common import preset

Ask = Callable[..., tuple[object, str, str]]


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A random classifier that says it was trained for ``secformer``."""
    return write_teacher(tmp_path / "student", secformer_rt=name_preset(preset("secformer")))


def write_task(path: Path) -> Path:
    """Pairs of RTE, of different lengths."""
    rows = [
        f"{number}\t{first}\t{second}\t{('entailment', 'not_entailment')[number % 2]}"
        for number, (first, second) in enumerate(
            zip(TEXTS[:6], ["the cat", "a very old red dog"] * 3, strict=True)
        )
    ]
    path.write_text("index\tsentence1\tsentence2\tlabel\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("name", ["mpcformer", "mpcformer-2relu", "east", "the-x", "ditto"])
def test_distill(ask: Ask, tmp_path: Path, name: str) -> None:
    teacher, texts = write_teacher(tmp_path / "teacher"), write_texts(tmp_path / "texts")
    words = (
        "distill",
        "--teacher",
        teacher,
        "--text",
        texts,
        "--heldout",
        texts,
        "--output",
        tmp_path / "new",
    )
    few = ("--steps", 3, "--batch-tokens", 64, "--preset", name, "--device", "cpu")
    code, out, err = ask(*words, *few, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["teacher"], found["preset"], found["held_out"]) == ("teacher", name, len(TEXTS))
    assert found["settings"]["steps"] == 3
    assert "step 3 of 3" in err
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["secformer_rt"] == name_preset(preset(name))
    code, _, err = ask(*words, *few)
    assert code == BadConfigError.exit_code
    assert "holds a checkpoint already" in err


def test_commands_choose_a_students_preset(ask: Ask, student: Path, tmp_path: Path) -> None:
    words = ("calibrate", "--checkpoint", student, "--texts", write_texts(tmp_path / "texts"), "--json")
    code, out, err = ask(*words, "--output", tmp_path / "a.yaml")
    assert code == 0, err
    assert json.loads(out)["preset"] == "secformer"
    assert f"Preset secformer: {student / 'config.json'} names it." in err
    code, out, err = ask(*words, "--output", tmp_path / "b.yaml", "--preset", "exact")
    assert (code, json.loads(out)["preset"]) == (0, "exact")
    assert "names it" not in err
    plan = ("plan", "--checkpoint", student, "--tokens", 6, "--json", "--calibration", tmp_path / "a.yaml")
    code, out, err = ask(*plan)
    assert (code, json.loads(out)["preset"]) == (0, "secformer"), err


def test_evaluate_with_parties(ask: Ask, student: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "dev.tsv")
    words = ("evaluate", task, "--task", "RTE", "--checkpoint", student, "--secure-limit", 4, "--batch", 2)
    code, out, err = ask(*words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    assert (found["preset"], found["examples"], found["secure_examples"]) == ("secformer", 6, 4)
    assert found["max_abs_error_of_outputs"] < 2e-2
    assert found["agreement"]["secure_and_approximations"] == {"share": 1, "disagreements": []}
    on_four = found["on_secure_examples"]
    assert on_four["secure"] == on_four["approximations"]
    for values in (found["plaintext"], found["approximations"], *on_four.values()):
        assert values.keys() == {"accuracy"}
        assert 0 <= values["accuracy"] <= 1


def test_a_table_for_people(ask: Ask, student: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "dev.tsv")
    code, out, err = ask("evaluate", task, "--task", "RTE", "--checkpoint", student, "--secure-limit", 0)
    assert code == 0, err
    assert "RTE, student, preset secformer" in out
    assert re.search(r"plaintext +│ +6 │ +[01]\.\d{4} │", out)
    assert "secure" not in out
    assert re.search(r"approximations and plaintext agree on \d+\.\d\d %", out)
    assert not any(text in out for text in TEXTS)


CASES: dict[str, tuple[list[str], type[SecformerError], str]] = {
    "no such task": (["evaluate", "{task}", "--task", "WNLI"], BadConfigError, "no task 'WNLI'"),
    "another task's file": (["evaluate", "{task}", "--task", "MRPC"], BadInputError, "no column '#1 String'"),
    "a score from classes": (
        ["evaluate", "{sts}", "--task", "STS-B", "--checkpoint", "{student}"],
        BadInputError,
        "has 2 labels",
    ),
    "classes from an embedding": (["evaluate", "{task}", "--task", "RTE"], BadInputError, "give --threshold"),
    "a single text from an embedding": (
        ["evaluate", "{cola}", "--task", "CoLA"],
        BadInputError,
        "give a checkpoint with a classifier",
    ),
    "no such device": (
        ["distill", "--text", "{task}", "--output", "{new}", "--device", "tpu"],
        BadConfigError,
        "no device 'tpu'",
    ),
    "no texts": (["distill", "--text", "{nowhere}", "--output", "{new}"], BadInputError, "cannot be read"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong(ask: Ask, student: Path, tmp_path: Path, case: str) -> None:
    words, error, message = CASES[case]
    sts = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    (tmp_path / "sts.tsv").write_text(sts + "0\t\t\t\t0\t\t\tthe cat\tthe dog\t2\n")
    (tmp_path / "cola.tsv").write_text("gj04\t1\t\tthe cat\n")
    places = {
        "task": write_task(tmp_path / "dev.tsv"),
        "student": student,
        "sts": tmp_path / "sts.tsv",
        "cola": tmp_path / "cola.tsv",
        "new": tmp_path / "new",
        "nowhere": tmp_path / "nowhere",
    }
    code, out, err = ask(*(word.format(**places) for word in words))
    assert (code, out) == (error.exit_code, "")
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
