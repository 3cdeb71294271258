# SPDX-License-Identifier: BSD-3-Clause
"""The oracle on every file system of lib/configs.py: processes that work at once, and at each sync point the
events and a crawl against the mount, libext2fs and debugfs."""
import pytest

from lib import guestdisk, oracle, readers
from lib.configs import CONFIGS, UNMOUNTED
from lib.workload import Mix

pytestmark = [pytest.mark.usefixtures("mountable"), pytest.mark.slow]


@pytest.mark.parametrize("name", CONFIGS)
def test_config(tapwire, scratch, name, seed):
    run = oracle.record(tapwire, name, seed, scratch, ops=1000, syncs=4)
    try:
        events = oracle.Check(tapwire, run).all()
    except AssertionError as error:
        raise AssertionError("%s\nreduce: /usr/bin/python3 tests/lib/shrink.py --config %s --seed %d" % (
            error, name, seed)) from None
    assert len(events) > 100


@pytest.mark.parametrize("name", UNMOUNTED)
def test_crawl_of_what_is_not_mounted(tapwire, scratch, name):
    config, tree, image = UNMOUNTED[name], scratch / "tree", scratch / "disk.img"
    tree.mkdir()
    mix = Mix(tree, 5, budget=16 << 20)
    mix.ops(1500)
    mix.close()
    guestdisk.run("truncate", "-s", config.size, image)
    guestdisk.run("mke2fs", "-q", "-F", *config.mkfs, "-d", tree, image)
    truth = readers.libext2fs(oracle.ext2read(tapwire.build), image)
    oracle.agree(readers.differences(truth, readers.debugfs(image), blind=("target",)), "debugfs")
    tapwire.follows(image)
    oracle.expect(readers.differences(truth, tapwire.crawl(image).listing(readers.FIELDS)), "crawl")
    assert len(truth) > 100
