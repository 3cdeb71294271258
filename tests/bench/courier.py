#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the courier does in a second, on loopback: events into the spool, events delivered, and the delay of
an event with batch_delay_ms = 0. Prints a table, then one line of JSON for each figure."""
import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "receiver"))
sys.path.insert(0, str(ROOT / "tests" / "bench" / "common"))
from delivery import Sink, make_bodies, make_chunks, pour  # noqa: E402
from lab import Lab, wait_for  # noqa: E402


def measure_intake(lab, count):
    """Into the spool alone: the target refuses."""
    lab.port = 1
    lab.configure(retry_min_ms=60000, retry_max_ms=60000)
    lab.start_courier()
    seconds = pour(lab, "bench-in", make_chunks(make_bodies("bench-in", count)), count)
    lab.kill_courier()
    return count / seconds


def measure_delivery(lab, count, batch_events):
    """From the inspector to the last 2xx, all at once."""
    sink = Sink()
    lab.port = sink.port
    lab.configure(batch_events=batch_events, batch_bytes="16MiB", batch_delay_ms=10)
    lab.spool = lab.dir / f"spool-{batch_events}.db"
    lab.start_courier()
    epoch = f"bench-{batch_events}"
    seconds = pour(lab, epoch, make_chunks(make_bodies(epoch, count)), count)
    start = time.perf_counter()
    wait_for(lambda: lab.target()["delivered"] >= count, 60, "the last batch")
    seconds += time.perf_counter() - start
    lab.kill_courier()
    sink.close()
    return count / seconds


def measure_delay(lab, count, rate):
    """From an event's observedtime to its arrival in the receiver, at a gentle rate."""
    lab.port = 0
    lab.spool = lab.dir / "spool-delay.db"
    lab.start_receiver()
    lab.configure(batch_delay_ms=0)
    lab.start_courier()
    lab.feed(count, "--rate", str(rate))
    lab.wait_delivered(count)
    lab.kill_courier()
    return lab.stop_receiver()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=100000, help="of the throughput measurements")
    parser.add_argument("--delay-events", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200, help="events a second of the delay measurement")
    args = parser.parse_args()
    build = os.environ.get("TAPWIRE_BUILD") or ROOT / "build"
    directory = tempfile.mkdtemp(prefix="tapwire-bench-")
    figures = []
    try:
        with Lab(pathlib.Path(build).resolve(), directory) as lab:
            figures.append(("courier.intake", "events/s", measure_intake(lab, args.events),
                            "into the spool, target down"))
            for batch_events in (100, 1000):
                figures.append((f"courier.delivery.{batch_events}", "events/s",
                                measure_delivery(lab, args.events, batch_events),
                                f"through the spool to 2xx, {batch_events} a batch"))
            summary = measure_delay(lab, args.delay_events, args.rate)
            for name, key in (("p50", "delay_median_ms"), ("p99", "delay_p99_ms"), ("max", "delay_max_ms")):
                figures.append((f"courier.delay.{name}", "ms", summary[key],
                                f"observed to received, {args.rate:g} events/s, batch_delay_ms = 0"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for name, unit, value, meaning in figures:
        print(f"{name:<24} {value:>12.{0 if unit == 'events/s' else 2}f} {unit:<9} {meaning}")
    for name, unit, value, _ in figures:
        print(json.dumps({"name": name, "unit": unit, "value": round(value, 3)}))


if __name__ == "__main__":
    main()
