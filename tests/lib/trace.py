# SPDX-License-Identifier: BSD-3-Clause
"""Traces, read and written without the product's code."""
import collections
import os
import struct

HEADER, RECORD = struct.Struct("<8sIIQ"), struct.Struct("<QQQII")
MAGIC = b"TWTRACE1"
SECTOR = 512
PAYLOAD, FLUSH, DISCARD, ZEROES, GAP = 1, 2, 4, 8, 16

Record = collections.namedtuple("Record", "sequence clock_ns sector count flags payload")


def header(size, magic=MAGIC, sector=SECTOR, zero=0):
    return HEADER.pack(magic, sector, zero, size)


def encode(record):
    return RECORD.pack(*record[:5]) + record.payload


def read(path):
    """Yields the records of a trace; raises on what breaks the format."""
    with open(path, "rb") as trace:
        magic, sector, zero, _size = HEADER.unpack(trace.read(HEADER.size))
        if (magic, sector, zero) != (MAGIC, SECTOR, 0):
            raise ValueError("no trace: %r" % ((magic, sector, zero),))
        while head := trace.read(RECORD.size):
            sequence, clock, first, count, flags = RECORD.unpack(head)
            payload = trace.read(count * SECTOR) if flags & PAYLOAD else b""
            if flags & PAYLOAD and len(payload) != count * SECTOR:
                raise ValueError("the trace ends in record %d" % sequence)
            yield Record(sequence, clock, first, count, flags, payload)


def write(path, size, records):
    """Writes a trace; sequences are counted anew from 1."""
    with open(path, "wb") as out:
        out.write(header(size))
        for number, record in enumerate(records, 1):
            out.write(encode(record._replace(sequence=number)))


def play(records, image):
    """Does to an image what the records say was done."""
    with open(image, "r+b") as disk:
        for record in records:
            if record.flags & PAYLOAD:
                data = record.payload
            elif record.flags & (DISCARD | ZEROES):
                data = bytes(record.count * SECTOR)
            else:
                continue
            os.pwrite(disk.fileno(), data, record.sector * SECTOR)
