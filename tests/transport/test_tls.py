"""Mutual TLS: who is let in, who is not, and what either end is told."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secformer_rt.errors import BadCertificateError, PeerUnreachableError
from secformer_rt.transport import authority
from secformer_rt.transport.authority import Authority, make_all, new_key
from secformer_rt.transport.certificates import HOLDERS, fingerprint, role_host
from secformer_rt.transport.channel import open_channel, wait_ready
from secformer_rt.transport.diagnosis import diagnose
from secformer_rt.transport.identity import Identity, load_identity
from secformer_rt.transport.key_files import key_bytes, read_certificates
from secformer_rt.transport.server import PartyServer, serve
from tests.transport.certificates import deployment, expire, postdate, replace
from tests.transport.harness import call, echo


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    return deployment(tmp_path / "certs")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Of another authority."""
    return deployment(tmp_path / "other")


@contextmanager
def listening(identity: Identity | None, handler: Callable = echo) -> Iterator[PartyServer]:
    server = serve("127.0.0.1:0", {"Peer": handler}, role="server0", identity=identity)
    yield server
    server.stop(0)


@contextmanager
def calling(server: PartyServer, mine: Identity | None, peer: str = "server0") -> Iterator[grpc.Channel]:
    """A channel that has connected, or the reason why it cannot."""
    address = f"127.0.0.1:{server.port}"
    if mine is None:
        channel = open_channel(address)
    else:
        channel = open_channel(address, mine.for_calling(peer), server_name=role_host(peer))
    with channel:
        wait_ready(channel, peer, address, 5.0, diagnose=lambda: diagnose(address, peer, mine))
        yield channel


def ping(channel: grpc.Channel) -> None:
    with call(channel) as link:
        link.send(0, b"ping")
        assert bytes(link.receive(1, 4)) == b"ping"
        link.finish()


def pin(directory: Path, role: str) -> str:
    return fingerprint(read_certificates(directory / f"{role}.crt")[0])


@pytest.mark.parametrize("role", HOLDERS)
def test_a_certificate_tells_who_called(certs: Path, role: str) -> None:
    callers = []

    def handler(link, caller):
        callers.append((caller.identity, caller.rpc, link.peer))
        echo(link, caller)

    with (
        listening(load_identity(certs, "server0"), handler) as server,
        calling(server, load_identity(certs, role)) as channel,
    ):
        ping(channel)
    assert callers == [(role, "Peer", role)]


def test_in_plain_text_nobody_is_known(running) -> None:
    callers = []
    _, channel = running({"Peer": lambda link, caller: callers.append((caller.identity, link.peer))})
    with call(channel) as link:
        link.finish()
    assert callers == [(None, "the caller of Peer")]


@contextmanager
def refused(sentence: str) -> Iterator[None]:
    with pytest.raises(BadCertificateError, match=sentence) as caught:
        yield
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_listener_with_another_role(certs: Path) -> None:
    with (
        listening(load_identity(certs, "server0")) as server,
        refused(r"The certificate of dealer at 127\.0\.0\.1:\d+ is that of server0: dealer's is needed here"),
        calling(server, load_identity(certs, "server1"), "dealer"),
    ):
        pass


def test_tls_itself_refuses_another_role(certs: Path) -> None:
    with listening(load_identity(certs, "server0")) as server:
        address = f"127.0.0.1:{server.port}"
        mine = load_identity(certs, "server1")
        with (
            open_channel(address, mine.for_calling("dealer"), server_name=role_host("dealer")) as channel,
            pytest.raises(BadCertificateError, match="TLS failed; `secformer-rt health` says why"),
            call(channel) as link,
        ):
            link.receive(0, 4)


def test_a_listener_of_another_authority(certs: Path, other: Path) -> None:
    with (
        listening(load_identity(other, "server0")) as server,
        refused("The certificate of server0 at .* was not signed by the authority in this party's ca.crt"),
        calling(server, load_identity(certs, "server1")),
    ):
        pass


DATES = {"expired on": expire, "is not valid before": postdate}


def mistimed(certs: Path, role: str, words: str) -> Identity:
    """A role's identity with a certificate that is read before its time, or after it."""
    identity = load_identity(certs, role)
    DATES[words](certs, role)
    pem, key = (certs / f"{role}.crt").read_bytes(), (certs / f"{role}.key").read_bytes()
    return Identity(role, certs, {}, identity._authorities, pem, key)


@pytest.mark.parametrize("words", DATES)
def test_a_listener_whose_certificate_is_not_of_today(certs: Path, words: str) -> None:
    with (
        listening(mistimed(certs, "server0", words)) as server,
        refused(rf"The certificate of server0 at .* {words} \d{{4}}-\d\d-\d\d \d\d:\d\d UTC: "),
        calling(server, load_identity(certs, "server1")),
    ):
        pass


@pytest.mark.parametrize("words", DATES)
def test_a_caller_whose_certificate_is_not_of_today(certs: Path, words: str) -> None:
    with (
        listening(load_identity(certs, "server0")) as server,
        refused(rf"The certificate of server1 {words} \d{{4}}-\d\d-\d\d \d\d:\d\d UTC: "),
        calling(server, mistimed(certs, "server1", words)),
    ):
        pass


def test_a_caller_of_another_authority(certs: Path, other: Path) -> None:
    shutil.copy(certs / "ca.crt", other)  # so that it trusts those who do not trust it
    theirs = read_certificates(other / "ca.crt")
    pem, key = (other / "server1.crt").read_bytes(), (other / "server1.key").read_bytes()
    stranger = Identity("server1", other, {}, tuple(theirs), pem, key)
    with (
        listening(load_identity(certs, "server0")) as server,
        refused("server0 at .* refuses the certificate of server1: compare ca.crt, and the clocks"),
        calling(server, stranger),
    ):
        pass


def test_a_caller_without_a_certificate(certs: Path) -> None:
    with listening(load_identity(certs, "server0")) as server:
        address = f"127.0.0.1:{server.port}"
        credentials = grpc.ssl_channel_credentials((certs / "ca.crt").read_bytes())
        with (
            open_channel(address, credentials, server_name=role_host("server0")) as channel,
            pytest.raises(PeerUnreachableError),
        ):
            wait_ready(channel, "server0", address, 0.5)


def test_a_caller_of_no_role(certs: Path) -> None:
    """Nobody makes such certificates, but the authority's key could."""
    key = new_key()
    leaf = Authority.load(certs).issue("mallory", key.public_key(), (), 1)
    (certs / "server1.crt").write_bytes(leaf.public_bytes(Encoding.PEM))
    trusted = load_identity(certs, "server0")
    mallory = Identity(
        "server1", certs, {}, trusted._authorities, leaf.public_bytes(Encoding.PEM), key_bytes(key)
    )
    with (
        listening(trusted) as server,
        calling(server, mallory) as channel,
        refused("The certificate that server0 was shown names no role"),
        call(channel) as link,
    ):
        link.receive(0, 4)


def test_a_listener_whose_certificate_is_for_a_host(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority vouches for an address, and not for the role of who is there."""
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    monkeypatch.setattr(authority, "_alternatives", lambda *_: address)
    mine, key = load_identity(certs, "server1"), new_key()
    leaf = Authority.load(certs).issue("server0", key.public_key(), (), 1)
    pem = leaf.public_bytes(Encoding.PEM)
    host = Identity("server0", certs, {}, mine._authorities, pem, key_bytes(key))
    with (
        listening(host) as server,
        refused("The certificate of server0 at .* names no role: use one that `secformer-rt certs` has made"),
        calling(server, mine),
    ):
        pass


def test_plain_text_and_tls_do_not_mix(certs: Path) -> None:
    mine = load_identity(certs, "server0")
    with (
        listening(None) as server,
        refused("server0 at .* does not speak TLS: compare its configuration, and its address"),
        calling(server, mine),
    ):
        pass
    with (
        listening(mine) as server,
        refused("server0 at .* wants TLS, and this configuration says insecure"),
        calling(server, None),
    ):
        pass


def test_pins_hold(certs: Path) -> None:
    pins = {role: pin(certs, role) for role in ("server0", "server1")}
    with (
        listening(load_identity(certs, "server0", pins)) as server,
        calling(server, load_identity(certs, "server1", pins)) as channel,
    ):
        ping(channel)


def test_a_listener_that_is_not_the_pinned_one(certs: Path, tmp_path: Path) -> None:
    """The authority has made a second certificate of the role."""
    impostor = Path(shutil.copytree(certs, tmp_path / "impostor"))
    replace(impostor, "server0")
    pins = {"server0": pin(certs, "server0")}
    with (
        listening(load_identity(impostor, "server0")) as server,
        refused("The certificate of server0 at .* has fingerprint .*, and .* is pinned for server0"),
        calling(server, load_identity(certs, "server1", pins)),
    ):
        pass


def test_a_caller_that_is_not_the_pinned_one(certs: Path, tmp_path: Path) -> None:
    impostor = Path(shutil.copytree(certs, tmp_path / "impostor"))
    replace(impostor, "server1")
    pins = {"server1": pin(certs, "server1")}
    with (
        listening(load_identity(certs, "server0", pins)) as server,
        calling(server, load_identity(impostor, "server1")) as channel,
        refused("server0 was shown by server1 has fingerprint .*, and .* is pinned for server1"),
        call(channel) as link,
    ):
        link.receive(0, 4)


def test_a_pinned_certificate_must_be_at_hand(certs: Path) -> None:
    pins = {"server0": pin(certs, "server0"), "dealer": pin(certs, "server0")}
    (certs / "server0.crt").unlink()
    mine = load_identity(certs, "server1", pins)
    with refused(r"server0\.crt is missing: make it with `secformer-rt certs`"):
        mine.for_calling("server0")
    with refused(r"dealer\.crt has fingerprint .*, and .* is pinned for dealer"):
        mine.for_calling("dealer")


WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no key": (lambda d, _: (d / "server0.key").unlink(), r"server0\.key is missing: make it with"),
    "no certificate": (lambda d, _: (d / "server0.crt").unlink(), r"server0\.crt is missing"),
    "no authority": (lambda d, _: (d / "ca.crt").unlink(), r"ca\.crt is missing"),
    "open key": (
        lambda d, _: (d / "server0.key").chmod(0o644),
        r"server0\.key can be read by others \(mode 0644\): chmod 600 it",
    ),
    "no PEM": (lambda d, _: (d / "server0.crt").write_text("hello"), r"server0\.crt holds no certificate"),
    "no key PEM": (lambda d, _: (d / "server0.key").write_text("hello"), "holds no private key in PEM"),
    "other key": (
        lambda d, other: shutil.copy(other / "server0.key", d),
        r"server0\.key is not the key of .*server0\.crt",
    ),
    "other authority": (
        lambda d, other: replace(d, "server0", signed_by=other),
        r"server0\.crt was not signed by the authority in this party's ca\.crt",
    ),
    "other role": (
        lambda d, _: replace(d, "server0", "dealer"),
        r"server0\.crt is that of dealer: server0's is needed here",
    ),
    "expired": (lambda d, _: expire(d, "server0"), r"server0\.crt expired on "),
    "not yet valid": (lambda d, _: postdate(d, "server0"), r"server0\.crt is not valid before "),
    "a directory": (
        lambda d, _: ((d / "server0.key").unlink(), (d / "server0.key").mkdir()),
        r"server0\.key cannot be read: Is a directory",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_are_of_no_use(certs: Path, other: Path, name: str) -> None:
    spoil, sentence = WRONG[name]
    spoil(certs, other)
    with refused(sentence):
        load_identity(certs, "server0")


def test_keys_have_no_printable_form(certs: Path) -> None:
    identity = load_identity(certs, "server0")
    secret = (certs / "server0.key").read_text().splitlines()[1]
    for thing in (identity, Authority.load(certs)):
        assert secret not in repr(thing)
        assert "PRIVATE" not in repr(thing)
        assert "key" not in repr(thing).lower().replace(str(certs).lower(), "")


def test_one_is_warned_before_the_end(
    certs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load_identity(certs, "server0")
    assert not caplog.records
    monkeypatch.setattr("secformer_rt.transport.identity.EXPIRES_SOON", 1.0)
    with caplog.at_level(logging.WARNING):
        load_identity(certs, "server0")
    assert "server0.crt expires on " in caplog.text


def test_nothing_is_overwritten(certs: Path) -> None:
    before = (certs / "server1.key").read_bytes()
    (certs / "ca.key").unlink()
    with refused("exists: take another --directory, or replace it with --force"):
        make_all(certs, {}, 1)
    assert not (certs / "ca.key").exists()
    make_all(certs, {}, 1, force=True)
    assert (certs / "server1.key").read_bytes() != before
