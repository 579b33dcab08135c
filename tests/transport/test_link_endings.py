"""How a link ends, and how long it waits: the same over memory and over gRPC."""

from __future__ import annotations

import threading
import time

import pytest

from secformer_rt.errors import DesyncError, MismatchError, PeerLostError, SecformerError
from secformer_rt.transport.aborts import RemoteAbort
from secformer_rt.transport.frames import CHUNK_BYTES
from tests.transport.harness import abort_heard, beside, eventually

MIB = 1 << 20


def finish_both(a, b):
    other = beside(b.finish)
    a.finish()
    other.result()


def test_an_early_end_is_a_desync(pair):
    a, b = pair
    ending = beside(a.finish)
    with pytest.raises(DesyncError, match=r"which sent END"):
        b.receive(0, 8)
    b.abort(DesyncError("the plans differ"))
    with pytest.raises(DesyncError, match=r"server0 stopped the run: the plans differ"):
        ending.result()


def test_an_unread_message_at_the_end_is_a_desync(pair):
    a, b = pair
    a.send(3, b"left over")
    ending = beside(a.finish)
    with pytest.raises(DesyncError, match=r"END was expected of server1, which sent DATA 3 of 9 bytes"):
        b.finish()
    b.close()
    # Its own goodbye was already out, so the other end may have left content.
    ending.thread.join(10)
    assert not ending.thread.is_alive()


@pytest.mark.parametrize("error_class", [MismatchError, DesyncError, PeerLostError, SecformerError])
def test_an_abort_is_the_same_error_at_the_peer(pair, error_class):
    a, b = pair
    waiting = beside(lambda: b.receive(0, 8))
    a.abort(error_class("the sentence"))
    with pytest.raises(SecformerError, match=r"^server1 stopped the run: the sentence$") as caught:
        waiting.result()
    assert type(caught.value) is error_class
    assert isinstance(caught.value.__cause__, RemoteAbort)
    assert (caught.value.__cause__.peer, caught.value.__cause__.code) == ("server1", error_class.code)
    with pytest.raises(error_class, match="the sentence"):
        b.send(0, b"")
    with pytest.raises(error_class, match="the sentence"):
        b.receive(0, 8)


def test_an_abort_overtakes_what_is_queued_and_unread(pair):
    a, b = pair
    for tag in range(50):
        a.send(tag, bytes(MIB))
    a.abort(MismatchError("nothing fits"))
    assert abort_heard(b)
    with pytest.raises(MismatchError, match="nothing fits"):
        b.receive(0, MIB)


def test_an_abort_never_quotes_an_unexpected_exception(pair):
    a, b = pair
    a.abort(ValueError("secret share 1234"))
    with pytest.raises(SecformerError, match=r"server1 stopped the run: it failed unexpectedly") as caught:
        b.receive(0, 8)
    assert type(caught.value) is SecformerError
    assert "1234" not in f"{caught.value} {caught.value.__cause__}"


def test_an_abort_releases_its_own_side(pair):
    a, _ = pair
    waiting = beside(lambda: a.receive(0, 8))
    time.sleep(0.05)
    a.abort(MismatchError("no"))
    with pytest.raises(PeerLostError, match="aborted at this end"):
        waiting.result()
    with pytest.raises(PeerLostError, match="aborted at this end"):
        a.send(0, b"")
    a.abort(MismatchError("again"))
    a.finish()


def test_leaving_the_block_with_an_error_aborts(pair):
    a, b = pair
    with pytest.raises(MismatchError, match=r"^no$"), a:
        raise MismatchError("no")
    with pytest.raises(MismatchError, match="server1 stopped the run: no"):
        b.receive(0, 8)


def test_a_peer_that_disappears_is_lost(pair):
    a, b = pair
    a.send(0, b"last words")
    waiting = beside(lambda: (b.receive(0, 10), b.receive(1, 8)))
    assert eventually(lambda: b.traffic.payload_received == 10)
    a.close()
    with pytest.raises(PeerLostError, match="server1"):
        waiting.result()
    with pytest.raises(PeerLostError, match="server1"):
        b.send(0, b"")
    b.progress()
    b.abort(MismatchError("nobody hears this"))


def test_a_silent_peer_is_lost_after_the_timeout(make_pair):
    with (
        make_pair(timeout_s=0.2) as (a, _),
        pytest.raises(PeerLostError, match=r"server0 has shown no progress for 0\.2 s while DATA 5 of 8"),
    ):
        a.receive(5, 8)


def test_the_handshake_has_its_own_limit(pair):
    a, b = pair
    stop = threading.Event()

    def keep_alive():
        while not stop.wait(0.02):
            a.progress()

    alive = beside(keep_alive)
    with pytest.raises(PeerLostError, match=r"no progress for 0\.3 s while HELLO was awaited"):
        b.receive_hello(0.3)
    stop.set()
    alive.result()


def test_signs_of_life_extend_the_wait(make_pair):
    with make_pair(timeout_s=1.0) as (a, b):
        waiting = beside(lambda: bytes(b.receive(0, 2)))
        for _ in range(30):
            time.sleep(0.05)
            a.progress()
        a.send(0, b"ok")
        assert waiting.result() == b"ok"


def test_own_signs_of_life_do_not_extend_the_wait(make_pair):
    with make_pair(timeout_s=0.3) as (a, _):
        waiting = beside(lambda: a.receive(0, 2))
        ends_at = time.monotonic() + 10
        while waiting.thread.is_alive() and time.monotonic() < ends_at:
            a.progress()
            time.sleep(0.01)
        with pytest.raises(PeerLostError, match="no progress"):
            waiting.result()


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_releases_a_waiting_receiver(pair, how):
    a, _ = pair
    waiting = beside(lambda: a.receive(0, 8))
    time.sleep(0.05)
    if how == "close":
        a.close()
    else:
        a.abort(SecformerError("enough"))
    with pytest.raises(PeerLostError, match="at this end"):
        waiting.result(5.0)


def test_a_flood_is_held_back_at_both_ends(make_pair):
    window = 2 * MIB
    with make_pair(window_bytes=window) as (a, b):
        sent = []

        def flood():
            for tag in range(100):
                a.send(tag, bytes(MIB))
                sent.append(tag)

        flooding = beside(flood)
        assert not eventually(lambda: len(sent) > 60, within_s=0.5)
        held = b._inbox._frames._held_bytes
        assert held <= window + 2 * CHUNK_BYTES
        for tag in range(100):
            b.receive(tag, MIB)
        flooding.result()


def test_a_sender_that_is_held_back_gives_up(make_pair):
    with (
        make_pair(timeout_s=0.3, window_bytes=MIB) as (a, _),
        pytest.raises(PeerLostError, match=r"server0 has taken nothing for 0\.3 s while DATA \d+ of 1048576"),
    ):
        for tag in range(200):
            a.send(tag, bytes(MIB))


@pytest.mark.parametrize("how", ["close", "peer", "abort"])
def test_closing_releases_a_held_back_sender(make_pair, how):
    with make_pair(window_bytes=MIB) as (a, b):

        def flood():
            for tag in range(1000):
                a.send(tag, bytes(MIB))

        flooding = beside(flood)
        time.sleep(0.2)
        if how == "peer":
            b.close()
        elif how == "close":
            a.close()
        else:
            b.abort(MismatchError("too much"))
        with pytest.raises(MismatchError if how == "abort" else PeerLostError):
            flooding.result(10.0)


def test_closing_releases_a_reader_that_is_held_back(make_pair):
    with make_pair(window_bytes=MIB) as (a, b):
        a.send(0, bytes(8 * MIB))
        assert eventually(lambda: b._inbox._frames._held_bytes > MIB)
        b.close()
        assert not b._inbox._reader.is_alive()


def test_finish_is_clean_at_both_ends_and_final(pair):
    a, b = pair
    a.send(0, bytes(3 * MIB))
    b.receive(0, 3 * MIB)
    finish_both(a, b)
    a.finish()
    for link in pair:
        with pytest.raises(PeerLostError, match="has closed the connection"):
            link.receive(1, 1)
        with pytest.raises(PeerLostError, match="has closed the connection"):
            link.send(1, b"")
        link.close()
        link.close()
