# SPDX-License-Identifier: BSD-3-Clause
"""What the spool does for operators: limits of targets, dead letters, sending again, a damaged file."""
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "receiver"))
import link  # noqa: E402
from lab import Lab, wait_for  # noqa: E402

USAGE = 64


@pytest.fixture
def lab(build, scratch):
    with Lab(build, scratch) as it:
        it.build = build
        yield it


def cli(lab, *argv, status=0):
    wait_for(lab.socket.exists)
    done = subprocess.run([lab.build / "tapwire", *map(str, argv), "--state", lab.dir], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


def ask(lab, *argv):
    return json.loads(cli(lab, *argv, "--json"))


def sequences(lab, kind="file."):
    return [int(e["sequence"]) for e in lab.received() if e["type"].startswith("org.tapwire." + kind)]


def dropped(lab):
    return [e for e in lab.received() if e["type"] == "org.tapwire.spool.dropped"]


# --- limits of a target ---

def test_a_backlog_that_is_too_old_is_dropped_and_told(lab):
    lab.reserve_port()
    lab.configure(max_age="1s", retry_max_ms=50)
    lab.start_courier()
    lab.feed(500)
    wait_for(lambda: lab.target()["dropped"] == 500)
    assert "500 events are dropped: max_age" in lab.said()
    lab.start_receiver("--any-start")
    lab.feed(600)
    wait_for(lambda: lab.target()["backlog"] == 0)
    assert sequences(lab) == list(range(501, 601))
    [told] = dropped(lab)
    data = told["data"]
    assert (told["subject"], data["target"], data["reason"], data["events"]) == ("t", "t", "max_age", 500)
    [disk] = data["disks"]
    assert (disk["epoch"], disk["first"], disk["last"], disk["events"]) == ("epoch-1", 1, 500, 500)
    assert told["source"].startswith("/xen/") and told["source"].endswith("/spool")


def test_a_backlog_that_is_too_long_loses_its_oldest_and_no_other_target_does(lab):
    lab.start_receiver()
    lab.configure(text=f"[target up]\nurl = http://127.0.0.1:{lab.port}/\nsecret_file = {lab.secret}\n"
                       "batch_delay_ms = 0\nmax_bytes = 256KiB\n"
                       "[target down]\nurl = http://127.0.0.1:1/\nmax_bytes = 256KiB\nretry_min_ms = 5\n"
                       "retry_max_ms = 50\n")
    lab.start_courier()
    for count in range(400, 4001, 400):
        lab.feed(count)
        time.sleep(0.12)
    wait_for(lambda: len(sequences(lab)) == 4000)
    down = {t["name"]: t for t in lab.status()["targets"]}["down"]
    assert down["dropped"] > 2000
    told = dropped(lab)
    assert all(event["data"]["target"] == "down" for event in told)
    assert down["backlog"] <= 256 * 1024 / 400
    counts = [event["data"]["events"] for event in told]  # each includes what was told before
    assert counts == sorted(counts) and counts[-1] <= down["dropped"]
    ends = [event["data"]["disks"][0]["last"] for event in told]
    assert ends == sorted(ends)
    assert lab.stop_receiver()["missing"] == 0


def test_what_was_dropped_and_what_is_delivered_is_everything(lab):
    lab.reserve_port()
    lab.configure(max_bytes="200KiB", retry_max_ms=50)
    lab.start_courier()
    for count in range(200, 2001, 200):
        lab.feed(count)
        time.sleep(0.12)
    lab.start_receiver("--any-start")
    wait_for(lambda: lab.target()["backlog"] == 0)
    got = sequences(lab)
    holes = {n for event in dropped(lab) for disk in event["data"]["disks"] if disk["epoch"] == "epoch-1"
             for n in range(disk["first"], disk["last"] + 1)}
    assert dropped(lab)[-1]["data"]["events"] >= len(holes)  # with what told of earlier ones
    assert holes and not holes & set(got)
    assert sorted(holes | set(got)) == list(range(1, 2001))
    assert got == sorted(got)


# --- operators ---

def test_dead_letters_are_listed_shown_sent_again_and_dropped(lab):
    lab.start_receiver("--refuse=/file-[357]$:422")
    lab.configure(batch_delay_ms=50)
    lab.start_courier()
    lab.feed(20)
    wait_for(lambda: len(ask(lab, "dead-letters", "list")["letters"]) == 3)
    letters = ask(lab, "dead-letters", "list")["letters"]
    assert [(x["target"], x["status"], x["subject"]) for x in letters] == \
        [("t", 422, f"/var/log/file-{n}") for n in (3, 5, 7)]
    shown = ask(lab, "dead-letters", "show", letters[1]["id"])["letter"]
    assert shown["event"]["sequence"] == "5" and shown["subject"] == "/var/log/file-5"
    assert "/var/log/file-7" in cli(lab, "dead-letters", "list")
    assert "no dead letter 99" in cli(lab, "dead-letters", "show", "99", status=USAGE)
    assert cli(lab, "dead-letters", "drop", letters[0]["id"]) == "1\n"
    assert "no dead letter" in cli(lab, "dead-letters", "drop", letters[0]["id"], status=USAGE)
    lab.stop_receiver()
    lab.start_receiver("--any-start")
    assert cli(lab, "dead-letters", "redeliver", letters[1]["id"]) == "1\n"
    assert cli(lab, "dead-letters", "redeliver", "--all", "--target", "t") == "1\n"
    wait_for(lambda: {5, 7} <= set(sequences(lab)))
    assert 3 not in sequences(lab)
    assert ask(lab, "spool")["spool"]["dead_letters"] == 0
    assert lab.target()["backlog"] == 0


def test_dead_letters_survive_a_kill_and_go_to_their_own_target_only(lab):
    lab.start_receiver("--refuse=/file-3$:400")
    other = lab.dir / "other"
    other.mkdir()
    with Lab(lab.build, other) as second:
        second.start_receiver()
        target = "[target {}]\nurl = http://127.0.0.1:{}/\nsecret_file = {}\nbatch_delay_ms = 50\n"
        lab.configure(text=target.format("a", lab.port, lab.secret) + target.format("b", second.port, lab.secret))
        lab.start_courier()
        lab.feed(10)
        wait_for(lambda: ask(lab, "spool")["spool"]["dead_letters"] == 1)
        lab.kill_courier()
        lab.stop_receiver()
        lab.start_receiver("--any-start")
        lab.start_courier()
        lab.feed(10)
        assert cli(lab, "dead-letters", "redeliver", "--all") == "1\n"
        wait_for(lambda: 3 in sequences(lab))
        wait_for(lambda: sum(t["backlog"] for t in lab.status()["targets"]) == 0)
        assert second.stop_receiver()["duplicates"] == 0


def test_a_target_gets_again_what_it_has_had(lab):
    lab.start_receiver()
    lab.configure(batch_events=10)
    lab.start_courier()
    lab.feed(50)
    lab.wait_delivered(50)
    time.sleep(1.1)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(0.1)
    lab.feed(80)
    lab.wait_delivered(80)
    cli(lab, "redeliver", "--target", "t", "--since", since)
    wait_for(lambda: lab.target()["delivered"] == 110)
    cli(lab, "redeliver", "--target", "t", "--since", "1h")
    wait_for(lambda: lab.target()["delivered"] == 190)
    lab.feed(90)
    lab.wait_delivered(90)
    assert "no target" in cli(lab, "redeliver", "--target", "x", "--since", "1h", status=USAGE)
    summary = lab.stop_receiver()
    assert (summary["duplicates"], summary["missing"], summary["missing_batches"]) == (110, 0, 0), summary


def test_what_is_sent_again_may_wait_for_a_full_batch(lab):
    lab.start_receiver()
    lab.configure(batch_events=100, batch_delay_ms=300)
    lab.start_courier()
    lab.feed(50)
    lab.wait_delivered(50)
    cli(lab, "redeliver", "--target", "t", "--since", "1h")
    wait_for(lambda: lab.target()["delivered"] == 100)
    assert lab.stop_receiver()["duplicates"] == 50


def test_what_is_not_kept_is_not_sent_again(lab):
    lab.start_receiver()
    lab.configure(spool="keep = 0")
    lab.start_courier()
    lab.feed(50)
    lab.wait_delivered(50)
    assert "keep" in cli(lab, "redeliver", "--target", "t", "--since", "1h", status=USAGE)


def test_what_is_only_kept_makes_room(lab):
    lab.start_receiver()
    lab.configure(spool="max_bytes = 3MiB", batch_events=100)
    lab.start_courier()
    for fed in range(500, 6500, 500):  # no faster than it is delivered
        lab.feed(500, "--padding", "700", epoch=f"epoch-{fed}")
        lab.wait_delivered(fed)
        wait_for(lambda: lab.status()["spool"]["events"] == 0)  # recorded a moment after the answer
    assert ask(lab, "spool")["spool"]["bytes"] <= 4 << 20
    assert "taking no events" not in lab.said()


def test_room_is_given_back(lab):
    lab.reserve_port()
    lab.configure(spool="keep = 0", batch_events=1000)
    lab.start_courier()
    lab.feed(40000, "--padding", "700", seconds=90)
    full = ask(lab, "spool")["spool"]["file_bytes"]
    assert full > 24 << 20
    lab.start_receiver()
    lab.wait_delivered(40000, 60)
    wait_for(lambda: ask(lab, "spool")["spool"]["file_bytes"] < 18 << 20)
    wait_for(lambda: lab.spool.stat().st_size < 18 << 20)


def test_a_target_is_suspended_and_resumed(lab):
    lab.start_receiver()
    lab.configure()
    lab.start_courier()
    cli(lab, "targets", "suspend", "t")
    lab.feed(20)
    time.sleep(0.3)
    [target] = ask(lab, "targets")["targets"]
    assert (target["state"], target["backlog"]) == ("suspended", 20) and lab.count() == 0
    assert "suspended" in cli(lab, "targets")
    lab.kill_courier()
    lab.start_courier()
    lab.feed(21)
    assert lab.count() == 0
    cli(lab, "targets", "resume", "t")
    lab.wait_delivered(21)
    assert ask(lab, "targets")["targets"][0]["state"] == "ok"
    assert "no target" in cli(lab, "targets", "resume", "x", status=USAGE)


# --- a damaged file ---

def damages(whole):
    pick = random.Random(3)
    return {"header": b"not a database" + whole[14:], "half": whole[:len(whole) // 2],
            "page": whole[:40960] + pick.randbytes(8192) + whole[49152:], "noise": pick.randbytes(len(whole))}


@pytest.mark.parametrize("damage", ["header", "half", "page", "noise"])
def test_a_damaged_spool_is_set_aside_and_a_new_one_is_begun(lab, damage):
    lab.reserve_port()
    lab.configure(retry_max_ms=50)
    lab.start_courier()
    lab.feed(3000, "--padding", "200")
    assert lab.stop_courier() == 0
    bad = damages(lab.spool.read_bytes())[damage]
    lab.spool.write_bytes(bad)
    lab.start_courier()
    lab.feed(3100)  # the inspector has what follows, and no more
    aside = [path for path in lab.dir.iterdir() if ".damaged-" in path.name]
    assert [path.read_bytes() for path in aside] == [bad]
    assert "damaged" in lab.said() and str(aside[0]) in lab.said()
    lab.start_receiver("--any-start")
    lab.wait_delivered(101)


def test_an_inspector_goes_on_where_it_is_and_the_hole_is_told(lab):
    lab.start_receiver("--any-start")
    lab.configure()
    lab.start_courier()
    source = "/xen/testhost/guest/xvda"
    with link.connect(os.fspath(lab.socket)) as sock:
        sock.sendall(link.hello("e", source))
        reader = link.Reader(sock)
        assert reader.read()[0::2] == (link.WELCOME, 0)
        sock.sendall(link.frame(link.EVENT, link.event("e", source, 501), 501, 2))
        assert reader.read()[0::2] == (link.ACK, 501)
    wait_for(lambda: dropped(lab))
    [told] = dropped(lab)
    assert told["data"]["reason"] == "no_spool"
    assert told["data"]["disks"] == [{"source": source, "epoch": "e", "first": 1, "last": 500}]
    assert sequences(lab) == [501]
