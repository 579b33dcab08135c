"""Numbers as people read them."""

from __future__ import annotations

from math import isfinite

SPACE = "\u00a0"  # between a number and its unit, which belong on one line
SMALL = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
NAMES = {
    "gelu": "GeLU",
    "relu": "ReLU",
    "layernorm": "LayerNorm",
    "matmul": "attention products",
    "linear": "linear layers",
    "local": "local work",
    "reciprocal": "1/x",
    "rsqrt": "1/√x",
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def seconds(value: float) -> str:
    """Seconds, or parts of one where those read better."""
    if value >= 100:
        return f"{value:,.0f}{SPACE}s"
    if value >= 10:
        return f"{value:.1f}{SPACE}s"
    if value >= 0.0995:
        return f"{value:.2f}{SPACE}s"
    if value >= 0.0009995:
        return f"{_three(value * 1e3)}{SPACE}ms"
    return f"{value * 1e6:.0f}{SPACE}µs" if value > 0 else f"0{SPACE}s"


def about(value: float) -> str:
    """Seconds with no more digits than a prediction deserves."""
    if value < 1:
        return seconds(value)
    return f"{value:.1f}{SPACE}s" if value < 9.95 else f"{value:,.0f}{SPACE}s"


def size(count: float) -> str:
    """Bytes, in powers of 1000."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit * 0.9995:
            return f"{_three(count / limit)}{SPACE}{unit}"
    return f"{count:,.0f}{SPACE}B"


def _three(value: float) -> str:
    """Three significant digits of a number from 1."""
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def tick(value: float) -> str:
    """A number beside an axis, with no more digits than it has."""
    return f"{value:,.12g}"


def power(value: float) -> str:
    """A small number, such as an error."""
    if value == 0 or not isfinite(value):
        return f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}{SPACE}×{SPACE}{_ten(int(exponent))}"


def power_tick(value: float) -> str:
    """The same beside an axis."""
    digits, exponent = f"{value:.0e}".split("e")
    return _ten(int(exponent)) if digits == "1" else f"{digits}·{_ten(int(exponent))}"


def _ten(exponent: int) -> str:
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def percent(part: float) -> str:
    """A part of one."""
    return f"{100 * part:.0f}{SPACE}%"


def rate(mbit: float | None) -> str:
    """10^6 bits a second."""
    if mbit is None:
        return "no limit"
    return f"{mbit / 1e3:,.3g}{SPACE}Gbit/s" if mbit >= 1000 else f"{mbit:,.3g}{SPACE}Mbit/s"


def count(number: int, noun: str) -> str:
    """As in "449 rounds"."""
    return f"{number:,}{SPACE}{noun}{'' if number == 1 else 's'}"


def counted(number: int, noun: str) -> str:
    """The same at the start of a sentence, small numbers in words."""
    return (
        f"{SMALL[number]} {noun}{'' if number == 1 else 's'}" if number < len(SMALL) else count(number, noun)
    )


def operation(name: str) -> str:
    """An operation's name."""
    return NAMES.get(name, name)


def link(name: str) -> str:
    """As in "server0 – server1"."""
    return name.replace("_", " – ")


def capital(text: str) -> str:
    """With a capital letter, whatever follows."""
    return text[:1].upper() + text[1:]


def joined(words: list[str]) -> str:
    """As in "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
