#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The courier for a long time: killed again and again under load (--kills), then with targets that come and go
(--minutes). Exits with 0 when nothing was lost, everything was in order, and memory and descriptors stayed flat."""
import argparse
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
from lab import Lab, wait_for  # noqa: E402

FEEDS = "abcd"


def start_feeds(lab, count, rate, seconds):
    return [lab.start_feed(count // len(FEEDS), "--rate", str(rate / len(FEEDS)), "--mixed", "--vdev", f"xvd{c}",
                           "--timeout", str(seconds), epoch=f"disk-{c}") for c in FEEDS]


def expect(summary, count):
    wrong = {key: summary[key] for key in ("missing", "missing_batches", "bad_signatures", "problems") if summary[key]}
    if wrong or summary["events"] != count:
        sys.exit(f"soak: {summary['events']} of {count} events, {wrong}, {summary['problem_texts'][:5]}")


def kill_again_and_again(lab, args):
    """kill -9 at random points of a run."""
    pick = random.Random(args.seed)
    lab.start_receiver()
    lab.configure(batch_events=100, concurrency=2)
    lab.start_courier()
    feeds = start_feeds(lab, args.events, args.events / (args.kills * 0.2), args.kills + 600)
    kills = 0
    while kills < args.kills and any(feed.poll() is None for feed in feeds):
        time.sleep(pick.uniform(0.01, 0.3))
        lab.kill_courier()
        lab.start_courier()
        kills += 1
    for feed in feeds:
        if feed.wait() != 0:
            sys.exit("soak: a feed failed: " + lab.said()[-2000:])
    wait_for(lambda: lab.target()["backlog"] == 0, 300, "an empty backlog")
    summary = lab.stop_receiver()
    expect(summary, args.events // len(FEEDS) * len(FEEDS))
    lab.kill_courier()
    print(f"{kills} kills: {summary['events']} events, none lost, {summary['duplicates']} twice in "
          f"{summary['redeliveries']} batches that came again", flush=True)


def usage(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    return rss, len(os.listdir(f"/proc/{pid}/fd"))


def flap(lab, args):
    """Events at a rate, and a receiver that is there for a while and then not."""
    pick = random.Random(args.seed)
    seconds = args.minutes * 60
    count = int(args.rate * seconds) // len(FEEDS) * len(FEEDS)
    lab.spool = lab.dir / "flap.db"
    lab.output = lab.dir / "flap.ndjson"
    lab.port = 0
    lab.start_receiver("--any-start")
    lab.configure(spool="keep = 0", batch_events=1000, batch_bytes="4MiB", retry_min_ms=50, retry_max_ms=1000)
    lab.start_courier()
    feeds = start_feeds(lab, count, args.rate, seconds * 3 + 300)
    samples = []
    end = time.monotonic() + seconds
    events = problems = 0
    while time.monotonic() < end and any(feed.poll() is None for feed in feeds):
        time.sleep(pick.uniform(0.5, 6))
        summary = lab.stop_receiver()
        events += summary["events"]
        problems += summary["missing"] + summary["missing_batches"]
        time.sleep(pick.uniform(0, 2))
        lab.start_receiver("--any-start")
        samples.append(usage(lab.courier.pid))
    for feed in feeds:
        if feed.wait() != 0:
            sys.exit("soak: a feed failed")
    wait_for(lambda: lab.target()["backlog"] == 0, 600, "an empty backlog")
    summary = lab.stop_receiver()
    events += summary["events"]
    problems += summary["missing"] + summary["missing_batches"]
    samples.append(usage(lab.courier.pid))
    middle = samples[len(samples) // 3:]
    rss, fds = [s[0] for s in middle], [s[1] for s in middle]
    print(json.dumps({"events": count, "received": events, "missing": problems, "rss_kib": [min(rss), max(rss)],
                      "fds": [min(fds), max(fds)], "spool_bytes": lab.status()["spool"]["file_bytes"]}))
    if events < count or problems or max(fds) - min(fds) > 8 or max(rss) > 1.5 * rss[0] + 65536:
        sys.exit("soak: failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--events", type=int, default=200000, help="of the run with kills")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=20000, help="events a second, with targets that come and go")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    build = pathlib.Path(os.environ.get("TAPWIRE_BUILD") or ROOT / "build").resolve()
    directory = tempfile.mkdtemp(prefix="tapwire-soak-")
    try:
        with Lab(build, directory) as lab:
            if args.kills:
                kill_again_and_again(lab, args)
            if args.minutes:
                flap(lab, args)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
