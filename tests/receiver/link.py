# SPDX-License-Identifier: BSD-3-Clause
"""The frames between inspectors and the courier (dom0-service/link/frame.h), for tests."""
import base64
import json
import random
import socket
import struct
import time

HELLO, WELCOME, EVENT, ACK, TAIL, STATUS = range(1, 7)
HEADER = struct.Struct("<IHHQ")
TYPES = ["?", "file.created", "file.modified", "file.truncated", "file.renamed", "file.linked", "file.unlinked",
         "file.deleted", "file.attributes", "volume.found", "volume.formatted", "volume.lost", "disk.attached",
         "disk.detached", "disk.resynced", "spool.dropped", "file.settled"]


def frame(kind, body=b"", sequence=0, event_type=0):
    return HEADER.pack(len(body), kind, event_type, sequence) + body


def hello(epoch, source):
    return frame(HELLO, epoch.encode() + b"\0" + source.encode() + b"\0")


def connect(path, timeout=30.0):
    """A connection to the courier; waits for the socket to be there."""
    end = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(path)
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


class Reader:
    """Whole frames from a socket: (kind, event type, sequence, body)."""

    def __init__(self, sock):
        self.sock = sock
        self.data = bytearray()

    def read(self):
        """The next frame, or None at the end."""
        while True:
            if len(self.data) >= HEADER.size:
                length, kind, event_type, sequence = HEADER.unpack_from(self.data)
                if len(self.data) >= HEADER.size + length:
                    body = bytes(self.data[HEADER.size:HEADER.size + length])
                    del self.data[:HEADER.size + length]
                    return kind, event_type, sequence, body
            part = self.sock.recv(65536)
            if not part:
                return None
            self.data += part


def status(path, timeout=30.0):
    """The courier's answer to a STATUS frame."""
    with connect(path, timeout) as sock:
        sock.sendall(frame(STATUS))
        answer = Reader(sock).read()
        assert answer and answer[0] == STATUS, answer
        return json.loads(answer[3])


def rfc3339(seconds):
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e9):09d}Z"


def noise(seed, length):
    """Text that does not compress, the same for the same seed."""
    return base64.b64encode(random.Random(seed).randbytes(length)).decode()[:length]


def event(epoch, source, sequence, event_type=2, padding=0, path=None):
    """The body of an EVENT as an inspector would send it."""
    now = rfc3339(time.time())
    return json.dumps({
        "specversion": "1.0",
        "id": f"{epoch}-{sequence}",
        "source": f"{source}/3f0c9a52-0000-4000-8000-000000000001",
        "type": f"org.tapwire.{TYPES[event_type]}",
        "subject": path or f"/var/log/file-{sequence % 1000}",
        "time": now,
        "observedtime": now,
        "sequence": str(sequence),
        "datacontenttype": "application/json",
        "data": {"inode": 12 + sequence % 1000, "generation": 7, "kind": "file", "size": sequence, "mode": "0644",
                 "uid": 0, "gid": 0, "nlink": 1, "mtime": now, "ctime": now,
                 **({"padding": noise(sequence, padding)} if padding else {})},
    }).encode()
