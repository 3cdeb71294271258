# SPDX-License-Identifier: BSD-3-Clause
"""A client of xenstored, by its wire protocol (Xen's docs/misc/xenstore.txt, xen/io/xs_wire.h); none of
the product's code, nor libxenstore."""
import collections
import errno
import mmap
import os
import select
import socket
import struct
import time

(CONTROL, DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, TRANSACTION_START, TRANSACTION_END, INTRODUCE, RELEASE,
 GET_DOMAIN_PATH, WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR, IS_DOMAIN_INTRODUCED) = range(18)
DIRECTORY_PART = 22
HEADER = struct.Struct("<IIII")
PAGE, RING = 4096, 1024
INDEXES = 2 * RING  # req_cons, req_prod, rsp_cons, rsp_prod


class SocketLink:
    """dom0's way to xenstored."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)

    def send(self, data):
        self._socket.sendall(data)

    def receive(self, size):
        data = bytearray()
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("xenstored has closed the connection")
            data += more
        return bytes(data)

    def pending(self):
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self):
        self._socket.close()


class PageLink:
    """A guest's way: the page that it shares with xenstored, and event channels (see xenless.c)."""

    def __init__(self, directory, domid, port):
        self._bell = os.open(os.path.join(directory, "bell-%d" % domid), os.O_RDWR | os.O_NONBLOCK)
        self._events = os.open(os.path.join(directory, "events"), os.O_RDWR | os.O_NONBLOCK)
        self._port = struct.pack("<I", port)
        with open(os.path.join(directory, "page-%d" % domid), "r+b") as page:
            self._page = mmap.mmap(page.fileno(), PAGE)
        # Written as one number each: xenstored has done with a guest whose indexes make no sense for a moment.
        self._indexes = memoryview(self._page)[INDEXES:INDEXES + 16].cast("I")

    def fileno(self):
        """Readable when something may have come."""
        return self._bell

    def _index(self, n, value=None):
        if value is not None:
            self._indexes[n] = value
        return self._indexes[n]

    def _ring(self):
        os.write(self._events, self._port)

    def quiet(self):
        """Takes the bytes of the bell."""
        try:
            os.read(self._bell, 4096)
        except BlockingIOError:
            pass

    def _wait(self):
        if not select.select([self._bell], [], [], 60)[0]:
            raise TimeoutError("xenstored does not answer")
        self.quiet()

    def send_some(self, data):
        """Puts in what there is room for; how much that was."""
        cons, prod = self._index(0), self._index(1)
        room = RING - (prod - cons) % (1 << 32)
        part = data[:min(room, RING - prod % RING)]
        if part:
            self._page[prod % RING:prod % RING + len(part)] = part
            self._index(1, (prod + len(part)) % (1 << 32))
            self._ring()
        return len(part)

    def receive_some(self, size):
        cons, prod = self._index(2), self._index(3)
        size = min(size, (prod - cons) % (1 << 32), RING - cons % RING)
        data = self._page[RING + cons % RING:RING + cons % RING + size]
        if data:
            self._index(2, (cons + size) % (1 << 32))
            self._ring()
        return data

    def send(self, data):
        while data:
            sent = self.send_some(data)
            data = data[sent:]
            if not sent:
                self._wait()

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.receive_some(size - len(data))
            data += more
            if not more:
                self._wait()
        return data

    def pending(self):
        return self._index(2) != self._index(3)

    def close(self):
        os.close(self._bell)
        os.close(self._events)
        self._indexes.release()
        self._page.close()


class Client:
    """One connection. Errors of xenstored are OSErrors. Paths and values are str or bytes."""

    def __init__(self, link):
        self._link = link
        self._events = collections.deque()
        self._id = 0

    def close(self):
        self._link.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def _message(self):
        kind, number, _tx, size = HEADER.unpack(self._link.receive(HEADER.size))
        return kind, number, self._link.receive(size)

    def _call(self, kind, *words, tx=0, end=b"\0"):
        self._id += 1
        body = b"\0".join(w if isinstance(w, bytes) else str(w).encode() for w in words) + end
        self._link.send(HEADER.pack(kind, self._id, tx, len(body)) + body)
        while True:
            got, number, answer = self._message()
            if got == WATCH_EVENT:
                self._events.append(tuple(answer.rstrip(b"\0").decode().split("\0")[:2]))
            elif got == ERROR:
                raise OSError(getattr(errno, answer.rstrip(b"\0").decode()), answer.decode(), str(words[0]))
            else:
                assert (got, number) == (kind, self._id)
                return answer

    def read(self, path, tx=0):
        return self._call(READ, path, tx=tx).decode()

    def get(self, path, default=None):
        try:
            return self.read(path)
        except FileNotFoundError:
            return default

    def exists(self, path):
        return self.get(path) is not None

    def write(self, path, value="", tx=0):
        self._call(WRITE, path, value, tx=tx, end=b"")

    def mkdir(self, path, tx=0):
        self._call(MKDIR, path, tx=tx)

    def remove(self, path, tx=0):
        self._call(RM, path, tx=tx)

    def list(self, path, tx=0):
        """Names below a path, none where there is no such path."""
        try:
            return [name.decode() for name in self._call(DIRECTORY, path, tx=tx).split(b"\0") if name]
        except FileNotFoundError:
            return []
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            return self._list_in_parts(path, tx)

    def _list_in_parts(self, path, tx):
        """More names than a message holds; again when they change on the way."""
        while True:
            names, generation = b"", None
            while not names.endswith(b"\0\0"):
                now, part = self._call(DIRECTORY_PART, path, len(names), tx=tx).split(b"\0", 1)
                if generation not in (None, now):
                    break
                names, generation = names + part, now
            else:
                return [name.decode() for name in names.split(b"\0") if name]

    def permissions(self, path):
        """As "n0", "r5": the owner and what others may, then what each domain may."""
        return self._call(GET_PERMS, path).decode().rstrip("\0").split("\0")

    def set_permissions(self, path, *perms, tx=0):
        self._call(SET_PERMS, path, *perms, tx=tx)

    def transaction(self):
        return int(self._call(TRANSACTION_START, "").rstrip(b"\0"))

    def end(self, tx, commit=True):
        """False when another one's change was in the way."""
        try:
            self._call(TRANSACTION_END, "T" if commit else "F", tx=tx)
        except BlockingIOError:
            return False
        return True

    def introduce(self, domid, frame, port):
        self._call(INTRODUCE, domid, frame, port)

    def release(self, domid):
        self._call(RELEASE, domid)

    def introduced(self, domid):
        return self._call(IS_DOMAIN_INTRODUCED, domid).startswith(b"T")

    def watch(self, path, token):
        self._call(WATCH, path, token)

    def control(self, *words):
        return self._call(CONTROL, *words).decode().rstrip("\0")

    def events(self, expected=0, seconds=10):
        """The watch events that have come: (path, token). So many are waited for."""
        end = time.monotonic() + seconds
        while self._link.pending() or len(self._events) < expected and time.monotonic() < end:
            if not self._link.pending():
                time.sleep(0.01)
                continue
            kind, _, body = self._message()
            assert kind == WATCH_EVENT
            self._events.append(tuple(body.rstrip(b"\0").decode().split("\0")[:2]))
        come = list(self._events)
        self._events.clear()
        return come

    def walk(self, path):
        """Each path below this one, and itself, with its value."""
        value = self.get(path)
        if value is None:
            return
        yield path, value
        for name in self.list(path):
            yield from self.walk(path.rstrip("/") + "/" + name)
