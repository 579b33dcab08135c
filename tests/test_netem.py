"""Slow links between containers: every party is shaped, by a container that may do that and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from secformer_rt.parties.settings import ROLES
from secformer_rt.scheduler.network import NETWORKS

ROOT = Path(__file__).parent.parent
SHAPE = ROOT / "launch" / "netem" / "shape.sh"
SHAPED = (*ROLES, "client")
WAN = NETWORKS["wan"]


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["services"]
    return found


PARTIES = services("docker-compose.yml")
OVERLAY = services("docker-compose.netem.yml")


@pytest.mark.parametrize("role", SHAPED)
def test_everybody_has_a_shaper(role: str) -> None:
    shaper = OVERLAY[f"netem-{role}"]
    assert role in PARTIES
    assert shaper["network_mode"] == f"service:{role}"
    assert shaper["depends_on"] == {role: {"condition": "service_started"}}
    assert (shaper["cap_drop"], shaper["cap_add"]) == (["ALL"], ["NET_ADMIN"])
    assert shaper["read_only"]
    assert shaper["security_opt"] == ["no-new-privileges:true"]
    assert set(shaper["environment"].values()) == {
        f"${{SECFORMER_RT_DELAY_MS:-{WAN.rtt_ms / 2:g}}}",
        f"${{SECFORMER_RT_MBIT:-{WAN.mbit:g}}}",
    }


def test_nobody_else_gets_capabilities() -> None:
    assert {name for name, service in OVERLAY.items() if "cap_add" in service} == {
        f"netem-{role}" for role in SHAPED
    }
    assert set(OVERLAY) == {*(f"netem-{role}" for role in SHAPED), "client"}
    assert set(OVERLAY["client"]) == {"depends_on"}
    for service in PARTIES.values():
        assert service["cap_drop"] == ["ALL"]
        assert not {"cap_add", "privileged", "network_mode"} & set(service)


def test_nothing_is_asked_before_the_parties_are_shaped() -> None:
    completed = {"condition": "service_completed_successfully"}
    assert OVERLAY["client"]["depends_on"] == {f"netem-{role}": completed for role in ROLES}


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose")
def test_both_files_together_are_valid() -> None:
    files = ("-f", "docker-compose.yml", "-f", "docker-compose.netem.yml")
    done = subprocess.run(
        ["docker-compose", *files, "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    depends = yaml.safe_load(done.stdout)["services"]["client"]["depends_on"]
    assert set(depends) == {"server0", "server1", *(f"netem-{role}" for role in ROLES)}


LINKS = "1: lo: <LOOPBACK,UP> mtu 65536\n2: eth0@if7: <UP> mtu 1500\n3: eth1@if9: <UP> mtu 1500\n"


@pytest.fixture
def shape(tmp_path: Path) -> Any:
    """Runs the script with an `ip` that knows certain interfaces and a `tc` that says something."""

    def run(links: str = LINKS, said: str = "", **environment: str) -> tuple[int, str, str, list[str]]:
        calls = tmp_path / "calls"
        programs = {
            "ip": f"cat <<'END'\n{links}END\n",
            "tc": f"echo \"$*\" >>'{calls}'\n" + (f"echo '{said}' >&2\nexit 2\n" if said else ""),
        }
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            [SHAPE],
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        asked = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, done.stdout, done.stderr, asked

    return run


def test_every_interface_but_loopback_is_shaped(shape: Any) -> None:
    code, _, errors, asked = shape(SECFORMER_RT_DELAY_MS="2.5", SECFORMER_RT_MBIT="400")
    assert (code, errors) == (0, "")
    rest = "root netem delay 2.5ms rate 400mbit limit 10000"
    assert asked == [f"qdisc replace dev {name} {rest}" for name in ("eth0", "eth1")]


def test_by_default_it_is_the_wan(shape: Any) -> None:
    *_, asked = shape()
    assert f"delay {WAN.rtt_ms / 2:g}ms rate {WAN.mbit:g}mbit" in asked[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"said": "Error: Specified qdisc kind is unknown."},
            "This kernel has no netem: load it on the host (modprobe sch_netem), or run without",
        ),
        ({"said": "RTNETLINK answers: Operation not permitted"}, "cannot be shaped without CAP_NET_ADMIN"),
        ({"said": "Out of order."}, "eth0 cannot be shaped; tc says: Out of order."),
        ({"links": "1: lo: <LOOPBACK,UP> mtu 65536\n"}, "There is no interface to shape here"),
        ({"SECFORMER_RT_MBIT": "fast"}, "take numbers, not 'fast'"),
        ({"SECFORMER_RT_DELAY_MS": "1.2.3"}, "take numbers, not '1.2.3'"),
    ],
)
def test_failures_are_one_sentence(shape: Any, options: dict[str, str], sentence: str) -> None:
    code, output, errors, _ = shape(**options)
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert errors.endswith(".\n")
    assert errors.count("\n") == 1
    assert sentence in errors
