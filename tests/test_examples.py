"""The examples, run as a reader runs them: with a made-up checkpoint, and with one's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graph.families import CASES
from tests.test_api import add_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == expect, done.stderr
    return done


def test_private_search() -> None:
    lines = run("private_search.py").stdout.splitlines()
    assert lines[0] == "How do I bake bread with yeast?"
    cosines = [float(line.split()[0]) for line in lines[1:4]]
    assert cosines == sorted(cosines, reverse=True)
    assert lines[1].endswith("Mix flour, water, salt and yeast, and bake the bread in a hot oven.")
    assert re.fullmatch(r"\d+ rounds and \d+\.\d MB for the query", lines[4])


def test_private_classification_of_ones_own_checkpoint(tmp_path: Path) -> None:
    lines = run("private_classification.py", add_tokenizer(CASES["distilbert"].write(tmp_path))).stdout
    found = re.findall(r"^(label \d) \((\d\.\d{3})\)  (.+)$", lines, re.MULTILINE)
    assert len(found) == 3
    assert all(1 / 3 <= float(probability) <= 1 for _, probability, _ in found)
    assert [text[:6] for _, _, text in found] == ["I love", "It bro", "A quie"]


def test_cost_of_my_checkpoint() -> None:
    head, *rows = run("cost_of_my_checkpoint.py").stdout.splitlines()
    assert head.split()[:3] == ["preset", "rounds", "MB"]
    assert [row.split()[0] for row in rows] == ["exact", "secformer", "mpcformer"]
    assert all(float(number) > 0 for row in rows for number in row.split()[1:])


@pytest.mark.parametrize(
    "name", ["private_search.py", "private_classification.py", "cost_of_my_checkpoint.py"]
)
def test_one_sentence_for_a_wrong_path(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path / "none", expect=11)
    assert re.search(r"^error: .*none is not a directory: .*\.$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_cost_of_integrity() -> None:
    lines = run("cost_of_integrity.py", "bert-tiny", 16, "exact").stdout.splitlines()
    found = [re.search(r"(\d+) MB, with MACs (\d+) MB", line) for line in lines]
    assert len([match for match in found if match and int(match[2]) > int(match[1])]) == 2
    assert re.fullmatch(r"rounds: (\d+), with MACs \d+", lines[-1])
