# SPDX-License-Identifier: BSD-3-Clause
"""Bad input gets one clear line and a sysexits status, and harms nothing. Runs the programs built
with sanitizers where there are any."""
import os
import random
import shutil
import struct
import subprocess

import pytest

from lib import guestdisk, trace as traces

USAGE, DATAERR, NOINPUT, UNSUPPORTED = 64, 65, 66, 69
SIZE = 64 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "disk.img"
    guestdisk.make_image(path, str(SIZE))
    return path


def header(size=SIZE, **fields):
    return traces.header(size, **fields)


def record(sequence=1, sector=2000, payload=b"", flags=1, count=None, clock=10**18):
    count = len(payload) // 512 if count is None else count
    return traces.encode(traces.Record(sequence, clock, sector, count, flags, payload))


def refused(tapwire, args, status, *words, before=b""):
    """The command fails with this status and says why in one line that has these words."""
    done = tapwire.run(*args, timeout=60, env={"PATH": "/usr/bin", "ASAN_OPTIONS": "exitcode=99",
                                               "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99"})
    text = done.stderr.decode()
    assert done.returncode == status, "exit %d: %s" % (done.returncode, text)
    assert text.startswith("tapwire: ") and text.endswith("\n") and text.count("\n") == 1, text
    for word in words:
        assert word in text, text
    assert done.stdout == before
    return text


def commands(image, trace):
    """Each way to open a bad image."""
    return (("crawl", image), ("infer", "--disk", image, "--trace", trace))


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "empty.trace"
    path.write_bytes(header())
    return path


def refused_image(tapwire, trace, image, status, *words):
    size = os.path.getsize(image) if os.path.isfile(image) else SIZE
    trace.write_bytes(header(size))
    for command in commands(image, trace):
        refused(tapwire, command, status, os.path.basename(image), *words)


# --- images ---

def test_no_file_system(asan, trace, tmp_path):
    path = tmp_path / "noise.img"
    path.write_bytes(b"no file system" * 100000)
    refused_image(asan, trace, path, DATAERR)


def test_zeroes(asan, trace, tmp_path):
    path = tmp_path / "zeroes.img"
    path.write_bytes(b"")
    os.truncate(path, 1 << 20)
    refused_image(asan, trace, path, DATAERR)


def test_empty_file(asan, trace, tmp_path):
    path = tmp_path / "empty.img"
    path.write_bytes(b"")
    refused_image(asan, trace, path, DATAERR)


def test_missing(asan, trace, tmp_path):
    refused_image(asan, trace, tmp_path / "missing.img", NOINPUT, "No such file")


def test_directory(asan, trace, tmp_path):
    refused_image(asan, trace, tmp_path, NOINPUT)


def test_unreadable(asan, image, scratch):
    """root may read everything: another user runs the command."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become someone else")
    program, path = scratch / "tapwire", scratch / "secret.img"
    shutil.copy(asan.program, program)
    guestdisk.copy_image(image, path)
    os.chmod(path, 0o600)
    os.chmod(scratch, 0o755)
    done = subprocess.run([program, "crawl", path], stdin=subprocess.DEVNULL, user=65534,
                          group=65534, extra_groups=[], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == NOINPUT, done.stderr
    assert b"secret.img" in done.stderr and b"Permission denied" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("size", [1024, 2048, 70000, 1 << 20, SIZE - 4096, SIZE - 512])
def test_truncated_image(asan, trace, image, tmp_path, size):
    path = tmp_path / "cut.img"
    guestdisk.copy_image(image, path)
    os.truncate(path, size)
    refused_image(asan, trace, path, DATAERR)


@pytest.mark.parametrize("options, name", [
    (("-O", "bigalloc"), None),
    (("-O", "inline_data"), None),
    (("-O", "encrypt"), None),
    (("-O", "quota"), None),
    (("-O", "casefold"), None),
    (("-O", "journal_dev"), "journal_dev"),
])
def test_unsupported_feature(asan, trace, tmp_path, options, name):
    """The flag is named, unless tapwire has learned it."""
    path = tmp_path / "disk.img"
    guestdisk.make_image(path, str(SIZE), options)
    trace.write_bytes(header())
    for command in commands(path, trace):
        done = asan.run(*command, timeout=60)
        if name is None:
            assert done.returncode == 0, done.stderr
            continue
        refused(asan, command, UNSUPPORTED, name)


@pytest.mark.parametrize("offset, bit, words", [
    (0x60, 1 << 31, ("FEATURE_I31",)), (0x64, 1 << 31, None)])
def test_unknown_feature(asan, trace, image, tmp_path, offset, bit, words):
    """A bit that nobody has defined yet: an incompatible one is refused, a read-only one is not
    tapwire's business, which never writes."""
    path = tmp_path / "disk.img"
    guestdisk.make_image(path, str(SIZE), ("-O", "^metadata_csum"))
    with open(path, "r+b") as disk:
        disk.seek(1024 + offset)
        flags = struct.unpack("<I", disk.read(4))[0] | bit
        disk.seek(1024 + offset)
        disk.write(struct.pack("<I", flags))
    if words:
        refused_image(asan, trace, path, UNSUPPORTED)


@pytest.mark.parametrize("name, offset, value", [
    ("block size", 0x18, 40), ("blocks a group", 0x20, 0), ("inodes a group", 0x28, 0),
    ("inode size", 0x58, 3), ("inode size", 0x58, 0xffff), ("descriptor size", 0xfe, 7),
    ("first data block", 0x14, 0xffffffff), ("blocks", 0x4, 0), ("inodes", 0x0, 0xffffffff),
    ("flex group", 0x174, 200), ("journal inode", 0xe0, 5)])
def test_nonsense_superblock(asan, trace, tmp_path, name, offset, value):
    """Refused as bad data or, for sizes that might be a future's, as unsupported; never a crash."""
    path = tmp_path / "disk.img"
    guestdisk.make_image(path, str(SIZE), ("-O", "^metadata_csum"))
    width = 2 if offset in (0x58, 0xfe) else 1 if offset == 0x174 else 4
    with open(path, "r+b") as disk:
        disk.seek(1024 + offset)
        disk.write(value.to_bytes(width, "little"))
    trace.write_bytes(header())
    for command in commands(path, trace):
        done = asan.run(*command, timeout=60)
        assert done.returncode in (0, DATAERR, UNSUPPORTED), (done.returncode, done.stderr)
        assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr
        if done.returncode:
            assert done.stderr.count(b"\n") == 1


# --- traces ---

def infer(image, trace):
    return ("infer", "--disk", image, "--trace", trace)


def trace_of(tmp_path, *parts):
    path = tmp_path / "bad.trace"
    path.write_bytes(b"".join(parts))
    return path


SOME = record(1, 100000, bytes(4096))


def test_empty_trace_gives_no_event(asan, image, trace):
    done = asan.run(*infer(image, trace))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"org.tapwire.file." not in done.stdout


@pytest.mark.parametrize("length", [1, 16, 31, 32, 33, 500, 4127])
def test_cut_in_a_record(asan, image, tmp_path, length):
    """Whole records before it count; then the line says where the trace ends."""
    path = trace_of(tmp_path, header(), SOME, record(2, 100008, bytes(4096))[:length])
    refused_trace(asan, image, path, DATAERR, str(24 + len(SOME)))


@pytest.mark.parametrize("length", [0, 1, 8, 23])
def test_cut_in_the_header(asan, image, tmp_path, length):
    refused_trace(asan, image, trace_of(tmp_path, header()[:length]), DATAERR)


def refused_trace(tapwire, image, path, status, *words):
    done = tapwire.run(*infer(image, path), timeout=60)
    assert done.returncode == status, (done.returncode, done.stderr)
    text = done.stderr.decode()
    assert text.startswith("tapwire: ") and text.count("\n") == 1, text
    assert path.name in text, text
    for word in words:
        assert word in text, text
    assert b"org.tapwire.file." not in done.stdout


@pytest.mark.parametrize("size", [0, 512, SIZE - 512, SIZE + 512, SIZE * 2, 2**63])
def test_trace_of_another_disk_size(asan, image, tmp_path, size):
    """Both sizes are named."""
    refused_trace(asan, image, trace_of(tmp_path, header(size), SOME), DATAERR, str(SIZE),
                  str(size))


@pytest.mark.parametrize("sector, count", [
    (SIZE // 512, 1), (SIZE // 512 - 1, 2), (2**55, 1), (2**64 - 1, 1), (2**64 - 1, 2)])
def test_sectors_beyond_the_end(asan, image, tmp_path, sector, count):
    refused_trace(asan, image, trace_of(
        tmp_path, header(), SOME, record(2, sector, bytes(512 * count))), DATAERR,
        str(24 + len(SOME)))


@pytest.mark.parametrize("bad", [
    header(magic=b"TWTRACE2"), header(magic=b"\0" * 8), header(sector=4096), header(zero=1)])
def test_wrong_header(asan, image, tmp_path, bad):
    refused_trace(asan, image, trace_of(tmp_path, bad, SOME), DATAERR)


@pytest.mark.parametrize("count", [0xffffffff, 131073])
def test_record_of_absurd_length(asan, image, tmp_path, count):
    refused_trace(asan, image, trace_of(tmp_path, header(), SOME, record(
        2, 0, b"", flags=1, count=count)), DATAERR)


def test_record_of_unknown_flags(asan, image, tmp_path):
    refused_trace(asan, image, trace_of(tmp_path, header(), SOME, record(
        2, 0, bytes(512), flags=1 | 1 << 20)), DATAERR)


def test_gap(asan, image, tmp_path):
    """Writes are missing and the image is the state before: nothing can be told any more."""
    refused_trace(asan, image, trace_of(tmp_path, header(), SOME, record(
        2, 0, b"", flags=16, count=0)), DATAERR, "gap")


def test_missing_trace(asan, image, tmp_path):
    refused_trace(asan, image, tmp_path / "missing.trace", NOINPUT, "No such file")


def test_directory_as_a_trace(asan, image, tmp_path):
    directory = tmp_path / "dir.trace"
    directory.mkdir()
    refused_trace(asan, image, directory, NOINPUT)


def test_random_metadata_writes(asan, image, tmp_path):
    """Noise over every part of the file system: events or one line, never a crash."""
    rnd = random.Random(5)
    parts = [header()]
    for sequence in range(1, 400):
        sector = rnd.randrange(0, 4000) if sequence % 3 else rnd.randrange(0, SIZE // 512 - 8)
        form = rnd.randrange(4)
        payload = rnd.randbytes(4096) if form else b"\xc0\x3b\x39\x98" + rnd.randbytes(4092)
        parts.append(record(sequence, sector & ~7, payload, clock=10**18 + sequence))
    done = asan.run(*infer(image, trace_of(tmp_path, *parts)), timeout=120)
    assert done.returncode in (0, DATAERR, UNSUPPORTED), (done.returncode, done.stderr)
    assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr


def test_the_image_is_only_read(tapwire, image, trace):
    """Same bytes and same time after a crawl and an inference."""
    before = os.stat(image).st_mtime_ns, _sum(image)
    for command in commands(image, trace):
        assert tapwire.run(*command).returncode == 0
    assert (os.stat(image).st_mtime_ns, _sum(image)) == before


def _sum(path):
    return subprocess.run(["sha256sum", path], stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("args", [
    ("crawl",), ("infer",), ("infer", "--disk", "x"), ("infer", "--trace", "x"),
    ("crawl", "--no-such-option"), ("no-such-command",)])
def test_usage(asan, args):
    done = asan.run(*args)
    assert done.returncode == USAGE
    assert done.stderr.startswith(b"tapwire") or done.stderr.startswith(b"Usage"), done.stderr
    assert done.stdout == b""
