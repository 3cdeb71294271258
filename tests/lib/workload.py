#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A seeded random mix of file operations on a directory.

    python3 tests/lib/workload.py DIR --seed N --ops N [--sync-every N] [--kinds a,b,...] [--log FILE]

The same seed gives the same operations on the same (empty) directory. The mix keeps a model of the
tree, so that it never has to look at the disk to choose. A log holds what was done, a step a line:
see steps.py.
"""
import argparse
import collections
import errno
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib.calls import sync_fs
from lib.mixattrs import AttrKinds
from lib.mixdata import DataKinds
from lib.mixnames import NameKinds

# What a file system may answer to an operation that it does not have or has no room for.
EXPECTED = (errno.ENOSPC, errno.EOPNOTSUPP, errno.EFBIG, errno.EMLINK, errno.ENAMETOOLONG,
            errno.EINVAL, errno.EDQUOT, errno.EXDEV, errno.ENOTTY, errno.EPERM)


class Mix(DataKinds, NameKinds, AttrKinds):
    """The random mix. ops(n) does n operations. A kind is a method _do_KIND; it returns how many
    operations it made. .refused counts those that the file system did not do, by kind."""

    WEIGHTS = {**DataKinds.WEIGHTS, **NameKinds.WEIGHTS, **AttrKinds.WEIGHTS}

    def __init__(self, root, seed, kinds=None, budget=192 << 20, big_dir=3000, prefix=b"",
                 shared=(), clash=None):
        super().__init__(root, seed, budget, prefix, shared)
        self.big_dir = big_dir
        self.clash = clash
        self.done = 0
        self.open_files = []
        self.refused = collections.Counter()
        chosen = kinds or list(self.WEIGHTS)
        unknown = set(chosen) - set(self.WEIGHTS)
        if unknown:
            raise ValueError("unknown kinds: %s" % ", ".join(sorted(unknown)))
        self._kinds = list(chosen)
        self._weights = [self.WEIGHTS[kind] for kind in self._kinds]
        if clash is not None:
            self._kinds.append("clash")
            self._weights.append(12)

    def _one(self, kind):
        try:
            return getattr(self, "_do_" + kind)() or 0
        except OSError as error:
            if error.errno not in EXPECTED:
                raise
            self.refused[kind] += 1
            return 1

    def ops(self, count, sync_every=0, on_sync=None):
        """Does operations until count are done; after every sync_every calls on_sync(done)."""
        next_sync = self.done + sync_every if sync_every else None
        end = self.done + count
        while self.done < end:
            kind = self.random.choices(self._kinds, self._weights)[0]
            self.done += self._one(kind)
            if not self.pools["file"].nodes and kind not in ("create", "mkdir"):
                self.done += self._one("create")
            if next_sync is not None and self.done >= next_sync:
                on_sync(self.done)
                next_sync = self.done + sync_every

    def close(self):
        """Closes what is still open."""
        self.steps.close_all()
        self.open_files = []


def main():
    parser = argparse.ArgumentParser(description="A seeded random mix of file operations.")
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ops", type=int, default=20000)
    parser.add_argument("--sync-every", type=int, default=0)
    parser.add_argument("--kinds", help="of these, comma-separated: " + ", ".join(Mix.WEIGHTS))
    parser.add_argument("--log", help="write what is done to this file")
    args = parser.parse_args()

    def on_sync(done):
        sync_fs(args.directory)
        print("sync %d %d" % (done, time.time_ns()), flush=True)

    if os.listdir(args.directory) not in ([], ["lost+found"]):
        sys.exit("%s is not empty" % args.directory)
    mix = Mix(args.directory, args.seed, args.kinds.split(",") if args.kinds else None)
    if args.log:
        mix.steps.log = open(args.log, "w", encoding="utf-8")
    mix.ops(args.ops, args.sync_every, on_sync)
    mix.close()
    for kind, count in mix.refused.items():
        print("refused: %s %d" % (kind, count), file=sys.stderr)


if __name__ == "__main__":
    main()
