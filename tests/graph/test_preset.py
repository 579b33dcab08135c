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
        (("gelu", "period"), -1.0, "gelu.period"),
        (("gelu", "cuts"), 1.0, "gelu.cuts"),
        (("softmax", "protocol"), "fancy", "softmax"),
        (("softmax", "clip"), 9, "softmax.exact.clip"),
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
