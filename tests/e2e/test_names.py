# SPDX-License-Identifier: BSD-3-Clause
"""Names and targets of any bytes, through the encoder and back through Python's own JSON and UTF-8."""
import base64
import json
import os
import random
import subprocess

import pytest

from lib import guestdisk

PIECES = [b"a", b"name", b"0123456789abcdef", b" ", b'"', b"\\", b"\n", b"\r\t\b\f", b"\x01", b"\x1f",
          b"\x7f", "é".encode(), "€".encode(), "😀".encode(), b"\x80", b"\xff", b"\xc3", b"\xe2\x82",
          b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"'%s<&>"]


def odd_bytes(rnd, limit):
    wanted = rnd.randint(1, rnd.choice((4, 20, limit)))
    made = b""
    while len(made) < wanted:
        made += rnd.choice(PIECES) if rnd.random() < 0.9 else bytes([rnd.randrange(1, 256)])
    return made[:limit].replace(b"/", b"-") or b"x"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A directory with 1,500 files and 500 symlinks: path to target, or None; and its image."""
    rnd = random.Random(5)
    base = tmp_path_factory.mktemp("names")
    root, image = os.fsencode(base / "tree"), base / "disk.img"
    os.mkdir(root)
    made = {}
    while len(made) < 2000:
        name = odd_bytes(rnd, 255)
        path = os.path.join(root, name)
        if name in (b".", b"..", b"lost+found") or b"/" + name in made:
            continue
        target = odd_bytes(rnd, 1000) if len(made) % 4 == 0 else None
        if target is None:
            with open(path, "wb"):
                pass
        else:
            os.symlink(target, path)
        made[b"/" + name] = target
    guestdisk.make_image(image, "64M", ["-N", 4096, "-d", base / "tree"])
    return made, image


def whole(entry, key):
    """The bytes behind a key: those in base64, else the text's; and the text is what Python makes of them."""
    text, encoded = entry[key], entry.get(key + "_b64")
    if encoded is None:
        return text.encode()
    raw = base64.b64decode(encoded, validate=True)
    with pytest.raises(UnicodeDecodeError):
        raw.decode()
    assert text == raw.decode(errors="replace")
    return raw


def test_any_bytes_come_back_through_json(build, tree):
    made, image = tree
    out = subprocess.run([build / "tapwire", "crawl", image], stdout=subprocess.PIPE, check=True).stdout
    assert out.endswith(b"\n")
    found = {}
    for line in out.split(b"\n")[:-1]:
        entry = json.loads(line.decode())
        found[whole(entry, "path")] = whole(entry, "target") if "target" in entry else None
    for path in (b"/", b"/lost+found"):
        del found[path]
    assert found == made
