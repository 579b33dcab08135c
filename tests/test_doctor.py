"""``secformer-rt doctor``: in every broken set-up it names the first thing that is wrong, and what to do."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from secformer_rt.cli import main
from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.doctor import chosen_role, examine, first_failure
from secformer_rt.clients.doctor_link import greet
from secformer_rt.clients.findings import Finding, Sheet
from secformer_rt.errors import (
    BadCertificateError,
    BadConfigError,
    MismatchError,
    PeerUnreachableError,
    PortInUseError,
    SecformerError,
)
from secformer_rt.parties.access import Access
from secformer_rt.parties.checkup import Checkup
from secformer_rt.parties.settings import CALLS, ROLES, Role, Settings, Tls
from secformer_rt.transport.certificates import HOLDERS, fingerprint
from secformer_rt.transport.identity import Identity, load_identity
from secformer_rt.transport.key_files import read_certificates
from secformer_rt.transport.server import Handler, serve
from tests.transport.certificates import deployment, expire, replace

HERE, LINK = "server0, this machine", "server0 to dealer"
LINK_STEPS = [
    "name",
    "TCP",
    "TLS",
    "role",
    "version",
    "clock",
    "plan digest",
    "round trip",
    "bandwidth",
    "ready",
]


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    return deployment(tmp_path / "certs")


@pytest.fixture
def settings(certs: Path) -> Settings:
    return loopback_settings(tls={"directory": str(certs)})


@contextmanager
def listening(
    settings: Settings, role: Role, identity: Identity | None = None, *, ready: bool = True, **says: object
) -> Iterator[None]:
    """A party that can be examined; `says` are what it says of itself, if not the truth."""
    if settings.tls is not None and identity is None:
        identity = load_identity(settings.tls.directory, role, settings.tls.pins)
    checkup = Checkup(role, 20.0, **says)  # type: ignore[arg-type]
    server = serve(settings.endpoint(role).bind, checkup.handlers(), role=role, identity=identity)
    server.set_ready(ready)
    yield
    server.stop(0)


@contextmanager
def answering(address: str, answer: bytes) -> Iterator[None]:
    """Something that is no party: it says `answer` to everybody, and hangs up."""
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def changed(settings: Settings, role: Role, **values: str) -> Settings:
    """Another address for a party."""
    return settings.model_copy(update={role: settings.endpoint(role).model_copy(update=values)})


def failure(sheets: list[Sheet], sheet: str, step: str, error: type[SecformerError]) -> str:
    """The advice of the first failure, which must be that one."""
    first = first_failure(sheets)
    assert first is not None
    assert (_sheet_of(sheets, first).name, first.step, type(first.error)) == (sheet, step, error), first.text
    later = _sheet_of(sheets, first).findings[_sheet_of(sheets, first).findings.index(first) + 1 :]
    assert {finding.state for finding in later} <= {"skipped"}
    assert first.text.endswith(".")
    assert "\n" not in first.text
    return first.text


def _sheet_of(sheets: list[Sheet], finding: Finding) -> Sheet:
    return next(sheet for sheet in sheets if finding in sheet.findings)


def step(sheets: list[Sheet], sheet: str, name: str) -> Finding:
    return next(f for found in sheets if found.name == sheet for f in found.findings if f.step == name)


# What is wrong at the other end, or on the way there.


def test_an_unknown_name(settings: Settings) -> None:
    broken = changed(settings, "dealer", address="dealer.invalid:7102")
    advice = failure(examine(broken, "server0"), LINK, "name", PeerUnreachableError)
    assert "Nothing knows the name 'dealer.invalid' of dealer: correct dealer.address" in advice


def test_nobody_listens(settings: Settings) -> None:
    advice = failure(examine(settings, "server0"), LINK, "TCP", PeerUnreachableError)
    assert f"Nobody listens at {settings.dealer.address}: start dealer there, or correct" in advice


@pytest.mark.parametrize(
    ("answer", "words"), [(b"SSH-2.0-x\r\n", "does not speak TLS"), (b"", "not answer in TLS")]
)
def test_something_else_listens(settings: Settings, answer: bytes, words: str) -> None:
    with answering(settings.dealer.address, answer):
        advice = failure(examine(settings, "server0"), LINK, "TLS", BadCertificateError)
    assert words in advice
    assert "address" in advice


def test_something_else_listens_in_plain_text() -> None:
    settings = loopback_settings(insecure=True)
    with answering(settings.dealer.address, b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        advice = failure(examine(settings, "server0"), LINK, "role", PeerUnreachableError)
    assert "takes connections, but does not answer as a party: see what else listens there" in advice


def test_another_service_of_grpc() -> None:
    settings = loopback_settings(insecure=True)
    nothing: dict[str, Handler] = {}
    server = serve(settings.dealer.bind, nothing, role="dealer")
    advice = failure(examine(settings, "server0"), LINK, "role", MismatchError)
    server.stop(0)
    assert "does not offer this call; compare the versions" in advice


def test_another_authority(settings: Settings, tmp_path: Path) -> None:
    other = deployment(tmp_path / "other")
    with listening(settings, "dealer", load_identity(other, "dealer")):
        advice = failure(examine(settings, "server0"), LINK, "TLS", BadCertificateError)
    assert "was not signed by the authority in this party's ca.crt: all parties need" in advice


def test_the_peer_knows_another_authority(settings: Settings, certs: Path, tmp_path: Path) -> None:
    trusted = read_certificates(deployment(tmp_path / "other") / "ca.crt")
    pem, key = (certs / "dealer.crt").read_bytes(), (certs / "dealer.key").read_bytes()
    with listening(settings, "dealer", Identity("dealer", certs, {}, tuple(trusted), pem, key)):
        advice = failure(examine(settings, "server0"), LINK, "TLS", BadCertificateError)
    assert "refuses the certificate of server0: compare ca.crt, and the clocks" in advice


def test_an_expired_certificate(settings: Settings, certs: Path) -> None:
    trusted = load_identity(certs, "dealer")._authorities
    expire(certs, "dealer")
    pem, key = (certs / "dealer.crt").read_bytes(), (certs / "dealer.key").read_bytes()
    with listening(settings, "dealer", Identity("dealer", certs, {}, trusted, pem, key)):
        advice = failure(examine(settings, "server0"), LINK, "TLS", BadCertificateError)
    assert "The certificate of dealer at" in advice
    assert "expired on" in advice
    assert "make a new one with `secformer-rt certs`" in advice


def test_another_role(settings: Settings, certs: Path) -> None:
    with listening(settings, "dealer", load_identity(certs, "server1")):
        advice = failure(examine(settings, "server0"), LINK, "TLS", BadCertificateError)
    assert "is that of server1: dealer's is needed here" in advice


def test_another_role_in_plain_text() -> None:
    settings = loopback_settings(insecure=True)
    broken = changed(settings, "dealer", address=settings.server1.address)
    with listening(settings, "server1"):
        advice = failure(examine(broken, "server0"), LINK, "role", MismatchError)
    assert "says that it is 'server1': correct dealer.address" in advice


def pin_of(certs: Path, role: str) -> str:
    return fingerprint(read_certificates(certs / f"{role}.crt")[0])


def test_another_pin(settings: Settings, certs: Path, tmp_path: Path) -> None:
    """The authority has made a second certificate of the role."""
    impostor = Path(shutil.copytree(certs, tmp_path / "impostor"))
    replace(impostor, "dealer")
    tls = Tls(directory=certs, pins={"dealer": pin_of(certs, "dealer")})
    with listening(settings, "dealer", load_identity(impostor, "dealer")):
        sheets = examine(settings.model_copy(update={"tls": tls}), "server0")
    assert "is pinned for dealer: ask its operator which is right" in failure(
        sheets, LINK, "TLS", BadCertificateError
    )


def test_the_peer_has_another_pin(settings: Settings, certs: Path) -> None:
    """TLS lets this end in, and the party itself does not."""
    wrong = load_identity(certs, "dealer", {"server0": "ab" * 32})
    with listening(settings, "dealer", wrong):
        advice = failure(examine(settings, "server0"), LINK, "role", BadCertificateError)
    assert f"dealer at {settings.dealer.address} refuses: " in advice
    assert "is pinned for server0" in advice


def test_only_this_end_wants_tls(settings: Settings) -> None:
    plain = settings.model_copy(update={"tls": None, "insecure": True})
    with listening(plain, "dealer"):
        advice = failure(examine(settings, "server0"), LINK, "TLS", BadCertificateError)
    assert "does not speak TLS: compare its configuration, and its address" in advice


def test_only_the_other_end_wants_tls(settings: Settings) -> None:
    plain = settings.model_copy(update={"tls": None, "insecure": True})
    with listening(settings, "dealer"):
        advice = failure(examine(plain, "server0"), LINK, "TLS", BadCertificateError)
    assert "wants TLS, and this configuration says insecure" in advice


@pytest.mark.parametrize("says", [{"version": "0.0.9"}, {"protocol_version": 99}])
def test_another_version(settings: Settings, says: dict[str, object]) -> None:
    with listening(settings, "dealer", **says):
        advice = failure(examine(settings, "server0"), LINK, "version", MismatchError)
    assert "dealer runs version" in advice
    assert str(next(iter(says.values()))) in advice
    assert "install the same on both" in advice


@pytest.mark.parametrize(("seconds", "way"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_that_breaks_certificates(settings: Settings, seconds: float, way: str) -> None:
    with listening(settings, "dealer", clock=lambda: time.time() + seconds):
        advice = failure(examine(settings, "server0"), LINK, "clock", BadCertificateError)
    assert f"s {way} this machine's, and certificates fail from 600 s on: set both clocks" in advice


def test_a_clock_that_is_a_little_off(settings: Settings) -> None:
    with listening(settings, "dealer", clock=lambda: time.time() + 60):
        sheets = examine(settings, "server0")
    assert first_failure(sheets) is None
    found = step(sheets, LINK, "clock")
    assert (found.state, round(found.numbers["ahead_s"] / 10)) == ("warning", 6)
    assert "set both, by NTP" in found.text


def test_another_plan(settings: Settings) -> None:
    with listening(settings, "dealer", digest=lambda: bytes(32)):
        advice = failure(examine(settings, "server0"), LINK, "plan digest", MismatchError)
    assert "dealer derives another plan, although its version is the same: install the same code" in advice


def test_a_server_whose_dealer_is_not_there(settings: Settings) -> None:
    with listening(settings, "server0", ready=False), listening(settings, "server1"):
        sheets = examine(settings, "data-owner")
    advice = failure(sheets, "data-owner to server0", "ready", PeerUnreachableError)
    assert (
        "is up, but cannot take a run yet; it waits for dealer: run `secformer-rt doctor server0`" in advice
    )
    assert step(sheets, "data-owner to server1", "ready").state == "ok"


def test_a_certificate_of_the_other_end_that_ends_soon(settings: Settings) -> None:
    with listening(settings, "dealer"):  # tests' certificates are for a day
        sheets = examine(settings, "server0")
    assert first_failure(sheets) is None
    for sheet, name in ((HERE, "certificate"), (LINK, "TLS")):
        assert step(sheets, sheet, name).state == "warning"
        assert "make a new one in time" in step(sheets, sheet, name).text


# What is wrong on this machine.

WRONG_HERE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no key": (
        lambda certs: (certs / "server0.key").unlink(),
        "key",
        r"server0.key is missing: make it with",
    ),
    "a key for all to read": (
        lambda certs: (certs / "server0.key").chmod(0o644),
        "key",
        "can be read by others (mode 0644): chmod 600 it",
    ),
    "another's key": (
        lambda certs: shutil.copyfile(certs / "dealer.key", certs / "server0.key"),
        "certificate",
        "server0.key is not the key of",
    ),
    "no certificate": (
        lambda certs: (certs / "server0.crt").unlink(),
        "certificate",
        "server0.crt is missing",
    ),
    "an expired one": (lambda certs: expire(certs, "server0"), "certificate", "server0.crt expired on"),
    "another role's": (lambda certs: replace(certs, "server0", "dealer"), "certificate", "is that of dealer"),
}


@pytest.mark.parametrize("what", WRONG_HERE)
def test_certificates_of_this_machine(settings: Settings, certs: Path, what: str) -> None:
    spoil, name, words = WRONG_HERE[what]
    with listening(settings, "dealer"):
        spoil(certs)
        sheets = examine(settings, "server0")
    assert words in failure(sheets, HERE, name, BadCertificateError)
    assert [f.state for f in sheets[1].findings] == ["ok"] * 2 + ["skipped"] * 8


def test_a_port_that_something_else_has(settings: Settings) -> None:
    with answering(settings.server0.bind, b""):
        advice = failure(examine(settings, "server0"), HERE, "bind", PortInUseError)
    assert f"{settings.server0.bind} is taken by something that is not server0: stop it, or change" in advice


@pytest.mark.parametrize("protected", [True, False])
def test_a_port_that_another_party_has(settings: Settings, protected: bool) -> None:
    if not protected:
        settings = settings.model_copy(update={"tls": None, "insecure": True})
    same = changed(settings, "server0", bind=settings.server1.bind)
    with listening(settings, "server1"):
        failure(examine(same, "server0"), HERE, "bind", PortInUseError)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]", "localhost"])
def test_a_party_that_runs_already(settings: Settings, host: str) -> None:
    port = settings.server0.bind.split(":")[1]
    settings = changed(settings, "server0", bind=f"{host}:{port}")
    with listening(settings, "server0"), listening(settings, "dealer"):
        sheets = examine(settings, "server0")
    assert first_failure(sheets) is None
    assert step(sheets, HERE, "bind").text == "server0 listens there already"


def test_an_address_of_another_machine(settings: Settings) -> None:
    broken = changed(settings, "server0", bind="192.0.2.1:7100")
    advice = failure(examine(broken, "server0"), HERE, "bind", BadConfigError)
    assert "cannot listen on 192.0.2.1:7100" in advice
    assert "set server0.bind to an address of this machine, such as 0.0.0.0:7100" in advice


def test_plain_text_beyond_this_machine() -> None:
    settings = loopback_settings(insecure=True)
    found = step(examine(settings, "server0"), HERE, "protection")
    assert (found.state, found.text) == ("ok", "plain text, on the loopback interface only")
    found = step(examine(changed(settings, "dealer", bind="0.0.0.0:7102"), "server0"), HERE, "protection")
    assert found.state == "warning"
    assert "insecure is set, and 0.0.0.0:7102 is beyond the loopback interface" in found.text


# Who may ask, and how much.


def test_an_examination_is_for_every_role_and_for_a_few_at_a_time(settings: Settings) -> None:
    entered, release = threading.Semaphore(0), threading.Event()

    def digest() -> bytes:
        entered.release()
        assert release.wait(20)
        return bytes(32)

    def ask(role: str) -> None:
        sheets.append(examine(settings, role))

    sheets: list[list[Sheet]] = []
    with listening(settings, "server0", digest=digest):
        first = [threading.Thread(target=ask, args=(role,)) for role in ("server1", "model-owner") * 2]
        for thread in first:
            thread.start()
            assert entered.acquire(timeout=20)
        last = step(examine(settings, "data-owner"), "data-owner to server0", "role")
        release.set()
        for thread in first:
            thread.join()
    assert isinstance(last.error, PeerUnreachableError)
    assert "server0 is being examined by others; try again in a moment" in last.text
    for found in sheets:
        (server0,) = (sheet for sheet in found if sheet.name.endswith("to server0"))
        assert server0.failure is not None
        assert server0.failure.step == "plan digest"


def test_a_role_is_not_taken_at_its_word(settings: Settings) -> None:
    access = Access(settings, "data-owner")
    sentence = "says that it is 'server1', and its certificate is that of data-owner"
    with (
        listening(settings, "server0"),
        access.open("server0") as channel,
        ExitStack() as stack,
        pytest.raises(BadCertificateError, match=sentence),
    ):
        greet(stack, channel, "server1", "server0")


# The command.


def run(
    words: list[str], patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    patch.setattr(logging, "basicConfig", lambda **_: None)
    patch.setattr(sys, "argv", ["secformer-rt", "doctor", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capture.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


@pytest.mark.parametrize("role", HOLDERS)
def test_all_is_well(
    role: str,
    cluster: LocalCluster,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Real parties, which run."""
    code, out, err = run([role, "--config", str(cluster.config), "--json"], monkeypatch, capsys)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["role"], found["ok"], found["advice"]) == (role, True, None)
    here, *links = found["sheets"]
    assert [link["name"] for link in links] == [f"{role} to {peer}" for peer in CALLS[role]]
    steps = ["protection", "key", "certificate", *(["bind"] if role in ROLES else [])]
    assert [step["step"] for step in here["steps"]] == steps
    for link in links:
        states = {step["step"]: step["state"] for step in link["steps"]}
        assert list(states) == LINK_STEPS
        assert states == dict.fromkeys(states, "ok") | {"TLS": "warning"}  # certificates for a week
        numbers = {key: n for step in link["steps"] for key, n in step.items() if isinstance(n, float)}
        assert numbers.keys() == {"ahead_s", "ms", "there_mbit", "back_mbit", "both_mbit"}
        assert min(n for key, n in numbers.items() if key != "ahead_s") > 0


def test_the_key_tells_the_role(
    settings: Settings,
    tmp_path: Path,
    certs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for role in set(HOLDERS) - {"server0"}:
        (certs / f"{role}.key").unlink()
    config = tmp_path / "deployment.yaml"
    config.write_text(json.dumps(settings.model_dump(mode="json")), encoding="utf-8")
    words = ["--config", str(config), "--set", "dealer.address=127.0.0.1:9"]
    code, out, err = run(words, monkeypatch, capsys)
    assert code == PeerUnreachableError.exit_code
    assert err.splitlines()[-1].startswith("error: Nobody listens at 127.0.0.1:9: start dealer there")
    assert "server0 to dealer (127.0.0.1:9)" in out
    code, out, _ = run([*words, "--json"], monkeypatch, capsys)
    found = json.loads(out)
    assert (found["ok"], found["exit_code"], code) == (False, code, PeerUnreachableError.exit_code)
    assert found["advice"].startswith("Nobody listens at 127.0.0.1:9")


def test_whose_machine_this_is(settings: Settings, certs: Path) -> None:
    with pytest.raises(BadConfigError, match="holds several keys: name one of server0, server1, "):
        chosen_role(settings, None)
    with pytest.raises(BadConfigError, match="There is no role 'mallory': choose one of server0, "):
        chosen_role(settings, "mallory")
    with pytest.raises(BadConfigError, match="In plain text no key tells which role this is"):
        chosen_role(settings.model_copy(update={"tls": None}), None)
    for role in HOLDERS:
        (certs / f"{role}.key").unlink()
    with pytest.raises(BadCertificateError, match="holds no role's key: make them with `secformer-rt certs`"):
        chosen_role(settings, None)
    assert chosen_role(settings, "dealer") == "dealer"
