# SPDX-License-Identifier: BSD-3-Clause
"""The processes behind `tapwire serve` and tapwired: their order, their deaths, their end. The
inspector here is a stand-in that logs what happens to it, unless a test asks for the real one."""
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest

from lib import guestdisk

FEED = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "receiver", "feed.py")
STAND_IN = """#!/usr/bin/python3
import os, signal, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def log(text):
    with open(os.environ["STAND_IN_LOG"], "a") as file:
        file.write(text + "\\n")
def stop(*_):
    log("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
log("start ring=%d" % os.path.exists(options["--ring"]))
if os.path.exists(os.environ["STAND_IN_LOG"] + ".fail"):
    print("tapwire-inspect: this disk is no good", file=sys.stderr)
    sys.exit(65)
while os.path.exists(os.environ["STAND_IN_LOG"] + ".wait"):
    time.sleep(0.01)
log("ready")
os.write(int(options["--ready-fd"]), b"ready\\n")
while True:
    signal.pause()
"""


class Bench:
    """A directory of programs with a stand-in for the inspector, an image, and a state directory."""

    def __init__(self, build, directory):
        self.programs = directory / "programs"
        self.state = directory / "state"
        self.image = directory / "disk.img"
        self.log = directory / "log"
        self.programs.mkdir()
        for name in ("tapwire", "tapwired", "tapwire-courier", "nbdkit-tapwire-plugin.so"):
            shutil.copy(build / name, self.programs)
        inspector = self.programs / "tapwire-inspect"
        inspector.write_text(STAND_IN)
        inspector.chmod(0o755)
        with open(self.image, "wb") as image:
            image.truncate(8 << 20)
        self.env = {**os.environ, "STAND_IN_LOG": str(self.log)}

    def real_inspector(self, build):
        (self.programs / "tapwire-inspect").unlink()
        shutil.copy(build / "tapwire-inspect", self.programs)

    def flag(self, name, on=True):
        path = self.log.with_name("log." + name)
        path.touch() if on else path.unlink()

    def start(self, *argv, program="tapwire"):
        if program == "tapwire":
            argv = ("serve", self.image, "--state", self.state, *argv)
        return subprocess.Popen([self.programs / program, *map(str, argv)], env=self.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True)

    def logged(self):
        return self.log.read_text().split("\n")[:-1] if self.log.exists() else []

    def status(self, directory=None):
        done = subprocess.run([self.programs / "tapwire", "status", "--json", "--state",
                               directory or self.state], stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def pids(self):
        service = self.status()["service"]
        pids = {name: child["pid"] for name, child in service["disks"][0]["processes"].items()}
        return {**pids, "tapwire-courier": service["courier"]["pid"]}

    def left(self):
        """Processes that still have one of this bench's paths on their command line."""
        return guestdisk.left_below(self.programs.parent)


@pytest.fixture
def bench(build, scratch):
    made = Bench(build, scratch)
    yield made
    guestdisk.wait_until(lambda: not made.left(), 5)
    left = made.left()
    for line in left:  # a failure of one test is none of the next
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    assert not left


@contextlib.contextmanager
def running(proc):
    try:
        yield proc
    finally:
        if proc.poll() is None:
            proc.terminate()
        try:
            proc.wait(timeout=30)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
        proc.stdout.close()
        proc.stderr.close()


def ready_line(proc, seconds=30):
    readable, _, _ = select.select([proc.stdout], [], [], seconds)
    return proc.stdout.readline().decode() if readable else None


def can_connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            return True
        except OSError:
            return False


def nbd_size(path):
    return int(subprocess.run(["nbdinfo", "--size", f"nbd+unix:///?socket={path}"], check=True,
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout)


def test_one_line_tells_when_clients_may_connect(bench):
    with running(bench.start()) as serve:
        nbd = bench.state / "nbd.sock"
        assert ready_line(serve) == f"ready: nbd+unix:///?socket={nbd}\n"
        assert nbd_size(nbd) == 8 << 20
        assert bench.status()["service"]["disks"][0]["live"] is True
    assert serve.returncode == 0


def test_no_client_comes_before_the_inspector_is_live(bench):
    bench.flag("wait")
    nbd = bench.state / "nbd.sock"
    with running(bench.start()) as serve:
        assert guestdisk.wait_until(bench.logged, 10)
        assert bench.logged() == ["start ring=1"]
        time.sleep(0.2)
        assert not can_connect(nbd) and ready_line(serve, 0) is None
        bench.flag("wait", False)
        assert ready_line(serve)
        assert can_connect(nbd)


@pytest.mark.parametrize("name", ["nbdkit", "tapwire-inspect", "tapwire-courier"])
def test_what_dies_is_started_again(bench, name):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        before = bench.pids()
        os.kill(before[name], signal.SIGKILL)

        def again():
            now = bench.pids()
            disk = bench.status()["service"]["disks"][0]
            return now[name] not in (0, before[name]) and disk["live"]
        assert guestdisk.wait_until(again, 10)
        assert {k: v for k, v in bench.pids().items() if k != name} == \
            {k: v for k, v in before.items() if k != name}
        assert nbd_size(bench.state / "nbd.sock") == 8 << 20
        assert serve.poll() is None


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(bench, signum):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        ring = bench.status()["service"]["disks"][0]["ring"]
        assert os.path.exists(ring)
        serve.send_signal(signum)
        assert serve.wait(timeout=20) == 0
    assert bench.logged()[-1] == "drained"
    assert sorted(path.name for path in bench.state.iterdir() if path.is_socket()) == []
    assert not os.path.exists(os.path.dirname(ring))


def test_a_client_that_stays_does_not_keep_the_service(bench):
    with running(bench.start()) as serve, socket.socket(socket.AF_UNIX) as client:
        assert ready_line(serve)
        client.connect(str(bench.state / "nbd.sock"))
        assert client.recv(8) == b"NBDMAGIC"
        serve.terminate()
        assert serve.wait(timeout=20) == 0
    assert bench.logged()[-1] == "drained"


def test_nothing_outlives_a_killed_service(bench):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        serve.kill()
        assert guestdisk.wait_until(lambda: not bench.left(), 10), bench.left()
    with running(bench.start()) as serve:  # and what it left behind does not hinder the next
        assert ready_line(serve)
        assert nbd_size(bench.state / "nbd.sock") == 8 << 20


def test_a_part_that_cannot_start_gives_its_exit_status(bench):
    bench.flag("fail")
    with running(bench.start()) as serve:
        assert serve.wait(timeout=20) == 65
        assert serve.stderr.read() == b"tapwire-inspect: this disk is no good\n"
        assert ready_line(serve, 0) == ""
    assert not (bench.state / "nbd.sock").exists()


def test_one_service_has_a_state_directory(bench):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        with running(bench.start()) as second:
            assert second.wait(timeout=20) == 69
            assert b"in use" in second.stderr.read()
        assert nbd_size(bench.state / "nbd.sock") == 8 << 20


def test_writes_are_recorded(bench):
    trace = bench.image.with_name("trace")
    with running(bench.start("--record", trace)) as serve:
        assert ready_line(serve)
        write_512(bench.state / "nbd.sock", 4096)
        serve.terminate()
        assert serve.wait(timeout=20) == 0
    assert trace.read_bytes()[:8] == b"TWTRACE1" and b"x" * 512 in trace.read_bytes()


def write_512(nbd, offset):
    """Writes 512 bytes "x"; nbdcopy copies a whole image."""
    image = nbd.with_name("copy")
    with open(image, "wb") as file:
        file.truncate(8 << 20)
        file.seek(offset)
        file.write(b"x" * 512)
    subprocess.run(["nbdcopy", image, f"nbd+unix:///?socket={nbd}"], check=True)
    image.unlink()


def ask(path, question):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            client.sendall(question)
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                data += part
        return data


def test_the_control_socket_answers_nonsense_with_an_error(bench):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        control = bench.state / "control.sock"
        assert os.stat(control).st_mode & 0o077 == 0
        for question in (b"\n", b"status\n", b"[]\n", b'{"command":3}\n', b'{"command":"eat"}\n'):
            answer = json.loads(ask(control, question))
            assert answer["ok"] is False and answer["error"]
        assert ask(control, b"x" * 10000 + b"\n") == b""
        assert json.loads(ask(control, b'{"command":"status"}\n'))["ok"] is True


def test_tapwired_watches_the_disks_of_its_file(bench):
    ring = bench.image.with_name("a.ring")
    run = bench.image.with_name("run")
    config = bench.image.with_name("tapwire.conf")
    config.write_text(f"[service]\nstate_dir = {bench.state}\nrun_dir = {run}\n"
                      f"[disk a]\nimage = {bench.image}\nring = {ring}\nvdev = xvdb\n")
    with running(bench.start("--config", config, program="tapwired")):
        control = run / "control.sock"
        assert guestdisk.wait_until(lambda: can_connect(control), 10)
        disk = bench.status(run)["service"]["disks"][0]
        assert (disk["name"], disk["vdev"], disk["live"]) == ("a", "xvdb", False)
        assert bench.logged() == []  # there is no ring yet
        with running(subprocess.Popen(
                ["nbdkit", "--foreground", "-U", bench.image.with_name("nbd.sock"),
                 bench.programs / "nbdkit-tapwire-plugin.so", f"file={bench.image}",
                 f"ring={ring}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE)):
            assert guestdisk.wait_until(
                lambda: bench.status(run)["service"]["disks"][0]["live"], 10)
    assert bench.logged() == ["start ring=1", "ready", "drained"]
    assert ring.exists()  # it is not tapwired's


def test_tapwired_goes_on_trying(bench):
    bench.flag("fail")
    run = bench.image.with_name("run")
    config = bench.image.with_name("tapwire.conf")
    config.write_text(f"[service]\nstate_dir = {bench.state}\nrun_dir = {run}\n"
                      f"[disk a]\nimage = {bench.image}\nring = {bench.image}\n")
    with running(bench.start("--config", config, program="tapwired")) as service:
        assert guestdisk.wait_until(lambda: len(bench.logged()) >= 3, 10)
        assert service.poll() is None
        bench.flag("fail", False)
        assert guestdisk.wait_until(lambda: bench.status(run)["service"]["disks"][0]["live"], 10)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_tail_prints_what_the_courier_stores(bench, form):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        with running(subprocess.Popen(
                [bench.programs / "tapwire", "tail", *form, "-n", "3", "--state", bench.state],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as tail:
            def tails():
                return bench.status()["courier"]["tails"]
            assert guestdisk.wait_until(lambda: tails() == 1, 10)
            subprocess.run(["/usr/bin/python3", FEED, "--socket", bench.state / "courier.sock",
                            "--count", "5"], check=True)
            assert tail.wait(timeout=20) == 0
            lines = tail.stdout.read().decode().splitlines()
            assert len(lines) == 3
            if form:
                assert [json.loads(line)["sequence"] for line in lines] == ["1", "2", "3"]
            else:
                assert all(" file.modified " in line for line in lines)
                assert lines[0].endswith(" /var/log/file-1")


def test_tail_says_when_the_courier_goes(bench):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        with running(subprocess.Popen(
                [bench.programs / "tapwire", "tail", "--state", bench.state],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as tail:
            assert guestdisk.wait_until(lambda: bench.status()["courier"]["tails"] == 1, 10)
            serve.terminate()
            assert tail.wait(timeout=20) == 69
            assert tail.stderr.read().count(b"\n") == 1


def test_the_real_inspector_behind_serve(bench, build):
    bench.real_inspector(build)
    guestdisk.make_image(bench.image, "16M")
    with running(bench.start()) as serve:
        assert ready_line(serve)
        disk = bench.status()["service"]["disks"][0]
        assert disk["live"] is True
        assert nbd_size(bench.state / "nbd.sock") == 16 << 20
    assert serve.returncode == 0


def rings():
    directory = f"/dev/shm/tapwire-{os.getuid()}"
    return {os.path.join(where, name) for where, _, names in os.walk(directory) for name in names}


def test_a_service_that_did_not_start_leaves_no_ring(bench):
    before = rings()
    bench.flag("fail")
    with running(bench.start()) as serve:
        assert serve.wait(timeout=20) == 65
    assert rings() <= before


def test_the_ring_of_a_killed_service_is_kept(bench):
    with running(bench.start()) as serve:
        assert ready_line(serve)
        ring = bench.status()["service"]["disks"][0]["ring"]
        identity = os.stat(ring).st_ino
        serve.kill()
        assert guestdisk.wait_until(lambda: not bench.left(), 10)
    bench.flag("fail")
    with running(bench.start()) as serve:  # a start that fails does not lose it either
        assert serve.wait(timeout=20) == 65
        assert os.stat(ring).st_ino == identity
    bench.flag("fail", False)
    with running(bench.start()) as serve:
        assert ready_line(serve)
        assert os.stat(ring).st_ino == identity
    assert not os.path.exists(ring)
