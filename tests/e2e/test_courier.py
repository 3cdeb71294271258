# SPDX-License-Identifier: BSD-3-Clause
"""The courier: between a stand-in inspector and a receiver that checks everything with its own code."""
import contextlib
import json
import os
import pathlib
import random
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import time

import pytest

from lib.guard import Guard

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "receiver"))
import link  # noqa: E402
from lab import Lab, wait_for  # noqa: E402

USAGE, DATAERR, NOINPUT, UNAVAILABLE, CONFIG = 64, 65, 66, 69, 78
SOURCE = "/xen/testhost/guest/xvda"


@pytest.fixture
def lab(build, scratch):
    with Lab(build, scratch) as it:
        yield it


@pytest.fixture
def asan_lab(build, scratch):
    """With the courier that was built with sanitizers, when there is one."""
    asan = pathlib.Path(os.environ.get("TAPWIRE_ASAN_BUILD") or build / "asan")
    with Lab(asan if (asan / "tapwire-courier").exists() else build, scratch) as it:
        yield it


def complete(lab, count, redelivered=None):
    """The receiver has seen every event and every batch, in order, each the same each time."""
    summary = lab.stop_receiver()
    assert summary["exit"] == 0, summary
    assert summary["events"] == count, summary
    assert summary["missing"] == summary["missing_batches"] == summary["bad_signatures"] == 0, summary
    if redelivered is not None:
        assert summary["redeliveries"] == redelivered, summary
    return summary


# --- delivery ---

def test_events_arrive_in_order_and_signed(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(5000, "--mixed")
    lab.wait_delivered(5000)
    assert [int(e["sequence"]) for e in lab.received()] == list(range(1, 5001))
    status = lab.status()
    assert (status["received"], status["stored"], status["duplicates"]) == (5000, 5000, 0)
    assert status["spool"]["events"] == 0
    assert status["targets"][0]["delivered"] == 5000
    assert lab.stop_courier() == 0
    complete(lab, 5000, 0)


def test_a_wrong_secret_is_noticed_by_the_receiver(lab):
    """So that the other tests mean something."""
    lab.start_receiver()
    lab.secret.write_text("whsec_" + "QUFB" * 8 + "\n")
    lab.configure()
    lab.start_courier()
    lab.feed(1)
    wait_for(lambda: lab.target()["last_status"] == 401)
    assert lab.target()["last_error"] == "HTTP status 401"
    summary = lab.stop_receiver()
    assert summary["exit"] == 1 and summary["bad_signatures"] > 0 and summary["events"] == 0


def test_the_receiver_notices_a_hole(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(10)
    lab.wait_delivered(10)
    lab.stop_receiver()
    lab.start_receiver()  # knows nothing of the first ten
    lab.feed(20)
    lab.wait_delivered(20)
    summary = lab.stop_receiver()
    assert summary["exit"] == 1 and summary["missing"] == 10 and summary["missing_batches"] > 0


def test_two_disks_share_a_target(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    feeds = [lab.start_feed(2000, "--vdev", f"xvd{c}", epoch=f"disk-{c}") for c in "abcd"]
    assert [feed.wait(timeout=60) for feed in feeds] == [0] * 4
    lab.wait_delivered(8000)
    assert complete(lab, 8000)["epochs"] == {f"disk-{c}": 2000 for c in "abcd"}


def test_a_target_gets_only_what_it_asks_for(lab):
    lab.start_receiver()
    lab.configure(events="file.created, file.d*")
    lab.start_courier()
    lab.feed(500, "--mixed")
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert lab.status()["spool"]["events"] == 0
    kinds = {e["type"] for e in lab.received()}
    assert kinds == {"org.tapwire.file.created", "org.tapwire.file.deleted"}
    summary = lab.stop_receiver()  # sequences have holes, batches have none
    assert summary["missing_batches"] == 0 and summary["missing"] > 0


def test_headers_and_token_go_with_each_request(lab):
    (lab.dir / "token").write_text("s3cret-token\n")
    (lab.dir / "token").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as server:
        lab.port = server.getsockname()[1]
        lab.configure(bearer_token_file=lab.dir / "token", header="X-Origin: dom0\nheader = X-More: a b")
        lab.start_courier()
        lab.feed(1)
        connection, _ = server.accept()
        with connection:
            request = connection.recv(65536).decode()
    head = request.partition("\r\n\r\n")[0]
    assert head.startswith("POST /hook HTTP/1.1\r\n")
    for line in ("Authorization: Bearer s3cret-token", "X-Origin: dom0", "X-More: a b",
                 "Content-Type: application/cloudevents-batch+json", "User-Agent: tapwire/"):
        assert f"\r\n{line}" in head
    assert re.search(r"\r\nTapwire-Batch: [0-9a-f]{16}/1\r\n", head)
    assert "Expect:" not in head


# --- batching ---

def batch_sizes(lab):
    """Events of each delivered batch: those that were received at the same time."""
    sizes = {}
    for event in lab.received():
        sizes[event["_received"]] = sizes.get(event["_received"], 0) + 1
    return list(sizes.values())


def test_a_batch_has_no_more_events_than_the_limit(lab):
    lab.start_receiver()
    lab.configure(batch_events=7, batch_delay_ms=200)
    lab.start_courier()
    lab.feed(100)
    lab.wait_delivered(100)
    assert batch_sizes(lab) == [7] * 14 + [2]


def test_a_batch_has_no_more_bytes_than_the_limit(lab):
    lab.start_receiver()
    lab.configure(batch_bytes="4K", batch_events=1000, batch_delay_ms=200)
    lab.start_courier()
    lab.feed(40, "--padding", "600")  # over 1 KiB each: three fit
    lab.feed(41, "--padding", "9000")  # one that is too long goes alone
    lab.wait_delivered(41)
    summary = complete(lab, 41)
    assert max(batch_sizes(lab)) == 3
    assert summary["bytes"] / summary["batches"] < 4096 + 9000 / summary["batches"]


def test_a_small_batch_waits_for_its_delay(lab):
    lab.start_receiver()
    lab.configure(batch_delay_ms=400)
    lab.start_courier()
    lab.feed(1)
    lab.feed(3)
    lab.wait_delivered(3)
    assert batch_sizes(lab) == [3]
    assert complete(lab, 3)["delay_max_ms"] >= 390


def test_without_delay_an_event_goes_at_once(lab):
    lab.start_receiver()
    lab.configure(batch_delay_ms=0)
    lab.start_courier()
    lab.feed(20, "--rate", "50")
    lab.wait_delivered(20)
    assert batch_sizes(lab) == [1] * 20


def test_a_connection_serves_many_batches(lab):
    lab.start_receiver()
    lab.configure(batch_delay_ms=0)
    lab.start_courier()
    lab.feed(50, "--rate", "200")
    lab.wait_delivered(50)
    summary = complete(lab, 50)
    assert summary["batches"] > 5
    assert summary["connections"] == 1


# --- a receiver that misbehaves ---

@pytest.mark.parametrize("fault", ["--fail=5:500", "--fail=3:404", "--fail=3:302", "--hang=1", "--close-early=4",
                                   "--reset=4", "--truncate=3"])
def test_a_misbehaving_receiver_gets_everything_in_the_end(lab, fault):
    lab.start_receiver(fault)
    lab.configure(timeout_ms=300)
    lab.start_courier()
    lab.feed(300)
    lab.wait_delivered(300)
    target = lab.target()
    assert target["retries"] >= int(fault.split("=")[1].split(":")[0]) and target["last_error"] == ""
    assert "not delivered" in lab.said()
    complete(lab, 300)


def test_a_refused_connection_is_tried_again(lab):
    lab.reserve_port()
    lab.configure()
    lab.start_courier()
    lab.feed(300)
    wait_for(lambda: lab.target()["retries"] >= 3)
    target = lab.target()
    assert target["backlog"] == 300 and "refused" in target["last_error"]
    assert lab.said().count("not delivered") == 1  # once a trouble, not once an attempt
    lab.start_receiver()
    lab.wait_delivered(300)
    complete(lab, 300, 0)


def test_retry_after_is_kept(lab):
    lab.start_receiver("--fail=1:503", "--retry-after=1")
    lab.configure()
    lab.start_courier()
    start = time.monotonic()
    lab.feed(1)
    lab.wait_delivered(1)
    assert time.monotonic() - start >= 0.95
    complete(lab, 1)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 504, 599])
def test_retry_after_is_kept_whatever_the_status(lab, status):
    lab.start_receiver(f"--fail=1:{status}", "--retry-after=1")
    lab.configure()
    lab.start_courier()
    start = time.monotonic()
    lab.feed(1)
    lab.wait_delivered(1)
    assert time.monotonic() - start >= 0.95
    complete(lab, 1)


def test_410_suspends_the_target_and_keeps_its_events(lab):
    lab.start_receiver("--fail=1:410")
    lab.configure()
    lab.start_courier()
    lab.feed(10)
    wait_for(lambda: lab.target()["suspended"])
    lab.feed(30)
    time.sleep(0.3)
    target = lab.target()
    assert (target["backlog"], target["delivered"], target["retries"]) == (30, 0, 0)
    assert lab.count() == 0 and "410" in lab.said()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_when_told(lab, status):
    lab.start_receiver(f"--fail=1:{status}")
    lab.configure(follow_redirects="yes")
    lab.start_courier()
    lab.feed(10)
    lab.wait_delivered(10)
    assert lab.target()["retries"] == 0
    complete(lab, 10)


def test_a_slow_target_does_not_hold_up_another(lab):
    lab.start_receiver()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lab.configure(text=f"[target a]\nurl = http://127.0.0.1:{silent.getsockname()[1]}/\n"
                           f"[target b]\nurl = http://127.0.0.1:{lab.port}/\nsecret_file = {lab.secret}\n")
        lab.start_courier()
        lab.feed(1000)
        wait_for(lambda: lab.count() == 1000)
        backlog = {t["name"]: t["backlog"] for t in lab.status()["targets"]}
        assert backlog["a"] == 1000
        assert lab.stop_courier() == 0
        complete(lab, 1000)


# --- a receiver that refuses ---

def dead_letters(lab):
    return lab.status()["spool"]["dead_letters"]


@pytest.mark.parametrize("status", [400, 403, 409, 422, 451])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_refused_event_is_found_and_the_rest_goes_on(lab, status, where):
    bad = {"first": 1, "middle": 37, "last": 60}[where]
    lab.start_receiver(f"--refuse=/file-{bad}$:{status}")
    lab.configure(batch_delay_ms=50)
    lab.start_courier()
    lab.feed(60)
    wait_for(lambda: dead_letters(lab) == 1)
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert [int(e["sequence"]) for e in lab.received()] == [n for n in range(1, 61) if n != bad]
    assert lab.target()["refused"] == 1
    summary = lab.stop_receiver()
    assert (summary["missing_batches"], summary["duplicates"]) == (0, 0), summary


def test_several_refused_events_are_all_found(lab):
    lab.start_receiver("--refuse=file-1:400")  # 1, 10 to 19, 100 to 199: many in a row
    lab.configure(batch_delay_ms=50, retry_max_ms=10)
    lab.start_courier()
    lab.feed(230)
    wait_for(lambda: lab.target()["backlog"] == 0)
    bad = [n for n in range(1, 231) if str(n).startswith("1")]
    assert [int(e["sequence"]) for e in lab.received()] == [n for n in range(1, 231) if n not in bad]
    assert dead_letters(lab) == lab.target()["refused"] == len(bad)
    assert lab.stop_receiver()["missing_batches"] == 0


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_receiver_that_refuses_everything_gets_it_later(lab, status):
    """A wrong token, a wrong path, a broken receiver: no reason to give events up."""
    lab.start_receiver(f"--status={status}")
    lab.configure(retry_min_ms=1, retry_max_ms=10)
    lab.start_courier()
    lab.feed(300)
    wait_for(lambda: lab.target()["retries"] >= 6)
    assert dead_letters(lab) == 0
    lab.stop_receiver()
    lab.start_receiver()
    lab.wait_delivered(300)
    assert [int(e["sequence"]) for e in lab.received()] == list(range(1, 301))
    assert dead_letters(lab) == 0
    summary = lab.stop_receiver()
    assert (summary["missing"], summary["duplicates"]) == (0, 0), summary


def test_an_event_that_is_refused_alone_is_given_up_after_some_tries(lab):
    lab.start_receiver("--refuse=/file-1$:400")
    lab.configure()
    lab.start_courier()
    lab.feed(1)
    wait_for(lambda: dead_letters(lab) == 1)
    assert lab.target()["retries"] == 2
    lab.feed(3)
    lab.wait_delivered(2)


def test_a_batch_that_is_too_long_is_cut_by_its_size(lab):
    lab.start_receiver("--max-bytes=6000")
    lab.configure(batch_delay_ms=50)
    lab.start_courier()
    lab.feed(50)
    lab.feed(51, "--padding", "9000")
    lab.feed(80)
    lab.wait_delivered(79)
    assert [int(e["sequence"]) for e in lab.received()] == [n for n in range(1, 81) if n != 51]
    assert dead_letters(lab) == 1
    requests = lab.stop_receiver()["requests"]
    assert requests < 40, requests  # the size is remembered


def test_what_is_refused_survives_a_kill(lab):
    lab.start_receiver("--refuse=file-2:400", "--slow=0.01")
    lab.configure(batch_delay_ms=50, retry_max_ms=10)
    lab.start_courier()
    lab.feed(200)
    for _ in range(6):
        time.sleep(0.15)
        lab.kill_courier()
        lab.start_courier()
    wait_for(lambda: lab.target()["backlog"] == 0)
    bad = [n for n in range(1, 201) if str(n).startswith("2")]
    assert [int(e["sequence"]) for e in lab.received()] == [n for n in range(1, 201) if n not in bad]
    assert dead_letters(lab) == len(bad)


def test_a_suspended_target_stays_so_after_a_restart(lab):
    lab.start_receiver("--fail=1:410")
    lab.configure()
    lab.start_courier()
    lab.feed(10)
    wait_for(lambda: lab.target()["suspended"])
    time.sleep(0.2)
    lab.kill_courier()
    lab.start_courier()
    lab.feed(20)
    time.sleep(0.3)
    assert lab.target()["suspended"] and lab.target()["backlog"] == 20 and lab.count() == 0


# --- several requests at a time ---

def test_lanes_keep_each_disks_order(lab):
    lab.start_receiver("--slow=0.02")
    lab.configure(concurrency=4, batch_events=10)
    lab.start_courier()
    feeds = [lab.start_feed(400, "--vdev", f"xvd{c}", epoch=f"disk-{c}") for c in "abcdefgh"]
    assert [feed.wait(timeout=60) for feed in feeds] == [0] * 8
    wait_for(lambda: lab.target()["backlog"] == 0)
    last = {}
    for event in lab.received():
        epoch, _, sequence = event["id"].rpartition("-")
        assert int(sequence) == last.get(epoch, 0) + 1
        last[epoch] = int(sequence)
    assert last == {f"disk-{c}": 400 for c in "abcdefgh"}
    assert lab.target()["concurrency"] > 1
    summary = complete(lab, 3200)
    assert len(summary["targets"]) == 4  # each lane has its own numbers
    assert summary["connections"] > 1


def test_a_target_that_is_overloaded_gets_fewer_requests_at_a_time(lab):
    lab.start_receiver("--slow=0.01")
    lab.configure(concurrency=8, batch_events=2)
    lab.start_courier()
    feeds = [lab.start_feed(150, "--vdev", f"xvd{c}", epoch=f"disk-{c}") for c in "abcdefghijklmnop"]
    assert [feed.wait(timeout=60) for feed in feeds] == [0] * 16
    wait_for(lambda: lab.target()["backlog"] == 0)
    before = lab.target()["concurrency"]
    lab.stop_receiver()
    lab.start_receiver("--status=429")
    feeds = [lab.start_feed(160, "--vdev", f"xvd{c}", epoch=f"disk-{c}") for c in "abcdefghijklmnop"]
    assert [feed.wait(timeout=60) for feed in feeds] == [0] * 16
    wait_for(lambda: lab.target()["concurrency"] == 1)
    assert before >= 4


# --- a courier that is killed ---

@pytest.mark.slow
def test_kill_minus_nine_under_load_loses_nothing(lab, seed):
    pick = random.Random(seed)
    lab.start_receiver()
    lab.configure(batch_events=20)
    lab.start_courier()
    feed = lab.start_feed(6000, "--rate", "2000", "--mixed")
    kills = 0
    while feed.poll() is None:
        time.sleep(pick.uniform(0.01, 0.25))
        lab.kill_courier()
        lab.start_courier()
        kills += 1
    assert feed.wait() == 0 and kills >= 8
    lab.wait_delivered(6000)
    assert [int(e["sequence"]) for e in lab.received()] == list(range(1, 6001))
    complete(lab, 6000)


test_kill_minus_nine_under_load_loses_nothing.seeds = [1, 2]


def test_a_batch_comes_again_with_the_same_number_id_and_events(lab):
    """The receiver hangs on a batch; courier killed; more events; the batch is sent again as it was."""
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        lab.port = server.getsockname()[1]
        lab.configure()
        for count in (5, 9):
            lab.start_courier()
            lab.feed(count)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(5)
                data = b""
                while not data.endswith(b"]"):
                    data += connection.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            requests.append((re.search(rb"webhook-id: (\S+)", head).group(1),
                             re.search(rb"Tapwire-Batch: (\S+)", head).group(1), body))
            lab.kill_courier()
    assert requests[0] == requests[1]


def test_what_is_in_the_spool_is_delivered_after_a_restart(lab):
    lab.reserve_port()
    lab.configure()
    lab.start_courier()
    lab.feed(500)
    lab.kill_courier()
    lab.start_receiver()
    lab.start_courier()
    lab.wait_delivered(500)
    lab.feed(600)  # the sequence goes on where it was
    lab.wait_delivered(600)
    complete(lab, 600, 0)


def test_sigterm_drains_when_asked_to(lab):
    lab.start_receiver("--slow", "0.02")
    lab.configure(batch_events=10)
    lab.start_courier("--drain", "20")
    lab.feed(300)
    assert lab.stop_courier() == 0
    assert not lab.socket.exists()
    complete(lab, 300, 0)


def test_sigterm_without_drain_ends_at_once_and_keeps_the_rest(lab):
    lab.reserve_port()
    lab.configure(retry_min_ms=60000, retry_max_ms=60000)
    lab.start_courier()
    lab.feed(300)
    start = time.monotonic()
    assert lab.stop_courier() == 0
    assert time.monotonic() - start < 5
    lab.start_receiver()
    lab.start_courier()
    lab.wait_delivered(300)
    complete(lab, 300, 0)


# --- the spool ---

@pytest.fixture
def small_disk(scratch):
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    path = scratch / "small"
    path.mkdir()
    guard = Guard()
    try:
        guard.push("umount", "-l", path)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tapwire-test", path], capture_output=True,
                              check=False)
        if done.returncode:
            guard.pop()
            pytest.skip("cannot mount a tmpfs: " + done.stderr.decode().strip())
        yield path
    finally:
        guard.close()


@pytest.mark.slow
def test_a_full_disk_holds_inspectors_back_and_recovers(build, scratch, small_disk):
    with Lab(build, scratch, small_disk) as lab:
        lab.reserve_port()
        lab.configure(retry_max_ms=50)
        lab.start_courier()
        feed = lab.start_feed(20000, "--padding", "500")
        wait_for(lambda: lab.status()["spool"]["full"], what="a full spool")
        time.sleep(1.2)  # two more tries
        stored = lab.status()["stored"]
        assert 0 < stored < 20000 and feed.poll() is None
        assert lab.said().count("taking no events") == 1
        lab.start_receiver()
        assert feed.wait(timeout=60) == 0
        lab.wait_delivered(20000)
        assert "taking events again" in lab.said()
        assert lab.courier.poll() is None
        complete(lab, 20000)


@pytest.mark.slow
def test_no_space_left_at_all_is_survived(build, scratch, small_disk):
    """Somebody else fills the file system to the last byte."""
    with Lab(build, scratch, small_disk) as lab:
        lab.reserve_port()
        lab.configure(retry_max_ms=50)
        lab.start_courier()
        lab.feed(100)
        filler = small_disk / "filler"
        file = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError):
            while True:
                os.write(file, b"x" * 4096)
        os.close(file)
        feed = lab.start_feed(20000, "--padding", "500")
        wait_for(lambda: lab.status()["spool"]["full"], what="a full spool")
        time.sleep(1.2)
        assert lab.courier.poll() is None and feed.poll() is None
        assert lab.said().count("taking no events") == 1
        filler.unlink()
        lab.start_receiver()
        assert feed.wait(timeout=60) == 0
        lab.wait_delivered(20000)
        complete(lab, 20000)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["down", "up"])
def test_a_write_without_space_is_rolled_back_and_done_again(lab, target):
    """The check for room said yes, and the write fails: events and acknowledgements alike."""
    library = lab.dir / "enospc.so"
    source = pathlib.Path(__file__).resolve().parent.parent / "receiver" / "enospc.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    switch = lab.dir / "no-space"
    lab.reserve_port()
    lab.configure(batch_events=10, retry_max_ms=50)
    lab.start_courier(env={"LD_PRELOAD": str(library), "TAPWIRE_ENOSPC": str(switch)})
    if target == "up":
        lab.start_receiver()
    feed = lab.start_feed(4000, "--rate", "2000")
    for _ in range(2):
        before = lab.status()["stored"]
        wait_for(lambda: lab.status()["stored"] > before, what="events")
        switch.touch()
        wait_for(lambda: lab.status()["spool"]["full"], what="a full spool")
        time.sleep(1.2)
        held = lab.status()["stored"]
        assert lab.courier.poll() is None and feed.poll() is None
        switch.unlink()
        wait_for(lambda: lab.status()["stored"] > held, what="events again")
    if target == "down":
        lab.start_receiver()
    assert feed.wait(timeout=60) == 0
    lab.wait_delivered(4000)
    assert lab.said().count("taking no events") == lab.said().count("taking events again") == 2
    assert lab.status()["refused"] == 0  # nobody had to connect again
    complete(lab, 4000)


@pytest.mark.slow
def test_the_operators_limit_holds_inspectors_back(lab):
    lab.reserve_port()
    lab.configure(spool="max_bytes = 1MiB")
    lab.start_courier()
    feed = lab.start_feed(10000, "--padding", "300")
    wait_for(lambda: lab.status()["spool"]["full"], what="a full spool")
    assert lab.status()["spool"]["bytes"] < 3 << 20
    lab.start_receiver()
    assert feed.wait(timeout=60) == 0
    lab.wait_delivered(10000)
    complete(lab, 10000)


def refuses_to_start(lab, status, *words):
    code, said = lab.run_courier()
    assert code == status, said
    assert said.count("\n") == 1 and said.startswith("tapwire-courier: "), said
    for word in words:
        assert str(word) in said


def test_a_spool_that_cannot_be_opened_is_named(lab):
    lab.configure()
    lab.spool = lab.dir / "nowhere" / "spool.db"
    refuses_to_start(lab, NOINPUT, lab.spool, "No such file")


def test_a_second_courier_is_refused(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(1)
    refuses_to_start(lab, UNAVAILABLE, lab.spool, "in use")
    code, said = lab.run_courier("--spool", lab.dir / "other.db")
    assert code == UNAVAILABLE and "courier.sock is in use" in said
    lab.feed(2)  # the first one has not suffered
    lab.wait_delivered(2)


def test_a_stale_socket_is_replaced_and_a_file_is_not(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(1)
    lab.kill_courier()
    assert lab.socket.exists()
    lab.start_courier()
    lab.feed(2)
    assert stat.S_IMODE(lab.socket.stat().st_mode) == 0o600
    assert lab.stop_courier() == 0
    lab.socket.write_text("precious")
    refuses_to_start(lab, UNAVAILABLE, lab.socket, "no socket")
    assert lab.socket.read_text() == "precious"


# --- bad configuration ---

@pytest.mark.parametrize("text,line,words", [
    ("[service]\nstatedir = /x\n", 2, ["unknown key", "statedir"]),
    ("\n[targets a]\nurl = http://h/\n", 2, ["unknown section", "[target NAME]"]),
    ("[target a]\nurl = gopher://h/\n", 2, ["gopher://h/", "http://"]),
    ("[target a]\nurl = http://h/\nsecret_file = /nonexistent/secret\n", 3, ["/nonexistent/secret", "whsec_"]),
    ("[target a]\n", 1, ["without url"]),
])
def test_a_bad_configuration_is_told_with_its_line(lab, text, line, words):
    lab.configure(text=text)
    refuses_to_start(lab, CONFIG, f"{lab.conf}:{line}: ", "expected", *words)
    assert not lab.spool.exists()


def test_a_bad_command_line_is_told(lab):
    for args in (["--nonsense"], ["--drain", "x"], ["--post", "http://h/", "--config", "c"], ["surplus"],
                 ["--post", "nonsense"]):
        done = subprocess.run([lab.program, *args], capture_output=True, timeout=20, check=False)
        assert done.returncode == USAGE and done.stderr


def test_help_and_man_page_name_the_same_options(lab):
    text = subprocess.run([lab.program, "--help"], capture_output=True, timeout=20, check=True).stdout.decode()
    page = (pathlib.Path(__file__).resolve().parents[2] / "man" / "tapwire-courier.8").read_text()
    options = page[page.index(".SH OPTIONS"):page.index(".SH THE REQUEST")]
    assert set(re.findall(r"--[a-z-]+", text)) == \
        set(re.findall(r"--[a-z-]+", options.replace("\\-", "-")))
    version = subprocess.run([lab.program, "--version"], capture_output=True, timeout=20, check=True).stdout
    assert version.startswith(b"tapwire-courier ")


# --- hostile peers ---

def drops(lab, data):
    """Whether the courier disconnects who sends this."""
    with link.connect(os.fspath(lab.socket), 10) as sock:
        reader = link.Reader(sock)
        try:
            sock.sendall(data)
            while reader.read() is not None:
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


def hostile(lab):
    hello = link.hello("evil", SOURCE)
    good = link.event("evil", SOURCE, 1)

    def event(body, sequence=1, event_type=2):
        return hello + link.frame(link.EVENT, body, sequence, event_type)
    return {
        "garbage": random.Random(5).randbytes(4096),
        "a huge length": struct.pack("<IHHQ", 0xffffffff, link.EVENT, 0, 1),
        "an unknown kind": link.frame(99),
        "the courier's own type": event(good, event_type=15),
        "a command after hello": hello + link.frame(7, b"{}"),
        "an answer": link.frame(link.WELCOME, sequence=1),
        "an event first": link.frame(link.EVENT, good, 1, 2),
        "two hellos": hello + hello,
        "hello without strings": link.frame(link.HELLO),
        "hello without NUL": link.frame(link.HELLO, b"epoch"),
        "hello with more": link.frame(link.HELLO, b"a\0/b\0c"),
        "hello with a line end": link.hello("a\nb", SOURCE),
        "hello of great length": link.hello("a" * 1000, SOURCE),
        "a tail with a body": link.frame(link.TAIL, b"x"),
        "a status after hello": hello + link.frame(link.STATUS),
        "a gap": link.hello("gap", SOURCE) + b"".join(
            link.frame(link.EVENT, link.event("gap", SOURCE, n), n, 2) for n in (1, 3)),
        "a far sequence": event(link.event("evil", SOURCE, 2**64 - 1), sequence=2**64 - 1),
        "type 0": event(good, event_type=0),
        "type 65535": event(good, event_type=65535),
        "no JSON": event(b"hello"),
        "half an object": event(good[:-1]),
        "two objects": event(good + b"," + good),
        "an array": event(b"[" + good + b"]"),
        "bytes that are no UTF-8": event(good.replace(b"/var", b"/\xff\xfe")),
        "another disk's source": event(good.replace(b"xvda", b"xvdb")),
        "another disk's id": event(good.replace(b"evil-1", b"epoch-1-9")),
        "deep nesting": event(b'{"a":' + b"[" * 1000000 + b"}"),
        "an empty body": event(b""),
    }


def test_hostile_peers_harm_nobody(asan_lab):
    lab = asan_lab
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    feed = lab.start_feed(1500, "--rate", "1000")
    cases = hostile(lab)
    for name, data in cases.items():
        refused = lab.status()["refused"]
        assert drops(lab, data), f"{name}: still connected\n{lab.said()}"
        assert lab.status()["refused"] == refused + 1, name
    assert feed.wait(timeout=60) == 0
    lab.wait_delivered(1501)  # the one before the gap counts
    wait_for(lambda: lab.status()["inspectors"] == 0)
    assert lab.stop_courier() == 0, lab.said()
    complete(lab, 1501)


def test_anything_may_arrive_in_pieces(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    data = link.hello("e", SOURCE) + b"".join(
        link.frame(link.EVENT, link.event("e", SOURCE, n), n, 2) for n in (1, 2))
    with link.connect(os.fspath(lab.socket)) as sock:
        for byte in data:
            sock.sendall(bytes([byte]))
        reader = link.Reader(sock)
        assert reader.read()[0] == link.WELCOME
        acked = 0
        while acked < 2:
            kind, _, acked, _ = reader.read()
            assert kind == link.ACK
    lab.wait_delivered(2)
    complete(lab, 2)


def test_an_event_that_is_known_is_acknowledged_and_not_sent_again(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(3)
    with link.connect(os.fspath(lab.socket)) as sock:
        source = "/xen/testhost/0d1e5a9c-0000-4000-8000-00000000000a/xvda"
        sock.sendall(link.hello("epoch-1", source) +
                     link.frame(link.EVENT, link.event("epoch-1", source, 2), 2, 2))
        reader = link.Reader(sock)
        assert reader.read()[0::2] == (link.WELCOME, 3)
        assert reader.read()[0::2] == (link.ACK, 3)
    assert lab.status()["duplicates"] == 1
    lab.wait_delivered(3)
    assert complete(lab, 3)["duplicates"] == 0


def test_of_two_inspectors_of_a_disk_the_newer_one_stays(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    with link.connect(os.fspath(lab.socket)) as old, link.connect(os.fspath(lab.socket)) as new:
        old.sendall(link.hello("e", SOURCE))
        assert link.Reader(old).read()[0] == link.WELCOME
        new.sendall(link.hello("e", SOURCE))
        reader = link.Reader(new)
        assert reader.read()[0] == link.WELCOME
        assert old.recv(1) == b""
        new.sendall(link.frame(link.EVENT, link.event("e", SOURCE, 1), 1, 2))
        assert reader.read()[0::2] == (link.ACK, 1)


@pytest.fixture
def many_files():
    """For this process alone, up to 4,096 open files; what it starts has a soft limit of its own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[0]), max(4096, before[1])))
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, before[1])))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], max(4096, before[1])))


def test_more_inspectors_than_the_soft_limit_of_open_files(lab, many_files):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    many_files()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(link.connect(os.fspath(lab.socket))) for _ in range(1100)]
        for number, peer in enumerate(peers):
            epoch, source = f"disk-{number}", f"/xen/testhost/guest-{number}/xvda"
            peer.sendall(link.hello(epoch, source) + link.frame(link.EVENT, link.event(epoch, source, 1), 1, 2))
        for peer in peers:
            reader = link.Reader(peer)
            assert reader.read()[0] == link.WELCOME
            assert reader.read()[0::2] == (link.ACK, 1)
        assert lab.status()["inspectors"] == len(peers)
    lab.wait_delivered(len(peers))
    assert lab.status()["refused"] == 0
    complete(lab, len(peers))


def is_welcome(peer):
    try:
        return link.Reader(peer).read() is not None
    except ConnectionResetError:
        return False


def test_more_connections_than_may_be_are_refused_and_said(lab, many_files):
    """Where the hard limit is as small as this, a quarter is left for the targets."""
    lab.start_receiver()
    lab.configure()
    lab.start_courier(through=("prlimit", "--nofile=64:64"))
    many_files()
    with contextlib.ExitStack() as stack:
        peers = []
        for number in range(60):
            peer = stack.enter_context(link.connect(os.fspath(lab.socket)))
            peer.sendall(link.hello(f"disk-{number}", f"/xen/testhost/guest-{number}/xvda"))
            peers.append(peer)
        assert [number for number, peer in enumerate(peers) if is_welcome(peer)] == list(range(48))
        peers[0].sendall(link.frame(link.EVENT, link.event("disk-0", "/xen/testhost/guest-0/xvda", 1), 1, 2))
        assert link.Reader(peers[0]).read()[0::2] == (link.ACK, 1)
    lab.wait_delivered(1)
    assert "raise the limit of open files (LimitNOFILE=)" in lab.said()
    complete(lab, 1)


def test_an_idle_courier_sleeps(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(10)
    lab.wait_delivered(10)

    def naps():
        text = pathlib.Path(f"/proc/{lab.courier.pid}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.M)[1])

    def slept():
        before = naps()
        time.sleep(3)
        return naps() - before <= 1
    wait_for(slept)
    complete(lab, 10)


def test_an_epoch_cannot_be_taken_over_under_another_source(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    lab.feed(1)
    assert drops(lab, link.hello("epoch-1", SOURCE))
    assert lab.status()["refused"] == 1 and "belongs to" in lab.said()
    lab.feed(2)


def test_tail_shows_events_as_they_are_stored(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    with link.connect(os.fspath(lab.socket)) as sock:
        sock.sendall(link.frame(link.TAIL))
        wait_for(lambda: lab.status()["tails"] == 1)
        lab.feed(50)
        reader = link.Reader(sock)
        frames = [reader.read() for _ in range(50)]
    assert [f[2] for f in frames] == list(range(1, 51))
    assert all(f[0] == link.EVENT and json.loads(f[3])["sequence"] == str(f[2]) for f in frames)
    lab.wait_delivered(50)


@pytest.mark.slow
def test_a_tail_that_does_not_read_is_dropped(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    with link.connect(os.fspath(lab.socket)) as sock:
        sock.sendall(link.frame(link.TAIL))
        wait_for(lambda: lab.status()["tails"] == 1)
        lab.feed(15000, "--padding", "1000")
        wait_for(lambda: lab.status()["tails"] == 0)
    lab.wait_delivered(15000)
    complete(lab, 15000)
