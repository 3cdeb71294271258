# SPDX-License-Identifier: BSD-3-Clause
"""A courier between a stand-in inspector and the receiver, for tests and benchmarks."""
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import link  # noqa: E402

PYTHON = "/usr/bin/python3"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for(condition, seconds=30, what="the condition"):
    """Waits until condition() is true, and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


class Lab:
    """Use as a context manager: what it started ends with it. Files are in directory; the courier's own
    files may be elsewhere."""

    def __init__(self, build, directory, state=None):
        self.program = os.fspath(pathlib.Path(build) / "tapwire-courier")
        self.dir = pathlib.Path(directory)
        self.state = pathlib.Path(state or directory)
        self.socket = self.dir / "courier.sock"
        self.spool = self.state / "spool.db"
        self.conf = self.dir / "tapwire.conf"
        self.secret = self.dir / "secret"
        self.secret.write_text(SECRET + "\n")
        self.secret.chmod(0o600)
        self.output = self.dir / "events.ndjson"
        self.log = self.dir / "courier.log"
        self.port = 0
        self.courier = None
        self.receiver = None
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def spawn(self, argv, **kwargs):
        process = subprocess.Popen([os.fspath(arg) for arg in argv], stdin=subprocess.DEVNULL,
                                   preexec_fn=die_with_parent, **kwargs)
        self.processes.append(process)
        return process

    # --- the receiver ---

    def start_receiver(self, *args):
        """Listens at the port of the last receiver, if there was one."""
        port_file = self.dir / "port"
        port_file.unlink(missing_ok=True)
        with open(self.dir / "receiver.log", "ab") as log:
            self.receiver = self.spawn(
                [PYTHON, HERE / "receiver.py", "--port", str(self.port), "--port-file", port_file,
                 "--secret-file", self.secret, "--output", self.output,
                 "--summary", self.dir / "summary.json", *args], stdout=log, stderr=log)
        wait_for(port_file.exists, what="the receiver's port")
        self.port = int(port_file.read_text())

    def reserve_port(self):
        """A port that refuses, until the receiver starts."""
        self.start_receiver()
        self.stop_receiver()
        self.output.unlink()

    def stop_receiver(self):
        """Ends it and returns its summary, with its exit status under "exit"."""
        self.receiver.send_signal(signal.SIGTERM)
        status = self.receiver.wait(timeout=20)
        self.receiver = None
        return {**json.loads((self.dir / "summary.json").read_text()), "exit": status}

    def received(self):
        """The events in the receiver's file so far."""
        try:
            with open(self.output, encoding="utf-8") as file:
                return [json.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def count(self):
        try:
            with open(self.output, "rb") as file:
                return sum(1 for _ in file)
        except FileNotFoundError:
            return 0

    # --- the courier ---

    def configure(self, text=None, spool="", **keys):
        """Writes the INI file: one target with these keys, or this text."""
        settings = {"url": f"http://127.0.0.1:{self.port}/hook", "secret_file": self.secret,
                    "batch_delay_ms": 0, "retry_min_ms": 5, "retry_max_ms": 100, **keys}
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        self.conf.write_text(text or f"[service]\nlog_level = debug\n[spool]\n{spool}\n[target t]\n{lines}")

    def start_courier(self, *args, env=None, through=()):
        """through: a command that runs the command that follows it."""
        with open(self.log, "ab") as log:
            self.courier = self.spawn([*through, self.program, "--config", self.conf, "--socket", self.socket,
                                       "--spool", self.spool, *args], stdout=log, stderr=log,
                                      env={**os.environ, **(env or {})})

    def kill_courier(self):
        self.courier.kill()
        self.courier.wait()

    def stop_courier(self, seconds=20):
        """SIGTERM; returns the exit status."""
        self.courier.send_signal(signal.SIGTERM)
        return self.courier.wait(timeout=seconds)

    def run_courier(self, *args):
        """A courier that ends by itself: (exit status, standard error)."""
        done = subprocess.run([self.program, "--config", self.conf, "--socket", self.socket, "--spool", self.spool,
                               *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
                              check=False)
        return done.returncode, done.stderr.decode()

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def status(self):
        return link.status(os.fspath(self.socket))

    def target(self):
        return self.status()["targets"][0]

    # --- the inspector ---

    def start_feed(self, count, *args, epoch="epoch-1"):
        return self.spawn([PYTHON, HERE / "feed.py", "--socket", self.socket, "--epoch", epoch, "--count", str(count),
                           *args])

    def feed(self, count, *args, epoch="epoch-1", seconds=60):
        """Sends events up to that sequence and waits until they are acknowledged."""
        status = self.start_feed(count, "--timeout", str(seconds), *args, epoch=epoch).wait(timeout=seconds + 10)
        assert status == 0, f"feed: exit {status}\n{self.said()}"

    def wait_delivered(self, count, seconds=30):
        wait_for(lambda: self.count() >= count, seconds, f"{count} events at the receiver")
        wait_for(lambda: self.target()["backlog"] == 0, seconds, "an empty backlog")
