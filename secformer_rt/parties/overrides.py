"""Values for single keys of a configuration, as the command line gives them: ``timeouts.progress_s=60``."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from secformer_rt.errors import BadConfigError

OPTION = "--set"


def override(given: object, words: Sequence[str], kind: type[BaseModel]) -> object:
    """What a configuration says once some of its keys have been given other values.

    Args:
        given: the configuration as YAML has it, which is not changed.
        words: ``KEY=VALUE``, with dots in the key. The value is a YAML scalar; a later one wins.
        kind: what the configuration is validated as, for the names of keys.

    Returns:
        A configuration to be validated. Relative paths have become absolute, since they are relative to
        where the command line was written.

    Raises:
        BadConfigError: a word has no value, or there is no such key.
    """
    changed: Any = deepcopy(given) if isinstance(given, dict) else given
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise BadConfigError(f"{OPTION} {word}: write KEY=VALUE, as in timeouts.progress_s=60.")
        *parents, leaf = key.split(".")
        is_path = _is_path(kind, key)
        changed = changed if isinstance(changed, dict) else {}
        section = changed
        for parent in parents:
            inner = section.get(parent)
            section[parent] = inner if isinstance(inner, dict) else {}
            section = section[parent]
        value = _scalar(text)
        section[leaf] = str(Path.cwd() / value) if is_path and value else value
    return changed


def _scalar(text: str) -> str | None:
    """Text, which the key's own type makes a number or a truth value of; null, and what is in quotes.

    An address must not become a number: YAML reads 10:20 in base 60.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:  # such as [::1]:7200
        return text
    return value if value is None or isinstance(value, str) else text


def _is_path(kind: type[BaseModel], key: str) -> bool:
    """Whether a key stands for a path.

    Raises:
        BadConfigError: there is no such key.
    """
    section: type[BaseModel] | None = kind
    annotation: object = kind
    names = key.split(".")
    for depth, name in enumerate(names):
        if section is None:  # in a mapping whose keys are values: its validator knows them
            return False
        if name not in section.model_fields:
            known = ", ".join(".".join((*names[:depth], other)) for other in section.model_fields)
            raise BadConfigError(f"{OPTION} {key}: there is no such key, choose one of {known}.")
        annotation = section.model_fields[name].annotation
        section = _section(annotation)
    return annotation is Path or Path in get_args(annotation)


def _section(annotation: object) -> type[BaseModel] | None:
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
