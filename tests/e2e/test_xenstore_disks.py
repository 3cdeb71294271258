# SPDX-License-Identifier: BSD-3-Clause
"""tapwired and a real xenstored: disks are found, watched, told of and let go, with nothing but xenstore to go
by."""
import os

import pytest

from lib import dom0
from lib.xenless import Domain


@pytest.fixture
def host(asan, memory):
    with dom0.Dom0(asan, memory) as machine:
        yield machine


def is_live(host, *names):
    return lambda: [host.disks().get(name, {}).get("state") for name in names] == ["live"] * len(names)


def test_a_captured_disk_is_watched_until_it_goes(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    back = host.plug(guest, "xvda")
    host.wait(lambda: host.told(back).get("state") == "live", "live in xenstore")
    told = host.told(back)
    assert told == {"state": "live", "ring": host.ring(guest, "xvda"), "events": told["events"], "lag": "0"}
    assert int(told["events"]) >= 1
    (key, (_, domid, image)), = host.inspectors().items()
    assert key == (guest.uuid, "xvda") and domid == 5 and image.endswith("-xvda.img")
    host.unplug(guest, "xvda")
    host.wait(lambda: not host.inspectors(), "the inspector ends")
    host.wait(lambda: not os.listdir(host.ring_dir), "its ring goes")
    assert not host.xen.store.exists(back)
    assert host.disks() == {}


def test_a_disk_without_a_capture_is_listed_with_what_to_do(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    guest.attach("xvda", "aio:/srv/web.img", script="/etc/xen/scripts/block")
    guest.attach("xvdb", "/dev/vg/lv", kind="qdisk", mode="r", script="/etc/xen/scripts/block")
    guest.attach("xvdc", "/dev/sm/vdi", kind="vbd3", script=None)
    host.wait(lambda: len(host.disks()) == 3, "listed")
    disks = {vdev: disk for (_, vdev), disk in host.disks().items()}
    assert {disk["state"] for disk in disks.values()} == {"not captured"}
    assert disks["xvda"]["to_do"] == \
        "disk = [ 'vdev=xvda, access=rw, format=raw, script=block-tapwire, target=aio:/srv/web.img' ]"
    assert "access=ro" in disks["xvdb"]["to_do"] and "target=aio:/dev/vg/lv'" in disks["xvdb"]["to_do"]
    assert disks["xvdc"]["to_do"] == \
        "a section [guest NAME] with domain = web and attach = yes of tapwire.conf; or tapwire attach web xvdc"
    text = host.text()
    assert "script=block-tapwire, target=aio:/srv/web.img" in text and text.count("not captured") == 3
    assert host.inspectors() == {}
    assert not host.xen.store.exists(guest.backend_of("xvda") + "/tapwire")


def test_the_service_tells_of_itself_and_takes_it_back(host):
    home = "/local/domain/0/tapwire/"
    host.start()
    host.wait(lambda: host.xen.store.get(home + "health") == "good", "healthy")
    assert host.xen.store.read(home + "pid") == str(host.proc.pid)
    assert host.xen.store.read(home + "disks") == "0"
    guest = Domain(host.xen, 5, "web").create()
    back = host.plug(guest, "xvda")
    host.wait(lambda: host.xen.store.get(home + "disks") == "1", "one disk")
    host.stop()
    assert not host.xen.store.exists("/local/domain/0/tapwire")
    assert host.xen.store.exists(back) and not host.xen.store.exists(back + "/tapwire")


def test_no_guest_can_read_what_is_told(host):
    host.start()
    guest = Domain(host.xen, 5, "web", page=True).create()
    back = host.plug(guest, "xvda")
    host.wait(lambda: host.told(back).get("state") == "live", "live in xenstore")
    with guest.connection() as mine:
        assert mine.read(back + "/mode") == "w"
        assert "tapwire" in mine.list(back)  # that there is something is not hidden
        for path in (back + "/tapwire", back + "/tapwire/state", back + "/tapwire/events",
                     "/local/domain/0/tapwire/version"):
            with pytest.raises(PermissionError):
                mine.read(path)
            with pytest.raises(PermissionError):
                mine.write(path, "x")
            with pytest.raises(PermissionError):
                mine.list(path)


def test_check_xenstore_is_content_with_what_tapwired_writes(host, tapwire):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda")
    host.plug(guest, "xvdb", image="/nonexistent.img", captured=False)
    host.capture(guest, "xvdb", host.image("any"))
    host.wait(is_live(host, ("web", "xvda")), "one is live")
    host.wait(lambda: host.disks().get(("web", "xvdb"), {}).get("state") == "failed", "one has failed")
    host.wait(lambda: host.xen.store.exists(guest.backend_of("xvdb") + "/tapwire/error"), "told")
    done = tapwire.run("check-xenstore", env={**os.environ, **host.environment})
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert b"2 of them told of by tapwired" in done.stdout
