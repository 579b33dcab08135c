"""A few steps of a tiny student: it learns, goes on where it was stopped, and is an ordinary checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest
import torch

from secformer_rt.cli import presets_directory
from secformer_rt.distillation.export import save_student
from secformer_rt.distillation.job import REPORT, Texts, distil
from secformer_rt.distillation.passages import Batches, encode, read_lines
from secformer_rt.distillation.settings import TrainingSettings
from secformer_rt.distillation.state import FILE
from secformer_rt.distillation.tasks import Example, find_task
from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.checkpoint import load_checkpoint
from secformer_rt.graph.named_preset import named_preset
from secformer_rt.graph.tokenizer import Tokenizer
from tests.distillation.models import TEXTS, write_teacher, write_texts
from tests.graph.families import CASES
from tests.protocols.common import preset

SETTINGS = TrainingSettings(steps=12, batch_tokens=64, tokens=16, rate=1e-3, warm_up=2)


class Stopped(Exception):
    """Somebody has pulled the plug."""


def run(
    directory: Path, output: str, stop_after: int | None = None, settings: TrainingSettings = SETTINGS
) -> list[float]:
    """Distil; returns the loss of each step that was run."""
    seen: list[float] = []

    def on_step(done: int, parts: Mapping[str, float]) -> None:
        seen.append(sum(parts.values()))
        if done == stop_after:
            raise Stopped

    teacher = directory / "teacher"
    if not teacher.is_dir():
        write_teacher(teacher)
    texts = Texts((write_texts(directory / "texts"),))
    cpu = torch.device("cpu")
    distil(
        teacher,
        texts,
        directory / output,
        preset("secformer"),
        settings,
        cpu,
        lambda _: None,
        on_step,
        save_every_s=0,
    )
    return seen


def test_it_learns_and_names_its_preset(tmp_path: Path) -> None:
    losses = run(tmp_path, "student")
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    student = load_checkpoint(tmp_path / "student")
    assert student.labels == ("not_entailment", "entailment")
    assert named_preset(tmp_path / "student", presets_directory()) == preset("secformer")
    report = json.loads((tmp_path / "student" / REPORT).read_text())
    before, after = (report["fidelity"][key]["squared_difference"] for key in ("before", "after"))
    assert after < before
    assert not (tmp_path / "student" / FILE).exists()
    assert Tokenizer.load(tmp_path / "student").encode(["the cat"]).tokens == 4


def test_it_goes_on_bit_by_bit(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole")
    with pytest.raises(Stopped):
        run(tmp_path, "parts", stop_after=6)
    assert (tmp_path / "parts" / FILE).exists()
    # What the sixth step did was not saved yet, so it is done again.
    assert run(tmp_path, "parts") == whole[5:]
    one, other = (load_checkpoint(tmp_path / name).parameters for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, "student", stop_after=2)
    with pytest.raises(BadConfigError, match="other settings, teacher or texts"):
        run(tmp_path, "student", settings=SETTINGS.model_copy(update={"seed": 1}))
    (tmp_path / "student" / FILE).write_bytes(b"torn")
    with pytest.raises(BadConfigError, match="is damaged: remove it"):
        run(tmp_path, "student")


def test_a_student_is_not_written_over(tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher")
    with pytest.raises(BadConfigError, match="teacher's own directory"):
        run(tmp_path, "teacher")
    write_teacher(tmp_path / "other")
    with pytest.raises(BadConfigError, match="holds a checkpoint already"):
        run(tmp_path, "other")


@pytest.mark.parametrize("family", CASES)
def test_every_family_is_written_as_it_is_read(tmp_path: Path, family: str) -> None:
    teacher = load_checkpoint(CASES[family].write(tmp_path / "teacher"))
    student = {
        name: value + (0 if name in ("embeddings.table", "embeddings.positions") else 0.25)
        for name, value in teacher.parameters.items()
    }
    save_student(teacher, student, preset("mpcformer"), tmp_path / "student")
    found = load_checkpoint(tmp_path / "student")
    assert found.architecture == teacher.architecture
    for name, value in student.items():
        torch.testing.assert_close(found.parameters[name], value, rtol=1e-6, atol=1e-6)


def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.load(write_teacher(directory / "teacher"))


def test_long_texts_become_windows_and_long_pairs_are_cut(tmp_path: Path) -> None:
    words = " ".join(["cat", "dog", "bird", "fish"] * 5)
    (pair,) = encode(tokenizer(tmp_path), [Example(words, "the dog")], 12)
    assert len(pair.ids) == 12
    assert pair.ids[-1] == pair.types[-1] + 2  # [SEP] has id 3, and the second text's type 1
    windows = encode(tokenizer(tmp_path), [Example(words), Example(" \u200b")], 12)
    assert all(len(window.ids) <= 12 and (window.ids[0], window.ids[-1]) == (2, 3) for window in windows)
    seen = [window.ids[1:-1] for window in windows]
    assert seen[0][5:] == seen[1][:5]
    assert len(windows) == 3
    assert seen[-1][-1] == seen[0][3]  # the text's last word is a fish


def test_batches_are_the_same_wherever_one_starts(tmp_path: Path) -> None:
    passages = encode(tokenizer(tmp_path), [Example(text) for text in TEXTS], 16)
    batches = Batches(passages, 48, 0, seed=3)
    first = [batch.token_ids for batch in islice(batches.starting_at(0), 30)]
    later = [batch.token_ids for batch in islice(batches.starting_at(17), 13)]
    assert all(torch.equal(one, other) for one, other in zip(first[17:], later, strict=True))
    assert all(ids.numel() <= 48 for ids in first)
    other = next(Batches(passages, 48, 0, seed=4).starting_at(0)).token_ids
    assert not torch.equal(first[0], other)


def test_texts_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_text("\n \n")
    with pytest.raises(BadInputError, match="holds no text"):
        read_lines(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_lines(path)
    path.write_text("one\ntwo\n")
    with pytest.raises(BadInputError, match="too few texts"):
        Texts((path,)).read(0)


def test_files_of_a_task(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("index\tsentence1\tsentence2\tlabel\n0\tA cat.\tA dog.\tentailment\n")
    train, held = Texts((path,), (path,), find_task("RTE")).read(0)
    assert train == held == [Example("A cat.", "A dog.", 0)]
