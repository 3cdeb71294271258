# SPDX-License-Identifier: BSD-3-Clause
"""tapwired as a test runs it: it attaches to a disk that a capture point serves already, and detaches."""
import json
import os
import signal
import subprocess

from . import guestdisk
from .guard import Guard


class Daemon:
    """One disk, one endpoint. Use as a context manager: inside, the disk is followed live. Leaving it stops
    the daemon in order; its state is there for the next one."""

    def __init__(self, tapwire, directory, image, ring, endpoint):
        directory = os.fspath(directory)
        self._run = os.path.join(directory, "run")
        self._log = os.path.join(directory, "tapwired.log")
        self._tapwire = tapwire
        config = os.path.join(directory, "tapwire.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[service]\nstate_dir = %s/state\nrun_dir = %s\n"
                       "[target t]\nurl = %s\nsecret_file = %s\nbatch_delay_ms = 10\n"
                       "[disk a]\nimage = %s\nring = %s\n" % (
                           directory, self._run, endpoint.url, endpoint.secret, image, ring))
        self._argv = [os.path.join(tapwire.build, "tapwired"), "--config", config]

    def __enter__(self):
        self._guard = Guard()
        with open(self._log, "ab") as log:
            self._proc = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          start_new_session=True)
        self._guard.push("kill", -self._proc.pid)
        if not guestdisk.wait_until(lambda: self.status().get("live"), 60):
            self._end()
            raise AssertionError("not live\n" + self.said())
        return self

    def __exit__(self, kind, *_exc):
        try:
            if kind is None:
                self._proc.send_signal(signal.SIGTERM)
                status = self._proc.wait(timeout=60)
                assert status == 0, "exit %d\n%s" % (status, self.said())
        finally:
            self._end()

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
        done = self._tapwire.run("status", "--json", "--state", self._run, timeout=20)
        try:
            return json.loads(done.stdout)["service"]["disks"][0]
        except (ValueError, LookupError, TypeError):
            return {}

    def said(self):
        with open(self._log, "rb") as log:
            return b"".join(log.readlines()[-40:]).decode(errors="replace")
