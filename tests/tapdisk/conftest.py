# SPDX-License-Identifier: BSD-3-Clause
"""A real tapdisk with the driver registered (INSTALL says how): TAPDISK and TAP_CTL name its programs. tests/run
comes here only when they are set."""
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from realtapdisk import Tapdisk  # noqa: E402


@pytest.fixture
def tapdisk(scratch):
    """A running tapdisk; it ends with the test."""
    programs = [os.environ.get(name) for name in ("TAPDISK", "TAP_CTL")]
    if not all(programs):
        pytest.skip("TAPDISK and TAP_CTL do not name a tapdisk's programs")
    with Tapdisk(*programs, scratch) as running:
        yield running


@pytest.fixture
def vhd_util():
    """VHD_UTIL, or the one that was installed with TAP_CTL."""
    beside = pathlib.Path(os.environ.get("TAP_CTL", "/")).resolve().parent
    found = os.environ.get("VHD_UTIL") or next(
        (path for path in (beside / "vhd-util", beside.parent / "bin/vhd-util") if path.exists()),
        shutil.which("vhd-util"))
    if not found:
        pytest.skip("no vhd-util: VHD_UTIL does not name it")
    return found
