# SPDX-License-Identifier: BSD-3-Clause
"""make install and uninstall, as a package's build calls them."""
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def make(build, tmp_path):
    def call(target):
        subprocess.run(["make", "-s", target, f"BUILD={build}", f"DESTDIR={tmp_path}", "PREFIX=/usr",
                        "NBDKIT_PLUGINDIR=/usr/lib/nbdkit/plugins"], cwd=ROOT, check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return call


def test_an_installation_has_all_and_uninstall_removes_it(make, tmp_path):
    make("install")
    usr = tmp_path / "usr"
    for program in ("bin/tapwire", "sbin/tapwired", "libexec/tapwire/tapwire-inspect",
                    "libexec/tapwire/tapwire-courier"):
        done = subprocess.run([usr / program, "--version"], stdin=subprocess.DEVNULL, check=True,
                              stdout=subprocess.PIPE, text=True)
        assert done.stdout.split()[0] == program.rpartition("/")[2]
    assert (usr / "lib/nbdkit/plugins/nbdkit-tapwire-plugin.so").exists()
    assert (tmp_path / "etc/xen/scripts/block-tapwire").stat().st_mode & 0o111
    assert {page.name for page in (ROOT / "man").glob("*.[1-8]")} == \
        {page.name for page in (usr / "share/man").rglob("*.*")}
    unit = (usr / "lib/systemd/system/tapwired.service").read_text()
    assert "ExecStart=/usr/sbin/tapwired --config /etc/tapwire/tapwire.conf\n" in unit
    assert "@" not in unit
    make("uninstall")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_sample_configuration_is_installed_and_good(make, build, tmp_path):
    make("install")
    sample = tmp_path / "usr/share/doc/tapwire/tapwire.conf.sample"
    subprocess.run([build / "tapwire", "check-config", sample], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_an_installed_serve_finds_its_programs(make, tmp_path):
    make("install")
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    libexec = tmp_path / "usr/libexec/tapwire"
    (libexec / "tapwire-courier").write_text("#!/bin/sh\necho found >&2\nexit 70\n")
    done = subprocess.run([tmp_path / "usr/bin/tapwire", "serve", image, "--state", tmp_path / "s"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (70, b"found\n")
