#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Puts the tables of the last `make bench` into docs/benchmarks.md: fill.py DIRECTORY FILE, with the
directory bench of the build. Behind a line

    <!-- NAME: TITLE -->

comes the table of NAME.txt whose title begins so, in place of the indented lines there. What the text
says of the figures is for somebody to write.
"""
import pathlib
import re
import sys


def table(directory, name, title):
    """The lines of a table, with its title; exits when there is none."""
    path = pathlib.Path(directory) / (name + ".txt")
    if not path.exists():
        print("left as it is, no %s: %s" % (path, title))
        return None
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line.rstrip() for line in block.splitlines()]
        if lines and lines[0].startswith(title):
            return [lines[0]] + [line for line in lines[1:] if line.startswith("  ")]
    sys.exit("%s has no table '%s'" % (path, title))


def filled(text, directory):
    def replaced(match):
        lines = table(directory, match["name"], match["title"])
        if lines is None:
            return match[0]
        return match["mark"] + "\n" + "".join("    %s\n" % line for line in lines) + "\n"
    return re.sub(r"(?P<mark><!-- (?P<name>\w+): (?P<title>.+?) -->\n)\n(?:(?: {4}.*\n)+\n)?",
                  replaced, text)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[2])
    path.write_text(filled(path.read_text(encoding="utf-8"), sys.argv[1]), encoding="utf-8")


if __name__ == "__main__":
    main()
