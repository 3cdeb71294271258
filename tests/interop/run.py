#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Batches of real events are taken by npm's standardwebhooks and cloudevents. Needs node and npm, which installs the
two packages below the build directory; so it is no part of make check."""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
from lab import SECRET, Lab  # noqa: E402


def install(directory):
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "receiver.mjs"):
        shutil.copy(pathlib.Path(__file__).resolve().parent / name, directory)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--no-package-lock"], cwd=directory,
                   stdin=subprocess.DEVNULL, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=5000)
    args = parser.parse_args()
    build = pathlib.Path(os.environ.get("TAPWIRE_BUILD") or ROOT / "build").resolve()
    install(build / "interop")
    directory = tempfile.mkdtemp(prefix="tapwire-interop-")
    try:
        with Lab(build, directory) as lab:
            node = lab.spawn(["node", build / "interop" / "receiver.mjs", SECRET, str(args.events)],
                             stdout=subprocess.PIPE, cwd=build / "interop")
            lab.port = int(node.stdout.readline())
            lab.configure()
            lab.start_courier()
            lab.feed(args.events, "--mixed")
            said = json.loads(node.stdout.readline())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(said))
    sys.exit(0 if said == {"events": args.events, "ordered": True, "forged": 0} else 1)


if __name__ == "__main__":
    main()
