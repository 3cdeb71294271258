# SPDX-License-Identifier: BSD-3-Clause
"""The HTTP receiver of tests/receiver, as a test runs it."""
import base64
import json
import os
import subprocess
import time

from .guard import Guard

RECEIVER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "receiver",
                        "receiver.py")


class Endpoint:
    """Use as a context manager; .url takes batches then, signed with .secret. args: the receiver's,
    to make it misbehave."""

    def __init__(self, directory, *args):
        directory = os.fspath(directory)
        self.secret = os.path.join(directory, "secret")
        self._output = os.path.join(directory, "received.ndjson")
        self._port = os.path.join(directory, "port")
        self._summary = os.path.join(directory, "summary.json")
        self._log = os.path.join(directory, "receiver.log")
        with open(self.secret, "wb") as file:
            file.write(b"whsec_" + base64.b64encode(os.urandom(32)) + b"\n")
        os.chmod(self.secret, 0o600)
        self._argv = ["/usr/bin/python3", RECEIVER, "--secret-file", self.secret, "--output",
                      self._output, "--port-file", self._port, "--summary", self._summary,
                      *map(str, args)]
        self.url = None

    def __enter__(self):
        self._guard = Guard()
        with open(self._log, "wb") as log:
            self._proc = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=log)
        self._guard.push("kill", self._proc.pid)
        end = time.monotonic() + 20
        while not os.path.exists(self._port):
            if time.monotonic() > end or self._proc.poll() is not None:
                self.__exit__()
                raise RuntimeError(self.said())
            time.sleep(0.01)
        with open(self._port, encoding="ascii") as port:
            self.url = "http://127.0.0.1:%d/hook" % int(port.read())
        return self

    def __exit__(self, *_exc):
        self._proc.terminate()
        try:
            self._proc.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._proc.kill()
            self._proc.wait()
        self._guard.pop()
        self._guard.close()

    def events(self):
        """What has arrived, each event once."""
        try:
            with open(self._output, encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def finish(self):
        """Stops the receiver and returns its summary. Fails when it found anything wrong."""
        self._proc.terminate()
        status = self._proc.wait(timeout=20)
        if status != 0:
            raise AssertionError("the receiver complains:\n" + self.said())
        with open(self._summary, encoding="utf-8") as summary:
            return json.load(summary)

    def said(self):
        with open(self._log, "rb") as log:
            return log.read()[-4000:].decode(errors="replace")
