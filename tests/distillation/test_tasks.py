"""GLUE's files as they are distributed, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secformer_rt.distillation.tasks import TASKS, Example, find_task, read_task
from secformer_rt.errors import BadConfigError, BadInputError

STS = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
FILES = {
    "CoLA": (
        "gj04\t1\t\tThe cat sat.\ngj04\t0\t*\tCat the sat.\n",
        ["The cat sat.", "Cat the sat."],
        None,
        [1, 0],
    ),
    "SST-2": ("sentence\tlabel\na fine film \t1\ndull \t0\n", ["a fine film ", "dull "], None, [1, 0]),
    "MRPC": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe said "no.\tNo, he said.\r\n',
        ['He said "no.'],
        ["No, he said."],
        [1],
    ),
    "STS-B": (f"{STS}\n0\tm\tf\t2012\t24\tn\tn\tA man.\tA boy.\t3.750\n", ["A man."], ["A boy."], [3.75]),
    "QNLI": (
        "index\tquestion\tsentence\tlabel\n0\tWho?\tHe did.\tentailment\n1\tWhy?\tIt is.\tnot_entailment\n",
        ["Who?", "Why?"],
        ["He did.", "It is."],
        [0, 1],
    ),
    "RTE": (
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB\u2028C.\tnot_entailment\n",
        ["A."],
        ["B\u2028C."],
        [1],
    ),
}


@pytest.mark.parametrize("name", [task.name for task in TASKS.values()])
def test_each_format(tmp_path: Path, name: str) -> None:
    content, first, second, labels = FILES[name]
    path = tmp_path / "dev.tsv"
    path.write_bytes(content.encode())
    seconds = second or [None] * len(first)
    expected = [Example(*row) for row in zip(first, seconds, map(float, labels), strict=True)]
    assert read_task(path, find_task(name)) == expected


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("SST-2", {"sentence": "fine", "label": 1, "idx": 0}, Example("fine", None, 1)),
        ("MRPC", {"sentence1": "a", "sentence2": "b", "label": 0}, Example("a", "b", 0)),
        ("STS-B", {"sentence1": "a", "sentence2": "b", "label": 2.5}, Example("a", "b", 2.5)),
        ("QNLI", {"question": "a", "sentence": "b", "label": "not_entailment"}, Example("a", "b", 1)),
    ],
)
def test_json_lines(tmp_path: Path, name: str, row: dict[str, object], expected: Example) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps(row) + "\n\n")
    assert read_task(path, find_task(name)) == [expected]


@pytest.mark.parametrize("name", ["sts-b", "STSB", "sts_b"])
def test_names_in_any_spelling(name: str) -> None:
    assert find_task(name).name == "STS-B"


def test_no_such_task() -> None:
    with pytest.raises(BadConfigError, match="no task 'WNLI': choose one of CoLA, SST-2"):
        find_task("WNLI")


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("RTE", "test.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n", "no column 'label'.*dev.tsv"),
        ("RTE", "dev.tsv", "sentence\tlabel\na\t1\n", "no column 'sentence1'.*name its task"),
        ("SST-2", "dev.tsv", "sentence\tlabel\nno label\n", "Line 2 of .* has 1 columns"),
        ("SST-2", "dev.tsv", "sentence\tlabel\nfine\t2\n", "Line 2 of .* has label '2'"),
        ("SST-2", "dev.tsv", "sentence\tlabel\n", "holds no example"),
        ("SST-2", "dev.tsv", "", "no column"),
        ("SST-2", "dev.json", "{\n", "Line 1 of .* is not JSON"),
        ("SST-2", "dev.json", '{"label": 1}\n', "must be an object with sentence, label"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    path = tmp_path / file
    path.write_text(content)
    with pytest.raises(BadInputError, match=message):
        read_task(path, find_task(name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        read_task(tmp_path / "dev.tsv", find_task("RTE"))
