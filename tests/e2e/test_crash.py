# SPDX-License-Identifier: BSD-3-Clause
"""The guest's power fails. Wherever its writes are cut, the events so far give what a kernel shows of
that disk once it has recovered it; and a guest that recovers while it is watched is followed on."""
import concurrent.futures
import contextlib
import fcntl
import json
import os
import random
import struct
import time

import pytest

from lib import crash, guestdisk, recover, trace, tree, uml
from lib.layout import Watched, uuid_of
from lib.life import Life
from lib.workload import Mix

pytestmark = pytest.mark.usefixtures("mountable")

# (mkfs options, mount options)
CONFIGS = {
    "ordered": ((), ""),
    "ordered-1k": (("-b", "1024"), ""),
    "ordered-wraps": (("-b", "1024", "-J", "size=1"), ""),
    "journal": ((), "data=journal"),
    "journal-1k": (("-b", "1024", "-J", "size=1"), "data=journal"),
    "writeback": ((), "data=writeback"),
    "no-checksums": (("-O", "^metadata_csum"), ""),
    "no-checksums-1k-journal": (("-b", "1024", "-O", "^metadata_csum,^64bit"), "data=journal"),
    "checksum-v1": (("-O", "^metadata_csum"), "journal_checksum"),
    "async-commit": ((), "data=writeback,journal_async_commit"),
    "async-commit-v1": (("-O", "^metadata_csum"), "data=writeback,journal_async_commit"),
    "async-commit-1k-journal": (("-b", "1024"), "data=journal,journal_async_commit"),
    "fast-commit": (("-O", "fast_commit"), ""),
    "fast-commit-1k": (("-b", "1024", "-O", "fast_commit", "-J", "fast_commit_size=256"), ""),
}
WITH_SLOW = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("fast") else name for name in CONFIGS]
CUTS = 60  # of each configuration, unless --cuts says otherwise


def elsewhere(name):
    """Whether a kernel of one's own has to recover the disks; see recover.py."""
    return name.startswith("fast-commit")


def kernel_for(name):
    """Skips where the kernel that has to recover such a disk cannot run."""
    if elsewhere(name) and uml.missing():
        pytest.skip("no kernel to recover fast commits: " + uml.missing())


def make_image(directory, mkfs):
    image = directory / "disk.img"
    guestdisk.make_image(image, "48M", mkfs)
    return image


def work(root, seed, ops, sync=None):
    """Random operations on what is there, with a commit after each few."""
    where = os.path.join(root, "work%d" % seed)
    os.makedirs(where, exist_ok=True)
    mix = Mix(where, seed, budget=6 << 20, big_dir=150)
    mix.ops(ops, 25, sync or (lambda _: guestdisk.settle(root)))
    mix.close()


class Recording:
    """A kernel's writes to a fresh disk. Clocks are made unique, so that the events of a record can
    be told."""

    def __init__(self, tapwire, directory, name, seed, ops):
        mkfs, options = CONFIGS[name]
        image = make_image(directory, mkfs)
        with guestdisk.GuestDisk(directory, image, plugin=tapwire.plugin, options=options) as disk:
            work(disk.root, seed, ops)
        self.base, self.size = disk.base, os.path.getsize(image)
        self.records = list(trace.read(disk.trace))
        self.end_ns = time.time_ns()
        self.layout = crash.Layout(image)
        self.may_be_refused = "async" in options or elsewhere(name)
        tapwire.follows(self.base)
        tapwire.follows(image)  # the first mount has turned the journal's features on


def differences(listing, shown, recording):
    """Of a listing against what the kernel shows."""
    return tree.diff(*reversed(crash.comparable(listing, shown, recording.end_ns)))


def told(tapwire, recording, records):
    """The tree that the events of these records give."""
    lines, error = crash.infer(tapwire, recording.base, recording.size, records)
    if error:
        raise AssertionError(error)
    state = tapwire.crawl(recording.base)
    for line in lines:
        state.apply(json.loads(line))
    return state.listing()


REFUSED = "refused"


def check_cut(tapwire, recording, image, cut, shown):
    """What is wrong, or None, or REFUSED: there is nothing to compare with. image: as of the cut; shown: what a
    kernel makes of it, or None."""
    try:
        crawl = tapwire.run("crawl", image)
        if crawl.returncode:  # half a superblock is nobody's
            said = crawl.stderr.decode(errors="replace")
            return REFUSED if shown is None else "%s: %s" % (cut, said)
        crawled = tree.Tree.from_crawl(crawl.stdout.splitlines()).listing()
        # An asynchronous commit whose log is not whole, and the first fast commit of a transaction when it is
        # torn, are errors to the kernel; to tapwire they are no commits.
        if shown is None and not recording.may_be_refused:
            return "%s: only the kernel refuses it" % cut
        truth = crawled if shown is None else shown
        problems = differences(crawled, truth, recording)
        if problems:
            return "%s: crawl, against the kernel\n  %s" % (cut, "\n  ".join(problems))
        for records in cut.captured(recording.records):
            problems = differences(told(tapwire, recording, records), truth, recording)
            if not problems:
                return REFUSED if shown is None else None
        return "%s: events, against the kernel\n  %s" % (cut, "\n  ".join(problems))
    except AssertionError as error:
        return "%s: %s" % (cut, error)


def check_cuts(tapwire, recording, directory, cuts):
    """What is wrong with each, on as many processors as there are; each has a run of neighbours."""
    workers = os.cpu_count() or 1
    share = -(-len(cuts) // workers)

    def some(number):
        found = []
        with crash.Bench(directory / ("bench%d" % number), recording.base,
                         recording.records) as bench:
            for cut in cuts[number * share:(number + 1) * share]:
                bench.make(cut)
                guestdisk.copy_image(bench.image, bench.image + ".cut")
                found.append(check_cut(tapwire, recording, bench.image + ".cut", cut, bench.recovered()))
        return found
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [text for texts in pool.map(some, range(workers)) for text in texts]


def check_cuts_elsewhere(tapwire, recording, directory, cuts):
    """The same with a kernel of one's own."""
    images = [directory / ("cut%d.img" % number) for number in range(len(cuts))]
    with crash.Bench(directory / "bench", recording.base, recording.records) as bench:
        for cut, image in zip(cuts, images):
            bench.make(cut)
            guestdisk.copy_image(bench.image, image)
            guestdisk.copy_image(bench.image, str(image) + ".cut")
    return [check_cut(tapwire, recording, str(image) + ".cut", cut, shown)
            for cut, image, shown in zip(cuts, images, recover.recover(images))]


def expect_nothing_wrong(found):
    refusals = found.count(REFUSED)
    assert refusals <= len(found) // 3, "%d of %d disks cannot be mounted" % (refusals, len(found))
    wrong = [text for text in found if text and text is not REFUSED]
    assert not wrong, "%d of %d cuts:\n%s" % (len(wrong), len(found), "\n".join(wrong[:5]))


@pytest.mark.parametrize("name", WITH_SLOW)
def test_cuts(tapwire, memory, seed, name, request):
    kernel_for(name)
    wanted = request.config.getoption("--cuts")
    ops = 250 if wanted is None else request.config.getoption("--ops")
    recording = Recording(tapwire, memory, name, seed, ops)
    sample = CUTS // 3 if elsewhere(name) else CUTS
    chosen = crash.cuts(recording.records, recording.layout, {None: sample, 0: None}.get(wanted, wanted), seed,
                        "async" in name)
    assert ("async" in name) == any(isinstance(cut, crash.Lost) for cut in chosen)
    check = check_cuts_elsewhere if elsewhere(name) else check_cuts
    expect_nothing_wrong(check(tapwire, recording, memory, chosen))


test_cuts.seeds = [1]


# --- the guest goes on after it ---

@pytest.mark.parametrize("name", WITH_SLOW)
def test_recovery_while_watched(tapwire, memory, tmp_path, seed, name):
    """The power fails again and again; each time the guest recovers its disk and goes on."""
    kernel_for(name)
    mkfs, options = CONFIGS[name]
    rnd = random.Random(seed)
    life = Life(tapwire, memory, make_image(memory, mkfs))
    tapwire.follows(life.base)
    turns = 3 if elsewhere(name) else 5
    for turn in range(turns):
        with life.booted(options) as root:
            life.sync(root, "recovered %d" % turn)
            work(root, seed * 100 + turn, 120, lambda _: life.sync(root))
            life.sync(root, "end of %d" % turn)
        tapwire.follows(life.image)
        if turn < turns - 1:
            power_fails(life, rnd, elsewhere(name))
            if elsewhere(name):
                with life.watched() as disk:
                    uml.run(disk, os.path.join(tmp_path, "guest%d" % turn), "run('umount', mount('/dev/ubda'))")
    life.check()


def power_fails(life, rnd, elsewhere):
    """At a random record; elsewhere: one after which a kernel can recover the disk at all."""
    for _ in range(20):
        cut = crash.Cut(rnd.randrange(1, len(life.recent())))
        if not elsewhere or recover.recover([life.after(cut)])[0] is not None:
            life.power_fails(cut)
            return
    raise AssertionError("no disk can be mounted")


test_recovery_while_watched.seeds = [1]


@pytest.mark.parametrize("name", ["ordered", "journal-1k", "no-checksums", "async-commit"])
def test_recovery_of_what_was_not_captured(tapwire, memory, name):
    """The power fails in the middle of a commit block's write: its first sector is on the disk, and nobody was
    told. The guest recovers a transaction that the capture point has seen no commit of: that is a change
    without a transaction, or a gap, but never a wrong event."""
    mkfs, options = CONFIGS[name]
    life = Life(tapwire, memory, make_image(memory, mkfs))
    tapwire.follows(life.base)
    for turn in range(4):
        with life.booted(options) as root:
            life.sync(root, "recovered %d" % turn)
            work(root, turn, 120, lambda _: life.sync(root))
            life.sync(root, "end of %d" % turn)
        tapwire.follows(life.image)
        kinds = list(map(crash.Layout(life.image).kind, life.recent()))
        commits = [at for at, kind in enumerate(kinds) if kind == "commit"
                   and life.recent()[at].count * trace.SECTOR == crash.Layout(life.image).blocksize]
        if turn < 3 and commits:
            life.power_fails(crash.Cut(commits[len(commits) * (turn + 1) // 4], 1, False, "commit"))
    try:
        life.check()
    except AssertionError as error:
        if "metadata now, and was written before that was known" not in str(error):
            raise


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ordered", "journal", "writeback", "async-commit-v1"])
def test_crashes_while_served(tapwire, memory, name):
    """The same with a running service: each time the guest comes back, what has arrived is what it sees."""
    mkfs, options = CONFIGS[name]
    image = make_image(memory, mkfs)
    tapwire.follows(image)
    with Watched(tapwire, memory, image) as watched:
        uuid = uuid_of(watched.disk)
        for turn in range(4):
            with guestdisk.mounted(watched.disk, memory / "mnt", options) as root:
                watched.expect(uuid, root)
                work(root, turn, 150)
                watched.expect(uuid, root)
                if turn < 3:
                    mix = leave_work(root, turn)
                    shut_down(root, None)
                    mix.close()
        events = watched.stop()
    tapwire.follows(image)
    assert not [event for event in events if event["type"] == "org.tapwire.disk.resynced"]
    shown = crash.comparable(tapwire.crawl(image).listing(), watched.listing(uuid), time.time_ns())
    assert not tree.diff(*shown)


def leave_work(root, seed):
    """Operations that nobody waits for, in a directory of their own."""
    mix = Mix(os.path.join(root, "work%d" % seed), seed, big_dir=100)
    os.mkdir(mix.root + b"/lost")
    mix.root += b"/lost"
    with contextlib.suppress(OSError):
        mix.ops(60)
    return mix


# --- the guest gives up its journal ---

# include/uapi/linux/ext4.h; the flag says that neither data nor log are written any more.
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2


def shut_down(root, _failing):
    """The disk is gone, as far as the guest is concerned."""
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
    os.close(descriptor)


def find_an_error(root, _failing):
    """The guest's file system finds itself damaged."""
    device = os.path.basename(guestdisk.run("findmnt", "-n", "-o", "SOURCE", root))
    with open("/sys/fs/ext4/%s/trigger_fs_error" % device, "w", encoding="ascii") as trigger:
        trigger.write("x")


def fail_writes(root, failing):
    """Writes fail: data is lost, and then the log cannot be written."""
    failing.touch()
    with contextlib.suppress(OSError), open(root + "/failed", "wb") as file:
        file.write(b"x" * 5000)
        os.fsync(file.fileno())
    for number in range(20):
        with contextlib.suppress(OSError, RuntimeError):
            os.mkdir(root + "/failed%d" % number)
            guestdisk.settle(root)
    failing.unlink()


ABORTS = (shut_down, find_an_error, fail_writes)


def aborted(life, directory, options, abort, seed):
    """One boot in which the journal is aborted in the middle of work."""
    failing = directory / "failing"
    with life.booted(",".join(filter(None, (options, "errors=remount-ro"))), (
            "--filter=error", "error-pwrite=EIO", "error-pwrite-rate=100%",
            "error-pwrite-file=%s" % failing)) as root:
        work(root, seed, 150, lambda _: life.sync(root))
        life.sync(root, "before the abort")
        mix = leave_work(root, seed)
        abort(root, failing)
        with contextlib.suppress(OSError):
            mix.ops(60)
        with contextlib.suppress(OSError):
            mix.close()
        with pytest.raises(OSError):
            os.mkdir(root + "/must-fail")


@pytest.mark.parametrize("name", ["ordered", "journal", "no-checksums"])
@pytest.mark.parametrize("abort", ABORTS, ids=lambda abort: abort.__name__)
def test_aborted_journal(tapwire, memory, name, abort):
    """The view stays at the last commit, and goes on from what the guest recovers."""
    mkfs, options = CONFIGS[name]
    life = Life(tapwire, memory, make_image(memory, mkfs))
    tapwire.follows(life.base)
    for turn in range(2):
        aborted(life, memory, options, abort, turn + 1)
        end_ns = time.time_ns()
        shown = life.shown()
        told_, shown = crash.comparable(life.told(), shown, end_ns)
        assert not tree.diff(shown, told_), "after abort %d" % turn
    with life.booted(options) as root:
        life.sync(root, "recovered")
        work(root, 9, 60)
        life.sync(root, "end")
    life.check()
