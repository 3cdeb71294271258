# SPDX-License-Identifier: BSD-3-Clause
"""A dom0 without a hypervisor: a real xenstored, tapwired, and capture points for guests' disks."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from . import guestdisk, xenless
from .guard import Guard

STATES = ("starting", "crawling", "live", "resync", "failed")


class Rings:
    """Capture points of disks that nobody writes to (rings.c). Use as a context manager."""

    def __init__(self, tapwire):
        self._argv = [os.path.join(tapwire.build, "tests/lib/rings")]
        self.alive = set()  # the paths of those that are up

    def __enter__(self):
        self._guard = Guard()
        self._proc = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._guard.push("kill", self._proc.pid)
        return self

    def __exit__(self, *_exc):
        self._proc.stdin.close()
        self._proc.wait(timeout=60)
        self._proc.stdout.close()
        self._guard.pop()
        self._guard.close()

    def _ask(self, command):
        self._proc.stdin.write(command + "\n")
        self._proc.stdin.flush()
        number = int(self._proc.stdout.readline())
        if number:
            raise OSError(number, os.strerror(number), command)

    def come(self, path, size):
        self._ask("+ %d %s" % (size, path))
        self.alive.add(path)

    def go(self, path):
        self._ask("- %s" % path)
        self.alive.discard(path)


class Dom0:
    """directory: scratch space. tapwire: the programs, of a build that has the tests' own. settings: lines for the INI
    file's [service], sections: more of it. Use as a context manager: inside, xenstored runs; tapwired after start()."""

    def __init__(self, tapwire, directory, endpoint=None, settings="", sections=""):
        self.directory = os.path.join(os.fspath(directory), "dom0")
        self.run, self.state = os.path.join(self.directory, "run"), os.path.join(self.directory, "state")
        self.ring_dir = os.path.join(self.directory, "rings")
        self.log = os.path.join(self.directory, "tapwired.log")
        self.config = os.path.join(self.directory, "tapwire.conf")
        self.images = os.path.join(self.directory, "images")
        self._tapwire, self._endpoint, self._settings = tapwire, endpoint, settings
        self._sections = sections
        self.xen = xenless.Xenless(self.directory)
        self.rings = Rings(tapwire)
        self.environment = self.xen.environment
        self.proc = None
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        os.makedirs(self.images)
        self.write_config()
        with contextlib.ExitStack() as stack:
            self._guard = Guard()
            stack.callback(self._guard.close)
            stack.enter_context(self.xen)
            stack.enter_context(self.rings)
            stack.callback(self.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def write_config(self, sections=None):
        self._sections = self._sections if sections is None else sections
        with open(self.config, "w", encoding="utf-8") as file:
            file.write("[service]\nstate_dir = %s\nrun_dir = %s\nring_dir = %s\n%s" % (
                self.state, self.run, self.ring_dir, self._settings))
            if self._endpoint:
                file.write("[target t]\nurl = %s\nsecret_file = %s\nbatch_delay_ms = 10\n" % (
                    self._endpoint.url, self._endpoint.secret))
            file.write(self._sections)

    # --- the service ---

    def start(self):
        argv = [os.path.join(self._tapwire.build, "tapwired"), "--config", self.config, "--linger", "60"]
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env={**os.environ, **self.environment}, start_new_session=True)
        self._guard.push("kill", -self.proc.pid)
        return self

    def stop(self):
        """In order."""
        self.proc.send_signal(signal.SIGTERM)
        status = self.proc.wait(timeout=120)
        assert status == 0, "exit %d\n%s" % (status, self.said())
        self._forget()

    def kill(self):
        """tapwired alone: what it has started notices."""
        if self.proc is None:
            return
        self.proc.kill()
        self.proc.wait()
        self._forget()

    def _forget(self):
        self.proc = None
        self._guard.pop()

    def reload(self, sections):
        self.write_config(sections)
        self.proc.send_signal(signal.SIGHUP)

    def said(self, lines=60):
        with open(self.log, "rb") as log:
            return b"".join(log.readlines()[-lines:]).decode(errors="replace")

    def status(self):
        """What the service says; {} while it does not."""
        done = self._tapwire.run("status", "--json", "--state", self.run, timeout=30)
        try:
            return json.loads(done.stdout)["service"]
        except (ValueError, LookupError, TypeError):
            return {}

    def text(self):
        """What `tapwire status` prints."""
        return self._tapwire.run("status", "--state", self.run, timeout=30).stdout.decode()

    def disks(self):
        """(guest's name, vdev): what is said of the disk."""
        return {(disk["guest"], disk["vdev"]): disk for disk in self.status().get("guests", ())}

    def wait(self, condition, what, seconds=30):
        assert guestdisk.wait_until(condition, seconds), "%s\n%s\n%s" % (
            what() if callable(what) else what, json.dumps(self.status(), indent=1), self.said())

    def inspectors(self):
        """(UUID, vdev): (process id, domid, image) of what runs for this service."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = pathlib.Path("/proc", pid, "cmdline").read_bytes().decode().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            if "--courier" not in words or not words[words.index("--courier") + 1].startswith(self.run) or \
                    os.path.basename(words[0]) != "tapwire-inspect":
                continue
            option = {name: words[words.index(name) + 1] for name in
                      ("--domain-uuid", "--vdev", "--domid", "--image")}
            key = option["--domain-uuid"], option["--vdev"]
            # One whose tapwired was killed may be on its way out beside the next one.
            found[key] = (int(pid), int(option["--domid"]), option["--image"]) if key not in found else \
                (int(pid), "two of them", option["--image"])
        return found

    def wakeups(self):
        """How often tapwired's threads have gone to sleep by themselves."""
        total = 0
        for task in pathlib.Path("/proc/%d/task" % self.proc.pid).iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
        return total

    # --- disks ---

    def image(self, name):
        """A small disk with an empty file system; the same one for the same name."""
        path = os.path.join(self.images, name)
        template = os.path.join(self.directory, "template.img")
        if not os.path.exists(template):
            guestdisk.make_image(template, size="1M")
        if not os.path.exists(path):
            shutil.copyfile(template, path)
        return path

    def ring(self, guest, vdev):
        return os.path.join(self.ring_dir, "%s-%s.ring" % (guest.uuid, vdev))

    def capture(self, guest, vdev, image):
        """The disk's capture point comes up."""
        os.makedirs(self.ring_dir, exist_ok=True)
        for _ in range(100):
            try:
                return self.rings.come(self.ring(guest, vdev), os.path.getsize(image))
            except BlockingIOError:  # the ring of the guest's last life is just being removed
                time.sleep(0.01)
            except OSError as error:
                if error.errno != 16:  # EBUSY, the same
                    raise
                time.sleep(0.01)
        raise AssertionError("%s stays busy" % self.ring(guest, vdev))

    def release(self, guest, vdev):
        self.rings.go(self.ring(guest, vdev))

    def plug(self, guest, vdev, image=None, captured=True, **keys):
        """As block-attach with the hotplug script."""
        image = image or self.image("%s-%s.img" % (guest.uuid, vdev))
        back = guest.attach(vdev, "aio:" + image, **keys)
        if captured:
            self.capture(guest, vdev, image)
            guest.connect(vdev)
        return back

    def unplug(self, guest, vdev):
        if self.ring(guest, vdev) in self.rings.alive:
            self.release(guest, vdev)
        guest.detach(vdev)

    def end(self, guest, forget_vm=True):
        """As `xl destroy`."""
        for vdev in list(guest.disks):
            self.unplug(guest, vdev)
        guest.destroy(forget_vm)

    def told(self, back):
        """What tapwired says of a disk in xenstore, {} when it says nothing."""
        store = self.xen.store
        return {name: store.get("%s/tapwire/%s" % (back, name)) for name in store.list(back + "/tapwire")}
