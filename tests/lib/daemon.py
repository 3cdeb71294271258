# SPDX-License-Identifier: BSD-3-Clause
"""tapwired as a test runs it: it attaches to a disk that a capture point serves already, and detaches."""
import json
import os
import signal
import subprocess

from . import guestdisk
from .guard import Guard


class Daemon:
    """One disk (or several: more has the images and rings of the others), one endpoint. Use as a context manager:
    inside, the disk is followed live. Leaving it stops the daemon in order; its state is there for the next
    one. service, disk and target: lines more for these sections; without wait it need not be live inside."""

    def __init__(self, tapwire, directory, image, ring, endpoint, more=(), service="", disk="", target="",
                 wait=True):
        directory = os.fspath(directory)
        self._run = os.path.join(directory, "run")
        self._log = os.path.join(directory, "tapwired.log")
        self._tapwire = tapwire
        config = os.path.join(directory, "tapwire.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[service]\nstate_dir = %s/state\nrun_dir = %s\n%s\n"
                       "[target t]\nurl = %s\nsecret_file = %s\nbatch_delay_ms = 10\n%s\n" % (
                           directory, self._run, service, endpoint.url, endpoint.secret, target))
            for number, (its_image, its_ring) in enumerate([(image, ring), *more]):
                name = chr(ord("a") + number)
                file.write("[disk %s]\nimage = %s\nring = %s\nvdev = xvd%s\n%s\n" % (
                    name, its_image, its_ring, name, disk))
        self._wait = wait
        self._config = config
        self._argv = [os.path.join(tapwire.build, "tapwired"), "--config", config]

    def __enter__(self):
        self._guard = Guard()
        with open(self._log, "ab") as log:
            self._proc = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          start_new_session=True)
        self._guard.push("kill", -self._proc.pid)
        if self._wait and not guestdisk.wait_until(self._all_live, 60):
            self._end()
            raise AssertionError("not live\n" + self.said())
        return self

    def __exit__(self, kind, *_exc):
        try:
            if kind is None:
                self.stop()
        finally:
            self._end()

    def reload(self, old, new):
        """With another text in the configuration."""
        with open(self._config, encoding="utf-8") as file:
            text = file.read()
        assert old in text
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))
        self._proc.send_signal(signal.SIGHUP)

    def stop(self):
        """In order; leaving it does this, too."""
        self._proc.send_signal(signal.SIGTERM)
        status = self._proc.wait(timeout=60)
        assert status == 0, "exit %d\n%s" % (status, self.said())

    def _end(self):
        try:
            os.killpg(self._proc.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._proc.wait()
        self._guard.pop()
        self._guard.close()

    def status(self):
        """Of the disk; {} while nobody answers."""
        return (self.statuses() or [{}])[0]

    def statuses(self):
        """Of all disks."""
        done = self._tapwire.run("status", "--json", "--state", self._run, timeout=20)
        try:
            return json.loads(done.stdout)["service"]["disks"]
        except (ValueError, LookupError, TypeError):
            return []

    def caught_up(self):
        """Whether all that came by the rings has been followed and handed on, as the inspectors said last, which may
        be a second ago."""
        statuses = self.statuses()
        said = [status["inspector"] for status in statuses if status.get("live") and status.get("inspector")]
        return bool(statuses) and len(said) == len(statuses) and all(
            one["state"] == "live" and not one["lag_bytes"] and not one["waiting_bytes"] for one in said)

    def _all_live(self):
        statuses = self.statuses()
        return statuses and all(status.get("live") for status in statuses)

    def kill_inspectors(self):
        """SIGKILL for all of them; returns how many there were."""
        return self.signal_inspectors(signal.SIGKILL)

    def signal_inspectors(self, number):
        """Returns how many there were."""
        pids = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and self._is_inspector(pid)]
        for pid in pids:
            os.kill(pid, number)
        return len(pids)

    def _is_inspector(self, pid):
        try:
            with open("/proc/%s/stat" % pid, encoding="utf-8", errors="replace") as stat:
                text = stat.read()
        except OSError:
            return False
        name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        return name == "tapwire-inspect"[:15] and int(rest[1]) == self._proc.pid and rest[0] != "Z"

    def said(self):
        with open(self._log, "rb") as log:
            return b"".join(log.readlines()[-40:]).decode(errors="replace")
