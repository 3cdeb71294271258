#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The courier beside syslog-ng, a log shipper of Debian's that POSTs JSON: both get the same events, keep them in
a file and POST them in batches of the same bounds to an endpoint on this machine. Prints events a second up to
the last answer, and processor seconds an event, of the courier or shipper alone; what arrives is compared, event
by event. Needs no root.

syslog-ng is not installed by `make bench`, as Debian's package takes the place of another syslog service: apt
install syslog-ng-core syslog-ng-mod-http. Without it, the courier runs alone."""
import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "common"))
import measure  # noqa: E402
from delivery import Sink, joined, make_bodies, make_chunks, pour  # noqa: E402
from lab import Lab, wait_for  # noqa: E402

EPOCH = "bench"
COURIER = "courier"
SHIPPER = "syslog-ng"
BATCHES = (100, 1000)
BATCH_BYTES = 1 << 20
BATCH_DELAY_MS = 10
SECONDS = 60  # that a run may take
SETTLED = 0.3  # after the last answer: the rest of the work that it causes is done
# Of the library, for the program that encodes and inserts.
SOURCES = ("base/buf.c", "base/error.c", "event/encode.c", "event/names.c", "event/put.c", "event/time.c",
           "event/utf8.c")

# Sizes beyond what is sent, so that neither flow control nor a full buffer is what is measured.
CONFIG = """@version: 3.38
options {{ stats-freq(0); keep-hostname(yes); use-dns(no); log-msg-size(65536); }};
source in {{
    unix-stream("{dir}/in.sock" flags(no-parse) log-iw-size(100000) log-fetch-limit(1000));
}};
destination out {{
    http(url("http://127.0.0.1:{port}/hook") method("POST") headers("Content-Type: application/json")
         body-prefix("[") delimiter(",") body-suffix("]") body("$MSG")
         batch-lines({events}) batch-bytes({bytes}) batch-timeout({delay}) workers(1)
         disk-buffer(reliable(yes) disk-buf-size(1073741824) mem-buf-size(67108864) dir("{dir}")));
}};
log {{ source(in); destination(out); flags(flow-control); }};
"""


class Contest:
    """Runs of one number of events; directory: for what they keep."""

    def __init__(self, directory, bodies):
        self._directory = directory
        self._bodies = bodies
        self._frames = make_chunks(bodies)
        self._lines = joined([body + b"\n" for body in bodies])
        self._expected = [f"{EPOCH}-{n}" for n in range(1, len(bodies) + 1)]
        self._runs = 0

    def _lab(self):
        self._runs += 1
        directory = self._directory / f"run-{self._runs}"
        directory.mkdir()
        return Lab(measure.build(), directory)

    def _measure(self, name, pid, sink, feed):
        """(Seconds, processor seconds) of a run; ends it when not every event came once, in order."""
        before = measure.cpu_seconds(pid)
        start = time.perf_counter()
        feed()
        sink.wait(len(self._bodies), SECONDS)
        seconds = time.perf_counter() - start
        time.sleep(SETTLED)
        cpu = measure.cpu_seconds(pid) - before
        ids = sink.ids()
        if ids != self._expected:
            sys.exit(f"{name}: {len(ids)} events, {len(set(ids))} different ones, of {len(self._expected)}"
                     + (", not in order" if sorted(ids) == sorted(self._expected) else ""))
        return seconds, cpu

    def courier(self, batch_events):
        sink = Sink(keep=True)
        with self._lab() as lab:
            lab.port = sink.port
            lab.configure(batch_events=batch_events, batch_bytes=BATCH_BYTES, batch_delay_ms=BATCH_DELAY_MS)
            lab.start_courier()
            wait_for(lab.socket.exists, what="the courier's socket")
            result = self._measure(COURIER, lab.courier.pid, sink,
                                   lambda: pour(lab, EPOCH, self._frames, len(self._bodies)))
            wait_for(lambda: lab.target()["backlog"] == 0, what="an empty backlog")
        sink.close()
        shutil.rmtree(lab.dir)
        return result

    def shipper(self, batch_events):
        sink = Sink(keep=True)
        with self._lab() as lab:
            config = lab.dir / "syslog-ng.conf"
            config.write_text(CONFIG.format(dir=lab.dir, port=sink.port, events=batch_events, bytes=BATCH_BYTES,
                                            delay=BATCH_DELAY_MS), encoding="ascii")
            with open(lab.log, "ab") as log:
                process = lab.spawn([SHIPPER, "--foreground", "--no-caps", "--cfgfile", config,
                                     "--persist-file", lab.dir / "persist", "--pidfile", lab.dir / "pid",
                                     "--control", lab.dir / "control"], stdout=log, stderr=log)
            try:
                wait_for((lab.dir / "in.sock").exists, what="the shipper's socket")
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(os.fspath(lab.dir / "in.sock"))
                    result = self._measure(SHIPPER, process.pid, sink,
                                           lambda: [sock.sendall(lines) for lines in self._lines])
            except AssertionError as error:
                sys.exit(f"{SHIPPER}: {error}\n{lab.said()}")
        sink.close()
        shutil.rmtree(lab.dir)
        return result

    def inserts(self, program, together):
        """Processor seconds and bytes of an event that is encoded and inserted."""
        self._runs += 1
        file = self._directory / f"inserts-{self._runs}.db"
        said = subprocess.run([program, file, str(len(self._bodies)), str(together)], check=True,
                                      stdout=subprocess.PIPE, text=True).stdout
        for left in self._directory.glob(file.name + "*"):
            left.unlink()
        return tuple(map(float, said.split()))


def report(results, contestants, batch_events, count, bound, figures):
    """A table of one batch size. bound: median processor seconds of encoding and inserting an event."""
    rows, rates, cpus = [], {}, {}
    for name in contestants:
        rates[name] = [count / seconds for seconds, _ in results[name, batch_events]]
        cpus[name] = [cpu / count * 1e6 for _, cpu in results[name, batch_events]]
        figures.add_runs(f"{name}.{batch_events}.rate", rates[name], "events/s")
        figures.add_runs(f"{name}.{batch_events}.cpu", cpus[name], "us")
        rows.append((name, *(f"{f(rates[name]):.0f}" for f in (measure.median, min, max)),
                     f"{measure.median(cpus[name]):.2f}", f"{min(cpus[name]):.2f}", f"{max(cpus[name]):.2f}",
                     f"x{measure.median(cpus[name]) / bound / 1e6:.2f}"))
    measure.table(f"{batch_events} events a batch",
                  ("", "events/s", "min", "max", "cpu us an event", "min", "max", "to an insert"), rows)
    if SHIPPER in contestants:
        compare(rates, cpus, batch_events, figures)


def compare(rates, cpus, batch_events, figures):
    ratios = [ours / theirs for ours, theirs in zip(rates[COURIER], rates[SHIPPER])]
    cheaper = [theirs / ours for ours, theirs in zip(cpus[COURIER], cpus[SHIPPER])]
    figures.add_runs(f"{batch_events}.ahead", ratios, "x")
    figures.add_runs(f"{batch_events}.cheaper", cheaper, "x")
    print(f"  in the same round, the courier delivers x{measure.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f}) as many a second, "
          f"the shipper takes x{measure.median(cheaper):.2f} ({min(cheaper):.2f} to {max(cheaper):.2f}) "
          "the processor time")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few events, once")
    parser.add_argument("--events", type=int, default=100000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.quick:
        args.events, args.rounds = 5000, 1
    measure.setup()
    contestants = [COURIER] + [SHIPPER] * bool(shutil.which(SHIPPER))
    if SHIPPER not in contestants:
        print("syslog-ng is not installed (apt install syslog-ng-core syslog-ng-mod-http, in place of another "
              "syslog service): the courier runs alone")
    bodies = make_bodies(EPOCH, args.events)
    figures = measure.Figures("shippers")
    with measure.scratch() as directory:
        service = measure.ROOT / "dom0-service"
        program = measure.compile_c("shippers_insert", directory, "-D_GNU_SOURCE", "-I", service,
                                    *(service / source for source in SOURCES), "-lsqlite3", "-lcrypto")
        contest = Contest(directory, bodies)
        tasks = {}
        for batch_events in BATCHES:
            tasks[COURIER, batch_events] = lambda n=batch_events: contest.courier(n)
            if SHIPPER in contestants:
                tasks[SHIPPER, batch_events] = lambda n=batch_events: contest.shipper(n)
        tasks["inserts"] = lambda: contest.inserts(program, 1000)
        results = measure.interleaved(args.rounds, tasks)
    inserts = [cpu for cpu, _ in results["inserts"]]
    figures.add_runs("insert.cpu", [cpu * 1e6 for cpu in inserts], "us")
    print(f"{args.events} events of {sum(map(len, bodies)) / len(bodies):.0f} bytes; each arrived once, in order. "
          f"Encoding ({results['inserts'][0][1]:.0f} bytes) and an insert: {measure.median(inserts) * 1e6:.2f} us "
          f"({min(inserts) * 1e6:.2f} to {max(inserts) * 1e6:.2f})")
    for batch_events in BATCHES:
        report(results, contestants, batch_events, args.events, measure.median(inserts), figures)
    figures.print()


if __name__ == "__main__":
    main()
