"""What is launched elsewhere: units, user data and manifests are well-formed and fit the command line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from secformer_rt.errors import BadConfigError, PortInUseError
from secformer_rt.parties.settings import ROLES, load_settings

LAUNCH = Path(__file__).parent.parent / "launch"
KUBERNETES = LAUNCH / "kubernetes"


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d]


MANIFESTS = [
    path
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.name not in ("kustomization.yaml", "deployment.yaml")
]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_manifests_follow_the_published_schemas(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def kustomized(directory: str, namespace: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / directory],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = [d for d in yaml.safe_load_all(done.stdout) if d]
    for document in found:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == namespace
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_a_namespace_of_its_own(role: str) -> None:
    found = kustomized(role, f"secformer-rt-{role}")
    kinds = sorted(document["kind"] for document in found)
    policies = ["NetworkPolicy", "NetworkPolicy"]
    assert kinds == ["ConfigMap", "ConfigMap", "Namespace", *policies, "Service", "StatefulSet"]
    roles = [d["data"]["role"] for d in found if d["metadata"]["name"] == "role"]
    assert roles == [role]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_a_client_is_where_the_servers_let_it_call_from() -> None:
    found = kustomized("client", "secformer-rt-clients")
    assert sorted(document["kind"] for document in found) == ["ConfigMap", "Job", "Namespace"]
    for role in ("server0", "server1"):
        (policy,) = documents(KUBERNETES / role / "callers.yaml")
        (source,) = policy["spec"]["ingress"][0]["from"]
        assert "secformer-rt-clients" in source["namespaceSelector"]["matchExpressions"][0]["values"]


def pods() -> list[dict[str, Any]]:
    everything = [document for path in MANIFESTS for document in documents(path)]
    return [d["spec"]["template"]["spec"] for d in everything if d["kind"] in ("StatefulSet", "Job")]


def test_pods_are_confined_and_find_loaded_images() -> None:
    assert len(pods()) == 2
    for pod in pods():
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_clusters_deployment_is_valid() -> None:
    settings = load_settings(KUBERNETES / "deployment" / "deployment.yaml")
    for role in ROLES:
        assert settings.endpoint(role).address == f"party.secformer-rt-{role}.svc:7100"


def test_the_unit_gives_up_where_a_person_has_to_look() -> None:
    unit = (LAUNCH / "cloud" / "secformer-rt@.service").read_text(encoding="utf-8")
    codes = re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert codes is not None
    assert {BadConfigError.exit_code, PortInUseError.exit_code} <= set(map(int, codes[1].split()))
    for hardening in ("NoNewPrivileges=yes", "ProtectSystem=strict", "LimitCORE=0", "DynamicUser=yes"):
        assert f"\n{hardening}\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("role", ROLES)
def test_the_unit_is_one(role: str, tmp_path: Path) -> None:
    unit = (LAUNCH / "cloud" / "secformer-rt@.service").read_text(encoding="utf-8")
    path = tmp_path / f"secformer-rt@{role}.service"
    path.write_text(re.sub("^ExecStart=.*$", "ExecStart=/bin/true", unit, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_user_data_names_what_has_to_be_replaced() -> None:
    text = (LAUNCH / "cloud" / "user-data.yaml").read_text(encoding="utf-8")
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    commands = "\n".join(data["runcmd"])
    assert all(word in commands for word in ("SOURCE", "COMMIT", "certs request ROLE"))
    assert (LAUNCH / "cloud" / "secformer-rt@.service").name in commands


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="needs cloud-init")
@pytest.mark.parametrize("role", ROLES)
def test_user_data_follows_its_schema(role: str, tmp_path: Path) -> None:
    path = tmp_path / "user-data.yaml"
    path.write_text((LAUNCH / "cloud" / "user-data.yaml").read_text(encoding="utf-8").replace("ROLE", role))
    done = subprocess.run(
        ["cloud-init", "schema", "--config-file", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


SCRIPTS = sorted(path.relative_to(LAUNCH) for path in LAUNCH.rglob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_scripts_are_well_written(script: Path) -> None:
    shell = "sh" if (LAUNCH / script).read_text(encoding="utf-8").startswith("#!/bin/sh") else "bash"
    subprocess.run([shell, "-n", LAUNCH / script], timeout=60, check=True)
    if shutil.which("shellcheck") is not None:
        done = subprocess.run(
            ["shellcheck", "-x", "-P", "SCRIPTDIR", LAUNCH / script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_compose_takes_no_other_words() -> None:
    done = subprocess.run(
        [LAUNCH / "compose.sh", "--fast"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: launch/compose.sh takes --netem, or nothing.\n"
