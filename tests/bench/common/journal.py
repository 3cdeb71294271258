# SPDX-License-Identifier: BSD-3-Clause
"""What a trace holds of a volume's journal."""
from lib import guestdisk
from lib import trace as traces

BLOCK = 4096
JBD2_MAGIC = b"\xc0\x3b\x39\x98"
COMMIT = JBD2_MAGIC + b"\0\0\0\2"


class Journal:
    """The blocks of an image's journal, which is made of blocks of 4 KiB."""

    def __init__(self, image):
        text = guestdisk.run("debugfs", "-R", "blocks <8>", image)
        self.blocks = {int(word) for word in text.splitlines()[-1].split()}

    def _log(self, record):
        """The first bytes of each log block that a record writes."""
        if not record.flags & traces.PAYLOAD:
            return
        first = record.sector * traces.SECTOR // BLOCK
        for i in range(record.count * traces.SECTOR // BLOCK):
            if first + i in self.blocks:
                yield record.payload[i * BLOCK:i * BLOCK + 8]

    def metadata(self, record):
        """How many metadata blocks a record puts into the journal. What has jbd2's magic is the
        journal's own; metadata that begins with it is escaped there."""
        return sum(head[:4] != JBD2_MAGIC for head in self._log(record))

    def commits(self, record):
        """How many transactions a record ends."""
        return sum(head == COMMIT for head in self._log(record))
