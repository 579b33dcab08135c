"""Every page is whole, needs nothing else, and says what its command has found."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from secformer_rt.pages.inference_page import inference_page
from secformer_rt.pages.network_page import network_page
from secformer_rt.pages.plan_page import plan_page
from secformer_rt.pages.run_page import run_page
from secformer_rt.pages.write import render
from secformer_rt.scheduler.network import Network
from secformer_rt.scheduler.predict import Machine, predict
from tests.pages.examples import (
    PAGES,
    WORK,
    inference_summary,
    network_summary,
    plan_summary,
    profile,
    run_summary,
)
from tests.pages.reading import NOTES, read, section, table, words

SECTIONS = {
    "run": ["time", "traffic", "links", "phases", "accuracy", "memory"],
    "plan": ["seconds", "network", "grid", "operations", "links"],
    "plans": ["seconds", "network", "grid", "totals", "operations"],
    "network": ["seconds", "links"],
    "ops": ["seconds", "errors"],
    "inference": ["seconds", "profile", "roofline", "growth"],
}
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\udcff\"'><img src=x onerror=y>&"


@pytest.mark.parametrize("name", PAGES)
def test_sections(name: str) -> None:
    page = read(PAGES[name]())
    assert [part.get("id") for part in page.iter("section")] == SECTIONS[name]
    for part in page.iter("section"):
        assert words(part.find("h2"))
        assert part.find(".//figure") is not None


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_nothing_else(name: str) -> None:
    page = read(PAGES[name]())
    assert not {element.tag for element in page.iter()} & {"script", "link", "img", "iframe", "object"}
    for element in page.iter():
        assert not element.attrib.keys() & {"src", "href", "srcset", "data"}
        assert not any(key.startswith("on") for key in element.attrib)
    text = render(PAGES[name](), NOTES)
    assert not re.search(r"https?:|//|url\(|@import", text)
    (policy,) = (m.get("content") for m in page.iter("meta") if m.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert len(text) < 200_000


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_told_in_words(name: str) -> None:
    for figure in read(PAGES[name]()).iter("figure"):
        assert words(figure.find("figcaption"))
        drawn = [element for element in figure.iter() if element.get("role") == "img"]
        assert figure.find(".//table") is not None or len(drawn) == 1
        assert all(len(element.get("aria-label") or "") > 20 for element in drawn)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_lies_outside_its_track(name: str) -> None:
    shares = re.findall(r"(?:width|left):(-?[\d.]+)%", render(PAGES[name](), NOTES).split("</style>")[1])
    assert all(0 <= float(share) <= 100 for share in shares)
    for line in read(PAGES[name]()).iter("polyline"):
        places = [tuple(map(float, place.split(","))) for place in (line.get("points") or "").split()]
        assert len(places) > 1
        assert all(40 < x < 340 and 10 < y < 225 for x, y in places)


@pytest.mark.parametrize("name", PAGES)
def test_when_where_and_by_what(name: str) -> None:
    page = read(PAGES[name]())
    assert words(page.find("head/title")).endswith("2026-03-04")
    footer = words(page.find("body/footer"))
    assert "secformer-rt 9.8.7 on 2026-03-04 05:06 UTC, on 3 cores of Some CPU" in footer


def test_headlines() -> None:
    said = {name: words(read(make()).find(".//h1")) for name, make in PAGES.items()}
    assert said == {
        "run": "Two texts in 0.98 s online, over 449 rounds and 33.2 MB.",
        "plan": "One text would take 427 rounds and 751 MB: about 10 s online on lan.",
        "plans": "Of two presets, exact needs the fewest rounds, 427,"
        " and mpcformer the fewest bytes, 582 MB.",
        "network": "One inference takes 5.80 s online on wan, 1.04 times what the plan predicts.",
        "ops": "GeLU and ReLU: 0.60 s online at most.",
        "inference": "One text of 128 tokens in 2.25 s online, 18.0 times plaintext.",
    }


def test_where_the_time_of_a_run_goes() -> None:
    part = section(read(PAGES["run"]()), "time")
    assert "LayerNorm took the most, 59 % of server 0’s online time" in words(part)
    operations, layers = part.findall(".//figure")
    assert operations.find("./div").get("aria-label") == (  # type: ignore[union-attr]
        "Online seconds by operation. LayerNorm 0.59\u00a0s; GeLU 0.30\u00a0s; embedding 0.11\u00a0s."
    )
    assert [words(row.find("span")) for row in layers.findall("./div/div")] == [
        "embeddings",
        "layer.0",
        "layer.1",
    ]
    widths = [float((i.get("style") or "")[6:-1]) for i in layers.findall("./div/div/span/i")]
    assert widths == pytest.approx([13.75, 37.5, 62.5, 11.25])
    assert table(part)[1] == ["layer.0", "GeLU", "0.3000", "8", "1,397,760"]


def test_links_are_held_against_the_plan() -> None:
    part = section(read(PAGES["run"]()), "links")
    assert "exactly the bytes that were planned" in words(part)
    assert table(part)[0] == ["server0 – server1", *("33,150,118",) * 2, "33,150,127", "357,488,640"]
    assert table(part)[1][-1] == "–"
    other = section(read(run_page(run_summary(planned_rounds=448))), "links")
    assert "What was sent differs from the plan." in words(other)


def test_an_inference_beside_plaintext_and_the_machines_peaks() -> None:
    page = read(PAGES["inference"]())
    assert "18.0 times, and all of it 56.0 times, the float32 model" in words(section(page, "seconds"))
    assert table(section(page, "seconds"))[1] == ["online", "2.0000", "2.5000", "2.2500"]
    assert "Matrix products: 25 % of server 0’s online time" in words(section(page, "profile"))
    roof = section(page, "roofline")
    assert "would take 1.15 s online" in words(roof) or "would take 1.14 s online" in words(roof)
    assert table(roof)[0] == ["online", "10.000", "3.000", "0.8000"]
    assert len(table(section(page, "growth"))) == 3
    assert "0.2 inferences a second" in words(page.find(".//header"))
    small = read(inference_page(inference_summary(growth=[], throughput=None)))
    assert [part.get("id") for part in small.iter("section")] == ["seconds", "profile", "roofline"]


@pytest.mark.parametrize("insecure", [False, True])
def test_links_in_plain_text_are_told_at_once(insecure: bool) -> None:
    wan = network_summary(wan=profile(40.0, 200.0, 5.8, 5.6))
    for page in (
        run_page(run_summary(insecure=insecure)),
        network_page(wan, model="m", preset="p", asked="1 text", insecure=insecure),
    ):
        header = read(page).find(".//header")
        assert ("INSECURE: links were in plain text." in words(header)) is insecure
        assert ("Links were encrypted," in words(header)) is not insecure
    assert "encrypted" not in words(read(PAGES["plan"]()))


def test_names_are_text_whatever_they_are() -> None:
    shown = HOSTILE.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd").replace("\udcff", "\ufffd")
    pages = [
        run_page(run_summary(model=HOSTILE, preset=HOSTILE)),
        plan_page([plan_summary(HOSTILE), plan_summary()], [WORK, WORK], Machine()),
        network_page(
            network_summary(wan=profile(40.0, 200.0, 5.8, 5.6)), model=HOSTILE, preset=HOSTILE, asked="1 text"
        ),
    ]
    for page in pages:
        render(page, NOTES).encode()
        found = read(page)
        assert not list(found.iter("script")) + list(found.iter("img"))
        assert shown in words(found.find(".//header"))


@pytest.mark.parametrize("error", [0.0, float("nan"), float("inf")])
def test_an_answer_may_be_no_number(error: float) -> None:
    fidelity = dict.fromkeys(("cosine_min", "max_abs_error_vs_oracle", "max_abs_error_vs_model"), error)
    part = section(read(run_page(run_summary(fidelity=fidelity))), "accuracy")
    assert [words(row.findall("span")[-1]) for row in part.findall(".//figure/div/div")][:2] == [
        f"{error:.0f}"
    ] * 2


def test_presets_of_one_name_are_told_apart() -> None:
    plans = [plan_summary(), plan_summary(rounds=428), plan_summary(rounds=429)]
    totals = section(read(plan_page(plans, [WORK] * 3, Machine())), "totals")
    assert [words(cell) for cell in totals.findall("./details//thead//th")][1:] == [
        "exact",
        "exact (2)",
        "exact (3)",
    ]
    assert table(totals)[0] == ["Rounds", "427", "428", "429"]


def test_predictions_are_those_of_the_plan() -> None:
    page = read(PAGES["plan"]())
    rows = {(row[1], row[2]): row[3:] for row in table(section(page, "network"))}
    far = predict(WORK, Network(name="x", rtt_ms=100, mbit=1000), Machine())
    assert rows["100", "1,000"] == [f"{far.offline:.2f}", f"{far.online:.2f}"]
    grid = section(page, "grid").findall(".//tr")
    assert [words(cell) for cell in grid[0]] == [
        "round trip",
        "50 Mbit/s",
        "200 Mbit/s",
        "1 Gbit/s",
        "10 Gbit/s",
    ]
    slow = predict(WORK, Network(name="x", rtt_ms=200, mbit=50), Machine()).online
    assert [words(cell) for cell in grid[-1]][:2] == ["200 ms", f"{slow:.0f} s"]
    shades = [
        float((cell.get("style") or "").split(":")[1]) for row in grid[1:] for cell in row.findall("td")
    ]
    assert shades[4 * 5] == max(shades)  # the longest way at the lowest rate
    assert shades[3] == min(shades)


def test_one_table_and_one_curve_for_each_preset() -> None:
    page = read(PAGES["plans"]())
    assert [words(f.find("figcaption")) for f in section(page, "grid").findall(".//figure")] == [
        "exact",
        "mpcformer",
    ]
    for figure in section(page, "network").findall(".//figure"):
        assert [words(line.find("text")) for line in figure.findall(".//svg/g")] == ["exact", "mpcformer"]
    assert table(section(page, "totals"))[0] == ["Rounds", "427", "441"]


def test_measured_beside_predicted() -> None:
    page = read(PAGES["network"]())
    rows = {tuple(row[:2]): row[2:] for row in table(section(page, "seconds"))}
    assert rows["wan", "online"] == ["7.800", "5.800", "4.800", "6.800", "5.600", "5.600", "1.036"]
    assert rows["wan", "total"][-3:] == ["–"] * 3
    assert rows["loopback", "online"][-3:] == ["–"] * 3  # predictions start from it
    online = section(page, "seconds").find(".//figure")
    assert online is not None
    loopback, wan, _ = online.findall("./div/div")
    styles = [i.get("class") for i in wan.iter("i") if i.get("class") != "grid"]
    assert styles == ["span", "nominal", "expected", "ring", "dot"]
    assert {i.get("class") for i in loopback.iter("i")} == {"grid", "span", "ring", "dot"}


def test_what_nobody_measured_is_left_out() -> None:
    found = network_summary(hosts=profile(None, None, 5.8, None))
    page = read(network_page(found, model="m", preset="p", asked="1 text"))
    assert words(page.find(".//h1")) == "One inference takes 5.80 s online between real hosts."
    assert not section(page, "links").findall(".//figure")
    assert {cell for row in table(section(page, "links")) for cell in row[2:]} == {"–"}


def test_errors_of_nothing_can_be_drawn() -> None:
    curves = section(read(PAGES["ops"]()), "errors").findall(".//figure")
    assert [words(figure.find("figcaption")) for figure in curves] == ["GeLU", "ReLU"]
    points = ElementTree.tostring(curves[1]).count(b"<circle")
    assert points == 4
