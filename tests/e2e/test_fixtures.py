# SPDX-License-Identifier: BSD-3-Clause
"""Failures that were found by the oracle and reduced by lib/shrink.py, done again."""
import glob
import json
import os

import pytest

from lib import oracle

pytestmark = pytest.mark.usefixtures("mountable")

FIXTURES = sorted(glob.glob(os.path.join(oracle.ROOT, "tests/fixtures/*.json")))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: os.path.basename(path)[:-5])
def test_fixture(tapwire, scratch, path):
    with open(path, encoding="utf-8") as file:
        kept = json.load(file)
    run = oracle.replay(tapwire, kept["config"], kept["steps"], scratch)
    oracle.Check(tapwire, run).all()
