"""Labelled texts from files: GLUE's tables as they are distributed, and JSON lines with the same fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from secformer_rt.errors import BadConfigError, BadInputError


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or a pair of texts; ``label`` is a class's number or a score, or None where there is none."""

    first: str
    second: str | None = None
    label: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """How a GLUE task is written down, and what counts.

    ``classes`` in the order of GLUE's label numbers; none where the label is a score. ``columns`` name the
    texts, then the label, in a file's first line; ``places`` stand in for it where a file has no such line.
    ``json_fields`` are those of JSON lines, where they are called otherwise.
    """

    name: str
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    json_fields: tuple[str, ...] = ()


TASKS = {
    task.name.lower(): task
    for task in (
        Task("CoLA", ("matthews",), ("sentence", "label"), ("unacceptable", "acceptable"), places=(3, 1)),
        Task("SST-2", ("accuracy",), ("sentence", "label"), ("negative", "positive")),
        Task(
            "MRPC",
            ("accuracy", "f1"),
            ("#1 String", "#2 String", "Quality"),
            ("not_equivalent", "equivalent"),
            json_fields=("sentence1", "sentence2", "label"),
        ),
        Task(
            "STS-B",
            ("pearson", "spearman"),
            ("sentence1", "sentence2", "score"),
            json_fields=("sentence1", "sentence2", "label"),
        ),
        Task("QNLI", ("accuracy",), ("question", "sentence", "label"), ("entailment", "not_entailment")),
        Task("RTE", ("accuracy",), ("sentence1", "sentence2", "label"), ("entailment", "not_entailment")),
    )
}


def find_task(name: str) -> Task:
    """A task by name, in any case, with or without its hyphen.

    Raises:
        BadConfigError: there is no such task.
    """
    wanted = name.lower().replace("-", "").replace("_", "")
    for key, task in TASKS.items():
        if key.replace("-", "") == wanted:
            return task
    known = ", ".join(task.name for task in TASKS.values())
    raise BadConfigError(f"There is no task {name!r}: choose one of {known}.")


def read_task(path: Path, task: Task) -> list[Example]:
    """Read a TSV file, or JSON lines from a file that is called .json or .jsonl.

    Raises:
        BadInputError: the file cannot be read, or is not this task's, or a line is broken; it says which.
    """
    try:
        # GLUE's MRPC begins with a byte order mark. Lines end where the file says, not at U+2028 in a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read as text: give a TSV file or JSON lines.") from error
    rows = [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    reader = _json_row if path.suffix in {".json", ".jsonl"} else _table(path, task, rows)
    examples = [reader(path, task, number, line) for number, line in rows]
    if not examples:
        raise BadInputError(f"{path} holds no example: give a file of {task.name} with at least one.")
    return examples


_Reader = Callable[[Path, Task, int, str], Example]


def _table(path: Path, task: Task, rows: list[tuple[int, str]]) -> _Reader:
    """A reader of rows by the columns that the first line names; that line is taken off ``rows``."""
    names = rows[0][1].split("\t") if rows else []
    if not set(task.columns[:-1]) & set(names) and task.places:
        places: Sequence[int] = task.places
    elif missing := [name for name in task.columns if name not in names]:
        hint = (
            "take dev.tsv, since test files have no labels"
            if missing == [task.columns[-1]]
            else "name its task"
        )
        raise BadInputError(f"{path} has no column {missing[0]!r}, which {task.name} has: {hint}.")
    else:
        places = [names.index(name) for name in task.columns]
        del rows[0]

    def read(path: Path, task: Task, number: int, line: str) -> Example:
        fields = line.split("\t")
        if len(fields) <= max(places):
            raise BadInputError(
                f"Line {number} of {path} has {len(fields)} columns, fewer than {task.name}'s: correct it."
            )
        *texts, label = (fields[place] for place in places)
        return _example(path, task, number, texts, label)

    return read


def _json_row(path: Path, task: Task, number: int, line: str) -> Example:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInputError(f"Line {number} of {path} is not JSON: give an object a line.") from error
    for fields in (task.json_fields, task.columns):
        if fields and isinstance(row, dict) and all(field in row for field in fields):
            *texts, label = (row[field] for field in fields)
            if all(isinstance(text, str) for text in texts):
                return _example(path, task, number, texts, str(label))
    wanted = ", ".join(task.json_fields or task.columns)
    raise BadInputError(f"Line {number} of {path} must be an object with {wanted}: correct it.")


def _example(path: Path, task: Task, number: int, texts: Sequence[str], label: str) -> Example:
    first, second = texts[0], texts[1] if len(texts) > 1 else None
    if label in task.classes:
        return Example(first, second, float(task.classes.index(label)))
    try:
        value = float(label)
    except ValueError:
        value = -1.0
    if task.classes and value not in range(len(task.classes)):
        raise BadInputError(
            f"Line {number} of {path} has label {label!r}: give one of {', '.join(task.classes)}."
        )
    return Example(first, second, value)
