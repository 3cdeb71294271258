# SPDX-License-Identifier: BSD-3-Clause
"""Debian's xenstored on a machine without Xen (see xenless.c), and domains as xl writes them there."""
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid as uuids

from . import xswire
from .guard import Guard

DAEMON = "/usr/lib/xen-4.17/bin/xenstored"
SOURCE = pathlib.Path(__file__).resolve().with_suffix(".c")
FIRST_PORT, VIRQ_PORT = 0x10000, 1
VDEVS = {"xvd%c" % (ord("a") + n): 51712 + 16 * n for n in range(16)}


def missing():
    """Why no xenstored can run here, or None."""
    return None if os.path.exists(DAEMON) else "no " + DAEMON


class Xenless:
    """One xenstored, of which dom0 is this machine. Use as a context manager; .environment is what a
    client of libxenstore needs, .store a connection of dom0's."""

    def __init__(self, directory):
        self.directory = os.path.join(os.fspath(directory), "xen")
        self.socket = os.path.join(self.directory, "socket")
        self.environment = {"XENSTORED_RUNDIR": self.directory, "XENSTORED_PATH": self.socket}
        self._library = os.path.join(self.directory, "xenless.so")
        self._log = os.path.join(self.directory, "xenstored.log")
        self._proc = None
        self.store = None

    def __enter__(self):
        os.makedirs(self.directory)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-std=gnu17", "-D_GNU_SOURCE", "-fvisibility=hidden",
                        "-o", self._library, SOURCE], check=True, stdin=subprocess.DEVNULL)
        os.mkfifo(self._path("events"))
        self._put("xsd_port", b"1\n")
        self._put("xsd_kva", bytes(4096))
        self._put("domain-0", b"")
        # Someone always has it open, so that no event is lost between two xenstoreds.
        self._events = os.open(self._path("events"), os.O_RDWR | os.O_NONBLOCK)
        self._guard = Guard()
        self.start()
        return self

    def __exit__(self, *_exc):
        try:
            self.stop()
        finally:
            self._guard.close()
            os.close(self._events)

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _put(self, name, data):
        with open(self._path(name), "wb") as file:
            file.write(data)

    def start(self):
        """Starts a xenstored, with nothing in it but dom0's number."""
        environment = {**os.environ, **self.environment, "LD_PRELOAD": self._library, "XENLESS": self.directory}
        with open(self._log, "ab") as log:
            self._proc = subprocess.Popen([DAEMON, "--no-fork"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=environment, start_new_session=True)
        self._guard.push("kill", self._proc.pid)
        end = time.monotonic() + 20
        while self.store is None:
            try:
                self.store = self.connect()
            except OSError:
                if time.monotonic() > end or self._proc.poll() is not None:
                    raise RuntimeError(self.said()) from None
                time.sleep(0.01)
        self.store.write("/local/domain/0/domid", "0")

    def stop(self):
        """Kills it: all that it knew is gone."""
        if self._proc is None:
            return
        self.store.close()
        self.store = None
        self._proc.kill()
        self._proc.wait(timeout=20)
        self._proc = None
        self._guard.pop()

    def freeze(self):
        """It answers nobody any more, until thaw()."""
        self._proc.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._proc.send_signal(signal.SIGCONT)

    def pid(self):
        return self._proc.pid

    def said(self):
        with open(self._log, "rb") as log:
            return log.read()[-4000:].decode(errors="replace")

    def connect(self):
        """One more connection of dom0's."""
        return xswire.Client(xswire.SocketLink(self.socket))

    # --- the hypervisor's part of a domain ---

    def make(self, domid, page=False):
        """The domain exists from now on; page: it can talk to xenstored itself."""
        self._put("domain-%d" % domid, b"")
        if page:
            self._put("page-%d" % domid, bytes(4096))
            os.mkfifo(self._path("bell-%d" % domid))

    def _raise_virq(self):
        os.write(self._events, struct.pack("<I", VIRQ_PORT))

    def shut_down(self, domid):
        """The guest has ended by itself; its toolstack has yet to notice."""
        self._put("domain-%d" % domid, b"s")
        self._raise_virq()

    def unmake(self, domid):
        """The domain exists no more."""
        for name in ("domain", "page", "bell"):
            try:
                os.unlink(self._path("%s-%d" % (name, domid)))
            except FileNotFoundError:
                pass
        self._raise_virq()

    def guest(self, domid):
        """A connection of a domain's own, which was made with a page: xenstored holds it to its rights."""
        return xswire.Client(xswire.PageLink(self.directory, domid, FIRST_PORT + domid))


class Bridge:
    """A socket for libxenstore that leads to a domain's page: who connects there is that domain. Of several
    clients, one at a time talks. Use as a context manager."""

    def __init__(self, xen, domid):
        self._xen, self._domid = xen, domid
        self.socket = os.path.join(xen.directory, "domain-%d.socket" % domid)
        self.environment = {"XENSTORED_RUNDIR": xen.directory, "XENSTORED_PATH": self.socket}

    def __enter__(self):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen(8)
        self._end_read, self._end_write = os.pipe()
        self._link = xswire.PageLink(self._xen.directory, self._domid, FIRST_PORT + self._domid)
        self._peers, self._talker, self._waiting = [], None, b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        os.close(self._end_write)
        self._thread.join()
        for peer in self._peers:
            peer.close()
        self._link.close()
        self._listener.close()
        os.close(self._end_read)
        os.unlink(self.socket)

    def _run(self):
        while True:
            # What has not been sent yet comes first.
            peers = [] if self._waiting else self._peers
            ready = select.select([self._listener, self._end_read, self._link] + peers, [], [])[0]
            if self._end_read in ready:
                return
            if self._listener in ready:
                self._peers.append(self._listener.accept()[0])
            for peer in [peer for peer in peers if peer in ready]:
                self._hear(peer)
            self._link.quiet()
            while (sent := self._link.send_some(self._waiting)):
                self._waiting = self._waiting[sent:]
            while (come := self._link.receive_some(xswire.RING)):
                try:
                    if self._talker:
                        self._talker.sendall(come)
                except OSError:
                    pass

    def _hear(self, peer):
        if self._waiting:
            return
        try:
            self._waiting = peer.recv(65536)
        except OSError:
            pass
        if self._waiting:
            self._talker = peer
            return
        if self._talker is peer:
            self._talker = None
        self._peers.remove(peer)
        peer.close()


class Domain:
    """A PV guest as `xl create` of Xen 4.17 leaves it in xenstore, and as it goes. backend: the domain that
    serves its disks."""

    def __init__(self, xen, domid, name, uuid=None, page=False, backend=0):
        self.xen, self.domid, self.name, self.backend = xen, domid, name, backend
        self.uuid = str(uuid or uuids.uuid4())
        self.home = "/local/domain/%d" % domid
        self.vm = "/vm/" + self.uuid
        self._page = page
        self.disks = {}  # vdev: its backend's path

    def create(self):
        self.xen.make(self.domid, self._page)
        self._write_home()
        self.xen.store.introduce(self.domid, 0x1000 + self.domid, 1)
        return self

    def _write_home(self):
        store, mine = self.xen.store, ("n0", "r%d" % self.domid)
        for path in (self.home, self.vm):
            store.mkdir(path)
            store.set_permissions(path, *mine)
        for path, value in ((self.vm + "/name", self.name), (self.vm + "/uuid", self.uuid),
                            (self.home + "/vm", self.vm), (self.home + "/name", self.name),
                            (self.home + "/domid", self.domid), (self.home + "/cpu/0/availability", "online"),
                            (self.home + "/memory/target", "131072"), (self.home + "/store/port", "1")):
            store.write(path, value)
        for name in ("data", "device", "control/shutdown"):  # what the guest may write
            store.write(self.home + "/" + name)
            store.set_permissions(self.home + "/" + name, "n%d" % self.domid)

    def write_again(self):
        """Into a xenstored that has forgotten everything."""
        self._write_home()
        self.xen.store.introduce(self.domid, 0x1000 + self.domid, 1)
        for vdev, (kind, mode, target, keys) in list(self.disks.items()):
            self.attach(vdev, target, kind, mode, **keys)

    def backend_of(self, vdev):
        kind = self.disks[vdev][0]
        return "/local/domain/%d/backend/%s/%d/%d" % (self.backend, kind, self.domid, VDEVS[vdev])

    def attach(self, vdev, target, kind="vbd", mode="w", **keys):
        """As block-attach does, in one transaction. target: as in "aio:/srv/disk.img". keys: more of the
        backend's, or others than are usual. Returns the backend's path."""
        devid = VDEVS[vdev]
        self.disks[vdev] = (kind, mode, str(target), keys)
        back = self.backend_of(vdev)
        front = "%s/device/vbd/%d" % (self.home, devid)
        fields = {"frontend": front, "params": target, "script": "/etc/xen/scripts/block-tapwire",
                  "frontend-id": self.domid, "online": 1, "removable": 0, "bootable": 1, "state": 1, "dev": vdev,
                  "type": "phy" if kind == "vbd" else "qdisk", "mode": mode, "device-type": "disk",
                  "discard-enable": 1, **keys}
        store = self.xen.store
        while True:
            tx = store.transaction()
            store.mkdir(front, tx)
            store.set_permissions(front, "n%d" % self.domid, "r%d" % self.backend, tx=tx)
            for name, value in (("backend", back), ("backend-id", self.backend), ("state", 1),
                                ("virtual-device", devid), ("device-type", "disk")):
                store.write(front + "/" + name, value, tx)
            store.mkdir(back, tx)
            store.set_permissions(back, "n%d" % self.backend, "r%d" % self.domid, tx=tx)
            for name, value in fields.items():
                if value is not None:
                    store.write(back + "/" + name.replace("_", "-"), value, tx)
            if store.end(tx):
                return back

    def connect(self, vdev, device="/dev/nbd0"):
        """What the hotplug script and the two drivers write when they have a device."""
        back = self.backend_of(vdev)
        for name, value in (("physical-device-path", device), ("physical-device", "2b:0"),
                            ("hotplug-status", "connected"), ("sectors", "2048"), ("state", "4")):
            self.xen.store.write(back + "/" + name, value)

    def detach(self, vdev):
        """As block-detach: all of the device goes, and what is empty above it."""
        store, back = self.xen.store, self.backend_of(vdev)
        front = "%s/device/vbd/%d" % (self.home, VDEVS[vdev])
        store.write(back + "/online", "0")
        store.write(back + "/state", "5")
        tx = None
        while tx is None or not store.end(tx):
            tx = store.transaction()
            for path in (back, front):
                store.remove(path, tx)
                while (path := path.rpartition("/")[0]).count("/") > 3 and not store.list(path, tx):
                    store.remove(path, tx)
        del self.disks[vdev]

    def rename(self, name):
        self.name = name
        self.xen.store.write(self.home + "/name", name)
        self.xen.store.write(self.vm + "/name", name)

    def destroy(self, forget_vm=True):
        """As `xl destroy`: the disks, the paths, then the domain. forget_vm: false when another domain has
        the uuid."""
        for vdev in list(self.disks):
            self.detach(vdev)
        for path in (self.home,) + ((self.vm,) if forget_vm else ()):
            self.xen.store.remove(path)
        self.xen.unmake(self.domid)
        try:
            self.xen.store.release(self.domid)
        except FileNotFoundError:  # xenstored has noticed already
            pass

    def connection(self):
        return self.xen.guest(self.domid)
