# SPDX-License-Identifier: BSD-3-Clause
"""What a receiver makes of the content in events: each file rebuilt byte by byte."""
import base64
import os


class Wrong(AssertionError):
    pass


class File:
    """Its bytes, and which of them have been told of as missing and have not come yet."""

    def __init__(self):
        self.data = bytearray()
        self.missing = bytearray()  # 1: that byte

    def resize(self, size):
        for array in (self.data, self.missing):
            del array[size:]
            array.extend(bytes(size - len(array)))

    def put(self, offset, data):
        end = offset + len(data)
        if end > len(self.data):
            raise Wrong("content up to %d of a file of %d" % (end, len(self.data)))
        self.data[offset:end] = data
        self.missing[offset:end] = bytes(len(data))

    def lack(self, offset, length):
        self.missing[offset:offset + length] = b"\1" * len(self.missing[offset:offset + length])


def piece_bytes(piece):
    if "text" in piece:
        return piece["text"].encode()
    if "base64" in piece:
        return base64.b64decode(piece["base64"], validate=True)
    return bytes(piece["zeroes"])


class Contents:
    """Files by inode and generation, from events whose content is wanted from the first one on."""

    def __init__(self):
        self.files = {}
        self.events = 0   # with content
        self.missing = 0  # with content that was missing
        self.left_out = 0

    def apply(self, event):
        """Returns the file that the event has changed, or None."""
        data, kind = event["data"], event["type"].rpartition(".")[2]
        if data.get("kind") != "file":
            return None
        key = data["inode"], data["generation"]
        if kind == "deleted":
            self.files.pop(key, None)
            return None
        file = self.files.setdefault(key, File())
        if kind == "created" or (data.get("content_whole") and not data.get("content_missing")):
            file.resize(0)
        if kind in ("created", "modified", "truncated") or "content" in data:
            file.resize(data["size"])
        if "content" not in data:
            return file
        self.events += 1
        self.missing += "content_missing" in data
        self.left_out += "content_left_out" in data
        if any("encrypted" in part for part in data):
            raise Wrong("content of an encrypted file")
        end = 0
        for piece in data["content"]:
            if piece["offset"] < end:
                raise Wrong("pieces overlap: %r" % event)
            part = piece_bytes(piece)
            file.put(piece["offset"], part)
            end = piece["offset"] + len(part)
        for offset, length in data.get("content_missing", ()):
            file.lack(offset, length)
        return file

    def check(self, root):
        """Every file below root that was made, or written to, since is what it is on the mount."""
        found = 0
        for where, _, names in os.walk(root):
            for name in names:
                path = os.path.join(where, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                found += self._check_file(path, os.stat(path).st_ino)
        return found

    def _check_file(self, path, ino):
        ours = [file for (number, _), file in self.files.items() if number == ino]
        if len(ours) != 1:
            raise Wrong("%s: %d files with its inode" % (path, len(ours)))
        with open(path, "rb") as file:
            real = file.read()
        mine = ours[0]
        if any(mine.missing):
            raise Wrong("%s: %d bytes are still missing, from %d on" % (
                path, sum(mine.missing), mine.missing.index(1)))
        if mine.data != real:
            at = next((i for i, (a, b) in enumerate(zip(mine.data, real)) if a != b), min(len(mine.data), len(real)))
            raise Wrong("%s: %d bytes, on the mount %d; they differ from %d on: %r, %r" % (
                path, len(mine.data), len(real), at, bytes(mine.data[at:at + 40]), real[at:at + 40]))
        return 1
