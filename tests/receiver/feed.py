#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A stand-in inspector: sends events over the courier's socket, and sends again what was not acknowledged
after a reconnect. Ends when everything is acknowledged."""
import argparse
import os
import random
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import link  # noqa: E402

WINDOW = 4096  # events under way without an ACK


class Feed:
    """One disk epoch with count events; next and acked are sequences."""

    def __init__(self, args):
        self.args = args
        self.source = f"/xen/testhost/{args.domain}/{args.vdev}"
        self.acked = 0
        self.started = time.monotonic()
        self.pick = random.Random(args.seed)
        self.types = {}

    def body(self, sequence):
        """The same event for the same sequence, whenever it is made, but for its times."""
        if sequence not in self.types:
            self.types[sequence] = self.pick.randint(1, 8) if self.args.mixed else 2
        kind = self.types[sequence]
        return link.frame(link.EVENT, link.event(self.args.epoch, self.source, sequence, kind, self.args.padding),
                          sequence, kind)

    def due(self):
        """The last sequence that may be sent by now."""
        if not self.args.rate:
            return self.args.count
        return min(self.args.count, int((time.monotonic() - self.started) * self.args.rate) + 1)

    def session(self, sock):
        """Sends until all is acknowledged (True) or the connection breaks (False)."""
        sock.sendall(link.hello(self.args.epoch, self.source))
        reader = link.Reader(sock)
        welcome = reader.read()
        if not welcome or welcome[0] != link.WELCOME:
            return False
        if welcome[2] < self.acked:
            sys.exit(f"feed: welcomed at {welcome[2]} although {self.acked} was acknowledged")
        self.acked = welcome[2]
        sent = self.acked
        sock.setblocking(False)
        out = b""
        while self.acked < self.args.count:
            if not out:
                last = min(self.due(), self.acked + WINDOW, sent + 256)
                out = b"".join(self.body(n) for n in range(sent + 1, last + 1))
                sent = max(sent, last)
            readable, writable, _ = select.select([sock], [sock] if out else [], [], 0.001 if self.args.rate else 1)
            if writable:
                out = out[sock.send(out):]
            if readable and not self.read_acks(sock, reader):
                return False
        return True

    def read_acks(self, sock, reader):
        part = sock.recv(65536)
        if not part:
            return False
        reader.data += part
        while len(reader.data) >= link.HEADER.size:
            _, kind, _, sequence = link.HEADER.unpack_from(reader.data)
            del reader.data[:link.HEADER.size]
            if kind != link.ACK or sequence < self.acked:
                sys.exit(f"feed: frame {kind} with sequence {sequence} after {self.acked}")
            self.acked = sequence
        return True

    def run(self):
        end = time.monotonic() + self.args.timeout
        while time.monotonic() < end:
            try:
                with link.connect(self.args.socket, max(0.1, end - time.monotonic())) as sock:
                    if self.session(sock):
                        return True
            except (ConnectionError, socket.timeout):
                pass
            time.sleep(0.01)
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--epoch", default="epoch-1")
    parser.add_argument("--domain", default="0d1e5a9c-0000-4000-8000-00000000000a")
    parser.add_argument("--vdev", default="xvda")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0, help="events a second (0: as fast as it goes)")
    parser.add_argument("--padding", type=int, default=0, help="bytes more in each event")
    parser.add_argument("--mixed", action="store_true", help="all types of file events, not only modified")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=120)
    args = parser.parse_args()
    feed = Feed(args)
    if not feed.run():
        sys.exit(f"feed: {feed.acked} of {args.count} events acknowledged in {args.timeout} s")


if __name__ == "__main__":
    main()
