# SPDX-License-Identifier: BSD-3-Clause
"""Undoes mounts, loop devices and processes when the test that made them cannot.

A Guard starts a second process (this file) that holds the other end of a pipe. The test tells it
what would have to be undone; when the pipe closes with something left on the stack (the test was
killed, whatever the signal), the second process undoes it, last first.
"""
import json
import os
import signal
import subprocess
import sys
import time


class Guard:
    """The undo stack of one test process. Each entry is a command (argv), or ["kill", PID]."""

    def __init__(self):
        self._proc = subprocess.Popen(
            ["/usr/bin/python3", os.path.abspath(__file__)], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, start_new_session=True)
        self._stack = []

    def _send(self, message):
        self._proc.stdin.write(json.dumps(message).encode() + b"\n")
        self._proc.stdin.flush()

    def push(self, *argv):
        """Says that argv undoes what the caller is about to do."""
        argv = [str(arg) for arg in argv]
        self._stack.append(argv)
        self._send({"push": argv})

    def pop(self):
        """The newest entry is undone, or about to be: forget it."""
        self._stack.pop()
        self._send({"pop": True})

    def close(self):
        """Undoes what is left and ends the second process."""
        self._proc.stdin.close()
        self._proc.wait(timeout=60)


def undo(argv):
    if argv[0] == "kill":
        try:
            os.kill(int(argv[1]), signal.SIGKILL)  # negative: a process group
        except ProcessLookupError:
            pass
        return
    for _ in range(20):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode == 0:
            return
        time.sleep(0.1)


def main():
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    stack = []
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "push" in message:
            stack.append(message["push"])
        elif stack:
            stack.pop()
    while stack:
        undo(stack.pop())


if __name__ == "__main__":
    main()
