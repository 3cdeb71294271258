# SPDX-License-Identifier: BSD-3-Clause
"""The schema of xenstore's keys: page and code follow it, and `tapwire check-xenstore` tells where a live
xenstore does not."""
import json
import os
import pathlib
import re
import subprocess

import pytest

from lib import xenless
from lib.xenless import Domain

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATAERR, UNAVAILABLE = 65, 69


@pytest.fixture
def xen(scratch):
    with xenless.Xenless(scratch) as machine:
        yield machine


@pytest.fixture
def check(build, xen):
    def call(environment=None):
        done = subprocess.run([build / "tapwire", "check-xenstore", "--json"], stdin=subprocess.DEVNULL,
                              env={"PATH": "/usr/bin", **(environment or xen.environment)}, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        answer = json.loads(done.stdout)
        assert done.returncode == (0 if answer["ok"] else DATAERR), done.stderr
        assert answer["ok"] == (answer["complaints"] == [])
        return answer
    return call


def generate(what):
    folder = ROOT / "xenstore-schema"
    return subprocess.run(["awk", "-v", "make=" + what, "-f", folder / "generate.awk", folder / "keys.ini"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True).stdout


def test_the_reference_page_is_the_schemas():
    assert (ROOT / "docs/xenstore.md").read_text() == generate("page")


def test_no_path_of_xenstore_is_written_in_the_code():
    special = re.compile(r'"@(introduce|release)Domain')
    for path in (ROOT / "dom0-service").rglob("*.[ch]"):
        text = path.read_text()
        assert "/local/domain" not in text and '"backend' not in text, path
        assert not special.search(text), path
        assert '"/vm' not in text or path.name == "schema.c", path


def test_a_schema_with_a_mistake_makes_nothing(tmp_path):
    keys = (ROOT / "xenstore-schema/keys.ini").read_text()
    for right, wrong in (("since = 0.1.0\n", ""), ("type = text", "typ = text"), ("[/vm]\n", "/vm\n")):
        broken = tmp_path / "keys.ini"
        broken.write_text(keys.replace(right, wrong, 1))
        done = subprocess.run(["awk", "-v", "make=header", "-f", ROOT / "xenstore-schema/generate.awk", broken],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and done.stdout == "" and str(broken) in done.stderr


def test_what_xl_writes_is_as_the_schema_says(xen, check):
    guest = Domain(xen, 5, "web server").create()
    guest.attach("xvda", "aio:/srv/web.img")
    guest.attach("xvdb", "/dev/vg/lv", kind="qdisk", mode="r")
    guest.connect("xvda")
    answer = check()
    assert answer["complaints"] == []
    assert (answer["disks"], answer["told"]) == (2, 0) and answer["keys"] >= 10


def test_each_deviation_is_told_with_its_path(xen, check):
    guest = Domain(xen, 5, "web").create()
    back = guest.attach("xvda", "aio:/srv/web.img", mode="rw", dev=None)
    ours = back + "/tapwire"
    for name, value in (("", ""), ("/state", "sleeping"), ("/ring", "/run/ring"), ("/cheese", "old")):
        xen.store.write(ours + name, value)
    xen.store.write("/local/domain/0/backend/vbd/x5/1/state", "1")
    xen.store.write("/local/domain/5/vm", "/vm/5")
    found = {(c["path"], c["message"].split(", expected")[0].split(", which")[0]) for c in check()["complaints"]}
    assert found == {
        (back + "/dev", "is missing"),
        (back + "/mode", 'is "rw"'),
        (ours, "permissions are n0,r5"),
        (ours, 'has "cheese"'),
        (ours + "/state", 'is "sleeping"'),
        (ours + "/state", "permissions are n0,r5"),
        (ours + "/ring", "permissions are n0,r5"),
        ("/local/domain/0/backend/vbd", 'has "x5"'),
        ("/local/domain/5/vm", 'is "/vm/5"'),
    }


def test_a_driver_domain_looks_at_the_disks_that_it_serves(xen, check):
    Domain(xen, 2, "driver", page=True).create()
    Domain(xen, 5, "web", backend=2).create().attach("xvda", "aio:/srv/web.img")
    Domain(xen, 6, "mail").create().attach("xvda", "aio:/srv/mail.img", mode="nonsense")
    with xenless.Bridge(xen, 2) as bridge:
        answer = check(bridge.environment)
    assert (answer["disks"], answer["complaints"]) == (1, [])


def test_without_a_xenstored_the_exit_status_is_69(build, tmp_path):
    done = subprocess.run([build / "tapwire", "check-xenstore"], stdin=subprocess.DEVNULL, timeout=60,
                          env={**os.environ, "XENSTORED_PATH": str(tmp_path / "none")},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
    assert done.stderr.startswith("tapwire: xenstore") and done.stderr.count("\n") == 1
