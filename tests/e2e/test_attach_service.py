# SPDX-License-Identifier: BSD-3-Clause
"""tapwired puts the mirror under a running, unmodified tapdisk by itself where the configuration says so, and takes it
away again: a real xenstored, disks as XAPI has them (backend type vbd3), and tests/lib/mirror.py plays the tapdisk."""
import contextlib
import os
import pathlib
import signal
import stat
import time

import pytest

from lib import dom0, guestdisk, mirror
from lib.calls import sync_fs
from lib.mirrorcases import populated
from lib.xenless import Domain

pytestmark = pytest.mark.usefixtures("mountable")

SOCKET = "/run/blktap-control/nbd%s"
ATTACH = "[guest all]\nattach = yes\n"


class Tap:
    """An image with files behind a tapdisk, and a tap-ctl that counts what it is asked and does what it is told."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.image, mix = populated(self.directory, 1, ops=20, size="64M")
        mix.close()
        self.backend = mirror.StandIn(self.directory, self.image)
        self.tap_ctl = self.directory / "tap-ctl-of-host"
        self.log = self.directory / "asked"
        self.log.touch()

    def __enter__(self):
        self.backend.__enter__()
        self.works()
        return self

    def __exit__(self, *exc):
        return self.backend.__exit__(*exc)

    def _write(self, lines):
        new = self.directory / "new"
        new.write_text("#!/bin/sh\necho \"$*\" >>%s\n%s\n" % (self.log, lines))
        new.chmod(stat.S_IRWXU)
        new.rename(self.tap_ctl)

    def works(self):
        self._write('exec %s "$@"' % self.backend.tap_ctl)

    def does(self, lines):
        """What it does instead."""
        self._write(lines)

    def asked(self, word):
        return sum(line.split()[:1] == [word] for line in self.log.read_text().splitlines())

    @property
    def path(self):
        """As tapback has it."""
        return SOCKET % self.backend.target.replace(":", ".")


@pytest.fixture
def tap(memory):
    with Tap(memory / "tap") as one:
        yield one


@pytest.fixture
def host(tapwire, memory, hook, tap):
    with dom0.Dom0(tapwire, memory, hook, settings="tap_ctl = %s\n" % tap.tap_ctl, sections=ATTACH) as machine:
        yield machine


def plug(host, tap, domid=5, name="web", target="/dev/sm/backend/sr/vdi", uuid=None, **keys):
    """As XAPI has it: the target is no file that could be looked at."""
    guest = Domain(host.xen, domid, name, uuid=uuid).create()
    guest.attach("xvda", target, kind="vbd3", script=None, **{"physical_device_path": tap.path, **keys})
    return guest


def disk_of(host, name="web"):
    return host.disks().get((name, "xvda"), {})


def told(host, guest):
    return host.told(guest.backend_of("xvda"))


def await_mirror(host, guest, tap):
    host.wait(lambda: told(host, guest).get("state") == "live" and tap.backend.mirrored(), "mirrored", 60)


def await_failure(host, guest, words, seconds=30):
    host.wait(lambda: told(host, guest).get("state") == "failed" and words in told(host, guest).get("error", ""),
              lambda: "told: %r" % told(host, guest), seconds)


def await_none(host, tap):
    host.wait(lambda: not tap.backend.mirrored() and not host.inspectors(), "no mirror, no inspector")
    host.wait(lambda: os.listdir(host.ring_dir) == [], lambda: "left: %s" % os.listdir(host.ring_dir))


@contextlib.contextmanager
def mounted(memory, tap):
    """The guest, which writes."""
    with guestdisk.GuestDisk(memory, tap.image, socket=tap.backend.socket, record=False) as disk:
        def write(name):
            with open(os.path.join(disk.root, name), "w", encoding="ascii") as file:
                file.write(name)
            sync_fs(disk.root)
        yield write


def heard(hook, name):
    return [e for e in hook.events()
            if e["type"] == "org.tapwire.file.created" and e["subject"] == "/" + name]


def test_a_disk_that_appears_is_mirrored_and_its_guest_heard(host, tap, memory, hook):
    host.start()
    with mounted(memory, tap) as write:
        guest = plug(host, tap)
        await_mirror(host, guest, tap)
        write("one")
        host.wait(lambda: heard(hook, "one"), "one is heard")
        disk = disk_of(host)
        assert (disk["capture"], disk["state"], disk["captured"]) == ("mirror", "live", True)
        assert "mirror" in host.text()
        (event,) = heard(hook, "one")
        assert event["source"].startswith("/xen/%s/%s/xvda/" % (os.uname().nodename, guest.uuid))
        assert event["data"]["domain"] == {"id": 5, "name": "web", "uuid": guest.uuid}
        guest.detach("xvda")
        await_none(host, tap)
        write("two")  # unharmed
    assert heard(hook, "two") == []
    hook.finish()


def test_a_reload_switches_it_on_and_off(host, tap, memory, hook):
    host.write_config("")
    host.start()
    with mounted(memory, tap) as write:
        guest = plug(host, tap)
        host.wait(lambda: disk_of(host).get("state") == "not captured", "listed")
        disk = disk_of(host)
        assert disk["capture"] == "none" and "[guest NAME] with domain = web and attach = yes" in disk["to_do"]
        assert "attach = yes" in host.text()
        assert told(host, guest) == {} and tap.log.read_text() == ""
        for n in range(2):
            host.reload(ATTACH)
            await_mirror(host, guest, tap)
            write("on-%d" % n)
            host.wait(lambda n=n: heard(hook, "on-%d" % n), "heard")
            host.reload("[guest all]\nattach = no\n" if n else "")
            await_none(host, tap)
            write("off-%d" % n)
            host.wait(lambda: told(host, guest) == {} and disk_of(host)["state"] == "not captured", "told of no more")
            if n:
                assert "attach = yes in the section [guest all]" in disk_of(host)["to_do"]
    hook.finish()


@pytest.mark.parametrize("keys", [
    {"mode": "r"}, {"device_type": "cdrom"}, {"script": "/etc/xen/scripts/block-tapwire"}], ids=str)
def test_what_no_mirror_could_tell_of_is_left_alone(host, tap, keys):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    guest.attach("xvda", str(tap.image), kind="vbd3", **{"script": None, "physical_device_path": tap.path, **keys})
    host.wait(lambda: disk_of(host), "listed")
    time.sleep(0.5)
    assert tap.log.read_text() == "" and not tap.backend.mirrored()
    assert "attach" not in disk_of(host).get("to_do", "")


def test_a_section_that_does_not_say_so_attaches_nothing(host, tap):
    host.write_config("[guest all]\nwatch = yes\n")
    host.start()
    plug(host, tap)
    host.wait(lambda: disk_of(host).get("state") == "not captured", "listed")
    time.sleep(0.5)
    assert tap.log.read_text() == ""


def test_another_kind_of_backend_is_left_alone(host, tap):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    guest.attach("xvda", str(tap.image), kind="qdisk", script=None)
    host.wait(lambda: disk_of(host).get("state") == "not captured", "listed")
    time.sleep(0.5)
    assert tap.log.read_text() == ""


def test_what_is_captured_already_is_left_alone(host, tap):
    """By a tapdisk with the driver, say; when that ends, the mirror comes."""
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.capture(guest, "xvda", tap.image)
    guest.attach("xvda", str(tap.image), kind="vbd3", script=None, physical_device_path=tap.path)
    host.wait(lambda: told(host, guest).get("state") == "live", "live")
    assert disk_of(host)["capture"] == "other"
    time.sleep(1.5)
    assert tap.asked("pause") == 0 and told(host, guest)["state"] == "live"
    host.release(guest, "xvda")
    await_mirror(host, guest, tap)


def test_what_is_captured_already_and_whose_image_is_not_known_is_left_alone(host, tap):
    """Nothing can be looked at there; and `tapwire status` goes on to answer."""
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.capture(guest, "xvda", tap.image)
    guest.attach("xvda", "vhd:nonsense", kind="vbd3", script=None, physical_device_path=tap.path)
    await_failure(host, guest, "xenstore does not name its image")
    assert "xenstore does not name its image" in host.text() and not host.inspectors()
    assert tap.asked("pause") == 0
    host.release(guest, "xvda")
    await_mirror(host, guest, tap)


def test_a_service_that_starts_again_takes_the_mirror_up(host, tap, memory, hook):
    host.start()
    with mounted(memory, tap) as write:
        guest = plug(host, tap)
        await_mirror(host, guest, tap)
        host.kill()
        write("unseen")
        host.start()
        await_mirror(host, guest, tap)
        write("seen")
        host.wait(lambda: heard(hook, "seen") and heard(hook, "unseen"), "heard")
        host.stop()
        assert not tap.backend.mirrored()
        write("nobody listens")
    assert not host.xen.store.exists(guest.backend_of("xvda") + "/tapwire")
    hook.finish()


def test_a_guest_that_reboots_has_another_tapdisk(host, tap, memory):
    host.start()
    guest = plug(host, tap)
    await_mirror(host, guest, tap)
    guest.detach("xvda")
    guest.destroy()
    await_none(host, tap)
    with Tap(memory / "other") as other:
        tap.does('exec %s "$@"' % other.backend.tap_ctl)
        again = plug(host, other, 6, uuid=guest.uuid)
        await_mirror(host, again, other)
    assert not tap.backend.mirrored()


@pytest.mark.parametrize("keys", [
    {"physical_device_path": None, "physical_device": "fe:0"},
    {"physical_device_path": "nonsense", "physical_device": "fe:0"},
    {"physical_device_path": None, "target": "aio:{image}"},
    {"target": "vhd:nonsense"},
], ids=["by minor", "of the wrong type", "by image", "whatever the target"])
def test_the_tapdisk_is_found_by_what_xenstore_says(host, tap, keys):
    host.start()
    keys = {name: value and value.format(image=tap.image) for name, value in keys.items()}
    await_mirror(host, plug(host, tap, **keys), tap)


def test_a_disk_that_makes_no_sense_gets_no_mirror(host, tap):
    host.start()
    guest = plug(host, tap, mode="x")
    await_failure(host, guest, 'the key mode is "x", expected w|r')
    assert tap.asked("pause") == 0 and disk_of(host)["state"] == "refused"


def test_two_guests_may_not_write_what_one_tapdisk_serves(host, tap):
    host.start()
    first = plug(host, tap)
    await_mirror(host, first, tap)
    second = plug(host, tap, 6, "mail")
    await_failure(host, second, "the image is also xvda of the guest web")
    assert tap.asked("pause") == 1
    first.detach("xvda")
    await_mirror(host, second, tap)


def test_a_tapdisk_that_xenstore_names_later_is_waited_for(host, tap):
    host.start()
    guest = plug(host, tap, physical_device_path=None)
    await_failure(host, guest, "no tapdisk serves it (tap-ctl list)")
    assert disk_of(host)["state"] == "not captured" and "no tapdisk serves it" in host.text()
    host.xen.store.write(guest.backend_of("xvda") + "/physical-device-path", tap.path)
    await_mirror(host, guest, tap)
    assert told(host, guest).get("error") is None


@pytest.mark.parametrize("how", ["missing", "fails", pytest.param("hangs", marks=pytest.mark.slow), "other type"])
def test_what_tap_ctl_cannot_do_is_told_and_tried_again(host, tap, how):
    words = {"missing": "tap-ctl-of-host: no such file or directory; install blktap, or name it with tap_ctl",
             "fails": "tap-ctl-of-host list: exit status",
             "hangs": "has not answered in 10 s: a tapdisk hangs",
             "other type": "tapdisk %s serves vhd:/dev/vg/vdi, and only raw images are followed" % tap.backend.target}
    if how == "missing":
        tap.tap_ctl.unlink()
    else:
        tap.does({"fails": "exit 1", "hangs": "exec sleep 1000", "other type": "echo pid=%s minor=%s state=0 "
                  "args=vhd:/dev/vg/vdi" % tuple(tap.backend.target.split(":"))}[how])
    host.start()
    guest = plug(host, tap)
    await_failure(host, guest, words[how])
    assert words[how] in host.said() and words[how] in host.text()
    assert host.xen.store.read("/local/domain/0/tapwire/health") == "degraded"
    host.wait(lambda: tap.asked("list") != 1, "tried again")
    tap.works()
    await_mirror(host, guest, tap)
    host.wait(lambda: host.xen.store.read("/local/domain/0/tapwire/health") == "good", "good again")


@pytest.mark.slow
def test_what_fails_for_long_costs_ever_less(host, tap):
    tap.does("exit 1")
    host.start()
    plug(host, tap)
    time.sleep(8)
    assert 3 <= tap.asked("list") <= 5  # at once, after 1, 2 and 4 seconds


def test_a_list_that_began_before_a_disk_came_says_nothing_of_it(host, tap, memory):
    """It may have been served since."""
    host.start()
    tap.does('if mkdir %s; then sleep 2; exit; fi 2>/dev/null\nexec %s "$@"' % (memory / "once", tap.backend.tap_ctl))
    plug(host, tap, 6, "mail", physical_device_path=SOCKET % "1.1")
    host.wait(lambda: tap.asked("list") == 1, "asked")
    guest = plug(host, tap)
    await_mirror(host, guest, tap)
    assert "mail/xvda: no mirror: no tapdisk" in host.said() and "web/xvda: no mirror" not in host.said()


def test_hundreds_of_disks_are_looked_for_together(host, tap):
    tap.does("exit 1")
    for n in range(100):
        plug(host, tap, 5 + n, "web-%d" % n)
    host.start()
    host.wait(lambda: sum("exit status" in disk.get("error", "") for disk in host.disks().values()) == 100, "all told")
    assert tap.asked("list") < 12


def test_a_pause_that_does_not_end_is_given_up_and_the_guest_goes_on(host, tap, memory):
    pause = 'if [ "$1" = pause ] && [ -e %s ]; then exec sleep 1000; fi\nexec %s "$@"' % (
        memory / "hang", tap.backend.tap_ctl)
    (memory / "hang").touch()
    tap.does(pause)
    host.start()
    with mounted(memory, tap) as write:
        guest = plug(host, tap)
        await_failure(host, guest, "cannot be paused")
        write("letter")
        (memory / "hang").unlink()
        await_mirror(host, guest, tap)


def test_a_tapdisk_that_dies_is_told_of_and_another_one_taken(host, tap, memory):
    host.start()
    guest = plug(host, tap)
    await_mirror(host, guest, tap)
    tap.backend.__exit__()
    try:
        await_failure(host, guest, "no tapdisk serves it")
        time.sleep(1)
        before = tap.asked("list")
        time.sleep(4)
        assert tap.asked("list") - before <= 3
    finally:
        tap.backend.__enter__()
    host.xen.store.write(guest.backend_of("xvda") + "/physical-device-path", tap.path)
    await_mirror(host, guest, tap)


def test_a_mirror_that_keeps_failing_is_given_up_until_a_reload(tapwire, memory, hook, tap):
    settings = "tap_ctl = %s\nmirror_tries = 2\n" % tap.tap_ctl
    with dom0.Dom0(tapwire, memory, hook, settings=settings, sections=ATTACH) as host:
        host.start()
        guest = plug(host, tap)
        await_mirror(host, guest, tap)
        pid = sink(host)
        os.kill(pid, signal.SIGKILL)
        host.wait(lambda: sink(host) not in (None, pid) and tap.backend.mirrored(), "another one")
        os.kill(sink(host), signal.SIGKILL)
        await_failure(host, guest, "given up after 2 failures of the mirror in a row")
        assert "until the service is reloaded" in told(host, guest)["error"] and sink(host) is None
        host.reload(ATTACH)
        await_mirror(host, guest, tap)
        assert told(host, guest).get("error") is None


def sink(host):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = pathlib.Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(word.startswith("sink=" + host.ring_dir) for word in words):
                return int(pid)
    return None


@pytest.mark.parametrize("by", ["name", "number", "uuid", "image"])
def test_what_is_detached_by_hand_stays_so_until_a_reload(host, tap, tapwire, by):
    host.start()
    guest = plug(host, tap)
    await_mirror(host, guest, tap)
    words = {"name": ["web", "xvda"], "number": ["5", "xvda"], "uuid": [guest.uuid.upper(), "xvda"],
             "image": [tap.image]}[by]

    def detach():
        done = tapwire.run("detach", *words, "--tap-ctl", tap.tap_ctl, "--state", host.run, "--json",
                           env={**os.environ, **host.environment})
        assert (done.returncode, done.stdout) == (0, b'{"detached":true}\n'), done
        assert not tap.backend.mirrored()
    detach()
    pauses = tap.asked("pause")
    host.wait(lambda: disk_of(host)["state"] == "not captured" and told(host, guest) == {}, "let go")
    assert "detached by hand; systemctl reload tapwired" in host.text()
    detach()  # once more changes nothing
    host.xen.store.write(guest.backend_of("xvda") + "/note", "1")  # it is looked at again
    time.sleep(1)
    assert tap.asked("pause") == pauses and not tap.backend.mirrored()
    host.reload(ATTACH)
    await_mirror(host, guest, tap)


def test_detach_goes_on_without_a_service_that_does_not_answer(host, tap, tapwire):
    """Which does as it was asked when it comes to it."""
    host.start()
    guest = plug(host, tap)
    await_mirror(host, guest, tap)
    host.proc.send_signal(signal.SIGSTOP)
    try:
        done = tapwire.run("detach", "web", "xvda", "--tap-ctl", tap.tap_ctl, "--state", host.run,
                           env={**os.environ, **host.environment})
        assert done.returncode == 0 and b"does not answer in time; if it has put the mirror there" in done.stderr, done
        assert not tap.backend.mirrored()
    finally:
        host.proc.send_signal(signal.SIGCONT)
    host.wait(lambda: "detached by hand; systemctl reload tapwired" in host.text(), "it has heard of it")
    assert not tap.backend.mirrored()


def test_what_is_detached_by_hand_is_attached_when_it_is_plugged_again(host, tap, tapwire):
    host.start()
    guest = plug(host, tap)
    await_mirror(host, guest, tap)
    done = tapwire.run("detach", "web", "xvda", "--tap-ctl", tap.tap_ctl, "--state", host.run)
    assert done.returncode == 0 and b"until the disk is plugged anew" in done.stdout
    guest.detach("xvda")
    host.wait(lambda: host.disks() == {}, "gone")
    guest.attach("xvda", "/dev/sm/backend/sr/vdi", kind="vbd3", script=None, physical_device_path=tap.path)
    await_mirror(host, guest, tap)


def test_a_tapdisk_that_the_hotplug_script_has_started(tapwire, memory, hook, tap):
    """With capture=mirror: no section is needed, as the disk line asks for it; one that says no is heeded."""
    with dom0.Dom0(tapwire, memory, hook, settings="tap_ctl = %s\n" % tap.tap_ctl) as host:
        host.start()
        web = Domain(host.xen, 5, "web").create()
        back = web.attach("xvda", "aio:%s" % tap.image, script="/etc/xen/scripts/block-tapwire",
                          physical_device_path="/dev/nbd0")
        time.sleep(0.3)  # xl calls the script when that is there
        assert not tap.backend.mirrored()
        host.xen.store.write(back + "/tapdisk", tap.path)
        await_mirror(host, web, tap)
        assert disk_of(host)["capture"] == "mirror"
        with mounted(memory, tap) as write:
            write("letter")
            host.wait(lambda: heard(hook, "letter"), "the letter")
        host.reload("[guest all]\nwatch = no\n")
        await_none(host, tap)
        web.detach("xvda")
        web.destroy()
        host.stop()
