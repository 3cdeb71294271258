# SPDX-License-Identifier: BSD-3-Clause
"""The ground under the tests of what tapwire does in xenstore: a real xenstored, on a machine without
Xen, keeps its promises to dom0 and withholds from guests what is not theirs."""
import subprocess

import pytest

from lib import xenless
from lib.xenless import Domain


@pytest.fixture
def xen(scratch):
    with xenless.Xenless(scratch) as machine:
        yield machine


def test_domains_come_and_go_and_the_special_watches_tell(xen):
    with xen.connect() as watcher:
        watcher.watch("@introduceDomain", "in")
        watcher.watch("@releaseDomain", "out")
        assert watcher.events(2) == [("@introduceDomain", "in"), ("@releaseDomain", "out")]
        guest = Domain(xen, 7, "web").create()
        assert xen.store.introduced(7)
        assert watcher.events(1) == [("@introduceDomain", "in")]
        guest.attach("xvda", "aio:/srv/web.img")
        guest.connect("xvda")
        assert xen.store.read("/local/domain/0/backend/vbd/7/51712/params") == "aio:/srv/web.img"
        guest.destroy()
        assert ("@releaseDomain", "out") in watcher.events(1)
    assert not xen.store.introduced(7)
    assert xen.store.list("/local/domain") == ["0"] and xen.store.list("/vm") == []
    assert xen.store.list("/local/domain/0/backend") == []


def test_a_domain_that_dies_is_released_though_nobody_says_so(xen):
    guest = Domain(xen, 3, "web").create()
    with xen.connect() as watcher:
        watcher.watch("@releaseDomain", "out")
        watcher.events(1)
        xen.unmake(3)
        for _ in range(200):
            if ("@releaseDomain", "out") in watcher.events():
                break
            xen.store.get("/")
        else:
            raise AssertionError("no @releaseDomain")
    assert not xen.store.introduced(3)
    assert guest.uuid


def test_a_guest_has_its_rights_and_no_others(xen):
    guest = Domain(xen, 5, "web", page=True).create()
    back = guest.attach("xvda", "aio:/srv/web.img")
    with guest.connection() as mine:
        assert mine.read("name") == "web"  # relative: its own home
        mine.write("data/note", "x" * 2000)  # more than the page's ring holds
        assert mine.read("/local/domain/5/data/note") == "x" * 2000
        assert mine.read(back + "/mode") == "w"
        with pytest.raises(PermissionError):
            mine.write(back + "/mode", "r")
        with pytest.raises(PermissionError):
            mine.list("/local/domain/0")
        with pytest.raises(PermissionError):
            mine.write("name", "dom0")


def test_more_names_than_a_message_holds_are_listed(xen):
    for n in range(1000):
        xen.store.write("/tool/name-%d" % n)
    assert len(xen.store.list("/tool")) == 1001


def test_the_tools_of_xen_work_with_it_as_dom0_and_as_a_domain(xen):
    Domain(xen, 5, "web", page=True).create()

    def read(environment, path):
        return subprocess.run(["xenstore-read", path], env={"PATH": "/usr/bin", **environment}, timeout=20,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True).stdout.strip()
    assert read(xen.environment, "domid") == "0"
    with xenless.Bridge(xen, 5) as bridge:
        assert read(bridge.environment, "domid") == "5"
        assert read(bridge.environment, "name") == "web"
        assert "couldn't read" in read(bridge.environment, "/local/domain/0/domid")


def test_a_xenstored_that_starts_again_knows_nothing(xen):
    guest = Domain(xen, 5, "web").create()
    guest.attach("xvda", "aio:/srv/web.img")
    xen.stop()
    xen.start()
    assert xen.store.list("/local/domain") == ["0"]
    guest.write_again()
    assert xen.store.read(guest.backend_of("xvda") + "/params") == "aio:/srv/web.img"
