# SPDX-License-Identifier: BSD-3-Clause
"""What the demo's guest has on its disk, and what it does there. Each step is a caption and a
function of the disk's root that does it with ordinary system calls; the recorded demo does the
same steps with debugfs."""
import os
import tarfile

MOTD = "Welcome to the machine.\n"
NEW_MOTD = "Welcome to the machine. Maintenance on Sunday.\n"
LOG_LINES = "".join("Jan  1 00:00:%02d guest daemon[42]: all is well\n" % n for n in range(40))
LOG_MORE = "".join("Jan  1 00:01:%02d guest sshd[99]: session opened\n" % n for n in range(5))
ARCHIVE = {
    "app/README": "An application.\n",
    "app/bin/run": "#!/bin/sh\necho running\n",
    "app/conf/app.ini": "[app]\nport = 8080\n",
    "app/conf/users": "alice\nbob\n",
    "app/www/index.html": "<title>app</title>\n" * 200,
    "app/www/logo.svg": "<svg/>\n" * 1000,
}


def make_tree(root):
    """The files that are there before anyone watches."""
    for name in ("etc", "var/log", "srv", "home/alice"):
        os.makedirs(os.path.join(root, name))
    write(root, "etc/motd", MOTD)
    write(root, "etc/hosts", "127.0.0.1 localhost\n")
    write(root, "var/log/messages", LOG_LINES)
    write(root, "home/alice/notes", "buy milk\n" * 50)


def make_archive(directory):
    """A tar file of ARCHIVE, outside the guest's disk."""
    path = os.path.join(directory, "app.tar")
    with tarfile.open(path, "w") as tar:
        for name, text in ARCHIVE.items():
            source = os.path.join(directory, "member")
            write(directory, "member", text)
            tar.add(source, name)
            os.unlink(source)
    return path


def write(root, name, text, mode="w"):
    with open(os.path.join(root, name), mode, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def steps(archive):
    """(caption, function) in the order in which they are done."""
    def edit(root):
        write(root, "etc/motd.new", NEW_MOTD)
        os.rename(os.path.join(root, "etc/motd.new"), os.path.join(root, "etc/motd"))

    def append(root):
        write(root, "var/log/messages", LOG_MORE, "a")

    def unpack(root):
        with tarfile.open(archive) as tar:
            tar.extractall(os.path.join(root, "srv"))

    def rename(root):
        os.rename(os.path.join(root, "srv/app"), os.path.join(root, "srv/app-1.0"))
        os.symlink("app-1.0", os.path.join(root, "srv/app"))

    def protect(root):
        os.chmod(os.path.join(root, "srv/app-1.0/conf/users"), 0o600)

    def remove(root):
        os.unlink(os.path.join(root, "home/alice/notes"))
        os.unlink(os.path.join(root, "srv/app"))

    return [
        ("edit /etc/motd, as an editor does: write a new file, rename it over the old one", edit),
        ("append five lines to /var/log/messages", append),
        ("unpack an archive below /srv", unpack),
        ("rename the directory /srv/app, link to it", rename),
        ("chmod 600 /srv/app-1.0/conf/users", protect),
        ("delete /home/alice/notes and the link", remove),
    ]
