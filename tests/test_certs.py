"""``secformer-rt certs``: files, permissions, names, and operators who exchange public parts only."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secformer_rt.cli import main
from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import describe
from secformer_rt.errors import BadCertificateError, BadConfigError
from secformer_rt.transport.authority import make_all
from secformer_rt.transport.certificates import HOLDERS, fingerprint, hosts
from secformer_rt.transport.identity import load_identity
from secformer_rt.transport.key_files import read_certificates


class Command:
    """Runs ``secformer-rt`` in this process; returns what it prints."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture
        patch.setattr(logging, "basicConfig", lambda **_: None)

    def __call__(self, *words: object, code: int = 0) -> str:
        self._patch.setattr(sys, "argv", ["secformer-rt", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = self._capture.readouterr()
        assert stop.value.code == code, err
        assert "PRIVATE" not in out + err
        if code:
            assert err.count("error: ") == 1
            assert err.endswith(".\n")
        return err if code else out


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_one_command_makes_everything(command: Command, tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    options = ("--hosts", "server0=a.example,10.0.0.1", "--hosts", "dealer=::1", "--days", "30")
    printed = command("certs", "--directory", certs, *options).splitlines()
    names = {path.name for path in certs.iterdir()}
    assert names == {f"{role}.{end}" for role in ("ca", *HOLDERS) for end in ("crt", "key")}
    for path in certs.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)
    for role in HOLDERS:
        load_identity(certs, role)
        certificate = read_certificates(certs / f"{role}.crt")[0]
        assert hosts(certificate)[0] == f"{role}.secformer-rt"
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=29) < left < timedelta(days=30)
    assert hosts(read_certificates(certs / "server0.crt")[0])[1:] == ["a.example", "10.0.0.1"]
    assert hosts(read_certificates(certs / "dealer.crt")[0])[1:] == ["::1"]
    assert sorted(printed) == command("certs", "show", "--directory", certs).splitlines()
    assert any("server0.crt until" in line and "a.example,10.0.0.1" in line for line in printed)


def test_files_stay_unless_forced(command: Command, tmp_path: Path) -> None:
    command("certs", "--directory", tmp_path)
    before = (tmp_path / "dealer.key").read_bytes()
    code = BadCertificateError.exit_code
    for words in (("certs",), ("certs", "authority"), ("certs", "request", "dealer")):
        assert "exists: take another" in command(*words, "--directory", tmp_path, code=code)
    assert (tmp_path / "dealer.key").read_bytes() == before
    command("certs", "--directory", tmp_path, "--force")
    assert (tmp_path / "dealer.key").read_bytes() != before
    load_identity(tmp_path, "dealer")


def test_a_directory_for_each_operator(command: Command, tmp_path: Path) -> None:
    command("certs", "--directory", tmp_path, "--split")
    assert {path.name for path in tmp_path.iterdir()} == {"ca.crt", "ca.key", *HOLDERS}
    for role in HOLDERS:
        assert {path.name for path in (tmp_path / role).iterdir()} == {
            "ca.crt",
            f"{role}.crt",
            f"{role}.key",
        }
        load_identity(tmp_path / role, role)


def test_each_operator_makes_its_own_key(command: Command, tmp_path: Path) -> None:
    authority, mine = tmp_path / "authority", tmp_path / "mine"
    command("certs", "authority", "--directory", authority)
    printed = command("certs", "request", "server0", "--directory", mine, "--hosts", "a.example,10.0.0.1")
    asked = Path(printed.strip())
    assert {path.name for path in mine.iterdir()} == {"server0.key", "server0.csr"}
    assert stat.S_IMODE((mine / "server0.key").stat().st_mode) == 0o600
    command("certs", "sign", "server0", asked, "--directory", authority, "--days", "9999")
    assert {path.name for path in authority.iterdir()} == {"ca.crt", "ca.key", "server0.crt"}
    for name in ("ca.crt", "server0.crt"):
        (mine / name).write_bytes((authority / name).read_bytes())
    load_identity(mine, "server0")
    root, leaf = (read_certificates(mine / name)[0] for name in ("ca.crt", "server0.crt"))
    assert leaf.not_valid_after_utc == root.not_valid_after_utc  # and not later
    assert hosts(leaf) == ["server0.secformer-rt", "a.example", "10.0.0.1"]


def test_who_asks_for_another_role_gets_nothing(command: Command, tmp_path: Path) -> None:
    command("certs", "authority", "--directory", tmp_path)
    asked = command("certs", "request", "dealer", "--directory", tmp_path / "mine").strip()
    code = BadCertificateError.exit_code
    sign = ("certs", "sign", "server0", "--directory", tmp_path)
    assert "asks for a certificate of dealer, not of server0" in command(*sign, asked, code=code)
    assert "is no certificate request" in command(*sign, tmp_path / "ca.crt", code=code)
    assert "no.csr is missing" in command(*sign, tmp_path / "no.csr", code=code)
    (tmp_path / "ca.key").unlink()
    assert "ca.key is missing" in command(
        "certs", "sign", "dealer", asked, "--directory", tmp_path, code=code
    )
    assert not list(tmp_path.glob("*er*.crt"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--hosts", "server0"], "'server0' names no role: write ROLE=HOST"),
        (["--hosts", "mallory=a.example"], "There is no role 'mallory': choose one of server0,"),
        (["--hosts", "server0=dealer.secformer-rt"], "'dealer.secformer-rt' is no host"),
        (["--hosts", "server0=*.example"], r"'*.example' is no host"),
        (["request", "mallory"], "There is no role 'mallory'"),
        (["show"], "holds no certificate"),
    ],
)
def test_what_is_wrong_is_said(command: Command, tmp_path: Path, words: list[str], sentence: str) -> None:
    said = command("certs", *words, "--directory", tmp_path, code=BadConfigError.exit_code)
    assert sentence in said
    assert not list(tmp_path.iterdir())


def test_openssl_agrees(command: Command, tmp_path: Path) -> None:
    command("certs", "--directory", tmp_path)
    words = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", *(f"{role}.crt" for role in HOLDERS)]
    try:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
    assert done.stdout.count(": OK") == len(HOLDERS), done.stderr


def test_any_certificate_may_ask_for_health(
    command: Command, cluster: LocalCluster, servers: Servers, tmp_path: Path
) -> None:
    certs = cluster.config.parent / "certs"
    for role in ("server0", "data-owner"):
        place = tmp_path / role
        place.mkdir()
        for name in ("ca.crt", f"{role}.crt", f"{role}.key"):
            (place / name).write_bytes((certs / name).read_bytes())
        (place / f"{role}.key").chmod(0o600)
        config = place / "deployment.yaml"
        config.write_text(cluster.config.read_text().replace(str(certs), "."))
        for party in ("server0", "dealer"):
            assert command("health", party, "--ready", "--config", config) == ""
    # A client needs its own role's certificate all the same, and is told so before it works for minutes.
    said = command("provision", "--config", config, code=BadCertificateError.exit_code)
    assert "model-owner.crt is missing" in said


def test_pinned_parties(tmp_path: Path) -> None:
    make_all(tmp_path, {}, 1)
    pins = {role: fingerprint(read_certificates(tmp_path / f"{role}.crt")[0]) for role in HOLDERS}
    settings = loopback_settings(tls={"directory": str(tmp_path), "pins": pins})
    with LocalCluster(settings) as cluster, Servers(cluster.settings) as servers:
        servers.wait_ready()
        assert describe(servers) == {}


def test_plain_text_where_it_is_asked_for() -> None:
    with LocalCluster(loopback_settings(insecure=True)) as cluster, Servers(cluster.settings) as servers:
        servers.wait_ready()
        assert describe(servers) == {}
        assert [path.name for path in cluster.config.parent.iterdir()] == ["deployment.yaml"]
