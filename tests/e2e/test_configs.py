# SPDX-License-Identifier: BSD-3-Clause
"""The oracle on every file system of lib/configs.py: processes that work at once, and at each sync point the
events and a crawl against the mount, libext2fs and debugfs."""
import pytest

from lib import oracle
from lib.configs import CONFIGS

pytestmark = [pytest.mark.usefixtures("mountable"), pytest.mark.slow]


@pytest.mark.parametrize("name", CONFIGS)
def test_config(tapwire, scratch, name, seed):
    try:
        run = oracle.record(tapwire, name, seed, scratch, ops=1000, syncs=4)
    except oracle.Refused as reason:
        pytest.skip("not followed: %s" % reason)
    try:
        events = oracle.Check(tapwire, run).all()
    except AssertionError as error:
        raise AssertionError("%s\nreduce: /usr/bin/python3 tests/lib/shrink.py --config %s --seed %d" % (
            error, name, seed)) from None
    assert len(events) > 100
