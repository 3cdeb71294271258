#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Reduces a failure of the oracle to a short list of steps.

    /usr/bin/python3 tests/lib/shrink.py --config NAME --seed N [--ops N] [--output FILE]
    /usr/bin/python3 tests/lib/shrink.py --steps FILE [--output FILE]

The steps of all processes are done by one process in the order in which they were done; what is left
of them, with the name of the configuration, is written as JSON. tests/e2e/test_fixtures.py replays
what lies in tests/fixtures.
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib import oracle, property, tree
from lib.configs import CONFIGS

MARKS = ("base", "sync")


def kind_of(error):
    """What failures have in common that are one and the same."""
    if isinstance(error, tree.Violation):
        return "violation"
    return str(error).split(":")[0].split(",")[0]


class Scratch:
    """A directory of its own for each try."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="tapwire-test-"))
        return self.path

    def __exit__(self, *_exc):
        shutil.rmtree(self.path, ignore_errors=True)


def failure(tapwire, name, steps, thorough=False):
    """How a list of steps fails, or None."""
    with Scratch() as scratch:
        try:
            oracle.Check(tapwire, oracle.replay(tapwire, name, steps, scratch), thorough).all()
        except AssertionError as error:
            return error
    return None


class Shrinker:
    def __init__(self, tapwire, name, steps, seconds):
        self.tapwire = tapwire
        self.name = name
        self.steps = steps
        self.tries = 0
        self.kind = None
        self._end = time.monotonic() + seconds

    def _fails(self, steps):
        self.tries += 1
        error = failure(self.tapwire, self.name, steps)
        return error is not None and self.kind in (None, kind_of(error)) and error

    def reproduce(self, tries=3):
        """The error of all steps done by one process; None when it does not come."""
        for _ in range(tries):
            error = self._fails(self.steps)
            if error:
                self.kind = kind_of(error)
                return error
        return None

    def _try(self, steps):
        if time.monotonic() > self._end or not self._fails(steps):
            return False
        self.steps = steps
        print("%d steps after %d tries" % (len(steps), self.tries), flush=True)
        return True

    def run(self):
        """Tries without a process, then without ever smaller pieces, until every step is needed."""
        for number in sorted({step[0] for step in self.steps}):
            self._try([step for step in self.steps if step[0] != number or step[1] in MARKS])
        size = len(self.steps)
        while size > 1 or self._last_changed:
            size = max(size // 2, 1)
            self._pass(size)
            if time.monotonic() > self._end:
                break
        return self.steps

    _last_changed = False

    def _pass(self, size):
        """From the end to the start: what comes later needs what was before."""
        changed = False
        at = len(self.steps)
        while at > 0 and time.monotonic() < self._end:
            at = max(at - size, 0)
            changed |= self._try(self.steps[:at] + self.steps[at + size:])
        self._last_changed = changed


def recorded(tapwire, args):
    """The steps of a run that fails; None when none does. Processes do not meet twice in the same way."""
    for _ in range(args.tries):
        steps = _recorded(tapwire, args)
        if steps:
            return steps
    return None


def _recorded(tapwire, args):
    with Scratch() as scratch:
        run = oracle.record(tapwire, args.config, args.seed, scratch, args.ops, args.procs, args.syncs)
        try:
            oracle.Check(tapwire, run).all()
        except AssertionError as error:
            print("fails: %s" % str(error)[:1000])
            return run.steps
    return None


def main():
    parser = argparse.ArgumentParser(description="Reduces a failure to a short list of steps.")
    parser.add_argument("--config", choices=CONFIGS, metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ops", type=int, default=600)
    parser.add_argument("--procs", type=int, default=3)
    parser.add_argument("--syncs", type=int, default=3)
    parser.add_argument("--steps", help="go on with a list that is written down already")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--tries", type=int, default=5, help="how often a run may pass before it fails")
    parser.add_argument("--output")
    parser.add_argument("--build", default=os.environ.get("TAPWIRE_BUILD") or oracle.ROOT + "/build")
    args = parser.parse_args()
    tapwire = property.Tapwire(os.path.abspath(args.build))
    if args.steps:
        with open(args.steps, encoding="utf-8") as file:
            kept = json.load(file)
        args.config, steps = kept["config"], kept["steps"]
    else:
        steps = recorded(tapwire, args)
        if steps is None:
            print("%s, seed %d: nothing fails" % (args.config, args.seed))
            return 1
    shrinker = Shrinker(tapwire, args.config, steps, args.minutes * 60)
    error = shrinker.reproduce()
    if error is None:
        print("it does not fail when one process does all %d steps" % len(steps))
        return 1
    steps = shrinker.run()
    error = failure(tapwire, args.config, steps) or error
    output = args.output or os.path.join(oracle.ROOT, "tests/fixtures", "%s-%d.json" % (args.config, args.seed))
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with open(output, "w", encoding="utf-8") as file:
        file.write(oracle.fixture(args.config, error, steps))
    print("%s\n%d steps in %s" % (str(error)[:1000], len(steps), output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
