"""Pages as a browser reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

from secformer_rt.clients.machine import MachineNote
from secformer_rt.pages.parts import Page
from secformer_rt.pages.write import Notes, render

NOTES = Notes(datetime(2026, 3, 4, 5, 6, tzinfo=UTC), "9.8.7", MachineNote(3, "Some CPU"))


def read(page: Page) -> ElementTree.Element:
    return ElementTree.fromstring(render(page, NOTES))


def words(element: ElementTree.Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def section(page: ElementTree.Element, name: str) -> ElementTree.Element:
    found = page.find(f".//section[@id='{name}']")
    assert found is not None, name
    return found


def table(part: ElementTree.Element) -> list[list[str]]:
    """The rows behind the line that opens them."""
    return [[words(cell) for cell in row] for row in part.findall("./details//tbody/tr")]
