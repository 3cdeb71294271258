# SPDX-License-Identifier: BSD-3-Clause
"""What is checked in the dom0 of an emulated Xen, with tapwire as make install puts it there. Prints TAP."""
import json
import os
import re
import subprocess
import sys
import time
import traceback

sys.path.insert(0, "/checks")
from lib.endpoint import Endpoint  # noqa: E402
from lib.guestdisk import read_text  # noqa: E402

WORK = "/root/work"
PATIENCE = 90  # s; xl create takes 42 s in emulation
GUEST = """\
name = "%(name)s"
uuid = "%(uuid)s"
kernel = "/checks/vmlinuz"
ramdisk = "/checks/guest.img"
extra = "console=hvc0"
memory = 160
vcpus = 1
disk = [ '%(disk)s' ]
"""
DISK = "vdev=%s, access=rw, format=raw, script=block-tapwire, target=aio:%s"
MIRROR = "capture=mirror" in (read_text("/etc/tapwire/xl.conf") if os.path.exists("/etc/tapwire/xl.conf") else "")
SERVER = "tapdisk" if os.path.exists("/usr/libexec/tapdisk") else "nbdkit"
WEB = "11111111-2222-3333-4444-555555555555"
THIEF = "11111111-2222-3333-4444-666666666666"
# What the guest's first process does, in this order; see guest-init.
FIRST_DISK = [("file.created", "/etc"), ("file.created", "/etc/passwd.new"), ("file.renamed", "/etc/passwd"),
              ("file.created", "/etc/link"), ("file.created", "/gone"), ("file.deleted", "/gone"),
              ("file.created", "/boot0")]


class Failure(Exception):
    pass


class Plan:
    """Numbers the checks. One that fails does not end the others."""

    def __init__(self):
        self.number = 0

    def check(self, name, function):
        self.number += 1
        started = time.monotonic()
        try:
            value = function()
            print("ok %d - %s # %.0f s" % (self.number, name, time.monotonic() - started))
            return value
        except Exception as err:  # pylint: disable=broad-except
            print("not ok %d - %s" % (self.number, name))
            what = str(err) if isinstance(err, Failure) else traceback.format_exc()
            for line in what.splitlines()[-40:]:
                print("# " + line[:900])
            return None


def run(*argv, seconds=PATIENCE):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=seconds)
    if done.returncode:
        raise Failure("%s: exit status %d\n%s" % (" ".join(argv), done.returncode, done.stdout))
    return done.stdout


def output(*argv):
    """What it says, whether it fails or not."""
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout


def until(what, condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.3)
    raise Failure("not in %d s: %s" % (seconds, what() if callable(what) else what))


def image(name, size="64M"):
    path = "/srv/%s.img" % name
    run("truncate", "-s", size, path)
    run("mke2fs", "-q", "-F", "-t", "ext4", path)
    run("fallocate", "-l", size, path)  # no mirror is put to one with holes
    return path


def store(key):
    return output("xenstore-read", key).strip()


class Service:
    def __init__(self, url, secret):
        config = "/etc/tapwire/tapwire.conf"
        with open(config, "w", encoding="utf-8") as file:
            file.write("[target hook]\nurl = %s\nsecret_file = %s\n" % (url, secret))
        run("tapwire", "check-config", config)
        run("systemctl", "start", "tapwired")

    def stop(self):
        run("systemctl", "stop", "tapwired")
        result = run("systemctl", "show", "-P", "Result", "-P", "NRestarts", "tapwired").split()
        if result != ["success", "0"]:
            raise Failure("%s\n%s" % (result, self.said()))

    @staticmethod
    def said():
        return output("journalctl", "-o", "cat", "-u", "tapwired")


class Checks:
    def __init__(self, plan, hook, service):
        self.plan, self.hook, self.service = plan, hook, service
        self.web = self.thief = None
        self.domid = self.resyncs = None  # before the migration

    def all(self):
        check = self.plan.check
        check("Xen runs, and this is its dom0", self.is_dom0)
        check("tapwired says in xenstore that it is well", self.service_is_up)
        check("xl create with a disk line", lambda: self.create("web", WEB, image("web")))
        check("the backend has a block device of its own", self.has_device)
        check("the disk is served by " + SERVER, self.is_served)
        check("tapwire status shows the disk as live", lambda: until(self.status, self.is_live))
        for kind, subject in FIRST_DISK:
            check("%s %s while the guest runs" % (kind, subject), lambda k=kind, s=subject: self.hears(k, s))
        check("what is in xenstore is as the schema says", lambda: run("tapwire", "check-xenstore"))
        check("events name the guest", self.names_the_guest)
        second = image("second")
        check("xl block-attach", lambda: self.attach(second))
        check("a file of the second disk", lambda: self.hears("file.created", "/more0-1", "xvdb"))
        check("xl block-detach", self.detach)
        check("xl reboot", self.reboot)
        check("the guest's files after it", lambda: self.hears("file.created", "/boot1"))
        check("xl save", self.save)
        check("nothing is left of its disks meanwhile", lambda: until(self.leftovers, lambda: not self.leftovers()))
        check("xl restore", lambda: run("xl", "restore", WORK + "/web.saved"))
        check("xl block-attach to the restored guest", lambda: self.attach(second))
        check("a file of its second disk", lambda: self.hears("file.created", "/more1-1", "xvdb"))
        check("a file of its first disk", lambda: self.hears("file.created", "/attached1-1"))
        check("its disks' events are numbered on", self.numbers_on)
        check("xl block-detach from it", self.detach)
        check("xl migrate to this host", self.migrate)
        check("one guest has the disk, as a new domain", self.has_moved)
        check("xl block-attach to the migrated guest", lambda: self.attach(second))
        check("a file of its second disk", lambda: self.hears("file.created", "/more1-2", "xvdb"))
        check("a file of its first disk", lambda: self.hears("file.created", "/attached1-2"))
        if MIRROR:  # which is put anew for the domain that comes
            check("its disks' events are numbered on", self.numbers_on)
        else:
            check("its disks' events are numbered on, and none is a resync's", self.misses_nothing)
        check("xl block-detach from it", self.detach)
        check("a second guest does not get the image", self.refuses_thief)
        check("xl destroy", self.destroy)
        check("nothing is left of its disks", lambda: until(self.leftovers, lambda: not self.leftovers()))
        check("each disk's detach is told", lambda: until(self.told, lambda: self.told() == {"xvda", "xvdb"}))
        check("the service ends in order", self.service.stop)
        check("every batch was signed and in order", self.hook.finish)

    @staticmethod
    def is_dom0():
        if "xen_version            : 4.17" not in run("xl", "info"):
            raise Failure(run("xl", "info"))

    @staticmethod
    def service_is_up():
        until(Service.said, lambda: store("/local/domain/0/tapwire/health") == "good")

    @staticmethod
    def create(name, uuid, path):
        config = "%s/%s.cfg" % (WORK, name)
        with open(config, "w", encoding="utf-8") as file:
            file.write(GUEST % {"name": name, "uuid": uuid, "disk": DISK % ("xvda", path)})
        return run("xl", "create", config)

    @staticmethod
    def has_device():
        domid = run("xl", "domid", "web").strip()
        path = store("/local/domain/0/backend/vbd/%s/51712/physical-device-path" % domid)
        if not re.fullmatch(r"/dev/nbd\d+", path):
            raise Failure("physical-device-path is %r" % path)

    @staticmethod
    def is_served():
        servers = [line for line in output("pgrep", "-a", "nbdkit|tapdisk").splitlines() if "sink=" not in line]
        if len(servers) != 1 or SERVER not in servers[0]:
            raise Failure("\n".join(servers))

    @staticmethod
    def status():
        return run("tapwire", "status")

    def is_live(self):
        return any("xvda" in line and "live" in line for line in self.status().splitlines())

    def heard(self, kind, subject, vdev="xvda"):
        return [e for e in self.hook.events() if e["type"] == "org.tapwire." + kind and e.get("subject") == subject
                and "/%s/%s/" % (WEB, vdev) in e["source"]]

    def hears(self, kind, subject, vdev="xvda"):
        until(lambda: "heard only:\n" + "\n".join(
            "%s %s %s" % (e["type"], e.get("subject"), e["source"]) for e in self.hook.events()),
            lambda: self.heard(kind, subject, vdev))

    def names_the_guest(self):
        domain = self.heard(*FIRST_DISK[0])[0]["data"]["domain"]
        if domain["name"] != "web":
            raise Failure(json.dumps(domain))

    @staticmethod
    def attach(path):
        run("xl", "block-attach", "web", DISK % ("xvdb", path))

    @staticmethod
    def reboot():
        """The guest's kernel is asked for it; xl destroys the domain, and creates another."""
        before = run("xl", "domid", "web").strip()
        run("xl", "reboot", "web")
        until(lambda: output("xl", "list"), lambda: output("xl", "domid", "web").strip() not in ("", before))

    @staticmethod
    def save():
        run("xl", "save", "web", WORK + "/web.saved")
        until("web is gone", lambda: "web" not in run("xl", "list"))

    def migrate(self):
        """Without ssh: the other end is a command here. See unlive.c."""
        self.domid = run("xl", "domid", "web").strip()
        self.resyncs = len(self.resynced())
        run("env", "LD_PRELOAD=/checks/unlive.so", "xl", "migrate", "-s", "", "web", "xl migrate-receive",
            seconds=2 * PATIENCE)  # it attaches and detaches

    def has_moved(self):
        domid = run("xl", "domid", "web").strip()
        have = output("xenstore-list", "/local/domain/0/backend/vbd").split()
        if domid == self.domid or have != [domid]:
            raise Failure("%s was %s, and %s have disks" % (domid, self.domid, have))
        until(self.status, self.is_live)

    def resynced(self):
        return [e for e in self.hook.events() if e["type"] == "org.tapwire.disk.resynced" and "/xvda" in e["source"]]

    def misses_nothing(self):
        self.numbers_on()
        if len(self.resynced()) != self.resyncs:
            raise Failure(json.dumps(self.resynced()[-1]))

    def numbers_on(self):
        """Whatever its domid was, the guest's disk is the same, and no event of it is missing."""
        for vdev in ("xvda", "xvdb"):
            mine = [e for e in self.hook.events() if "/%s/%s" % (WEB, vdev) in e["source"]]
            epochs = {e["id"].rpartition("-")[0] for e in mine}
            numbers = sorted({int(e["sequence"]) for e in mine})
            if len(epochs) != 1 or numbers != list(range(1, len(numbers) + 1)):
                raise Failure("%s: epochs %s, sequence %s" % (vdev, epochs, numbers))

    @staticmethod
    def detach():
        run("xl", "block-detach", "web", "xvdb")
        until("xvdb's server ends", lambda: "51728" not in " ".join(os.listdir("/run/tapwire/xl")))

    def refuses_thief(self):
        try:
            self.create("thief", THIEF, "/srv/web.img")
        except Failure as err:
            if "in use by domain" not in str(err) + read_text("/var/log/xen/xl-thief.log"):
                raise
            return
        raise Failure("xl create began the second guest")

    @staticmethod
    def destroy():
        run("xl", "destroy", "web")
        until("web is gone", lambda: "web" not in run("xl", "list"))

    @staticmethod
    def leftovers():
        left = ["/run/tapwire/xl/" + name for name in os.listdir("/run/tapwire/xl")]
        left += ["/run/tapwire/rings/" + name for name in os.listdir("/run/tapwire/rings")]
        left += output("pgrep", "-a", "nbdkit|tapdisk").splitlines()
        left += [name for name in os.listdir("/sys/block") if os.path.exists("/sys/block/%s/pid" % name)]  # connected
        return " ".join(left)

    def told(self):
        return {e["source"].split("/")[4] for e in self.hook.events()
                if e["type"] == "org.tapwire.disk.detached" and WEB in e["source"]}


def show_logs():
    for name in sorted(os.listdir("/var/log/xen")):
        print("# --- /var/log/xen/" + name)
        for line in read_text("/var/log/xen/" + name).splitlines()[-40:]:
            print("# " + line[:300])
    print("# --- tapwired")
    for line in Service.said().splitlines()[-60:]:
        print("# " + line[:300])


def main():
    os.makedirs(WORK, exist_ok=True)
    os.makedirs("/srv", exist_ok=True)
    plan = Plan()
    with Endpoint(WORK) as hook:
        Checks(plan, hook, Service(hook.url, hook.secret)).all()
    print("1..%d" % plan.number)
    show_logs()


main()
