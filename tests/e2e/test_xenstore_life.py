# SPDX-License-Identifier: BSD-3-Clause
"""A guest's whole life through a real xenstored: reboot, rename, migration, destruction, while tapwired and
xenstored come and go, too."""
import hashlib
import os
import random
import signal

import pytest

from lib import dom0, guestdisk, xenless
from lib.xenless import Domain


@pytest.fixture
def host(asan, memory):
    with dom0.Dom0(asan, memory) as machine:
        yield machine


def live(host, *guests):
    """All captured disks of these guests have an inspector of the right domain, and are live."""
    def check():
        inspectors, disks = host.inspectors(), host.disks()
        return all((inspectors.get((guest.uuid, vdev)) or (0, -1))[1] == guest.domid and
                   disks.get((guest.name, vdev), {}).get("state") == "live"
                   for guest in guests for vdev in guest.disks)
    host.wait(check, "live: %s" % ", ".join(guest.name for guest in guests))


def of_type(hook, name):
    return [event for event in hook.events() if event["type"] == "org.tapwire." + name]


def test_after_a_reboot_it_is_the_same_disk_and_the_sequence_goes_on(heard, hook):
    heard.start()
    guest = Domain(heard.xen, 5, "web").create()
    image = heard.image("web.img")
    heard.plug(guest, "xvda", image)
    live(heard, guest)
    heard.end(guest)
    heard.wait(lambda: os.listdir(heard.ring_dir) == [], "the first life is over")
    guest = Domain(heard.xen, 6, "web", uuid=guest.uuid).create()
    heard.plug(guest, "xvda", image)
    live(heard, guest)
    heard.stop()
    attached = of_type(hook, "disk.attached")
    assert [event["data"]["domain"]["id"] for event in attached] == [5, 6]
    assert len(of_type(hook, "disk.detached")) == 1  # the second life has not ended
    events = hook.events()
    disk = "/xen/%s/%s/xvda" % (os.uname().nodename, guest.uuid)
    assert all(event["source"].startswith(disk) for event in events)
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert len({event["id"].rpartition("-")[0] for event in events}) == 1
    hook.finish()


def test_a_renamed_guest_keeps_its_disk_and_has_its_new_name(heard, hook):
    heard.start()
    guest = Domain(heard.xen, 5, "web").create()
    heard.plug(guest, "xvda")
    live(heard, guest)
    before = heard.inspectors()
    guest.rename("www")
    heard.wait(lambda: heard.inspectors().keys() == before.keys() and heard.inspectors() != before, "one by that name")
    live(heard, guest)
    heard.unplug(guest, "xvda")
    heard.wait(lambda: of_type(hook, "disk.detached"), "detached")
    assert of_type(hook, "disk.detached")[0]["data"]["domain"]["name"] == "www"
    assert len(of_type(hook, "disk.attached")) == 1
    heard.stop()
    hook.finish()


def test_a_number_that_is_used_again_is_another_guest(host):
    host.start()
    old = Domain(host.xen, 5, "web").create()
    host.plug(old, "xvda")
    live(host, old)
    host.end(old)
    new = Domain(host.xen, 5, "mail").create()
    host.plug(new, "xvda")
    live(host, new)
    assert list(host.inspectors()) == [(new.uuid, "xvda")]
    assert os.listdir(host.ring_dir) == [name for name in os.listdir(host.ring_dir) if name.startswith(new.uuid)]


def test_a_number_that_is_used_again_at_once_is_another_guest(host):
    """tapwired does not get to see what was in between."""
    host.start()
    old = Domain(host.xen, 5, "web").create()
    host.plug(old, "xvda")
    live(host, old)
    tx = host.xen.store.transaction()
    new = Domain(host.xen, 5, "mail")
    host.release(old, "xvda")
    host.capture(new, "xvda", host.image("mail.img"))
    host.xen.store.write(old.home + "/vm", new.vm, tx)
    host.xen.store.write(old.home + "/name", new.name, tx)
    host.xen.store.write(old.backend_of("xvda") + "/params", "aio:" + host.image("mail.img"), tx)
    assert host.xen.store.end(tx)
    new.disks = old.disks
    live(host, new)
    host.wait(lambda: list(host.inspectors()) == [(new.uuid, "xvda")], "the old one ends")


def test_a_migration_within_the_host_is_one_disk(host):
    host.start()
    image = host.image("web.img")
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda", image)
    live(host, guest)
    incoming = Domain(host.xen, 6, "web--incoming", uuid=guest.uuid).create()
    host.plug(incoming, "xvda", image, captured=False)
    guest.rename("web--migratedaway")
    incoming.rename("web")
    host.wait(lambda: host.inspectors().get((guest.uuid, "xvda"), (0, 0))[1] == 6, "the new one counts")
    host.wait(lambda: host.told(incoming.backend_of("xvda")).get("state") == "live", "told of the new one")
    assert host.told(guest.backend_of("xvda")) == {}
    guest.detach("xvda")
    guest.destroy(forget_vm=False)
    live(host, incoming)
    assert len(host.inspectors()) == 1


def test_disks_are_plugged_and_unplugged_while_their_guest_runs(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    for vdev in ("xvda", "xvdb", "xvdc"):
        host.plug(guest, vdev)
    live(host, guest)
    host.unplug(guest, "xvdb")
    host.plug(guest, "xvdd")
    host.wait(lambda: sorted(vdev for _, vdev in host.inspectors()) == ["xvda", "xvdc", "xvdd"], "three of them")
    live(host, guest)


def test_a_disk_whose_image_changes_is_watched_anew(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda", host.image("one.img"))
    live(host, guest)
    host.unplug(guest, "xvda")
    host.plug(guest, "xvda", host.image("two.img"))
    host.wait(lambda: host.inspectors().get((guest.uuid, "xvda"), ("", "", ""))[2].endswith("two.img"), "two")
    live(host, guest)


def test_guests_that_run_are_found_by_a_tapwired_that_starts_again(host):
    guests = [Domain(host.xen, 5 + n, "guest-%d" % n).create() for n in range(5)]
    for guest in guests:
        host.plug(guest, "xvda")
    host.start()
    live(host, *guests)
    host.kill()
    host.end(guests.pop())
    guests.append(Domain(host.xen, 20, "new").create())
    host.plug(guests[-1], "xvda")
    host.start()
    live(host, *guests)
    host.stop()
    host.wait(lambda: not host.inspectors(), "all ended")
    host.start()
    live(host, *guests)
    assert set(host.inspectors()) == {(guest.uuid, "xvda") for guest in guests}
    assert {name[:36] for name in os.listdir(host.ring_dir)} == {guest.uuid for guest in guests}


def test_a_xenstored_that_comes_back_with_everything_changes_nothing(host):
    host.start()
    guests = [Domain(host.xen, 5 + n, "guest-%d" % n).create() for n in range(3)]
    for guest in guests:
        host.plug(guest, "xvda")
    live(host, *guests)
    before = host.inspectors()
    host.xen.stop()
    host.wait(lambda: host.status()["xenstore"]["state"] == "not there", "it notices")
    host.xen.start()
    for guest in guests:
        guest.write_again()
    host.wait(lambda: host.status()["xenstore"]["state"] == "connected", "connected")
    host.wait(lambda: host.told(guests[2].backend_of("xvda")).get("state") == "live", "told again")
    assert host.inspectors() == before
    assert host.status()["xenstore"]["reconnects"] == 1
    host.end(guests.pop())
    host.wait(lambda: len(host.inspectors()) == 2, "events come again")


def test_what_xenstored_has_forgotten_is_watched_as_long_as_its_capture_runs(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda")
    live(host, guest)
    before = host.inspectors()
    host.xen.stop()
    host.xen.start()
    host.wait(lambda: host.disks().get(("web", "xvda"), {}).get("forgotten_by_xenstore"), "forgotten")
    assert host.inspectors() == before
    host.release(guest, "xvda")
    host.wait(lambda: not host.inspectors() and host.disks() == {}, "let go")


def test_a_xenstored_that_does_not_answer_holds_up_nothing(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda")
    live(host, guest)
    host.xen.store.write(guest.backend_of("xvda") + "/note", "1")
    host.xen.freeze()
    try:
        pid = host.inspectors()[(guest.uuid, "xvda")][0]
        os.kill(pid, 9)
        host.wait(lambda: host.inspectors().get((guest.uuid, "xvda"), (pid,))[0] != pid, "started again")
        host.wait(lambda: host.status()["xenstore"]["state"] == "does not answer", "it is said")
        host.stop()
    finally:
        host.xen.thaw()
    host.wait(lambda: not host.inspectors(), "ended")


def test_a_guest_that_dies_without_its_toolstack_leaves_no_inspector(host):
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    host.plug(guest, "xvda")
    live(host, guest)
    host.release(guest, "xvda")
    host.xen.store.remove(guest.home)
    host.xen.unmake(5)
    host.wait(lambda: not host.inspectors() and host.disks() == {}, "gone")


def test_a_guest_that_dies_while_its_disk_is_crawled_holds_up_nobody(host):
    """Its inspector stands still in the middle; the next guest has its number."""
    host.start()
    guest = Domain(host.xen, 5, "web").create()
    back = host.plug(guest, "xvda")
    pid = None
    while pid is None or not os.path.exists("/proc/%d" % pid):
        pid = host.inspectors().get((guest.uuid, "xvda"), (None,))[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert host.told(back).get("state") != "live"
        host.end(guest)
        host.wait(lambda: host.disks() == {}, "it is let go of")
        other = Domain(host.xen, 5, "mail").create()
        host.plug(other, "xvda")
        live(host, other)
    finally:
        os.kill(pid, signal.SIGCONT)
    host.wait(lambda: set(host.inspectors()) == {(other.uuid, "xvda")}, "its inspector ends")
    host.wait(lambda: not [name for name in os.listdir(host.ring_dir) if name.startswith(guest.uuid)], "its ring goes")
    assert host.told(other.backend_of("xvda"))["state"] == "live"


def test_a_guest_that_is_saved_and_restored_has_the_same_disk(heard, hook):
    """Hours lie between, and restarts of the service; somebody has looked at the image meanwhile."""
    heard.start()
    guest = Domain(heard.xen, 5, "web").create()
    image = heard.image("web.img")
    heard.plug(guest, "xvda", image)
    live(heard, guest)
    heard.end(guest)
    heard.stop()
    guestdisk.run("debugfs", "-w", "-R", "mkdir meanwhile", image)
    heard.start()
    guest = Domain(heard.xen, 9, "web", uuid=guest.uuid).create()
    heard.plug(guest, "xvda", image)
    live(heard, guest)
    heard.stop()
    events = hook.events()
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert len({event["id"].rpartition("-")[0] for event in events}) == 1
    (made,) = [event for event in events if event.get("subject") == "/meanwhile"]
    assert made["data"]["resync"] and made["data"]["domain"]["id"] == 9
    hook.finish()


def test_what_is_left_of_a_guest_that_is_gone_is_told_with_its_content(asan, tapwire, memory, hook, mountable):
    """It went while nobody looked, and its ring has its last words."""
    with dom0.Dom0(asan, memory, hook, sections="content = changed\nsha256 = yes\nsha256_quiet = 1h\n") as host:
        host.start()
        guest = Domain(host.xen, 5, "web").create()
        image = host.image("web.img")
        guestdisk.make_image(image, "64M")
        host.plug(guest, "xvda", image, captured=False)
        os.makedirs(host.ring_dir, exist_ok=True)
        with guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, record=False,
                                 plugin_args=("ring=" + host.ring(guest, "xvda"),)) as disk:
            guest.connect("xvda")
            live(host, guest)
            with open(disk.root + "/log", "w") as file:
                file.write("first\n")
            guestdisk.settle(disk.root)
            host.wait(lambda: of_type(hook, "file.created"), "the first words")
            host.kill()
            host.wait(lambda: not host.inspectors(), "nobody looks")
            with open(disk.root + "/log", "a") as file:
                file.write("last\n")
            guestdisk.settle(disk.root)
        guest.detach("xvda")
        guest.destroy()
        host.start()
        host.wait(lambda: of_type(hook, "disk.detached"), "the last words")
        texts = [piece["text"] for event in hook.events() for piece in event["data"].get("content", ())
                 if event["subject"] == "/log"]
        assert "".join(texts) == "first\nfirst\nlast\n", texts  # what changes is told in blocks
        (settled,) = of_type(hook, "file.settled")
        assert settled["data"]["sha256"] == hashlib.sha256(b"first\nlast\n").hexdigest()
        host.wait(lambda: os.listdir(host.ring_dir) == [], "no ring is left")
        host.stop()


def test_a_driver_domain_watches_the_disks_that_it_serves(asan, memory):
    with dom0.Dom0(asan, memory) as host:
        Domain(host.xen, 2, "driver", page=True).create()
        with xenless.Bridge(host.xen, 2) as bridge:
            host.environment = bridge.environment
            host.start()
            host.wait(lambda: host.status().get("xenstore", {}).get("domid") == 2, "as domain 2")
            Domain(host.xen, 6, "mail").create().attach("xvda", "aio:/srv/mail.img")  # dom0's
            guest = Domain(host.xen, 5, "web", backend=2).create()
            image = host.image("web.img")
            back = guest.attach("xvda", "aio:" + image)
            host.wait(lambda: len(host.disks()) == 1, "found")
            (disk,) = host.disks().values()
            os.makedirs(host.ring_dir, exist_ok=True)
            host.rings.come(disk["ring"], os.path.getsize(image))
            host.wait(lambda: host.told(back).get("state") == "live", "live")
            assert host.xen.store.permissions(back + "/tapwire/state") == ["n2"]
            assert host.xen.store.permissions("/local/domain/2/data/tapwire/health") == ["n2"]
            guest.detach("xvda")
            guest.destroy()
            host.wait(lambda: host.disks() == {}, "gone")
            again = Domain(host.xen, 9, "web", uuid=guest.uuid, backend=2).create()
            again.attach("xvda", "aio:" + image)
            host.wait(lambda: host.disks(), "found again")
            (later,) = host.disks().values()
            assert (later["uuid"], later["domid"]) == (disk["uuid"], 9)  # the same source as before
            host.stop()


class Crowd:
    """Guests that live their lives in random order, and what must be there in the end."""

    def __init__(self, host, seed):
        self.host, self.dice = host, random.Random(seed)
        self.guests, self.uuids, self.next_domid = [], [], 10

    def step(self):
        moves = [self.create, self.create, self.destroy, self.plug, self.plug, self.unplug, self.reboot, self.rename]
        self.dice.choice(moves)()

    def domid(self):
        """Mostly a new one; now and then one that was in use a moment ago."""
        if self.dice.random() < 0.3:
            taken = {guest.domid for guest in self.guests}
            free = [domid for domid in range(10, self.next_domid) if domid not in taken]
            if free:
                return self.dice.choice(free)
        self.next_domid += 1
        return self.next_domid - 1

    def create(self, uuid=None, disks=None, name=None):
        domid = self.domid()
        guest = Domain(self.host.xen, domid, name or "guest-%d" % self.dice.randrange(1 << 30), uuid=uuid).create()
        self.guests.append(guest)
        for vdev in disks or ["xvda"] + ["xvdb"] * self.dice.randrange(2):
            self.plug(guest, vdev)

    def any(self):
        return self.dice.choice(self.guests) if self.guests else None

    def destroy(self):
        guest = self.any()
        if guest:
            self.guests.remove(guest)
            self.host.end(guest)

    def reboot(self):
        guest = self.any()
        if guest:
            disks = list(guest.disks)
            self.guests.remove(guest)
            self.host.end(guest)
            self.create(guest.uuid, disks or ["xvda"], guest.name)

    def rename(self):
        guest = self.any()
        if guest:
            guest.rename("renamed-%d" % self.dice.randrange(1 << 30))

    def plug(self, guest=None, vdev=None):
        guest = guest or self.any()
        free = sorted(set(list(xenless.VDEVS)[:4]) - set(guest.disks)) if guest else []
        if free:
            vdev = vdev if vdev in free else self.dice.choice(free)
            # Now and then the capture comes up late, or not at all.
            self.host.plug(guest, vdev, captured=self.dice.random() < 0.9)

    def unplug(self):
        guest = self.any()
        if guest and guest.disks:
            self.host.unplug(guest, self.dice.choice(sorted(guest.disks)))

    def expected(self):
        return {(guest.uuid, vdev): guest.domid for guest in self.guests for vdev in guest.disks
                if self.host.ring(guest, vdev) in self.host.rings.alive}

    def settle(self):
        """Exactly the right inspectors run, each of them live, and xenstore says so."""
        host, want = self.host, self.expected()

        # A ring of a disk's last life that nobody has taken over may still be read.
        maybe = {(guest.uuid, vdev): guest.domid for guest in self.guests for vdev in guest.disks
                 if (guest.uuid, vdev) not in want and os.path.exists(host.ring(guest, vdev))}

        def wrong():
            have = {key: domid for key, (_pid, domid, _image) in host.inspectors().items()}
            return (have.items() ^ want.items()) - maybe.items()

        def untold():
            return [(guest.backend_of(vdev), host.told(guest.backend_of(vdev)))
                    for guest in self.guests for vdev in guest.disks if (guest.uuid, vdev) not in maybe
                    if host.told(guest.backend_of(vdev)).get("state") !=
                    ("live" if (guest.uuid, vdev) in want else None)]
        host.wait(lambda: not wrong(), lambda: "there or not, and should not be so: %s" % wrong(), 120)
        host.wait(lambda: not untold(), lambda: "not told of as they are: %s" % untold(), 60)
        assert {(disk["uuid"], disk["vdev"]) for disk in host.disks().values()} == \
            {(guest.uuid, vdev) for guest in self.guests for vdev in guest.disks}


def nothing_is_left(host):
    """No node, no watch, no process, no ring, when the service has ended."""
    store = host.xen.store
    left = [path for path, _ in store.walk("/") if "tapwire" in path.split("/")]
    assert left == []
    assert host.inspectors() == {}


def test_hundreds_of_lives_in_random_order_end_with_the_right_inspectors(host, seed):
    host.start()
    crowd = Crowd(host, seed)
    for n in range(300):
        crowd.step()
        if n % 75 == 20:
            host.kill()  # and it starts again with whatever is there then
        if n % 75 == 30:
            host.start()
        if n % 100 == 60:
            host.xen.stop()
            host.xen.start()
            for guest in crowd.guests:
                guest.write_again()
    if host.proc is None:
        host.start()
    crowd.settle()
    host.wait(lambda: {name[:36] for name in os.listdir(host.ring_dir)} <= {guest.uuid for guest in crowd.guests},
              "no ring of a guest that is gone")
    for guest in crowd.guests[::2]:
        host.end(guest)
    del crowd.guests[::2]
    crowd.settle()
    for guest in crowd.guests:
        host.end(guest)
    crowd.guests.clear()
    crowd.settle()
    host.wait(lambda: os.listdir(host.ring_dir) == [], "no ring is left")
    host.stop()
    nothing_is_left(host)
