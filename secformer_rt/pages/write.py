"""A page as a file: one that needs no other, and no network."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secformer_rt.clients.machine import MachineNote, this_machine
from secformer_rt.errors import BadConfigError
from secformer_rt.pages.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from secformer_rt.pages.parts import Page

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
UNPRINTABLE = ("Cc", "Cf", "Cs")  # control and formatting characters, and halves of such as are not text


@dataclass(frozen=True, slots=True)
class Notes:
    """When, where and by what a page was made."""

    made: datetime = field(default_factory=lambda: datetime.now(UTC))
    release: str = field(default_factory=lambda: version("secformer-rt"))
    machine: MachineNote = field(default_factory=this_machine)


def render(page: Page, notes: Notes | None = None) -> str:
    """The page as HTML, which is well-formed XML as well. Whatever it is given is text, never markup."""
    frame = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return _template().render(page=page, notes=notes or Notes(), frame=frame)


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only a page needs it

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return environment.get_template("page.html")


def _printable(value: Any) -> Any:
    """Names come from directories and files, which may be called anything."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join("\ufffd" if unicodedata.category(sign) in UNPRINTABLE else sign for sign in value)


def check_report(path: Path) -> None:
    """Refuse a file that cannot be written to, before anything is run.

    Raises:
        BadConfigError: its directory is missing, it is no file, or it may not be written.
    """
    try:
        if not path.parent.is_dir():
            raise BadConfigError(f"{path.parent} is not a directory: name a report in one that exists.")
        existed = path.exists()
        if existed and not path.is_file():  # a device, or a pipe that nobody reads
            raise BadConfigError(f"{path} is not a file: name one that the report may be written to.")
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def write_report(page: Page, path: Path) -> None:
    """Write a page.

    Raises:
        BadConfigError: the file cannot be written; nothing is left of it.
    """
    try:
        path.write_text(render(page), encoding="utf-8")
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> BadConfigError:
    return BadConfigError(f"{path} cannot be written ({error.strerror}): name another file for the report.")
