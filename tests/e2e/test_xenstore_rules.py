# SPDX-License-Identifier: BSD-3-Clause
"""Which disks tapwired watches: what the configuration selects, what it refuses and why, and what it does when
xenstore says something that makes no sense, or far too much."""
import contextlib
import fcntl
import os
import resource
import shutil
import struct
import subprocess
import time

import pytest

from lib import dom0, endpoint, guestdisk, layout
from lib.xenless import Domain


@pytest.fixture
def host(asan, memory):
    with dom0.Dom0(asan, memory) as machine:
        yield machine


def state(host, name, vdev="xvda"):
    return host.disks().get((name, vdev), {}).get("state")


def awaits(host, name, expected, vdev="xvda"):
    host.wait(lambda: state(host, name, vdev) == expected, "%s of %s is %s" % (vdev, name, expected))


def captured(host, domid, name, **keys):
    guest = Domain(host.xen, domid, name).create()
    host.plug(guest, "xvda", **keys)
    return guest


# --- selection ---

def test_sections_select_by_name_uuid_and_device(host):
    by_uuid = Domain(host.xen, 7, "seven")
    host.write_config("[guest a]\ndomain = build-*, %s\nwatch = no\n"
                      "[guest b]\nvdev = xvdb\nwatch = no\n" % by_uuid.uuid)
    host.start()
    captured(host, 5, "build-1")
    web = captured(host, 6, "web")
    host.plug(web, "xvdb")
    host.plug(by_uuid.create(), "xvda")
    awaits(host, "web", "live")
    for name, vdev in (("build-1", "xvda"), ("web", "xvdb"), ("seven", "xvda")):
        awaits(host, name, "ignored", vdev)
    assert list(host.inspectors()) == [(web.uuid, "xvda")]
    assert host.told(web.backend_of("xvdb")) == {}


def test_limits_are_the_inspectors(host):
    host.write_config("[guest a]\ndomain = web\nmemory_max = 256MiB\nnice = 3\n")
    host.start()
    web, mail = captured(host, 5, "web"), captured(host, 6, "mail")
    limits = {}

    def look():
        """Under AddressSanitizer an inspector does not get far with a limit; it is started with it again and
        again."""
        for (uuid, _), (pid, _, _) in host.inspectors().items():
            with contextlib.suppress(ProcessLookupError):
                limits[uuid] = (resource.prlimit(pid, resource.RLIMIT_DATA)[1],
                                os.getpriority(os.PRIO_PROCESS, pid))
        return limits == {web.uuid: (256 << 20, 3), mail.uuid: (resource.RLIM_INFINITY, 0)}
    host.wait(look, lambda: "limits are %r" % limits)


def test_a_reload_changes_what_it_has_to_and_loses_nothing(asan, memory):
    with endpoint.Endpoint(memory) as hook, dom0.Dom0(asan, memory, hook) as host:
        host.start()
        stays, goes = captured(host, 5, "stays"), captured(host, 6, "goes")
        awaits(host, "stays", "live")
        awaits(host, "goes", "live")
        pid = host.inspectors()[(stays.uuid, "xvda")][0]
        host.reload("[guest a]\ndomain = goes\nwatch = no\n")
        host.wait(lambda: list(host.inspectors()) == [(stays.uuid, "xvda")], "one goes")
        assert state(host, "goes") == "ignored" and host.told(goes.backend_of("xvda")) == {}
        host.reload("[guest a]\ndomain = nobody\nwatch = no\n")
        awaits(host, "goes", "live")
        assert host.inspectors()[(stays.uuid, "xvda")][0] == pid
        host.reload("nonsense\n")
        host.wait(lambda: "the configuration stays as it was" in host.said(), "refused")
        assert len(host.inspectors()) == 2
        host.stop()
        for guest in (stays, goes):
            mine = [e for e in hook.events() if guest.uuid in e["source"]]
            assert [int(e["sequence"]) for e in mine] == list(range(1, len(mine) + 1)) and mine
        hook.finish()


def test_a_disk_of_the_ini_file_comes_and_goes_with_a_reload(host):
    image, ring = host.image("own.img"), os.path.join(host.directory, "own.ring")
    host.rings.come(ring, os.path.getsize(image))
    section = "[disk own]\nimage = %s\nring = %s\n" % (image, ring)
    host.start()
    guest = captured(host, 5, "web")
    awaits(host, "web", "live")
    host.reload(section)
    host.wait(lambda: len(host.inspectors()) == 2, "it comes")
    host.reload("")
    host.wait(lambda: list(host.inspectors()) == [(guest.uuid, "xvda")], "it goes")
    assert os.path.exists(ring)


# --- what is refused ---

@pytest.mark.parametrize("keys,words", [
    ({"mode": "rw"}, 'key mode is "rw", expected w|r'),
    ({"mode": None}, "no key mode"),
    ({"dev": None}, "no key dev"),
    ({"dev": "../../etc"}, 'key dev is "../../etc"'),
    ({"params": "aio:disk.img"}, "no absolute path"),
    ({"params": "aio:"}, "no absolute path"),
    ({"params": "aio:/srv/a\nb.img"}, "/srv/a?b.img"),
    ({"params": "qcow2:/srv/a.qcow2"}, "only raw images"),
    ({"params": "nbd:unix:/run/x"}, "only raw images"),
    ({"params": None}, "no key params"),
    ({"device_type": "tape"}, 'key device-type is "tape"'),
], ids=str)
def test_a_disk_that_makes_no_sense_is_refused_and_says_why(host, keys, words):
    host.start()
    good = captured(host, 6, "good")
    guest = Domain(host.xen, 5, "web").create()
    back = guest.attach("xvda", "aio:" + host.image("web.img"), **keys)
    host.wait(lambda: host.told(back).get("state") == "failed", "told in xenstore")
    assert words in host.told(back)["error"]
    (disk,) = [disk for disk in host.disks().values() if disk["guest"] == "web"]
    assert disk["state"] == "refused" and words in disk["error"]
    assert words in host.text() and words in host.said()
    assert list(host.inspectors()) == [(good.uuid, "xvda")] or state(host, "good") != "live"
    # Once it is put right, it is watched.
    fields = {"mode": "w", "dev": "xvda", "params": "aio:" + host.image("web.img"), "device-type": "disk"}
    for name, value in fields.items():
        host.xen.store.write(back + "/" + name, value)
    host.capture(guest, "xvda", host.image("web.img"))
    awaits(host, "web", "live")
    assert host.told(back).get("error") is None


@pytest.mark.parametrize("name", ["two words.img", "it's \"quoted\".img", "-n.img", "a;b$(c)`d`.img", "ä.img",
                                  "../images/dots.img"])
def test_an_odd_name_of_an_image_is_a_name(host, name):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda", host.image(name))
    awaits(host, "web", "live")
    assert host.inspectors()[(guest.uuid, "xvda")][2] == host.image(name)


def test_a_missing_image_fails_the_disk_until_it_is_there(host):
    host.start()
    image = os.path.join(host.images, "late.img")
    guest = Domain(host.xen, 5, "web").create()
    back = guest.attach("xvda", "aio:" + image)
    host.capture(guest, "xvda", host.image("any.img"))
    host.wait(lambda: host.told(back).get("state") == "failed", "failed")
    assert host.told(back)["error"].startswith(image + ": No such file")
    host.wait(lambda: host.xen.store.get("/local/domain/0/tapwire/health") == "degraded", "degraded")
    os.link(host.image("any.img"), image)
    awaits(host, "web", "live")
    host.wait(lambda: host.xen.store.get("/local/domain/0/tapwire/health") == "good", "good")


def test_an_empty_image_fails_the_disk(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    empty = os.path.join(host.images, "empty.img")
    open(empty, "wb").close()
    back = guest.attach("xvda", "aio:" + empty)
    host.capture(guest, "xvda", host.image("any.img"))
    host.wait(lambda: host.told(back).get("state") == "failed", "failed")
    assert "empty" in host.told(back)["error"]


def luks(version):
    """The header by its on-disk format; what is not needed is zero."""
    if version == 1:  # version 1.2.3 of the format's description
        head = b"LUKS\xba\xbe" + struct.pack(">H32s32s32sII", 1, b"aes", b"xts-plain64", b"sha256", 4096, 64)
        return head.ljust(168, b"\0") + b"0b5e1d2c-0000-4000-8000-000000000001"
    uuid = b"0b5e1d2c-0000-4000-8000-000000000002"
    fields = struct.pack(">HQQ48s32s64s40s48sQ", 2, 0x4000, 3, b"", b"sha256", bytes(64), uuid, b"", 0)
    return b"LUKS\xba\xbe" + fields


@pytest.mark.parametrize("version", [1, 2])
def test_an_encrypted_disk_is_named_and_told_of(host, version):
    image = host.image("luks.img")
    with open(image, "r+b") as file:
        file.write(luks(version).ljust(1 << 20, b"\0"))
    host.start()
    guest = captured(host, 5, "web", image=image)
    words = "encrypted (LUKS): not watched"
    host.wait(lambda: host.told(guest.backend_of("xvda")).get("error") == words, "told in xenstore")
    host.wait(lambda: host.told(guest.backend_of("xvda"))["state"] == "live", "live all the same")
    host.wait(lambda: [(place["fstype"], place["watched"]) for disk in host.status()["disks"]
                       for place in disk["inspector"].get("places", ())] == [("crypto_LUKS", False)], "named")
    assert host.disks()[("web", "xvda")]["remark"] == words
    assert words in host.text() and "it is encrypted (LUKS), and the key is the guest's" in host.text()
    assert "not watched: it is encrypted (LUKS)" in host.said()
    assert host.xen.store.read("/local/domain/0/tapwire/health") == "good"


@pytest.mark.parametrize("version", [1, 2])
def test_the_rest_of_a_disk_with_an_encrypted_partition_is_watched(host, version):
    image = os.path.join(host.images, "parts.img")
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    layout.partition_table(image, "label: gpt\nstart=2048, size=4096\nstart=6144, size=4096\nstart=10240, size=2048\n")
    with open(image, "r+b") as file:
        for start in (2048, 10240):
            file.seek(start * 512)
            file.write(luks(version))
        file.seek(6144 * 512)
        with open(host.image("whole.img"), "rb") as whole:
            file.write(whole.read())
    host.start()
    guest = captured(host, 5, "web", image=image)
    words = "encrypted (LUKS): not watched: 1, 3"
    host.wait(lambda: host.told(guest.backend_of("xvda")).get("error") == words, "told in xenstore")
    host.wait(lambda: [(place["place"], place["fstype"], place["watched"]) for disk in host.status()["disks"]
                       for place in disk["inspector"].get("places", ())] ==
              [("1", "crypto_LUKS", False), ("2", "ext4", True), ("3", "crypto_LUKS", False)], "the rest is watched")
    assert words in host.text()


def test_without_xenstore_disks_of_the_ini_file_are_watched_until_there_is_one(host):
    image, ring = host.image("own.img"), os.path.join(host.directory, "own.ring")
    host.rings.come(ring, os.path.getsize(image))
    host.write_config("[disk own]\nimage = %s\nring = %s\n" % (image, ring))
    host.xen.stop()
    os.unlink(host.xen.socket)
    host.start()
    host.wait(lambda: "%s nor the kernel's device answers" % host.xen.socket in host.said(), "told")
    assert "is xenstored running?" in host.said() and "guests are not looked for until there is one" in host.said()
    host.wait(lambda: [disk["live"] for disk in host.status()["disks"]] == [True], "the file's disk is watched")
    assert "xenstore: not there, 0 guests" in host.text()
    host.xen.start()
    captured(host, 5, "web")
    awaits(host, "web", "live")


def test_who_is_not_root_is_told_so(asan, scratch):
    """And which directory he has no right to."""
    program, config = scratch / "tapwired", scratch / "tapwire.conf"
    shutil.copy(os.path.join(asan.build, "tapwired"), program)
    config.write_text("[service]\nstate_dir = %s/state\nrun_dir = %s/run\n" % (scratch, scratch))
    os.chmod(scratch, 0o755)
    done = subprocess.run([program, "--config", config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False, user=65534, group=65534,
                          extra_groups=[], cwd="/")
    assert done.returncode == 66
    assert "not root: xenstore and guests' disks are out of reach" in done.stderr
    assert "%s/state: Permission denied" % scratch in done.stderr


def test_a_ring_that_somebody_else_reads_fails_the_disk_until_he_is_gone(host):
    guest = Domain(host.xen, 5, "web").create()
    back = host.plug(guest, "xvda")
    with open(host.ring(guest, "xvda") + ".cursor", "rb") as cursor:
        fcntl.flock(cursor, fcntl.LOCK_EX)
        host.start()
        host.wait(lambda: host.told(back).get("state") == "failed", "failed")
        assert "another inspector" in host.told(back)["error"]
    awaits(host, "web", "live")


def test_two_guests_may_not_write_one_image(host):
    host.start()
    image = host.image("shared.img")
    first = captured(host, 5, "first", image=image)
    awaits(host, "first", "live")
    other_name = os.path.join(host.images, "..", "images", "shared.img")
    second = captured(host, 6, "second", image=other_name)
    awaits(host, "second", "refused")
    back = second.backend_of("xvda")
    host.wait(lambda: host.told(back).get("state") == "failed", "told")
    assert "also xvda of the guest first" in host.told(back)["error"]
    assert list(host.inspectors()) == [(first.uuid, "xvda")]
    host.end(first)
    awaits(host, "second", "live")
    assert host.told(back).get("error") is None


def test_guests_that_only_read_may_share_an_image(host):
    host.start()
    image = host.image("shared.img")
    for n in range(3):
        captured(host, 5 + n, "guest-%d" % n, image=image, mode="r")
    for n in range(3):
        awaits(host, "guest-%d" % n, "live")
    captured(host, 9, "writer", image=image)
    awaits(host, "writer", "refused")


def test_of_many_that_want_one_image_one_has_it_and_then_another(host):
    host.start()
    image = host.image("shared.img")
    guests = {}
    for n in range(12):
        guests["guest-%d" % n] = captured(host, 5 + n, "guest-%d" % n, image=image)

    def states():
        return sorted(disk["state"] for disk in host.disks().values())
    for left in range(12, 8, -1):
        host.wait(lambda left=left: states() == ["live"] + ["refused"] * (left - 1), lambda: "states are %s" % states())
        (holder,) = [name for (name, _), disk in host.disks().items() if disk["state"] == "live"]
        errors = {disk["error"] for disk in host.disks().values() if disk["state"] == "refused"}
        assert errors == {"the image is also xvda of the guest %s, and one of them may write it" % holder}
        host.end(guests.pop(holder))


def test_who_waits_for_an_image_has_it_when_nobody_writes_it_any_more(host):
    host.start()
    image, other = host.image("shared.img"), host.image("other.img")
    writer = captured(host, 5, "writer", image=image)
    awaits(host, "writer", "live")
    for n in range(3):
        captured(host, 10 + n, "reader-%d" % n, image=image, mode="r")
        awaits(host, "reader-%d" % n, "refused")
    back = writer.backend_of("xvda")
    host.xen.store.write(back + "/mode", "r")
    for n in range(3):
        awaits(host, "reader-%d" % n, "live")
    host.xen.store.write(back + "/mode", "w")
    awaits(host, "writer", "refused")
    host.xen.store.write(back + "/params", "aio:" + other)
    awaits(host, "writer", "live")
    for n in range(3):
        awaits(host, "reader-%d" % n, "live")


def test_disks_that_exchange_their_images_are_watched(host):
    host.start()
    one, two = host.image("one.img"), host.image("two.img")
    guest = captured(host, 5, "web", image=one)
    host.plug(guest, "xvdb", two)
    awaits(host, "web", "live")
    awaits(host, "web", "live", "xvdb")
    tx = host.xen.store.transaction()
    host.xen.store.write(guest.backend_of("xvda") + "/params", "aio:" + two, tx)
    host.xen.store.write(guest.backend_of("xvdb") + "/params", "aio:" + one, tx)
    assert host.xen.store.end(tx)
    host.wait(lambda: {vdev: image for (_, vdev), (_, _, image) in host.inspectors().items()} ==
              {"xvda": two, "xvdb": one}, "exchanged")
    awaits(host, "web", "live")
    awaits(host, "web", "live", "xvdb")
    assert "not watched: the image is also" not in host.said()  # not for a moment


def test_a_cdrom_is_left_alone(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda", device_type="cdrom")
    awaits(host, "web", "ignored")
    assert host.inspectors() == {}


# --- far too much ---

def test_a_guest_that_writes_to_its_own_keys_is_not_even_noticed(host):
    host.start()
    guest = Domain(host.xen, 5, "web", page=True).create()
    host.plug(guest, "xvda")
    awaits(host, "web", "live")
    time.sleep(1)  # what the plugging set off is over
    before = host.status()["xenstore"]
    with guest.connection() as mine:
        for n in range(3000):
            mine.write("data/x%d" % (n % 5), n)
            mine.write("device/vbd/51712/state", 4)
    after = host.status()["xenstore"]
    assert after["looks"] == before["looks"] and after["events"] - before["events"] < 20


def test_a_storm_about_one_guest_holds_up_no_other(host):
    host.start()
    noisy = captured(host, 5, "noisy")
    awaits(host, "noisy", "live")
    back = noisy.backend_of("xvda")
    before = host.status()["xenstore"]

    def storm(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for n in range(100):
                host.xen.store.write(back + "/feature-note", n)
    storm(2)
    captured(host, 6, "quiet")
    end = time.monotonic() + 20
    while state(host, "quiet") != "live":
        assert time.monotonic() < end, host.said()
        storm(0.2)
    after = host.status()["xenstore"]
    assert after["events"] - before["events"] > 3000
    assert after["looks"] - before["looks"] < 60
    assert after["held_back"] > before["held_back"]
    # What the storm ended with is seen all the same.
    host.xen.store.write(back + "/mode", "nonsense")
    awaits(host, "noisy", "refused")


def test_while_nothing_happens_nothing_runs(host):
    """Two hundred guests, twenty of them captured: tapwired sleeps."""
    host.start()
    for n in range(200):
        guest = Domain(host.xen, 10 + n, "guest-%d" % n).create()
        host.plug(guest, "xvda", captured=n < 20)
    host.wait(lambda: sum(d["state"] == "live" for d in host.disks().values()) == 20, "live", 120)
    assert guestdisk.wait_until(lambda: quiet_for(host, 2) <= 4, 60), "it wakes up for nothing"


def quiet_for(host, seconds):
    before = host.wakeups()
    time.sleep(seconds)
    return host.wakeups() - before
