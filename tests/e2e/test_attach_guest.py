# SPDX-License-Identifier: BSD-3-Clause
"""`tapwire attach GUEST VDEV` where the toolstack has started tapdisk itself, as XAPI does: a real xenstored says which
tapdisk it is, and tests/lib/mirror.py plays it."""
import os
import stat

import pytest

from lib import guestdisk, mirror, xenless
from lib.calls import sync_fs
from lib.endpoint import Endpoint
from lib.mirrorcases import populated
from lib.xenless import Domain

UNAVAILABLE, NOINPUT = 69, 66
SOCKET = "/run/blktap-control/nbd%s"


@pytest.fixture
def xen(memory):
    with xenless.Xenless(memory) as machine:
        yield machine


@pytest.fixture
def call(asan, memory, xen):
    """Runs a command with this xenstore."""
    def run(*words, tap_ctl=None, environment=None):
        state = ("--state", memory / "state") if words[0] == "attach" else ()
        done = asan.run(*words, *state, "--tap-ctl", tap_ctl or "/bin/true",
                        env={**os.environ, **(environment or xen.environment)}, timeout=60)
        return done.returncode, done.stdout.decode(), done.stderr.decode()
    return run


@pytest.fixture
def served(memory):
    """An image behind a tapdisk."""
    image = memory / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with mirror.StandIn(memory, image) as backend:
        yield backend


def guest(xen, domid=5, name="web", uuid=None):
    return Domain(xen, domid, name, uuid=uuid).create()


def plug(domain, target="/dev/sm/backend/sr/vdi", kind="vbd3", script=None, **keys):
    """As XAPI has it: the target is no file that could be looked at."""
    return domain.attach("xvda", target, kind=kind, script=script, **keys)


def tool(memory, line):
    """A tap-ctl that lists one disk."""
    path = memory / "one-tap-ctl"
    path.write_text("#!/bin/sh\necho '%s'\n" % line)
    path.chmod(stat.S_IRWXU)
    return path


@pytest.mark.usefixtures("mountable")
def test_a_guests_disk_is_watched_by_its_name(tapwire, memory, xen):
    image, mix = populated(memory, 1, ops=20, size="64M")
    mix.close()
    with Endpoint(memory) as endpoint, mirror.StandIn(memory, image) as backend:
        web = guest(xen)
        plug(web, physical_device_path=SOCKET % backend.target.replace(":", "."))
        service = mirror.Attached(tapwire, memory, image, endpoint, backend, disk=["web", "xvda"])
        service.environment = xen.environment
        with guestdisk.GuestDisk(memory, image, socket=backend.socket, record=False) as disk, service:
            assert backend.mirrored()
            with open(os.path.join(disk.root, "letter"), "w", encoding="ascii") as file:
                file.write("agentless")
            sync_fs(disk.root)

            def heard():
                return [e for e in endpoint.events()
                        if e["type"] == "org.tapwire.file.created" and e["subject"] == "/letter"]
            assert guestdisk.wait_until(heard, 30), service.said()
        assert not backend.mirrored()
        (letter,) = heard()
        assert letter["source"].startswith("/xen/%s/%s/xvda/" % (os.uname().nodename, web.uuid))
        assert letter["data"]["domain"] == {"id": 5, "name": "web", "uuid": web.uuid}
        endpoint.finish()


@pytest.mark.parametrize("how", ["socket", "minor", "image", "given"])
def test_the_tapdisk_is_found_by_what_xenstore_says(xen, call, served, memory, how):
    web = guest(xen)
    words = []
    if how == "socket":
        plug(web, physical_device_path=SOCKET % served.target.replace(":", "."))
    elif how == "minor":
        plug(web, physical_device="fe:0")
    elif how == "image":
        plug(web, "aio:%s" % (memory / "disk.img"), kind="vbd")
    else:
        plug(web)
        words = ["--tapdisk", served.target]
    for who in "web", "5", web.uuid, web.uuid.upper():
        assert call("detach", who, "xvda", *words, "--json", tap_ctl=served.tap_ctl) == (
            0, '{"detached":true,"tapdisk":"%s"}\n' % served.target, "")


@pytest.mark.parametrize("words, keys, line, status, said", [
    (["mail", "xvda"], {}, "", UNAVAILABLE, 'no guest "mail" has disks that this domain serves; `xl list`'),
    (["6", "xvda"], {}, "", UNAVAILABLE, 'no guest "6"'),
    (["99999999999999999999", "xvda"], {}, "", UNAVAILABLE, "no guest"),
    (["", "xvda"], {}, "", UNAVAILABLE, 'no guest ""'),
    (["web", "xvdb"], {}, "", UNAVAILABLE, 'web has no disk "xvdb"; it has: xvda'),
    (["web", "xvda"], {"mode": "r"}, "", UNAVAILABLE, "xvda of web: the guest may not write it"),
    (["web", "xvda"], {"device_type": "cdrom"}, "", UNAVAILABLE, "xvda of web: it is a cdrom"),
    (["web", "xvda"], {"script": "/etc/xen/scripts/block-tapwire"}, "", UNAVAILABLE, "`tapwire status`"),
    (["web", "xvda"], {"target": "/dev/null", "mode": "x"}, "", UNAVAILABLE, 'the key mode is "x", expected w|r'),
    (["web", "xvda"], {"physical_device_path": SOCKET % "1.2"}, "", UNAVAILABLE, "no such tapdisk any more"),
    (["web", "xvda"], {"physical_device_path": SOCKET % "1.2"}, "pid=1 minor=2 state=0 args=vhd:/dev/vg/vdi",
     UNAVAILABLE, "xvda of web: tapdisk 1:2 serves vhd:/dev/vg/vdi, and only raw images are followed"),
    (["web", "xvda"], {"physical_device_path": "nonsense", "physical_device": "x"}, "", NOINPUT, "/dev/sm/backend/sr/"),
    (["web", "xvda"], {"target": "vhd:/dev/vg/vdi"}, "", UNAVAILABLE, 'is of type "vhd"'),
    (["web", "xvda"], {"target": "/dev/null", "kind": "vbd", "physical_device": "fe:2"},
     "pid=1 minor=2 state=0 args=aio:/dev/zero", UNAVAILABLE, "no tapdisk serves /dev/null"),
], ids=range(14))
def test_what_cannot_be_is_told_in_one_line(xen, call, memory, words, keys, line, status, said):
    plug(guest(xen), **keys)
    for command in "attach", "detach":
        code, out, error = call(command, *words, tap_ctl=tool(memory, line))
        assert (code, out, error.count("\n")) == (status, "", 1), error
        assert error.startswith("tapwire: ") and said in error


def test_a_name_that_two_guests_have_is_no_guests(xen, call, memory):
    """As in the middle of a migration within the host; the number tells them apart."""
    first = guest(xen)
    for domain in first, guest(xen, 6, uuid=first.uuid):
        plug(domain, physical_device_path=SOCKET % "1.2")
    for who in "web", first.uuid:
        code, _, error = call("detach", who, "xvda", tap_ctl=tool(memory, ""))
        assert code == UNAVAILABLE and "is both domain 5 and domain 6: say its number" in error
    assert "no such tapdisk" in call("detach", "6", "xvda", tap_ctl=tool(memory, ""))[2]


def test_without_xenstore_there_are_no_guests(call):
    for command in "attach", "detach":
        code, _, error = call(command, "web", "xvda", environment={"XENSTORED_PATH": "/nowhere/socket"})
        assert code == UNAVAILABLE and "is xenstored running?" in error


def test_three_words_are_too_many(call):
    for command in "attach", "detach":
        code, _, error = call(command, "web", "xvda", "xvdb")
        assert code == 64 and "one disk at a time" in error
