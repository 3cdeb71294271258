# SPDX-License-Identifier: BSD-3-Clause
"""tapwired comes while the guest is mounted and writes as fast as it can, goes, and comes again: no event of
what did not happen, none missing after the attach; what changed in between is told by a resync."""
import collections
import os
import signal
import subprocess
import sys
import time

import pytest

from lib import guestdisk, property, tree
from lib.daemon import Daemon
from lib.endpoint import Endpoint
from lib.guard import Guard
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

WORKLOAD = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib", "workload.py")
# (mkfs options, mount options)
MODES = {
    "ordered": ((), ""),
    "journal": ((), "data=journal"),
    "writeback": ((), "data=writeback"),
    "small-journal": (("-b", "1024", "-J", "size=1"), "commit=1"),
    "fast-commit": (("-O", "fast_commit"), ""),
    "async-commit": ((), "data=writeback,journal_async_commit"),
    "no-journal": (("-O", "^has_journal"), ""),
}


class Writers:
    """Processes that work on a mounted disk until they are stopped."""

    def __init__(self, root, seeds):
        self._guard = Guard()
        self._procs = []
        for seed in seeds:
            where = os.path.join(root, "writer%d" % seed)
            os.makedirs(where)
            self._procs.append(subprocess.Popen(
                [sys.executable, WORKLOAD, where, "--seed", str(seed), "--ops", "1000000", "--sync-every", "100"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
            self._guard.push("kill", self._procs[-1].pid)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        """Stopped in the middle of whatever they do."""
        early = [proc.poll() for proc in self._procs]
        for proc in self._procs:
            proc.send_signal(signal.SIGKILL)
        said = [proc.communicate()[1].decode(errors="replace") for proc in self._procs]
        for _ in self._procs:
            self._guard.pop()
        self._guard.close()
        assert early == [None] * len(early), said


def of_files(events):
    return [event for event in events if event["type"].startswith(tree.PREFIX)]


def shape(event):
    """What two followers of the same writes agree on: which name stands for a file with several, and the order
    within a transaction, depend on how long they have followed."""
    verb = event["type"][len(tree.PREFIX):].replace("attributes", "modified")
    fields = ("inode", "generation", "kind", "size", "mode", "uid", "gid", "nlink", "mtime", "ctime")
    return (verb, *(event["data"][field] for field in fields))


def by_transaction(events):
    """{number: its events' shapes, counted}, in their order; what came without one is left out."""
    found = {}
    for event in events:
        number = event["data"].get("transaction")
        if number is not None:
            found.setdefault(number, collections.Counter())[shape(event)] += 1
    return found


def expect_part(told, history, live_ns):
    """told: what was received between attach and detach; history: the events of the whole trace. told is
    history without a hole, from what was committed when the attach was done, or earlier. Returns the numbers
    of the first and the last event of history that belong to it."""
    ours, all_of_it = by_transaction(told), by_transaction(history)
    first, last = next(iter(ours)), next(reversed(ours))
    after = next(event["data"]["transaction"] for event in history
                 if tree.rfc3339(event["observedtime"]) > live_ns and "transaction" in event["data"])
    assert first <= after, "the attach ended before transaction %d, and %d is the first one told of" % (
        after, first)
    expected = [number for number in all_of_it if first <= number <= last]
    assert list(ours) == expected
    numbers = [event["data"].get("transaction") for event in history]
    start = edge(history, numbers.index(first), 1, ours[first])
    end = edge(history, len(numbers) - 1 - numbers[::-1].index(last), -1, ours[last])
    unseen = [event for event in history[end + 1:] if event["data"].get("transaction") == last]
    assert not unseen or unseen[0]["time"] != history[end]["time"], "half a commit"
    all_of_it = by_transaction(history[start:end + 1])
    for number in expected:
        missing, extra = all_of_it[number] - ours[number], ours[number] - all_of_it[number]
        if number == first:  # data that was written in place before the attach, and waited for its commit
            missing = [event for event in missing if event[0] != "modified"]
        assert not missing and not extra, "transaction %d: missing %r, too many %r" % (
            number, missing, extra)
    return start, end


def edge(history, at, step, told):
    """Where told begins (from at on, step 1) or ends (back from at, step -1) in the transaction of history[at]: an
    attach or a detach between two fast commits has seen a part of it."""
    number = history[at]["data"]["transaction"]
    rest = collections.Counter(shape(event) for event in (history[at:] if step > 0 else history[:at + 1])
                               if event["data"].get("transaction") == number)
    found = at
    while not told - rest:
        found = at
        if history[at]["data"].get("transaction") == number:
            rest[shape(history[at])] -= 1
        at += step
    return found


def wait_for_all(endpoint, daemon):
    """What was captured is followed and delivered."""
    def idle():
        before = len(endpoint.events())
        time.sleep(0.5)
        return daemon.caught_up() and len(endpoint.events()) == before
    assert guestdisk.wait_until(idle, 60), daemon.said()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
def test_attach_while_the_guest_writes(tapwire, memory, name):
    mkfs, options = MODES[name]
    image, ring = memory / "disk.img", memory / "ring"
    guestdisk.make_image(image, "1G", mkfs)
    with guestdisk.mounted(image, memory / "made", options) as root:
        mix = Mix(root, 1)
        mix.ops(500)
        mix.close()
    tapwire.follows(image)
    with Endpoint(memory) as endpoint, \
            guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, options=options,
                                plugin_args=("ring=%s" % ring,)) as disk:
        if name == "no-journal":
            # Nothing tells where in such a history an attach falls: the first one is before it.
            with Daemon(tapwire, memory, image, ring, endpoint):
                first = len(endpoint.events())
        with Writers(disk.root, (1, 2)):
            time.sleep(0.5)
            with Daemon(tapwire, memory, image, ring, endpoint):
                live_ns = time.time_ns()
                time.sleep(1)
            if name != "no-journal":
                first = len(endpoint.events())
            time.sleep(0.5)  # nobody watches
            with Daemon(tapwire, memory, image, ring, endpoint):
                time.sleep(0.5)
        with Daemon(tapwire, memory, image, ring, endpoint) as daemon:
            disk.sync("the writers stopped")
            wait_for_all(endpoint, daemon)
            mix = Mix(os.path.join(disk.root, "writer1"), 77)
            os.mkdir(mix.root + b"/calm")
            mix.root += b"/calm"
            mix.ops(200)
            mix.close()
            disk.sync("end")
            wait_for_all(endpoint, daemon)
        endpoint.finish()
        events = endpoint.events()
    tree.check_sequence(events)
    state = tapwire.crawl(disk.base)
    if name != "no-journal":
        check_first(tapwire, disk, state, events[:first], live_ns)
    for event in events[first:]:
        state.apply(event)
    property.expect_equal(disk.syncs[-1].listing, state.listing(), "at the end")
    property.expect_equal(disk.syncs[-1].listing, tapwire.crawl(image).listing(), "crawl at the end")


def check_first(tapwire, disk, state, events, live_ns):
    """What came between the first attach and the first detach. state, the crawl of the base, is moved to the
    detach."""
    history = of_files(tapwire.infer(disk.base, disk.trace))
    assert not [event for event in events if event["data"].get("resync")]
    start, end = expect_part(of_files(events), history, live_ns)
    other = tapwire.crawl(disk.base)
    for event in history[:end + 1]:
        other.apply(event)
    for event in history[:start] + events:
        state.apply(event)
    property.expect_equal(other.listing(), state.listing(), "when the daemon detached")
