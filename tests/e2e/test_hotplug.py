# SPDX-License-Identifier: BSD-3-Clause
"""xl's hotplug script over a real xenstored, with Xen's own script library, a real nbdkit and the plugin: what xl waits
for is there, what is wrong is told where xl shows it, nothing is left over, and tapwired follows the disk.

Not real here: nbd-client, for want of the kernel's devices (tests/lib/nbdclient.py), tap-ctl and tapdisk
(tests/lib/tapctl.py), and Xen itself."""
import os
import pathlib
import subprocess
import time

import pytest

from lib import guestdisk
from lib.calls import sync_fs
from lib.guard import Guard
from lib.xenless import VDEVS, Domain

pytestmark = pytest.mark.usefixtures("mountable")

ROOT = pathlib.Path(__file__).resolve().parents[2]
XEN_SCRIPTS = "/etc/xen/scripts"
XL = """#!/bin/sh
[ "$1" = list ] || exit 1
echo 'Name                                        ID   Mem VCPUs\tState\tTime(s)'
case $2 in
%s
*) echo "xl: Domain '$2' does not exist" >&2; exit 1 ;;
esac
printf 'two words %%43s   128     1\t%%s    1.2\n' "$2" "$state"
"""


class Toolstack:
    """What xl does around the script."""

    def __init__(self, host, plugin, devices=3):
        self.host = host
        self.directory = pathlib.Path(host.directory) / "xl"
        self.run_dir = self.directory / "run"
        self.scripts = self.directory / "scripts"
        self.scripts.mkdir(parents=True)
        os.makedirs("/var/log/xen", exist_ok=True)  # the library's log
        for name in os.listdir(XEN_SCRIPTS):
            (self.scripts / name).symlink_to(os.path.join(XEN_SCRIPTS, name))
        (self.scripts / "block-tapwire").unlink(missing_ok=True)
        (self.scripts / "block-tapwire").symlink_to(ROOT / "conf/xen/block-tapwire")
        self.devices = [self.directory / ("nbd%d" % i) for i in range(devices)]
        for device in self.devices:
            device.touch()
        self.list = {}  # domid: its state, as xl list has it
        self.settings = {
            "ring_dir": host.ring_dir, "run_dir": self.run_dir, "ring_size": "1M", "plugin": plugin,
            "nbd_client": ROOT / "tests/lib/nbdclient.py", "seconds": 10, "xl": self.directory / "xl",
            "sys_block": self.directory / "sys",
            "nbd_devices": "(%s)" % " ".join(map(str, self.devices)),
            "capture": "nbdkit", "tap_ctl": self.directory / "tap-ctl", "tapdisk": self.directory / "tapdisk",
            "tapdisk_sockets": self.directory / "tapdisks"}
        self.settings["tapdisk_sockets"].mkdir()
        self.settings["tapdisk"].write_text("write capture (tapwire)")
        self.settings["tap_ctl"].write_text("#!/bin/sh\nexec %s %s %s \"$@\"\n" % (
            ROOT / "tests/lib/tapctl.py", self.settings["tapdisk_sockets"], plugin))
        self.settings["tap_ctl"].chmod(0o755)

    def start(self, command, backend, **settings):
        tool = self.directory / "xl"
        tool.write_text(XL % "\n".join("%d) state=%s ;;" % item for item in self.list.items()))
        tool.chmod(0o755)
        config = self.directory / "xl.conf"
        config.write_text("".join("%s=%s\n" % item for item in {**self.settings, **settings}.items()))
        return subprocess.Popen(
            [self.scripts / "block-tapwire", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={**os.environ, **self.host.environment, "XENBUS_PATH": backend, "TAPWIRE_XL_CONF": str(config)})

    def call(self, command, backend, **settings):
        return self.start(command, backend, **settings).wait(timeout=60)

    def output(self, command, backend, environment):
        """Calls it with this environment more; what it says there is not in the library's log."""
        script = self.scripts / "block-tapwire"
        return subprocess.run(
            ["bash", "-c", 'exec() { :; }; . "$0" "$@"', script, command], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env={**os.environ, **environment, "XENBUS_PATH": backend})

    def guest(self, domid, name):
        return Domain(self.host.xen, domid, name).create()

    def add(self, guest, vdev, target, **settings):
        """Attaches; returns what went wrong, "" for nothing."""
        back = guest.attach(vdev, target, mode=settings.pop("mode", "w"))
        status = self.call("add", back, **settings)
        said = self.host.xen.store.get(back + "/hotplug-error") or ""
        assert bool(said) == bool(status), (status, said)
        assert self.host.xen.store.get(back + "/hotplug-status") == (
            "connected" if not status else "busy" if "in use" in said or "mounted at" in said else "error")
        return said

    def remove(self, guest, vdev):
        assert self.call("remove", guest.backend_of(vdev)) == 0

    def device(self, guest, vdev):
        return self.host.xen.store.get(guest.backend_of(vdev) + "/physical-device-path")

    def note(self, guest, vdev):
        return "%s/%d-%d" % (self.run_dir, guest.domid, VDEVS[vdev])

    def server(self, guest, vdev):
        return "%s/%s-%s" % (self.run_dir, guest.uuid, vdev)

    def servers(self, guest, vdev):
        """The processes that are the server, or will be."""
        done = subprocess.run(["pgrep", "-f", "--", "-U %s/" % self.server(guest, vdev)], stdout=subprocess.PIPE,
                              check=False)
        return [int(pid) for pid in done.stdout.split()]

    def serves(self, guest, vdev):
        return os.path.exists(self.server(guest, vdev) + "/nbd.sock")

    def pid(self, guest, vdev):
        (server,) = self.servers(guest, vdev)
        return server

    def tapdisks(self):
        """{minor's socket: pid}, of all of them."""
        return {path: int(path.name[len("nbd"):].partition(".")[0])
                for path in self.settings["tapdisk_sockets"].glob("nbd*.*")}

    @staticmethod
    def is_alive(pid):
        try:
            with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stat:
                return stat.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def clean(self):
        """Nothing is left of what the script has started."""
        servers = subprocess.run(["pgrep", "-f", str(self.run_dir)], stdout=subprocess.PIPE, check=False).stdout
        return not servers and not self.tapdisks() and os.listdir(self.run_dir) == [] and \
            not any(device.is_symlink() for device in self.devices)

    def close(self):
        """Also of guests that xenstore knows no more."""
        for note in self.run_dir.glob("[0-9]*-[0-9]*"):
            if note.is_file():
                self.call("remove", "/local/domain/0/backend/vbd/" + note.name.replace("-", "/"))


@pytest.fixture
def xl(heard, tapwire):
    toolstack = Toolstack(heard, tapwire.plugin)
    guard = Guard()
    for device in toolstack.devices:
        guard.push("umount", "-l", "%s.fuse" % device)
    yield toolstack
    toolstack.close()
    for _ in toolstack.devices:
        guard.pop()
    guard.close()


@pytest.mark.parametrize("capture", ["nbdkit", "tapdisk"])
def test_a_guests_file_is_told_of(xl, heard, hook, capture):
    xl.settings["capture"] = capture
    image = heard.image("web.img")
    heard.start()
    web = xl.guest(5, "web")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    device = os.path.realpath(xl.device(web, "xvda"))
    major, minor = divmod(os.stat(device).st_rdev, 256)
    assert heard.xen.store.get(web.backend_of("xvda") + "/physical-device") == "%x:%x" % (major, minor)
    heard.wait(lambda: heard.disks().get(("web", "xvda"), {}).get("state") == "live", "live")
    root = os.path.join(heard.directory, "guest")
    os.mkdir(root)
    guestdisk.run("mount", device, root)
    try:
        with open(root + "/letter", "w", encoding="ascii") as file:
            file.write("agentless")
        sync_fs(root)
        heard.wait(lambda: any(e["type"] == "org.tapwire.file.created" and e["subject"] == "/letter"
                              for e in hook.events()), "the letter")
    finally:
        guestdisk.run("umount", root)
    assert len(xl.tapdisks()) == (capture == "tapdisk")
    xl.remove(web, "xvda")
    assert xl.clean()
    web.destroy()
    heard.wait(lambda: os.listdir(heard.ring_dir) == [], "the ring is given up")
    heard.stop()
    told = [e for e in hook.events() if web.uuid in e["source"]]
    assert {e["data"]["domain"]["name"] for e in told} == {"web"}
    assert [e["type"] for e in told].count("org.tapwire.disk.detached") == 1
    hook.finish()


def test_add_and_remove_may_come_twice(xl, heard):
    web = xl.guest(5, "web")
    image = heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    pid, device = xl.pid(web, "xvda"), xl.device(web, "xvda")
    assert xl.call("add", web.backend_of("xvda")) == 0
    assert (xl.pid(web, "xvda"), xl.device(web, "xvda")) == (pid, device)
    xl.remove(web, "xvda")
    assert xl.clean()
    xl.remove(web, "xvda")
    assert xl.clean()
    assert xl.call("add", web.backend_of("xvda")) == 0
    xl.remove(web, "xvda")


def test_what_is_half_there_is_made_anew(xl, heard):
    web = xl.guest(5, "web")
    assert xl.add(web, "xvda", "aio:" + heard.image("web.img")) == ""
    pid = xl.pid(web, "xvda")
    os.kill(pid, 9)
    assert guestdisk.wait_until(lambda: not os.path.exists("/proc/%d" % pid), 5)
    assert xl.call("add", web.backend_of("xvda")) == 0
    assert xl.pid(web, "xvda") != pid
    os.kill(xl.pid(web, "xvda"), 9)
    xl.remove(web, "xvda")
    assert xl.clean()


def test_a_script_that_was_killed_half_way_leaves_nothing_behind_a_remove(xl, heard):
    """As libxl does when it has waited too long: with a server that comes up in the end, and one that never does."""
    for domid, server in (5, "slow"), (6, "never"):
        nbdkit, started = xl.directory / server, xl.directory / (server + ".started")
        nbdkit.write_text("#!/bin/sh\n: >'%s'\nsleep %d\nexec nbdkit \"$@\"\n" % (
            started, 2 if server == "slow" else 8))
        nbdkit.chmod(0o755)
        guest = xl.guest(domid, server)
        guest.attach("xvda", heard.image(server + ".img"))
        script = xl.start("add", guest.backend_of("xvda"), nbdkit=nbdkit)
        assert guestdisk.wait_until(started.exists, 10)
        script.kill()
        script.wait()
        if server == "slow":
            assert guestdisk.wait_until(lambda g=guest: xl.serves(g, "xvda"), 10)
        xl.remove(guest, "xvda")
        assert xl.clean()


def test_tapdisk_has_what_its_driver_is_in(xl, heard):
    """By itself, and unless the guest only reads. Its image may have a name that no chain takes."""
    web, image = xl.guest(5, "web"), heard.image("of web " + 100 * "w" + ".img")
    assert xl.add(web, "xvda", "aio:" + image, capture="auto") == ""
    (pid,) = xl.tapdisks().values()
    assert not xl.servers(web, "xvda")
    device = xl.device(web, "xvda")
    assert xl.call("add", web.backend_of("xvda"), capture="auto") == 0
    assert (list(xl.tapdisks().values()), xl.device(web, "xvda")) == ([pid], device)
    incoming, said = migrates(xl, web, 6, image, capture="auto")
    assert said == "" and xl.device(incoming, "xvda") == device
    xl.remove(web, "xvda")
    assert list(xl.tapdisks().values()) == [pid]
    xl.remove(incoming, "xvda")
    assert xl.clean()
    reader, plain = xl.guest(7, "reader"), xl.guest(8, "plain")
    assert xl.add(reader, "xvda", heard.image("r.img"), capture="tapdisk", mode="r") == ""
    xl.settings["tapdisk"].write_text("no such thing")
    assert xl.add(plain, "xvda", heard.image("p.img"), capture="auto") == ""
    assert xl.servers(reader, "xvda") and xl.servers(plain, "xvda") and not xl.tapdisks()


def test_a_tapdisk_without_the_driver_is_told_to_tapwired(xl, heard):
    """Which puts a mirror there: test_attach_service. A disk that the guest only reads needs none."""
    xl.settings["capture"] = "mirror"
    web, image = xl.guest(5, "web"), heard.image("of web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    (socket,) = xl.tapdisks()
    assert heard.xen.store.get(web.backend_of("xvda") + "/tapdisk") == str(socket)
    incoming, said = migrates(xl, web, 6, image)
    assert said == "" and heard.xen.store.get(incoming.backend_of("xvda") + "/tapdisk") == str(socket)
    assert xl.add(web, "xvdb", heard.image("b.img"), mode="r") == ""
    assert list(xl.tapdisks()) == [socket] and heard.xen.store.get(web.backend_of("xvdb") + "/tapdisk") is None
    for guest, vdev in (web, "xvda"), (incoming, "xvda"), (web, "xvdb"):
        xl.remove(guest, vdev)
    assert xl.clean()


@pytest.mark.parametrize("health", ["good", "degraded"])
@pytest.mark.parametrize("home", ["/local/domain/0/", ""], ids=["path", "from-home"])
def test_the_guest_gets_its_disk_when_the_mirror_is_followed(xl, heard, home, health):
    """Where tapwired runs; xl's paths begin at dom0's home."""
    xl.settings["capture"] = "mirror"
    heard.xen.store.write("/local/domain/0/tapwire/health", health)
    web = xl.guest(5, "web")
    back = web.attach("xvda", "aio:" + heard.image("web.img"))
    script = xl.start("add", home + back.partition("/local/domain/0/")[2])
    assert guestdisk.wait_until(lambda: heard.xen.store.get(back + "/tapdisk"), 10)
    for state in "starting", "crawling":
        heard.xen.store.write(back + "/tapwire/state", state)
        time.sleep(0.5)
        assert script.poll() is None and not xl.device(web, "xvda")
    heard.xen.store.write(back + "/tapwire/state", "live")
    assert script.wait(timeout=4) == 0 and xl.device(web, "xvda")


def test_who_waits_for_the_mirror_keeps_nobody_waiting(xl, heard):
    """Or the last of several that start together would not get their disks before libxl gives up. Their images are
    taken all the same."""
    xl.settings["capture"] = "mirror"
    heard.xen.store.write("/local/domain/0/tapwire/health", "good")
    images = [heard.image("%d.img" % n) for n in range(2)]
    backs = [xl.guest(5 + n, "web%d" % n).attach("xvda", "aio:" + image) for n, image in enumerate(images)]
    scripts = [xl.start("add", back) for back in backs]
    assert guestdisk.wait_until(lambda: all(heard.xen.store.get(back + "/tapdisk") for back in backs), 10)
    assert [script.poll() for script in scripts] == [None, None]
    assert "in use by domain 5" in xl.add(xl.guest(9, "thief"), "xvda", images[0])
    for back in backs:
        heard.xen.store.write(back + "/tapwire/state", "live")
    assert [script.wait(timeout=10) for script in scripts] == [0, 0]
    assert len({heard.xen.store.get(back + "/physical-device-path") for back in backs}) == 2


def test_a_tapdisk_that_somebody_else_has_is_left_alone(xl, heard):
    """Though it serves the same image, and xenstore does not say so."""
    xl.settings["capture"] = "mirror"
    image = heard.image("web.img")
    guestdisk.run(str(xl.settings["tap_ctl"]), "create", "-a", "aio:" + image)
    ((socket, pid),) = xl.tapdisks().items()
    web = xl.guest(5, "web")
    assert "in use by a tapdisk already: pid=%d" % pid in xl.add(web, "xvda", "aio:" + image)
    xl.remove(web, "xvda")
    assert xl.is_alive(pid) and list(xl.tapdisks()) == [socket]
    guestdisk.run(str(xl.settings["tap_ctl"]), "destroy", "-p", str(pid), "-m", "0")


def test_a_tapdisk_that_is_half_there_is_made_anew(xl, heard):
    xl.settings["capture"] = "tapdisk"
    web = xl.guest(5, "web")
    assert xl.add(web, "xvda", "aio:" + heard.image("web.img")) == ""
    (pid,) = xl.tapdisks().values()
    os.kill(pid, 9)
    for path in xl.tapdisks():
        path.unlink()
    assert xl.call("add", web.backend_of("xvda")) == 0
    (second,) = xl.tapdisks().values()
    # One that an add which was killed half way has left, which has not noted who it is.
    os.unlink(xl.server(web, "xvda") + "/tapdisk")
    assert second != pid and xl.call("add", web.backend_of("xvda")) == 0
    assert list(xl.tapdisks().values()) == [second]
    xl.remove(web, "xvda")
    assert xl.clean()


def test_a_tapdisk_that_does_not_close_is_killed(xl, heard):
    xl.settings["capture"] = "tapdisk"
    web = xl.guest(5, "web")
    assert xl.add(web, "xvda", "aio:" + heard.image("web.img")) == ""
    (pid,) = xl.tapdisks().values()
    tool = xl.settings["tap_ctl"]
    tool.write_text(tool.read_text().replace("exec", '[ "$1" != destroy ] || exec sleep 60\nexec'))
    assert xl.call("remove", web.backend_of("xvda"), seconds=1) == 0
    assert guestdisk.wait_until(lambda: not xl.is_alive(pid), 5)
    for path in xl.tapdisks():
        path.unlink()
    assert xl.clean()


def test_a_tapdisk_that_does_not_answer_is_killed(xl, heard):
    """Forgotten, it would go on with its image when its storage is back. Nobody else's is, with the number it had."""
    xl.settings["capture"] = "tapdisk"
    web, mail = xl.guest(5, "web"), xl.guest(6, "mail")
    for guest in web, mail:
        assert xl.add(guest, "xvda", "aio:" + heard.image(guest.name + ".img")) == ""
    pids = [int(pathlib.Path(xl.server(guest, "xvda"), "tapdisk").read_text()) for guest in (web, mail)]
    pathlib.Path(xl.server(mail, "xvda"), "began").write_text("1\n")  # another process had the number
    tool = xl.settings["tap_ctl"]
    works = tool.read_text()
    tool.write_text(works.replace("exec", "exec sleep 60\nexec"))
    for guest in web, mail:
        assert xl.call("remove", guest.backend_of("xvda"), seconds=1) == 0
    assert [xl.is_alive(pid) for pid in pids] == [False, True]
    tool.write_text(works)
    guestdisk.run(str(tool), "destroy", "-p", str(pids[1]), "-m", "0")
    for path in xl.tapdisks():
        path.unlink()
    assert xl.clean()


def test_disks_do_not_mix(xl, heard):
    web, mail = xl.guest(5, "web"), xl.guest(6, "mail")
    assert xl.add(web, "xvda", "aio:" + heard.image("a.img")) == ""
    assert xl.add(web, "xvdb", "raw:" + heard.image("b b.img")) == ""
    assert xl.add(mail, "xvda", heard.image("c.img")) == ""
    assert len({xl.device(web, "xvda"), xl.device(web, "xvdb"), xl.device(mail, "xvda")}) == 3
    four = xl.guest(7, "four")
    assert "no free network block device" in xl.add(four, "xvda", heard.image("d.img"))
    xl.remove(web, "xvda")
    assert os.path.exists(xl.device(web, "xvdb")) and os.path.exists(xl.device(mail, "xvda"))
    assert xl.call("add", four.backend_of("xvda")) == 0


def test_an_image_is_one_guests_unless_nobody_writes(xl, heard):
    one, two, three = xl.guest(5, "one"), xl.guest(6, "two"), xl.guest(7, "three")
    image = heard.image("web:1.img")
    assert xl.add(one, "xvda", image) == ""
    assert "in use by domain 5" in xl.add(two, "xvda", "aio:" + image, mode="r")
    xl.remove(one, "xvda")
    one.detach("xvda")
    assert xl.call("add", two.backend_of("xvda")) == 0
    assert xl.add(three, "xvda", image, mode="r") == ""
    assert "in use" in xl.add(one, "xvda", image)


@pytest.mark.parametrize("kind", ["qdisk", "vbd3"])
def test_a_disk_without_the_script_has_its_image_for_itself_too(xl, heard, kind):
    one, two = xl.guest(5, "one"), xl.guest(6, "two")
    image = heard.image("web.img")
    back = Domain.attach(one, "xvda", "aio:" + image, kind=kind, script="/etc/xen/scripts/block")
    heard.xen.store.write(back + "/state", "4")
    try:
        assert "in use by domain 5" in xl.add(two, "xvda", "aio:" + image)
    finally:
        one.detach("xvda")
    assert xl.call("add", two.backend_of("xvda")) == 0


def crowd(xl, *targets):
    """Guests with a disk each that somebody else serves."""
    guests = [xl.guest(100 + n, "guest-%d" % n) for n in range(len(targets))]
    for guest, target in zip(guests, targets):
        back = guest.attach("xvda", target, kind="qdisk", script="/etc/xen/scripts/block")
        xl.host.xen.store.write(back + "/state", "4")
    return guests


def test_the_check_for_sharing_takes_no_more_processes_with_more_guests(xl, heard):
    """And misses none of them, wherever it stands."""
    log = xl.directory / "calls"
    count = "1" + "".join(
        '; xenstore-%s() { echo >>%s; command xenstore-%s "$@"; }' % (name, log, name) for name in ("read", "list"))

    def calls(guest):
        log.write_text("")
        assert xl.add(guest, "xvda", heard.image("web-%d.img" % guest.domid), count=count) == ""
        return log.read_text().count("\n")
    few = calls(xl.guest(5, "five"))
    guests = crowd(xl, *["/srv/%d.img" % n for n in range(120)])
    assert calls(xl.guest(6, "six")) <= few + 5
    for n in (0, 60, 119):
        image = heard.image("taken-%d.img" % n)
        heard.xen.store.write(guests[n].backend_of("xvda") + "/params", "aio:" + image)
        assert "in use by domain %d" % guests[n].domid in xl.add(xl.guest(10 + n, "late"), "xvda", image)


def test_a_disk_without_a_target_hides_none_behind_it(xl, heard):
    guests, image = crowd(xl, *["/srv/web.img"] * 5), heard.image("web.img")
    for n in (0, 1, 3):
        heard.xen.store.remove(guests[n].backend_of("xvda") + "/params")
    for n in (2, 4):
        heard.xen.store.write(guests[n].backend_of("xvda") + "/params", "aio:" + image)
        assert "in use by domain %d" % guests[n].domid in xl.add(xl.guest(10 + n, "late"), "xvda", image)
        heard.xen.store.remove(guests[n].backend_of("xvda") + "/params")
    assert xl.add(xl.guest(9, "last"), "xvda", image) == ""


def test_a_guest_that_goes_meanwhile_hides_none_behind_it(xl, heard):
    """Its home is there when all domains are listed, its disks are not a moment later."""
    guests, image = crowd(xl, *["/srv/web.img"] * 5), heard.image("web.img")
    heard.xen.store.write(guests[4].backend_of("xvda") + "/params", "aio:" + image)
    gone = "/local/domain/0/backend/qdisk/%d" % guests[1].domid
    before = "1; xenstore-list() { [ $# -le 2 ] || xenstore-rm %s; command xenstore-list \"$@\"; }" % gone
    assert "in use by domain %d" % guests[4].domid in xl.add(xl.guest(9, "web"), "xvda", image, before=before)
    assert not heard.xen.store.exists(gone)
    del guests[1].disks["xvda"]


@pytest.mark.parametrize("name", ["ä.img", "two words.img", "a\\nb.img", "tab\tand\nline.img"])
def test_a_name_that_is_shown_otherwise_is_the_same_image(xl, heard, name):
    image = heard.image("web.img")
    os.link(image, os.path.join(heard.images, name))
    (other,) = crowd(xl, "raw:%s/%s" % (heard.images, name))
    assert "in use by domain %d" % other.domid in xl.add(xl.guest(5, "web"), "xvda", image)


def test_an_image_that_is_mounted_in_dom0_is_no_guests(xl, heard):
    guests, root = [xl.guest(5 + n, "web-%d" % n) for n in range(5)], os.path.join(heard.directory, "its root")
    image = heard.image("web.img")
    os.mkdir(root)
    guard = Guard()
    guard.push("umount", root)
    guestdisk.run("mount", "-o", "loop", image, root)
    try:
        assert "web.img is mounted at " in xl.add(guests[0], "xvda", "aio:" + image)
        assert "umount" in xl.add(guests[1], "xvda", "aio:" + image, mode="r")
        assert not os.path.exists(xl.run_dir)
        guestdisk.run("mount", "-o", "remount,ro", root)
        assert "umount" in xl.add(guests[2], "xvda", "aio:" + image)
        assert xl.add(guests[3], "xvda", "aio:" + image, mode="r") == ""
        xl.remove(guests[3], "xvda")
        guests[3].detach("xvda")
    finally:
        guestdisk.run("umount", root)
        guard.pop()
        guard.close()
    assert xl.add(guests[4], "xvda", "aio:" + image) == ""


def migrates(stack, guest, domid, image, state="---ss-", **keys):
    """As `xl migrate` to the same host: comes while the guest, which is suspended, has the disk. Returns the one that
    comes, and what the script said."""
    stack.list[guest.domid] = state
    incoming = Domain(stack.host.xen, domid, guest.name + "--incoming", uuid=guest.uuid).create()
    return incoming, stack.add(incoming, "xvda", "aio:" + str(image), **keys)


def test_a_migration_within_the_host_keeps_device_and_ring(xl, heard, hook):
    """And what the guest writes after it is heard as its own, without a number missing."""
    heard.start()
    web, image = xl.guest(5, "web"), heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    pid, device = xl.pid(web, "xvda"), xl.device(web, "xvda")
    heard.wait(lambda: heard.disks().get(("web", "xvda"), {}).get("state") == "live", "live")
    root = os.path.join(heard.directory, "guest")
    os.mkdir(root)
    guard = Guard()
    guard.push("umount", "-l", root)
    guestdisk.run("mount", os.path.realpath(device), root)
    try:
        incoming, said = migrates(xl, web, 6, image)
        assert said == "" and (xl.pid(incoming, "xvda"), xl.device(incoming, "xvda")) == (pid, device)
        web.rename("web--migratedaway")
        incoming.rename("web")
        xl.remove(web, "xvda")
        web.detach("xvda")
        web.destroy(forget_vm=False)
        assert not os.path.exists(xl.note(web, "xvda"))
        heard.wait(lambda: heard.inspectors().get((web.uuid, "xvda"), (0, 0))[1] == 6 and
                   heard.disks().get(("web", "xvda"), {}).get("state") == "live", "followed as domain 6")
        with open(root + "/letter", "w", encoding="ascii") as file:
            file.write("agentless")
        sync_fs(root)
        heard.wait(lambda: any(e.get("subject") == "/letter" for e in hook.events()), "the letter")
    finally:
        guestdisk.run("umount", root)
        guard.pop()
        guard.close()
    assert xl.pid(incoming, "xvda") == pid
    xl.remove(incoming, "xvda")
    assert xl.clean()
    heard.stop()
    events = hook.events()
    assert [int(e["sequence"]) for e in events] == list(range(1, len(events) + 1))
    assert len({e["id"].rpartition("-")[0] for e in events}) == 1
    assert {e["data"]["domain"]["id"] for e in events if e.get("subject") == "/letter"} == {6}
    hook.finish()


def test_a_migration_that_fails_leaves_the_guest_its_disk(xl, heard):
    web, image = xl.guest(5, "web"), heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    pid, device = xl.pid(web, "xvda"), xl.device(web, "xvda")
    incoming, said = migrates(xl, web, 6, image)
    assert said == "" and xl.call("add", incoming.backend_of("xvda")) == 0  # it may come twice here, too
    xl.remove(incoming, "xvda")
    incoming.detach("xvda")
    assert (xl.pid(web, "xvda"), xl.device(web, "xvda")) == (pid, device) and os.path.exists(device)
    assert xl.call("add", web.backend_of("xvda")) == 0 and xl.pid(web, "xvda") == pid
    xl.remove(web, "xvda")
    assert xl.clean()


@pytest.mark.parametrize("state", ["r-----", "-b----", "--p---", "-", ""], ids=range(5))
def test_a_guest_that_is_not_suspended_shares_with_nobody(xl, heard, state):
    """Not with another one of its UUID either, which Xen's own script would let in; nor is it let in when xl does not
    know (the last)."""
    web, image = xl.guest(5, "web"), heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    if state:
        twin, said = migrates(xl, web, 6, image, state)
    else:
        twin, said = migrates(xl, web, 6, image, xl="/nowhere/xl")
    assert "in use by domain 5, which is the same guest by its UUID, and is not known to be suspended" in said
    assert not os.path.exists(xl.note(twin, "xvda")) and len(xl.servers(web, "xvda")) == 1
    assert os.path.exists(xl.device(web, "xvda"))


def test_a_guest_that_comes_waits_for_the_writes_of_the_one_that_goes(xl, heard):
    web, image = xl.guest(5, "web"), heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    inflight = xl.directory / "sys" / os.path.basename(xl.device(web, "xvda")) / "inflight"
    inflight.parent.mkdir(parents=True)
    inflight.write_text("       0        3\n")
    incoming, said = migrates(xl, web, 6, image, seconds=1)
    assert "has writes from before the migration under way" in said
    assert not os.path.exists(xl.note(incoming, "xvda")) and len(xl.servers(web, "xvda")) == 1
    inflight.write_text("       2        0\n")
    assert xl.call("add", incoming.backend_of("xvda")) == 0


def test_another_disk_of_a_suspended_guest_is_not_joined(xl, heard):
    web, image = xl.guest(5, "web"), heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    assert "is not the disk that is in use as xvda" in migrates(xl, web, 6, heard.image("other.img"))[1]
    assert "is not the disk that is in use as xvda" in migrates(xl, web, 7, image, mode="r")[1]
    os.kill(xl.pid(web, "xvda"), 9)
    assert guestdisk.wait_until(lambda: not xl.servers(web, "xvda"), 5)
    assert "does not run any more" in migrates(xl, web, 8, image)[1]
    assert "in use by domain 5" in xl.add(xl.guest(9, "mail"), "xvda", image)


def vanishes(guest, backend=True):
    """Its toolstack has not lived to call the script."""
    guest.xen.store.remove(guest.home)
    if backend:
        guest.xen.store.remove(guest.backend_of("xvda"))
        guest.disks.clear()
    guest.xen.unmake(guest.domid)


def test_a_guest_that_went_without_a_remove_is_in_nobodys_way(xl, heard):
    web, image = xl.guest(5, "web"), heard.image("web.img")
    assert xl.add(web, "xvda", "aio:" + image) == ""
    first = xl.pid(web, "xvda")
    vanishes(web, backend=False)
    again, said = migrates(xl, web, 6, image)
    assert said == "" and xl.pid(again, "xvda") != first
    # A number that is another guest's now: what it left is not taken from the one that it was shared with.
    third, said = migrates(xl, again, 7, image)
    assert said == ""
    pid = xl.pid(again, "xvda")
    vanishes(again)
    mail = xl.guest(6, "mail")
    assert xl.add(mail, "xvda", heard.image("mail.img")) == ""
    assert xl.pid(third, "xvda") == pid and os.path.exists(xl.device(third, "xvda"))
    assert xl.device(third, "xvda") != xl.device(mail, "xvda")
    xl.remove(third, "xvda")
    xl.remove(mail, "xvda")
    assert xl.clean()


def test_what_is_read_only_is_served_so(xl, heard):
    web = xl.guest(5, "web")
    assert xl.add(web, "xvda", heard.image("web.img"), mode="r") == ""
    assert guestdisk.run("blockdev", "--getro", os.path.realpath(xl.device(web, "xvda"))) == "1"


@pytest.mark.parametrize("target, said", [
    ("", "target=aio:"),
    ("aio:{dir}/no.img", "does not exist"),
    ("aio:{dir}", "neither a file nor a block device"),
    ("aio:{dir}/empty.img", "is empty"),
    ("aio:{dir}/odd.img", "no whole sectors"),
    ("aio:relative.img", "no absolute path"),
    ("relative.img", "no absolute path"),
    ("aio:{dir}/../images/a.img", "with .."),
    ("aio:{dir}/a'b.img", "quote"),
    ('aio:{dir}/a"b.img', "quote"),
    ("aio:{dir}/a\nb.img", "control character"),
    ("qcow2:{dir}/a.img", "type qcow2"),
    ("vhd:{dir}/a.img", "driver in tapdisk"),
], ids=range(13))
def test_a_bad_target_is_refused(xl, heard, target, said):
    for name, size in (("empty.img", 0), ("odd.img", 700), ("a'b.img", 512), ('a"b.img', 512)):
        with open(os.path.join(heard.images, name), "wb") as file:
            file.truncate(size)
    assert said in xl.add(xl.guest(5, "web"), "xvda", target.format(dir=heard.images))
    assert not os.path.exists(xl.run_dir) or xl.clean()


def test_an_image_that_is_read_only_is_not_written(xl, heard):
    image = heard.image("web.img")
    os.chmod(image, 0o444)
    assert "web.img is read-only" in xl.add(xl.guest(5, "writer"), "xvda", image)
    assert xl.add(xl.guest(6, "reader"), "xvda", image, mode="r") == ""


@pytest.mark.parametrize("key, value, said", [
    ("dev", None, "no device name"),
    ("dev", "../../etc", "no device name"),
    ("dev", "xvda\n", "no device name"),
    ("mode", None, "neither w nor r"),
    ("mode", "execute", 'mode is "execute"'),
    ("vm", None, "no UUID"),
    ("vm", "/vm/../../etc", "no UUID"),
], ids=range(7))
def test_a_key_that_makes_no_sense_is_named(xl, heard, key, value, said):
    web = xl.guest(5, "web")
    back = web.attach("xvda", "aio:" + heard.image("web.img"))
    path = web.home + "/vm" if key == "vm" else back + "/" + key
    heard.xen.store.remove(path)
    if value is not None:
        heard.xen.store.write(path, value)
    assert xl.call("add", back) == 1
    assert said in heard.xen.store.read(back + "/hotplug-error")
    assert heard.xen.store.read(back + "/hotplug-status") == "error"
    assert not os.path.exists(xl.run_dir)


def test_without_xenstore_it_says_so_and_leaves_nothing(xl, heard):
    back = xl.guest(5, "web").attach("xvda", "aio:" + heard.image("web.img"))
    for environment, path, said in (
            (heard.environment, back + "0", "could not list path"),
            ({"XENSTORED_PATH": "/nowhere/socket"}, back, "xs_open")):
        done = xl.output("add", path, environment)
        assert done.returncode == 1
        assert "no disk at %s in xenstore: " % path in done.stderr and said in done.stderr
    assert not os.path.exists(xl.run_dir)


def test_only_root_may():
    """The text, as nobody may read where the tests lie."""
    done = subprocess.run(["bash", "-c", (ROOT / "conf/xen/block-tapwire").read_text(), "block-tapwire", "add"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, user=65534, cwd="/",
                          env={**os.environ, "XENBUS_PATH": "/local/domain/0/backend/vbd/5/51712"}, check=False)
    assert done.returncode == 1
    assert "only root can attach a disk: run xl as root" in done.stderr


@pytest.mark.parametrize("settings, said", [
    ({"nbdkit": "no-nbdkit"}, "apt install nbdkit"),
    ({"capture": "tapdisk", "tap_ctl": "no-tap-ctl"}, "tap-ctl is missing"),
    ({"capture": "tapdisk", "tap_ctl": "/bin/false"}, "tapdisk does not open"),
    ({"capture": "tapdisk", "tap_ctl": "/bin/true"}, "does not show the tapdisk"),
    ({"capture": "qemu"}, "auto, nbdkit, tapdisk or mirror"),
    ({"nbd_client": "no-client"}, "apt install nbd-client"),
    ({"nbd_devices": "(/no/nbd0)"}, "modprobe nbd"),
    ({"plugin": "/no/plugin.so"}, "nbdkit does not serve"),
    ({"nbdkit": "'sleep'"}, "nbdkit does not serve"),
    ({"nbd_client": "/bin/false"}, "nbd-client failed"),
], ids=range(10))
def test_what_the_host_lacks_is_named(xl, heard, settings, said):
    assert said in xl.add(xl.guest(5, "web"), "xvda", heard.image("a.img"), **settings)
    assert not os.path.exists(xl.run_dir) or xl.clean()
