# SPDX-License-Identifier: BSD-3-Clause
"""make demo: what a newcomer runs first."""
import os
import pathlib
import re
import signal
import subprocess

import pytest

from lib import guestdisk

DEMO = pathlib.Path(__file__).resolve().parents[1] / "demo" / "demo.py"
SUMMARY = re.compile(r"events: (\d+), batches: (\d+), delay: (.*), bad signatures: 0, lost: 0")


def start(build, scratch, *argv):
    env = {**os.environ, "TAPWIRE_BUILD": str(build), "TMPDIR": str(scratch)}
    return subprocess.Popen(["/usr/bin/python3", DEMO, *argv], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def assert_all_said(text):
    for event in (r"file\.created +/etc/motd$|file\.renamed +/etc/motd  \(from /etc/motd\.new\)$",
                  r"file\.modified +/var/log/messages$",
                  r"file\.created +/srv/app/conf/app\.ini$",
                  r"file\.renamed +/srv/app-1\.0  \(from /srv/app\)$",
                  r"file\.created +/srv/app$",
                  r"file\.attributes +/srv/app-1\.0/conf/users$",
                  r"file\.deleted +/home/alice/notes$"):
        assert re.search(event, text, re.M), event


def test_the_demo_ends_with_nothing_lost(build, scratch, mountable):
    demo = start(build, scratch)
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, out + err
    assert_all_said(out)
    events, batches, delay = SUMMARY.fullmatch(out.splitlines()[-1]).groups()
    assert int(events) > 20 and int(batches) > 5
    assert re.fullmatch(r"median \d+\.\d ms, worst \d+\.\d ms", delay)
    assert list(scratch.iterdir()) == [] and not guestdisk.left_below(scratch)


def test_the_demo_works_where_no_disk_can_be_mounted(build, scratch):
    demo = start(build, scratch, "--recorded")
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, out + err
    assert "recorded trace" in out.splitlines()[0]
    assert_all_said(out)
    assert SUMMARY.fullmatch(out.splitlines()[-1])
    assert list(scratch.iterdir()) == [] and not guestdisk.left_below(scratch)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_cleans_up(build, scratch, mountable, signum):
    demo = start(build, scratch)
    for line in demo.stdout:
        if line.startswith("# append"):
            break
    demo.send_signal(signum)
    demo.communicate(timeout=60)
    assert demo.returncode == 128 + signum
    assert list(scratch.iterdir()) == []
    assert guestdisk.wait_until(lambda: not guestdisk.left_below(scratch), 10)
