# SPDX-License-Identifier: BSD-3-Clause
"""Pictures by gnuplot, as PNG and SVG."""
import subprocess

TERMINALS = {"png": "pngcairo size %d,%d font 'sans,14'",
             "svg": "svg size %d,%d font 'sans,16' background 'white'"}


def draw(out, name, script, size=(960, 640)):
    """Runs a script that plots; the picture goes to NAME.png and NAME.svg in the directory out."""
    for kind, terminal in TERMINALS.items():
        output = out / ("%s.%s" % (name, kind))
        head = "set terminal %s\nset output '%s'\n" % (terminal % size, output)
        subprocess.run(["gnuplot", "-"], input=head + script, text=True, check=True)
        print("drawn:", output)
