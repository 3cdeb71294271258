# SPDX-License-Identifier: BSD-3-Clause
"""Real workloads: what administrators and their programs do to a disk. Each is called with the disk's
mount, a function sync(label) that may be called whenever nothing is being written, a scratch directory
outside the disk, and a scale: 1 is seconds of work."""
import concurrent.futures
import contextlib
import io
import os
import random
import signal
import sqlite3
import subprocess
import tarfile
import time

from . import named
from .guestdisk import run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GIT = {**named.ENVIRONMENT, "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "safe.directory",
       "GIT_CONFIG_VALUE_0": "*", "GIT_CONFIG_KEY_1": "gc.autoDetach", "GIT_CONFIG_VALUE_1": "false"}


# --- packages ---

def mirror():
    """(release, address) of the Debian that apt is set up for, or None."""
    try:
        lines = run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI) $(COMPONENT)",
                    "Created-By: Packages").splitlines()
    except (OSError, RuntimeError):
        return None
    for line in lines:
        release, address, component = line.split()
        if component == "main" and "-" not in release:
            return release, address
    return None


def debootstrap(root, sync, _scratch, _scale):
    """A Debian system; then packages are unpacked again, removed and purged."""
    release, address = mirror()
    target = root + "/debian"
    # A mount namespace of its own: what it mounts goes with it.
    run("unshare", "-m", "debootstrap", "--variant=minbase", release, target, address,
        env={**named.ENVIRONMENT, **_proxies()})
    sync("installed")
    inside = ("unshare", "-m", "chroot", target)
    cache = target + "/var/cache/apt/archives"
    again = [name for name in sorted(os.listdir(cache)) if name.startswith(("tzdata", "tar_", "grep"))]
    run(*inside, "dpkg", "-i", "--force-all", *("/var/cache/apt/archives/" + name for name in again),
        env=named.ENVIRONMENT)
    sync("installed again")
    run(*inside, "dpkg", "--purge", "--force-all", "tzdata", env=named.ENVIRONMENT)
    run(*inside, "apt-get", "clean", env=named.ENVIRONMENT)
    sync("purged")


def _proxies():
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def _make_package(scratch, name, version, files, seed):
    """A .deb with a conffile and some files; returns its path."""
    rnd = random.Random(seed)
    tree = os.path.join(scratch, "%s-%d" % (name, version))
    os.makedirs(tree + "/DEBIAN")
    os.makedirs(tree + "/etc")
    named.write_file(tree + "/DEBIAN/control", (
        "Package: %s\nVersion: %d\nArchitecture: all\nMaintainer: A <a@example.org>\n"
        "Description: made by a test\n" % (name, version)).encode())
    named.write_file(tree + "/DEBIAN/conffiles", b"/etc/%s.conf\n" % name.encode())
    named.write_file(tree + "/etc/%s.conf" % name, b"version = %d\n" % version)
    for number in range(files):
        directory = tree + "/usr/share/%s/d%d" % (name, number % 7)
        os.makedirs(directory, exist_ok=True)
        named.write_file(directory + "/f%d" % (number + version * 3), rnd.randbytes(
            int(2 ** rnd.uniform(3, 15))))
    os.symlink("d0", tree + "/usr/share/%s/latest" % name)
    run("dpkg-deb", "-b", "--root-owner-group", tree, tree + ".deb")
    return tree + ".deb"


def dpkg(root, sync, scratch, scale):
    """Packages are installed, upgraded, removed and purged."""
    packages = [[_make_package(scratch, "made%d" % number, version, 60, number * 10 + version)
                 for version in (1, 2)] for number in range(8 * scale)]
    for directory in ("updates", "info", "triggers"):
        os.makedirs(root + "/var/lib/dpkg/" + directory)
    named.write_file(root + "/var/lib/dpkg/status", b"")
    named.write_file(root + "/var/lib/dpkg/available", b"")
    tool = ("dpkg", "--root=" + root, "--force-not-root", "--force-confnew")
    run(*tool, "-i", *(old for old, _ in packages))
    sync("installed")
    for _, new in packages:
        run(*tool, "-i", new)
    sync("upgraded")
    run(*tool, "-r", "made0", "made1", "made2")
    run(*tool, "--purge", "made0", "made3")
    sync("removed")


# --- version control ---

def _history(commits, seed):
    """A stream for git fast-import: many small changes to many files."""
    rnd = random.Random(seed)
    for commit in range(1, commits + 1):
        yield b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 2\nm\n" % (
            1700000000 + commit)
        for _ in range(40):
            data = b"%d %d\n" % (commit, rnd.randrange(1 << 30)) * rnd.randint(1, 120)
            name = b"d%d/e%d/f%d" % (rnd.randrange(40), rnd.randrange(10), rnd.randrange(20))
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(data), data)


def git(root, sync, scratch, scale):
    """Clones the project's own repository and a large one, works in it, and collects garbage."""
    def tool(*args, cwd=root, **kwargs):
        subprocess.run(("git", *args), cwd=cwd, env=GIT, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, **kwargs)
    if os.path.exists(ROOT + "/.git"):
        tool("clone", "-q", "--no-hardlinks", ROOT, root + "/own")
        sync("own cloned")
    origin = os.path.join(scratch, "origin.git")
    tool("init", "-q", "--bare", "-b", "main", origin)
    tool("fast-import", "--quiet", cwd=origin, input=b"".join(_history(250 * scale, 3)))
    clone = root + "/large"
    tool("clone", "-q", origin, clone)
    sync("large cloned")
    for turn in range(3):
        tool("checkout", "-q", "-b", "side%d" % turn, "main~%d" % (50 * (turn + 1)), cwd=clone)
        named.write_file(clone + "/new%d" % turn, b"new\n" * 1000)
        tool("add", "-A", cwd=clone)
        tool("commit", "-q", "-m", "side", cwd=clone)
        tool("merge", "-q", "-X", "theirs", "main", "-m", "merge", cwd=clone)
        sync("merged %d" % turn)
    tool("branch", "-q", "-D", "side0", cwd=clone)
    tool("reflog", "expire", "--expire=now", "--all", cwd=clone)
    tool("gc", "-q", "--prune=now", cwd=clone)
    sync("collected")
    if os.path.exists(root + "/own"):
        tool("gc", "-q", "--prune=now", cwd=root + "/own")
        run("rm", "-r", root + "/own")


# --- databases ---

def _transactions(path, mode, seed, count):
    """One connection's work."""
    rnd = random.Random(seed)
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute("PRAGMA journal_mode=" + mode)
    database.execute("PRAGMA synchronous=" + rnd.choice(("NORMAL", "FULL")))
    for _ in range(count):
        database.execute("BEGIN IMMEDIATE")
        for _ in range(rnd.randint(1, 20)):
            key = rnd.randrange(2000)
            if rnd.random() < 0.25:
                database.execute("DELETE FROM t WHERE k = ?", (key,))
            else:
                database.execute("INSERT OR REPLACE INTO t VALUES (?, ?)",
                                 (key, rnd.randbytes(int(2 ** rnd.uniform(3, 14)))))
        database.execute(rnd.choices(("COMMIT", "ROLLBACK"), (6, 1))[0])
    database.close()


def sqlite(root, sync, _scratch, scale):
    """Databases in every journal mode, each with several connections at once, then vacuumed."""
    for mode in ("WAL", "DELETE", "TRUNCATE", "PERSIST"):
        path = "%s/%s.db" % (root, mode.lower())
        keeper = sqlite3.connect(path, isolation_level=None)
        keeper.execute("PRAGMA journal_mode=" + mode)
        keeper.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
        for turn in range(2):
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda seed, path=path, mode=mode: _transactions(
                    path, mode, seed, 25 * scale), range(turn * 4, turn * 4 + 4)))
            sync("%s %d" % (mode, turn))
        keeper.execute("DELETE FROM t WHERE k % 3 = 0")
        keeper.execute("VACUUM")
        sync(mode + " vacuumed")
        keeper.close()


# --- loads ---

# Each a fio job; two at a time.
FIO = (
    "--rw=randwrite --bs=4k --fsync=64", "--rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8",
    "--rw=write --bs=64k --fallocate=posix --end_fsync=1", "--rw=write --bs=64k --fallocate=keep --direct=1",
    "--rw=write --bs=128k --fallocate=truncate", "--rw=randrw --bs=512-32k --bs_unaligned=1 --fallocate=none",
    "--rw=randwrite --bs=4k --ioengine=mmap", "--rw=randwrite --bs=1k-64k --nrfiles=40 --fdatasync=32",
    "--rw=randwrite --bs=16k --sync=1 --io_size=1m", "--rw=write --bs=4k --ioengine=falloc",
    "--rw=randtrim --bs=4k --ioengine=falloc", "--rw=randread --bs=4k --ioengine=falloc",
    "--rw=randwrite --bs=4k --ioengine=ftruncate", "--rw=randwrite --bs=64k --ioengine=vsync",
)


def fio(root, sync, _scratch, scale):
    """Random and sequential, direct, mapped and buffered, into holes and into what is allocated."""
    def job(number):
        directory = "%s/fio%d" % (root, number // 2 % 3)
        os.makedirs(directory, exist_ok=True)
        run("fio", "--directory=" + directory, "--name=job%d" % (number % 2), "--size=%dm" % (6 * scale),
            "--randseed=%d" % number, "--output-format=terse", "--output=/dev/null", *FIO[number].split())
    for first in range(0, len(FIO), 2):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(job, (first, first + 1)))
        sync("jobs %d and %d" % (first, first + 1))
    run("e4defrag", root)
    sync("defragmented")


# Without those that reach beyond the disk: io syncs the whole machine, iomix drops its caches.
STRESSORS = (
    "access chattr chdir chmod chown copy-file", "dentry dir dirdeep dirmany dnotify dup",
    "fallocate fcntl fiemap file-ioctl filename fpunch", "fsize fstat getdent handle hdd inode-flags",
    "inotify lease link lockf", "mknod open rename symlink sync-file touch",
    "utime xattr rename link dentry fallocate",
)
LIMITS = ("--hdd-bytes", "8m", "--fallocate-bytes", "32m", "--copy-file-bytes", "128m",
          "--dirdeep-bytes", "1m", "--dirdeep-inodes", "2000", "--dir-dirs", "500",
          "--chdir-dirs", "300", "--sync-file-bytes", "8m", "--dentries", "800", "--fiemap-bytes", "8m")


def _kill_session(leader):
    """SIGKILL for a process and all that it started, also for what is being forked just now."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)
        leader.poll()
        found = subprocess.run(["pgrep", "-s", str(leader.pid)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        alive = [int(pid) for pid in found.stdout.split()]
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    raise AssertionError("stress-ng does not die: %s" % alive)


def stress_ng(root, sync, _scratch, scale):
    """stress-ng's stressors of file systems, some at once; in the middle of their work they are killed, so
    that what they were about to remove stays."""
    for number, names in enumerate(STRESSORS):
        where = "%s/stress%d" % (root, number)
        os.mkdir(where)
        argv = ["stress-ng", "--temp-path", where, "--seed", str(number + 1), "--timeout", "60s", *LIMITS]
        for name in names.split():
            argv += ["--" + name, "1"]
        stress = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            time.sleep(1.5 * scale)
            assert stress.poll() is None, "stress-ng ended by itself: " + " ".join(argv)
        finally:
            _kill_session(stress)
        sync(names)
        subprocess.run(["chattr", "-R", "-f", "-ia", where], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        run("rm", "-r", where)
    sync("removed")


# --- trees ---

def rsync(root, sync, scratch, _scale):
    """A tree is kept in step with one that changes."""
    source, target = os.path.join(scratch, "source"), root + "/copy"
    named.generated_doc(source, seed=8)
    rnd = random.Random(8)
    run("rsync", "-aHAX", source + "/", target)
    sync("copied")
    for turn, options in enumerate((["--delete"], ["--inplace", "--no-whole-file"], ["--delete", "--backup"],
                                    ["--delete-after", "--delay-updates"])):
        for package in rnd.sample(range(400), 60):
            directory = source + "/package-%d" % package
            form = rnd.randrange(4)
            if form == 0 and os.path.exists(directory):
                run("rm", "-r", directory)
                continue
            os.makedirs(directory, exist_ok=True)
            if form == 1:
                os.rename(directory, directory + "-moved-%d" % turn)
            elif form == 2:
                named.write_file(directory + "/new%d" % turn, rnd.randbytes(rnd.randint(1, 50000)))
            else:
                with open(directory + "/file0", "ab") as file:
                    file.write(rnd.randbytes(rnd.randint(1, 3000)))
        run("rsync", "-aHAX", *options, source + "/", target)
        sync("in step, " + " ".join(options))


def tar(root, sync, scratch, _scale):
    """Archives of all formats: unpacked, unpacked over, appended to on the disk, unpacked with holes and
    attributes."""
    source = os.path.join(scratch, "source")
    named.generated_doc(source, seed=9)
    with open(source + "/sparse", "wb") as sparse:
        for at in range(0, 40 << 20, 5 << 20):
            sparse.seek(at)
            sparse.write(b"not a hole")
    os.link(source + "/package-1/file0", source + "/package-2/link")
    os.setxattr(source + "/package-3", b"user.tar", b"x" * 300)
    for form in ("gnu", "pax", "ustar"):
        target = "%s/%s" % (root, form)
        os.mkdir(target)
        options = ["--xattrs"] if form == "pax" else ["-S"] if form == "gnu" else []
        run("tar", "-C", source, "--format=" + form, *options, "-cf", root + "/archive.tar", ".")
        run("tar", "-C", target, *options, "-xf", root + "/archive.tar")
        sync(form)
    run("tar", "-C", source, "-rf", root + "/archive.tar", "package-5", "package-6")
    run("tar", "-C", root + "/gnu", "--recursive-unlink", "-xf", root + "/archive.tar")
    sync("over it")
    run("tar", "-C", root + "/pax", "--overwrite", "-xf", root + "/archive.tar")
    run("tar", "-C", root, "--remove-files", "-cf", root + "/moved.tar", "ustar")
    sync("moved into an archive")


def _source_archive(path, files, seed):
    """An archive of the shape of a kernel's source."""
    rnd = random.Random(seed)
    noise = rnd.randbytes(1 << 20)
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            name = "linux/%s/%s/file%d.%s" % (rnd.choice(("drivers", "fs", "arch", "include", "net")),
                                              "sub%d/part%d" % (rnd.randrange(40), rnd.randrange(8)),
                                              number, rnd.choice("cchS"))
            entry = tarfile.TarInfo(name)
            entry.size = int(2 ** rnd.uniform(5, 13.5))
            entry.mtime, entry.mode = 1700000000 + number, 0o644
            start = rnd.randrange(len(noise) - entry.size)
            archive.addfile(entry, io.BytesIO(noise[start:start + entry.size]))


def sources(root, sync, scratch, scale):
    """20,000 files are unpacked, built from, and deleted."""
    archive = os.path.join(scratch, "sources.tar")
    _source_archive(archive, 20000 * scale, 6)
    run("tar", "-C", root, "-xf", archive)
    sync("unpacked")
    run("cp", "-al", root + "/linux/fs", root + "/linux/fs.orig")
    for directory, _, names in os.walk(root + "/linux/fs"):
        for name in names[::3]:
            path = os.path.join(directory, name)
            named.write_file(path + ".new", b"patched\n" * 100)
            os.rename(path + ".new", path)
        for name in names[1::3]:
            named.write_file(os.path.join(directory, name + ".o"), b"\x7fELF" * 700)
    sync("patched and built")
    run("rm", "-r", root + "/linux")
    sync("deleted")


WORKLOADS = (debootstrap, dpkg, git, sqlite, fio, stress_ng, rsync, tar, sources)
