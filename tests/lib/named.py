# SPDX-License-Identifier: BSD-3-Clause
"""The named workloads: what people and programs do with files. Each takes the disk's mount and a
function sync(label) that may be called whenever nothing is being written."""
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile

from .calls import KEEP_SIZE, PUNCH_HOLE, RENAME_EXCHANGE, ZERO, fallocate, renameat2

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
}
DOC_BYTES = 48 << 20
DOC_FILES = 4000


def _run(*argv, cwd=None):
    done = subprocess.run(argv, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RuntimeError("%s: %s" % (" ".join(argv), done.stdout.decode(errors="replace")))


def write_file(path, data):
    with open(path, "wb") as file:
        file.write(data)


def generated_doc(root, seed=1):
    """A tree of the shape of /usr/share/doc: many small directories, mostly small files, links."""
    rnd = random.Random(seed)
    for package in range(400):
        directory = os.path.join(root, "package-%d" % package)
        os.makedirs(directory)
        for number in range(rnd.choice((2, 3, 4, 20))):
            write_file(os.path.join(directory, "file%d" % number),
                       rnd.randbytes(int(2 ** rnd.uniform(5, 16))))
        os.symlink("file0", os.path.join(directory, "README"))
        if package % 3 == 0:
            os.makedirs(os.path.join(directory, "examples"))
            write_file(os.path.join(directory, "examples", "a.c"), rnd.randbytes(500))


def _doc_archive(path):
    """An archive of /usr/share/doc, or of a tree like it where that is nearly empty."""
    listing, total = [], 0
    for directory, _, names in os.walk("/usr/share/doc"):
        for name in names:
            full = os.path.join(directory, name)
            total += os.lstat(full).st_size
            if total < DOC_BYTES and len(listing) < DOC_FILES:
                listing.append(os.path.relpath(full, "/usr/share/doc"))
    with tempfile.TemporaryDirectory() as scratch:
        source = "/usr/share/doc"
        if len(listing) < 1000:
            source = os.path.join(scratch, "doc")
            generated_doc(source)
            listing = ["."]
        names = os.path.join(scratch, "names")
        write_file(names, b"".join(os.fsencode(name) + b"\0" for name in listing))
        _run("tar", "-C", source, "--null", "-T", names, "-cf", path)


def doc(root, sync):
    """Unpacks /usr/share/doc and deletes it."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = os.path.join(scratch, "doc.tar")
        _doc_archive(archive)
        os.mkdir(root + "/doc")
        _run("tar", "-C", root + "/doc", "-xf", archive)
    sync("unpacked")
    _run("rm", "-r", root + "/doc")
    sync("deleted")


def git(root, sync):
    """git init, add, commit, and gc."""
    repo = root + "/repo"
    os.mkdir(repo)
    _run("git", "init", "-q", cwd=repo)
    sync("init")
    rnd = random.Random(7)
    for commit in range(8):
        for number in range(40):
            path = os.path.join(repo, "d%d" % (number % 7), "f%d" % rnd.randrange(60))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_file(path, b"%d\n" % commit * rnd.randint(1, 2000))
        _run("git", "add", "-A", cwd=repo)
        _run("git", "commit", "-q", "-m", "change %d" % commit, cwd=repo)
        if commit == 4:
            sync("commits")
    _run("git", "checkout", "-q", "-b", "side", "HEAD~3", cwd=repo)
    sync("checkout")
    _run("git", "gc", "-q", "--prune=now", cwd=repo)
    sync("gc")


def etc(root, sync):
    """cp -a /etc, twice: the second copy writes over the first."""
    _run("cp", "-a", "/etc", root + "/etc")
    sync("copied")
    _run("cp", "-a", "/etc/.", root + "/etc/.")
    sync("copied over")


def replace(root, sync):
    """Writes a new file, fsyncs it and renames it over the old one, 1,000 times."""
    rnd = random.Random(3)
    target = root + "/config"
    for number in range(1000):
        temporary = root + "/config.tmp%d" % (number % 3)
        with open(temporary, "wb") as file:
            file.write(rnd.randbytes(rnd.randint(1, 9000)))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
        if number % 250 == 249:
            sync("replaced %d times" % (number + 1))


def move(root, sync):
    """Moves a tree between directories, with and without a sync in between."""
    generated_doc(root + "/one/tree/deep", seed=5)
    os.makedirs(root + "/two/a/b")
    sync("made")
    os.rename(root + "/one/tree", root + "/two/a/b/moved")
    sync("moved")
    os.rename(root + "/two/a/b/moved", root + "/one/back")
    os.rename(root + "/one/back/deep/package-1", root + "/two/package")
    write_file(root + "/two/package/new", b"written at the new place")
    os.rename(root + "/two", root + "/one/back/two")
    sync("moved back")
    renameat2(root + "/one/back/deep/package-2", root + "/one/back/two", RENAME_EXCHANGE)
    write_file(root + "/plain", b"a file that changes places with a directory")
    renameat2(root + "/one/back/deep/package-3", root + "/plain", RENAME_EXCHANGE)
    sync("exchanged")
    # A name that its former directory's descendants now carry.
    os.rename(root + "/one/back/deep", root + "/deep")
    os.rename(root + "/one/back", root + "/deep/back")
    os.rmdir(root + "/one")
    os.rename(root + "/deep", root + "/one")
    sync("turned inside out")


def links(root, sync):
    """Hard links and symbolic links."""
    os.makedirs(root + "/l/m")
    for number in range(50):
        write_file(root + "/l/f%d" % number, b"x" * number * 100)
        os.link(root + "/l/f%d" % number, root + "/l/m/h%d" % number)
        os.symlink("../l/f%d" % number, root + "/l/s%d" % number)
        os.symlink("/" + "long/" * 30 + str(number), root + "/l/m/s%d" % number)
    os.link(root + "/l/s1", root + "/l/m/hard-link-of-a-symlink", follow_symlinks=False)
    sync("made")
    for number in range(50):
        if number % 2:
            os.unlink(root + "/l/f%d" % number)
        if number % 3 == 0:
            os.unlink(root + "/l/m/h%d" % number)
        if number % 5 == 0:
            os.unlink(root + "/l/s%d" % number)
            os.symlink("elsewhere", root + "/l/s%d" % number)
        else:
            os.rename(root + "/l/m/s%d" % number, root + "/l/moved%d" % number)
    sync("unlinked and moved")
    with open(root + "/l/m/h1", "ab") as file:
        file.write(b"through the name that is left")
    for number in range(2000):  # a link count beyond one byte
        os.link(root + "/l/m/h1", root + "/l/m/many%d" % number)
    sync("many")
    for number in range(2000):
        os.unlink(root + "/l/m/many%d" % number)
    os.rename(root + "/l/m/h1", root + "/l/f1")
    sync("few")


def attributes(root, sync):
    """chmod, chown, touch, setfattr, chattr; fifos, sockets and devices."""
    directory = root + "/a"
    os.mkdir(directory)
    names = [directory + "/f%d" % number for number in range(60)]
    for name in names:
        write_file(name, b"content")
    os.mkfifo(directory + "/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(directory):  # a socket's path has 107 bytes at most
            listener.bind("socket")
    os.mknod(directory + "/null", 0o20666, os.makedev(1, 3))
    os.mknod(directory + "/disk", 0o60660, os.makedev(259, 70000))
    sync("made")
    for number, name in enumerate(names):
        os.chmod(name, (0o600, 0o4755, 0o2644, 0o1777, 0)[number % 5])
        os.chown(name, number * 70000, number * 3)
        os.utime(name, ns=(0, (number - 30) * 10**17 // 7))
        os.setxattr(name, b"user.small", b"v" * number)
    sync("changed")
    large = min(2000, os.statvfs(root).f_bsize - 200)  # has to fit a block
    for number, name in enumerate(names):
        os.setxattr(name, b"user.large", bytes([number]) * large)
        if number % 2:
            os.removexattr(name, b"user.small")
    _run("setfattr", "-n", "user.dir", "-v", "x", directory)
    _run("chattr", "+d", names[0])
    os.chown(directory + "/fifo", 1, 2)
    os.chmod(directory, 0o2770)
    sync("extended attributes")
    for name in names[::3]:
        os.removexattr(name, b"user.large")
        os.unlink(name)
    sync("removed")


def truncate(root, sync):
    """Truncates and appends."""
    rnd = random.Random(11)
    os.mkdir(root + "/t")
    names = [root + "/t/log%d" % number for number in range(30)]
    for name in names:
        write_file(name, rnd.randbytes(rnd.randint(0, 100000)))
    sync("made")
    for turn in range(6):
        for name in names:
            size = os.path.getsize(name)
            form = rnd.randrange(4)
            if form == 0:
                os.truncate(name, rnd.randint(0, size))
            elif form == 1:
                os.truncate(name, size + rnd.choice((1, 511, 4096, 1 << 30)) if size < 1 << 31
                            else 0)
            else:
                with open(name, "ab") as file:
                    file.write(rnd.randbytes(rnd.choice((1, 100, 4096, 70000))))
        sync("turn %d" % turn)
    for name in names:  # a log rotation
        os.rename(name, name + ".1")
        write_file(name, b"")
    sync("rotated")


def holes(root, sync):
    """fallocate, punch hole, zero range, sparse files beyond 4 GiB."""
    rnd = random.Random(13)
    os.mkdir(root + "/h")
    for number in range(20):
        descriptor = os.open(root + "/h/f%d" % number, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(descriptor, rnd.randbytes(300000), 0)
        fallocate(descriptor, KEEP_SIZE if number % 2 else 0, 300000, 200000)
        if number % 5 == 0:
            os.pwrite(descriptor, b"far away", (5 + number) << 30)
        os.close(descriptor)
    sync("allocated")
    for number in range(20):
        descriptor = os.open(root + "/h/f%d" % number, os.O_RDWR)
        fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, rnd.randint(0, 250000), rnd.randint(1, 90000))
        fallocate(descriptor, ZERO | KEEP_SIZE, rnd.randint(0, 200000), rnd.randint(1, 50000))
        os.pwrite(descriptor, b"into what was allocated", 350000 + number)
        os.close(descriptor)
        if number == 10:
            sync("half of them")
    sync("punched")
    for number in range(0, 20, 2):
        descriptor = os.open(root + "/h/f%d" % number, os.O_RDWR)
        for offset in range(0, 300000, 8192):  # more holes than an inode holds extents
            fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, offset, 4096)
        os.close(descriptor)
    sync("perforated")


WORKLOADS = (doc, git, etc, replace, move, links, attributes, truncate, holes)
