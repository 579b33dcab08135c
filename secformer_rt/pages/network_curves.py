"""How predicted seconds depend on the network: curves along one of its numbers, tables over both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from secformer_rt.pages.charts import Series, curves, heat
from secformer_rt.pages.parts import Curves, Section, Table
from secformer_rt.pages.scale import logarithmic
from secformer_rt.pages.wording import about, rate, tick
from secformer_rt.scheduler.network import CUSTOM, Network
from secformer_rt.scheduler.predict import Machine, Prediction, Work, predict

ROUND_TRIPS = (0.1, 1.0, 10.0, 100.0)  # ms
RATES = (10.0, 100.0, 1_000.0, 10_000.0)  # Mbit/s
POINTS = 25  # of a curve
FIXED_RATE, FIXED_ROUND_TRIP = 1_000.0, 20.0
GRID_ROUND_TRIPS = (0.2, 1.0, 5.0, 20.0, 80.0, 200.0)
GRID_RATES = (50.0, 200.0, 1_000.0, 10_000.0)

Works = Mapping[str, Work]
At = Callable[[float], Network]


def network(rtt_ms: float, mbit: float) -> Network:
    """One to predict for."""
    return Network(name=CUSTOM, rtt_ms=rtt_ms, mbit=mbit)


def curve_section(works: Works, machine: Machine) -> Section:
    """Seconds against round trip and against rate, of one preset or of several."""

    def by_round_trip(rtt_ms: float) -> Network:
        return network(rtt_ms, FIXED_RATE)

    def by_rate(mbit: float) -> Network:
        return network(FIXED_ROUND_TRIP, mbit)

    along = (
        (f"against round trip, at {rate(FIXED_RATE)}", "round trip, ms", ROUND_TRIPS, by_round_trip),
        (f"against rate, at {FIXED_ROUND_TRIP:g}\u00a0ms", "Mbit/s, each direction", RATES, by_rate),
    )
    if len(works) == 1:
        (work,) = works.values()
        lines = {"Seconds": {"online": (work, _online), "both phases": (work, _total)}}
    else:
        lines = {
            "Online": {preset: (work, _online) for preset, work in works.items()},
            "Offline and online": {preset: (work, _total) for preset, work in works.items()},
        }
    figures = [
        _drawn(f"{what} {title}", label, ticks, at, chosen, machine)
        for what, chosen in lines.items()
        for title, label, ticks, at in along
    ]
    return Section(
        "network",
        "What the network costs",
        "Round trips are paid once a round, and bytes once. Both axes are logarithmic, seconds upwards.",
        figures,
        Table(
            ("preset", "round trip, ms", "Mbit/s", "offline", "online"),
            tuple(
                (
                    preset,
                    tick(found.rtt_ms),
                    tick(found.mbit or 0),
                    f"{taken.offline:.2f}",
                    f"{taken.online:.2f}",
                )
                for preset, work in works.items()
                for found in (*map(by_round_trip, ROUND_TRIPS), *map(by_rate, RATES))
                for taken in (predict(work, found, machine),)
            ),
        ),
    )


def _online(prediction: Prediction) -> float:
    return prediction.online


def _total(prediction: Prediction) -> float:
    return prediction.total


def _drawn(
    title: str,
    label: str,
    ticks: tuple[float, ...],
    at: At,
    lines: Mapping[str, tuple[Work, Callable[[Prediction], float]]],
    machine: Machine,
) -> Curves:
    ratio = (ticks[-1] / ticks[0]) ** (1 / (POINTS - 1))
    xs = [ticks[0] * ratio**n for n in range(POINTS)]
    xs[-1] = ticks[-1]  # exactly
    series = [
        Series(name, [(x, of(predict(work, at(x), machine))) for x in xs])
        for name, (work, of) in lines.items()
    ]
    return curves(title, series, label, tick, about, tick, ticks)


def heat_section(works: Works, machine: Machine) -> Section:
    """Online seconds over both numbers, one table for each preset, all shaded alike."""
    taken = {
        preset: {
            f"{rtt_ms:g}\u00a0ms": [
                predict(work, network(rtt_ms, mbit), machine).online for mbit in GRID_RATES
            ]
            for rtt_ms in GRID_ROUND_TRIPS
        }
        for preset, work in works.items()
    }
    scale = logarithmic([value for rows in taken.values() for row in rows.values() for value in row])
    columns = [rate(mbit) for mbit in GRID_RATES]
    return Section(
        "grid",
        "Online seconds by round trip and rate",
        "The stronger the shade, the slower.",
        [heat(preset, "round trip", columns, rows, about, scale) for preset, rows in taken.items()],
    )
