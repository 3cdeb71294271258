# SPDX-License-Identifier: BSD-3-Clause
"""What a guest's programs do with their logs."""
import os
import random
import shutil


class Logs:
    """A guest's logs: numbered lines, rotated in both ways."""

    def __init__(self, root, seed):
        self._rng = random.Random(seed)
        self.dir = os.path.join(root, "log")
        os.makedirs(self.dir, exist_ok=True)
        self._line = {}
        self._files = {}
        for name in ("syslog", "app.log"):
            self._open(name)

    def _path(self, name):
        return os.path.join(self.dir, name)

    def _open(self, name):
        if name in self._files:
            self._files[name].close()
        self._files[name] = open(self._path(name), "ab", buffering=0)

    def _append(self, name):
        for _ in range(self._rng.choice((1, 1, 1, 5, 200))):
            number = self._line[name] = self._line.get(name, 0) + 1
            text = "%s %08d %s\n" % (name, number, self._rng.choice(("ok", "grüße", "x" * 300, "tab\t\"quoted\"")))
            self._files[name].write(text.encode())

    def _rotate(self, name):
        os.replace(self._path(name), self._path(name + ".1"))
        self._open(name)

    def _copytruncate(self, name):
        shutil.copy(self._path(name), self._path(name + ".copy"))
        os.truncate(self._path(name), 0)

    def work(self, operations):
        for _ in range(operations):
            name = self._rng.choice(sorted(self._files))
            chance = self._rng.random()
            if chance < 0.01:
                self._rotate(name)
            elif chance < 0.02:
                self._copytruncate(name)
            else:
                self._append(name)
            if self._rng.random() < 0.1:
                os.fsync(self._files[name].fileno())

    def close(self):
        for file in self._files.values():
            file.close()
