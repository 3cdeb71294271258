# SPDX-License-Identifier: BSD-3-Clause
"""What every end-to-end test can ask for: the built programs, a scratch directory, a disk."""
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))

from lib import dom0, endpoint, guestdisk, nosync  # noqa: E402
from lib.property import Tapwire  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--seed", action="append", type=int, default=[],
                     help="run the random mix with this seed (may be repeated)")
    parser.addoption("--cuts", type=int, default=None,
                     help="power failures of each recording (default: a sample; 0: wherever there may be one)")
    parser.addoption("--scale", type=int, default=1,
                     help="so many times the work of each real workload (default: 1)")
    parser.addoption("--ops", type=int, default=20000, help="operations of a random mix")


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        seeds = metafunc.config.getoption("--seed") or getattr(metafunc.function, "seeds", [1])
        metafunc.parametrize("seed", seeds)


def pytest_configure(config):
    # A SIGTERM unwinds like Ctrl-C: mounts and processes are undone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # umount and its like, with the environment that a cron job or a CI has.
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    # A test may be in another directory when it asks for the programs.
    for name in {"TAPWIRE_BUILD", "TAPWIRE_ASAN_BUILD"} & set(os.environ):
        os.environ[name] = os.path.abspath(os.environ[name])
    nosync.forbid()


def pytest_sessionfinish(session):
    """Leaves the counts where tests/run finds them."""
    counts = os.environ.get("TAPWIRE_COUNTS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not counts or reporter is None:
        return

    def number(*names):
        return sum(len(reporter.stats.get(name, ())) for name in names)
    with open(counts, "w", encoding="utf-8") as out:
        json.dump({"passed": number("passed", "xpassed"), "failed": number("failed", "error"),
                   "skipped": number("skipped", "xfailed")}, out)


@pytest.fixture(scope="session")
def build():
    """The directory that make built into: TAPWIRE_BUILD, or build/."""
    return pathlib.Path(os.environ.get("TAPWIRE_BUILD") or ROOT / "build").resolve()


@pytest.fixture(scope="session")
def tapwire(build):
    programs = Tapwire(build)
    for program in (programs.program, programs.plugin):
        if not os.path.exists(program):
            pytest.fail("%s is missing: run make first" % program)
    return programs


@pytest.fixture(scope="session")
def asan(tapwire):
    """The programs built with ASan and UBSan when there are any (make check builds them), else the
    plain ones."""
    directory = pathlib.Path(os.environ.get("TAPWIRE_ASAN_BUILD") or ROOT / "build" / "asan")
    programs = Tapwire(directory.resolve())
    return programs if os.path.exists(programs.program) else tapwire


def _scratch(parent):
    directory = tempfile.mkdtemp(prefix="tapwire-test-", dir=parent)
    yield pathlib.Path(directory)
    if os.environ.get("TAPWIRE_KEEP"):
        print("kept:", directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def scratch():
    """A directory for images; TAPWIRE_KEEP=1 keeps it for a look afterwards."""
    yield from _scratch(None)


@pytest.fixture
def memory():
    """The same in memory, if there is enough: for what syncs a lot, or copies images again and again."""
    shm = "/dev/shm"
    enough = os.path.isdir(shm) and shutil.disk_usage(shm).free > 6 << 30
    yield from _scratch(shm if enough else None)


@pytest.fixture
def hook(memory):
    with endpoint.Endpoint(memory) as receiver:
        yield receiver


@pytest.fixture
def heard(asan, memory, hook):
    """A dom0 with a real xenstored, whose events are POSTed to hook."""
    with dom0.Dom0(asan, memory, hook) as machine:
        yield machine


@pytest.fixture
def mountable():
    """Skips where this machine cannot mount a disk that is served over NBD."""
    reason = guestdisk.missing()
    if reason:
        pytest.skip("cannot mount a disk here: " + reason)
