#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The main job, seen as it happens: a kernel writes to an ext4 disk, `tapwire serve` tells which
files changed, and a local HTTP endpoint, which checks signatures with code of its own, prints each
event when it arrives. Without root, loop device or FUSE, the same through a recorded trace."""
import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import recorded  # noqa: E402
import scene  # noqa: E402
from lib import guestdisk  # noqa: E402
from receiver.receiver import parse_time, percentile  # noqa: E402

HERE = os.path.dirname(os.path.realpath(__file__))
BUILD = os.path.realpath(os.environ.get("TAPWIRE_BUILD", os.path.join(HERE, "..", "..", "build")))
TAPWIRE = os.path.join(BUILD, "tapwire")
SECRET = "whsec_ZGVtby1zZWNyZXQtZGVtby1zZWNyZXQtZGVtbw==\n"
QUIET_S = 0.4     # no event for so long: a step's events are all here
STEP_LIMIT_S = 10


def say(text=""):
    print(text, flush=True)


@contextlib.contextmanager
def process(argv, patience=30, **kwargs):
    """A process in a session of its own, ended with SIGTERM whatever happens."""
    proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **kwargs)
    try:
        yield proc
    finally:
        if proc.poll() is None:
            proc.terminate()
        try:
            proc.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(proc.pid, signal.SIGKILL)
            proc.wait()


class Receiver:
    """tests/receiver, and the files that it writes."""

    def __init__(self, directory):
        self.port_file = os.path.join(directory, "port")
        self.secret_file = os.path.join(directory, "secret")
        self.output = os.path.join(directory, "events")
        self.summary_file = os.path.join(directory, "summary")
        with open(os.open(self.secret_file, os.O_WRONLY | os.O_CREAT, 0o600), "w",
                  encoding="ascii") as file:
            file.write(SECRET)

    def argv(self):
        return ["/usr/bin/python3", os.path.join(HERE, "..", "receiver", "receiver.py"), "--print",
                "--port-file", self.port_file, "--secret-file", self.secret_file,
                "--output", self.output, "--summary", self.summary_file]

    def url(self):
        if not guestdisk.wait_until(lambda: os.path.exists(self.port_file), 10):
            raise RuntimeError("the receiver did not start")
        with open(self.port_file, encoding="ascii") as file:
            return "http://127.0.0.1:%d/" % int(file.read())

    def size(self):
        try:
            return os.path.getsize(self.output)
        except FileNotFoundError:
            return 0

    def wait_for_quiet(self, before):
        """Until events have come after before (a size()) and no more come."""
        end = time.monotonic() + STEP_LIMIT_S
        size, since = before, time.monotonic()
        while time.monotonic() < end:
            time.sleep(0.02)
            now = self.size()
            if now != size:
                size, since = now, time.monotonic()
            elif size != before and time.monotonic() - since > QUIET_S:
                return

    def events(self):
        """What has arrived so far."""
        with contextlib.suppress(FileNotFoundError), open(self.output, encoding="utf-8") as file:
            yield from map(json.loads, file)

    def last_sequence(self):
        """The highest sequence that has arrived."""
        return max((int(event["sequence"]) for event in self.events()), default=0)

    def delays_ms(self):
        """Of the files' events, in ascending order: from the capture of the write that completed the
        change to the arrival."""
        return sorted((event["_received"] - parse_time(event["observedtime"])) * 1000
                      for event in self.events() if event["type"].startswith("org.tapwire.file."))

    def summary(self):
        with open(self.summary_file, encoding="utf-8") as file:
            return json.load(file)


def wait_ready(serve):
    """The ready line of `tapwire serve`, which names the socket."""
    readable, _, _ = select.select([serve.stdout], [], [], 60)
    line = serve.stdout.readline() if readable else b""
    if not line:
        raise RuntimeError("tapwire serve did not become ready")
    return json.loads(line)["socket"]


def sent_sequence(state):
    """How many events the inspector has made."""
    done = subprocess.run([TAPWIRE, "status", "--json", "--state", state], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, check=True)
    inspector = json.loads(done.stdout)["service"]["disks"][0]["inspector"] or {}
    return int(inspector.get("sequence", 0))


def watched(directory, receiver):
    """Runs the scene on a disk that this machine's kernel has mounted; returns how many events
    were made."""
    image = os.path.join(directory, "disk.img")
    state = os.path.join(directory, "state")
    tree = os.path.join(directory, "tree")
    scene.make_tree(tree)
    guestdisk.make_image(image, "256M", ["-d", tree])
    archive = scene.make_archive(directory)
    argv = [TAPWIRE, "serve", image, "--json", "--state", state, "--post", receiver.url(),
            "--secret-file", receiver.secret_file, "--domain-name", "demo", "--vdev", "xvda"]
    with process(argv, stdout=subprocess.PIPE) as serve:
        socket = wait_ready(serve)
        say("disk    %s, 256 MiB of ext4, served over NBD and mounted by Linux %s" % (
            os.path.basename(image), os.uname().release))
        with guestdisk.GuestDisk(directory, image, socket=socket, record=False) as disk:
            receiver.wait_for_quiet(0)
            for caption, step in scene.steps(archive):
                say("\n# " + caption)
                before = receiver.size()
                step(disk.root)
                disk.sync()
                receiver.wait_for_quiet(before)
            time.sleep(1.2)  # the inspector writes its status once a second
            made = sent_sequence(state)
            say("\n# unmount")
        guestdisk.wait_until(lambda: receiver.last_sequence() >= made, 5)
    return made


def finish(receiver, made, live):
    """The summary line; returns the exit status."""
    summary = receiver.summary()
    # What is missing in the middle the receiver sees; what is missing at the end only the count tells.
    lost = summary["missing"] + max(0, made - receiver.last_sequence())
    delay = "delay: none to tell, the writes were recorded before"
    delays = receiver.delays_ms()
    if live and delays:
        delay = "delay: median %.1f ms, worst %.1f ms" % (percentile(delays, 0.5), delays[-1])
    say("\nevents: %d, batches: %d, %s, bad signatures: %d, lost: %d" % (
        summary["events"], summary["batches"], delay, summary["bad_signatures"], lost))
    good = summary["events"] and not lost and not summary["problems"]
    return 0 if good else 1


def run(directory, why_not):
    receiver = Receiver(directory)
    with process(receiver.argv()):
        receiver.url()
        say("columns: time of arrival, delay since the write was %s, event, path" % (
            "recorded" if why_not else "captured"))
        if why_not:
            made = recorded.watched(directory, receiver, BUILD)
        else:
            made = watched(directory, receiver)
    return finish(receiver, made, not why_not)


def on_signal(signum, _frame):
    raise SystemExit(128 + signum)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recorded", action="store_true",
                        help="use a recorded trace even where a disk could be mounted")
    args = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, on_signal)
    why_not = "--recorded was given" if args.recorded else guestdisk.missing()
    if why_not:
        say("no disk is mounted here (%s): the same through a recorded trace" % why_not)
    directory = tempfile.mkdtemp(prefix="tapwire-demo-")
    try:
        return run(directory, why_not)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
