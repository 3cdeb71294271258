# SPDX-License-Identifier: BSD-3-Clause
"""`tapwire serve` as a test runs it: started, watched, hurt, and stopped."""
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time

from .guard import Guard


class Service:
    """Use as a context manager; .socket is ready then. Leaving it stops the service in order and
    expects exit status 0."""

    def __init__(self, tapwire, directory, image, endpoint, *args):
        self.directory = os.fspath(directory)
        self.socket = os.path.join(self.directory, "nbd.sock")
        self.log = os.path.join(self.directory, "serve.log")
        self._argv = [tapwire.program, "serve", os.fspath(image), "--socket", self.socket,
                      "--post", endpoint.url, "--secret-file", endpoint.secret,
                      "--state", os.path.join(self.directory, "state"), "--linger", "120",
                      *map(str, args)]
        self.environment = {}  # more of it
        self._guard = None
        self._proc = None
        self._stopped = False

    def __enter__(self):
        self._guard = Guard()
        with open(self.log, "ab") as log:
            self._proc = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stderr=log,
                                          stdout=subprocess.PIPE, start_new_session=True,
                                          env={**os.environ, **self.environment})
        self._guard.push("kill", -self._proc.pid)
        ready, _, _ = select.select([self._proc.stdout], [], [], 60)
        line = self._proc.stdout.readline() if ready else b""
        if not line.startswith(b"ready"):
            self._end()
            raise AssertionError("not ready: %r\n%s" % (line, self.said()))
        return self

    def __exit__(self, kind, *_exc):
        try:
            if kind is None:
                self.stop()
        finally:
            self._end()

    def stop(self, seconds=150):
        """SIGTERM: the ring is emptied, what is left is delivered."""
        self._proc.send_signal(signal.SIGTERM)
        try:
            status = self._proc.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("does not stop\n%s" % self.said()) from None
        if status != 0:
            raise AssertionError("exit %d\n%s" % (status, self.said()))
        self._stopped = True

    def _end(self):
        try:
            os.killpg(self._proc.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._proc.wait()
        self._proc.stdout.close()
        if not self._stopped:
            self._remove_ring()
        self._guard.pop()
        self._guard.close()

    def _remove_ring(self):
        """A service that was killed leaves its ring for the next one; here none comes. The ring's
        directory is named for the state directory's device and inode."""
        with contextlib.suppress(FileNotFoundError):
            state = os.stat(os.path.join(self.directory, "state"))
            shutil.rmtree("/dev/shm/tapwire-%d/%x-%x" % (os.geteuid(), state.st_dev, state.st_ino))

    def said(self):
        """The last lines of standard error."""
        with open(self.log, "rb") as log:
            return b"".join(log.readlines()[-40:]).decode(errors="replace")

    def status(self):
        """What the inspector says of itself, up to a second old; {} before it has said anything."""
        disks = os.path.join(self.directory, "state", "disks")
        try:
            with open(os.path.join(disks, os.listdir(disks)[0], "status.json"), encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, IndexError):
            return {}

    def pid(self, name):
        """The process id of a part (tapwire-inspect, tapwire-courier), or None."""
        below = {self._proc.pid}
        for pid in sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit()):
            try:
                with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stat:
                    text = stat.read()
            except OSError:
                continue
            comm, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:]
            if int(rest.split()[1]) in below:
                below.add(pid)
                if comm == name[:15] and rest[0] != "Z":
                    return pid
        return None

    def kill(self, name, seconds=20):
        """SIGKILL for a part, once it runs (again)."""
        end = time.monotonic() + seconds
        while (pid := self.pid(name)) is None:
            if time.monotonic() > end:
                raise AssertionError("%s does not run\n%s" % (name, self.said()))
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
