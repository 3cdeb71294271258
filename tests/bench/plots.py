#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The two plots of the thesis that tapwire comes from: crawl time against used space, and against
used inodes.

Used space varies with the size of the files, their number being the same; used inodes vary with the
number of small files (one block each). Lines: tapwire and what else walks such a volume, each the
median of interleaved rounds, with everything in the page cache. Draws crawl-space and crawl-inodes
as PNG and SVG with gnuplot, into the directory bench of the build, where the points are, too. Needs
root. Takes about three minutes.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "common"))
import contestants  # noqa: E402
import drawing  # noqa: E402
import measure  # noqa: E402
from lib import guestdisk  # noqa: E402

STEPS = 5
LARGEST = 640 << 10  # bytes of a file in the plot of used space
LINES = [("tapwire", contestants.OURS), ("fls -r -m /", contestants.FLS),
         ("e2fsck -fn", contestants.FSCK), ("find on a warm mount", contestants.FIND),
         ("libext2fs scan", contestants.SCAN)]
SCRIPT = """\
set title '{title}'
set xlabel '{xlabel}'
set ylabel 'crawl time (s)'
set key top left
set grid
set xrange [0:*]
set yrange [0:*]
set style data linespoints
set linetype 1 linecolor rgb '#c02020' linewidth 3 pointtype 7
set datafile missing '-'
plot {lines}
"""


class Plots:
    """Measures points, and draws them."""

    def __init__(self, directory, out, rounds):
        self.figures = measure.Figures("plots")
        self._directory = directory
        self._out = out
        self._rounds = rounds
        self._programs = contestants.Contestants(directory)

    def _point(self, volume):
        """Used inodes and bytes, and median seconds by contestant."""
        with guestdisk.mounted(volume.image, self._directory / "mounted", "ro,noload",
                               readonly=True) as root:
            tasks = {contestants.OURS: self._programs.infer(volume.image),
                     **self._programs.others(volume.image, root)}
            measure.interleaved(1, tasks)  # warms the caches
            results = measure.interleaved(self._rounds, tasks)
        inodes, used = volume.used()
        return inodes, used, {name: measure.median(run.wall for run in runs)
                              for name, runs in results.items()}

    def inodes(self, most):
        """Points of a volume that gets fuller and fuller with files of one block."""
        volume = contestants.Volume(self._directory, most + STEPS * contestants.DIRECTORIES,
                                    most * contestants.BLOCK)
        points = []
        for step in range(STEPS):
            volume.fill(most // STEPS, 1, "part-%d" % step)
            inodes, _, seconds = self._point(volume)
            points.append((inodes, seconds))
        volume.remove()
        self._draw("crawl-inodes", "Crawl time, files of 4 KiB", "used inodes (thousands)",
                   [(inodes / 1e3, seconds) for inodes, seconds in points])

    def space(self, files):
        """Points of volumes of the same size with as many files each, which are larger each time."""
        points = []
        for step in range(STEPS):
            blocks = LARGEST // contestants.BLOCK * step // (STEPS - 1)
            volume = contestants.Volume(self._directory, files, files * LARGEST)
            volume.fill(files, blocks)
            _, used, seconds = self._point(volume)
            points.append((used, seconds))
            volume.remove()
        self._draw("crawl-space", "Crawl time, %d files" % files, "used space (GiB)",
                   [(used / (1 << 30), seconds) for used, seconds in points])

    def _draw(self, name, title, xlabel, points):
        lines = [(label, contestant) for label, contestant in LINES if contestant in points[0][1]]
        rows = [("%.2f" % x, *("%.3f" % seconds[contestant] for _, contestant in lines))
                for x, seconds in points]
        measure.table(title, (xlabel, *(label for label, _ in lines)), rows)
        for x, seconds in points:
            for label, contestant in lines:
                self.figures.add("%s.%s" % (name, label.split()[0]), seconds[contestant], "s",
                                 x=float("%.4g" % x), per=xlabel)
        data = self._out / (name + ".dat")
        data.write_text("# %s: %s\n" % (xlabel, ", ".join(label for label, _ in lines))
                        + "".join(" ".join(row) + "\n" for row in rows))
        plotted = ", ".join("'%s' using 1:%d title '%s' noenhanced" % (data, column, label)
                            for column, (label, _) in enumerate(lines, 2))
        drawing.draw(self._out, name, SCRIPT.format(title=title, xlabel=xlabel, lines=plotted))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1000000,
                        help="of the last point of used inodes; a tenth of it in used space")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="directory for the plots, instead of the build's")
    parser.add_argument("--quick", action="store_true",
                        help="small volumes once, to see it work; their plots are thrown away")
    args = parser.parse_args()
    if args.quick:
        args.files, args.rounds = 20000, 1
    reason = guestdisk.missing()
    if reason:
        sys.exit("plots: cannot make a volume here: " + reason)
    measure.setup()
    if not measure.present("gnuplot"):
        sys.exit("plots: gnuplot is not installed")
    with measure.scratch() as directory:
        out = measure.output(args.out or (directory / "plots" if args.quick else None))
        plots = Plots(directory, out, args.rounds)
        plots.space(max(2000, args.files // 10))
        plots.inodes(args.files)
    print()
    plots.figures.print()


if __name__ == "__main__":
    main()
