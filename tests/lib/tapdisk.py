# SPDX-License-Identifier: BSD-3-Clause
"""A process of a real tapdisk, which was built elsewhere, and its tap-ctl."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

from . import guestdisk
from .guard import Guard

SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tapdisk-shim.c")
CONTROL = "/run/blktap-control"


class Process:
    """program, tap_ctl: paths; variables: of its environment. Use as a context manager."""

    def __init__(self, program, tap_ctl, directory, **variables):
        self.tap_ctl = tap_ctl
        self._program = program
        self._guard = self.pid = None
        shim = os.path.join(os.fspath(directory), "shim.so")
        guestdisk.run("cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", shim, SHIM)
        self._environment = {**os.environ, **variables, "LD_PRELOAD": shim}

    def ctl(self, *args):
        return guestdisk.run(self.tap_ctl, *args, timeout=60)

    def start(self):
        done = subprocess.run([self._program], env=self._environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
        said = done.stdout.decode(errors="replace").strip()
        if done.returncode != 0 or "ctl" not in said:
            raise RuntimeError("%s: exit %d: %s" % (self._program, done.returncode, said))
        self.pid = int(said.split("\n")[-1].rpartition("ctl")[2])
        if not guestdisk.wait_until(lambda: os.path.exists(said.split("\n")[-1]), 5):
            raise RuntimeError("tapdisk %d is gone: its log is in /var/log/blktap" % self.pid)
        self._guard.push("kill", self.pid)

    def __enter__(self):
        self._guard = Guard()
        os.makedirs(CONTROL, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_exc):
        self.kill()
        self._guard.close()

    def alive(self):
        """Not gone, and no zombie that nobody has waited for."""
        try:
            with open("/proc/%d/stat" % self.pid, encoding="utf-8", errors="replace") as stat:
                return stat.read().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def kill(self):
        """SIGKILL, if it is still there; what it leaves in the control directory goes, too."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        while self.alive():
            time.sleep(0.01)
        self._guard.pop()
        shutil.rmtree("/dev/shm/td3-%d" % self.pid, ignore_errors=True)
        for name in os.listdir(CONTROL):
            if re.fullmatch(r"\D+%d(\.\d+)?" % self.pid, name):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(CONTROL, name))
        self.pid = None


class Disk:
    """A minor of a process, which may be another one later. socket: of the NBD server for what is open."""

    def __init__(self, process):
        self.process = process
        self.minor = int(process.ctl("allocate").rpartition("-")[2])
        self.attach()

    @property
    def socket(self):
        return "%s/nbd%d.%d" % (CONTROL, self.process.pid, self.minor)

    def attach(self):
        self.ctl("attach")

    def open(self, image):
        """image: "TYPE:PATH"."""
        self.ctl("open", "-a", image)

    def close(self):
        self.ctl("close", "-t", "20")

    def release(self):
        """Whatever has become of it and of the process."""
        for give_up in (self.close, lambda: self.ctl("detach"),
                        lambda: self.process.ctl("free", "-m", self.minor)):
            with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
                give_up()

    def images(self):
        """What `tap-ctl stats` says of the images that are open, top first."""
        return json.loads(self.ctl("stats"))["images"]

    def unpause(self, *args):
        self.ctl("unpause", *args)

    def pause(self):
        """tapdisk may not see that its last request is back before something wakes it
        (docs/compatibility.md): so it is asked for something all the while."""
        with subprocess.Popen([self.process.tap_ctl, "pause", *self._where()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as pause:
            end = time.monotonic() + 60
            while not _ends(pause, 0.2):
                if time.monotonic() > end:
                    pause.kill()
                with contextlib.suppress(RuntimeError):
                    self.images()
            said = pause.stdout.read().decode(errors="replace").strip()
        if pause.returncode != 0:
            raise RuntimeError("pause: exit %d: %s" % (pause.returncode, said))

    def ctl(self, verb, *args):
        return self.process.ctl(verb, *self._where(), *args)

    def _where(self):
        return "-p", str(self.process.pid), "-m", str(self.minor)


def _ends(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
