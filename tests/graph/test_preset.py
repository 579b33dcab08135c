from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import load_preset

from .conftest import PRESETS


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_bundled_presets_load_by_name_and_by_path(path: Path) -> None:
    preset = load_preset(path.stem, PRESETS)
    assert preset.name == path.stem
    assert load_preset(str(path), Path("nowhere")) == preset


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(BadConfigError, match=r"no preset 'fast': choose one of .*exact.*secformer"):
        load_preset("fast", PRESETS)


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("gelu", "period"), -1.0, "gelu.fourier.period"),
        (("gelu", "cuts"), 1.0, "gelu.fourier.cuts"),
        (("softmax", "protocol"), "fancy", "softmax"),
        (("softmax", "clip"), 3, "softmax.exact.clip"),
        (("softmax", "clip"), 9, "softmax.exact"),
        (("comparison",), "magic", "comparison"),
        (("softmax", "division", "segments"), 0, "softmax.exact.division.seeded.segments"),
        (("layernorm", "rsqrt"), {"protocol": "goldschmidt"}, "layernorm.rsqrt.goldschmidt.iterations"),
        (("tanh",), None, "tanh"),
        (("name",), "Not A Name", "name"),
    ],
)
def test_errors_name_the_key(tmp_path: Path, keys: tuple[str, ...], value: object, named: str) -> None:
    content = yaml.safe_load((PRESETS / "exact.yaml").read_text(encoding="utf-8"))
    target = content
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(BadConfigError, match=f"{named}: "):
        load_preset(str(path), PRESETS)


@pytest.mark.parametrize("content", ["name: [", "- a\n- b\n", ""])
def test_not_a_preset_at_all(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadConfigError, match=r"broken\.yml is not valid: "):
        load_preset(str(path), PRESETS)


def changed(tmp_path: Path, key: str, value: object) -> str:
    content = yaml.safe_load((PRESETS / "exact.yaml").read_text(encoding="utf-8")) | {key: value}
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("key", "value", "choices"),
    [
        ("gelu", {"protocol": "magic"}, ("fourier", "even", "quad", "polynomial", "tanh", "relu")),
        ("tanh", {"protocol": "magic"}, ("fourier", "polynomial")),
        ("softmax", {"protocol": "magic"}, ("2quad", "2relu", "exact")),
        ("layernorm", {"protocol": "magic", "rsqrt": {"protocol": "seeded"}}, ("normalised", "affine")),
        ("layernorm", {"rsqrt": {"protocol": "magic"}}, ("goldschmidt", "newton", "seeded")),
        ("comparison", "magic", ("tables", "adder")),
    ],
)
def test_an_unknown_protocol_is_answered_with_the_choices(
    tmp_path: Path, key: str, value: object, choices: tuple[str, ...]
) -> None:
    with pytest.raises(BadConfigError) as caught:
        load_preset(changed(tmp_path, key, value), PRESETS)
    assert all(f"'{choice}'" in str(caught.value) for choice in choices)


@pytest.mark.parametrize(
    ("cuts", "pieces", "what"),
    [
        ([0.0], [[0.0]], "1 cuts separate 2 pieces"),
        ([1.0, 0.0], [[0.0], [1.0], [2.0]], "cuts must increase"),
        ([0.0], [[0.0], [0.0] * 8], "one to seven coefficients"),
    ],
)
def test_pieces_must_match_their_cuts(
    tmp_path: Path, cuts: list[float], pieces: list[list[float]], what: str
) -> None:
    choice = {"protocol": "polynomial", "cuts": cuts, "pieces": pieces}
    with pytest.raises(BadConfigError, match=what):
        load_preset(changed(tmp_path, "gelu", choice), PRESETS)


@pytest.mark.parametrize(
    ("name", "key", "value", "what"),
    [
        ("crypten", "tanh", "east", "needs a tanh by fourier"),
        ("swift", "softmax", "the-x", "take full rings for 2relu"),
        ("swift", "layernorm", "the-x", "take full rings for affine"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, name: str, key: str, value: str, what: str) -> None:
    one, other = (yaml.safe_load((PRESETS / f"{n}.yaml").read_text(encoding="utf-8")) for n in (name, value))
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump(one | {key: other[key]}), encoding="utf-8")
    with pytest.raises(BadConfigError, match=what):
        load_preset(str(path), PRESETS)
