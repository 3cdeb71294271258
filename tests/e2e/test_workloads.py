# SPDX-License-Identifier: BSD-3-Clause
"""Real workloads on a watched disk: at each sync in between and at the end, the events give what the
mount shows."""
import pytest

from lib import guestdisk, property, real

pytestmark = [pytest.mark.usefixtures("mountable"), pytest.mark.slow]

# (mkfs options, mount options), so that not all of them run on the same
LAYOUTS = {
    "sqlite": (("-J", "size=4"), ""),
    "git": (("-b", "1024", "-J", "size=8"), ""),
    "fio": ((), "data=writeback"),
    "rsync": (("-O", "^metadata_csum"), ""),
    "tar": ((), "data=journal"),
    "sources": (("-J", "size=8"), "nodelalloc"),
}


@pytest.mark.parametrize("work", real.WORKLOADS, ids=lambda work: work.__name__)
def test_workload(tapwire, memory, work, request):
    if work is real.debootstrap and not real.mirror():
        pytest.skip("apt knows of no Debian to install")
    scale = request.config.getoption("--scale")
    mkfs, options = LAYOUTS.get(work.__name__, ((), ""))
    image = memory / "disk.img"
    guestdisk.make_image(image, "%dG" % (2 * scale), mkfs)
    sources = memory / "sources"
    sources.mkdir()
    with guestdisk.GuestDisk(memory, image, plugin=tapwire.plugin, options=options) as disk:
        disk.sync("start")
        work(disk.root, disk.sync, str(sources), scale)
        disk.sync("end")
    property.check(tapwire, disk)
