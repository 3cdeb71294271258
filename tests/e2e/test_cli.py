# SPDX-License-Identifier: BSD-3-Clause
"""The command line: what --help, the man pages and the programs say is the same; exit statuses are
those of sysexits; --json is JSON."""
import json
import pathlib
import re
import socket
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAN = ROOT / "man"
COMMANDS = ["attach", "check-config", "check-xenstore", "crawl", "dead-letters", "detach", "infer", "redeliver",
            "serve", "spool", "status", "tail", "targets"]
USAGE, DATAERR, NOINPUT, UNAVAILABLE, IOERR, CONFIG = 64, 65, 66, 69, 74, 78


@pytest.fixture
def cli(build):
    def call(*argv, program="tapwire", **kwargs):
        return subprocess.run([build / program, *map(str, argv)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                              **kwargs)
    return call


def page_text(name):
    """A man page's source with its escapes undone."""
    return next(MAN.glob(name + ".[0-9]")).read_text().replace("\\-", "-").replace("\\(dq", '"')


def options_of_help(text):
    """{"--name": argument or ""} of what argp prints."""
    found = re.findall(r"^ {2,6}(?:-\S, )? *(--[a-z-]+)(?:=(\S+))?", text, re.M)
    return dict(found)


def options_of_page(text):
    found = {}
    for line in re.findall(r"^\.TP\n\.BR? (.*)$", text, re.M):
        line = line.replace("\\fI", "").replace("\\fR", "").replace('"', "")
        match = re.match(r"(?:-\S ?, *)?(--[a-z-]+)(?: =(\S+))?$", line)
        if match:
            found[match.group(1)] = match.group(2) or ""
    return found


PROGRAMS = [("tapwire", []), ("tapwired", []), ("tapwire-inspect", [])] + \
    [("tapwire", [command]) for command in COMMANDS]


@pytest.mark.parametrize("program,command", PROGRAMS, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_help_and_man_page_say_the_same(cli, program, command):
    done = cli(*command, "--help", program=program)
    assert done.returncode == 0 and done.stderr == ""
    page = page_text("-".join([program, *command]))
    section = page[page.index(".SH OPTIONS"):]
    assert options_of_page(section[:section.index(".SH", 5)]) == options_of_help(done.stdout)


def test_help_lists_every_command_and_the_man_page_too(cli):
    text = cli("--help").stdout
    listed = re.findall(r"^  ([a-z-]+) {2,}(\S.*)$", text[text.index("Commands:"):], re.M)
    assert [name for name, _ in listed] == COMMANDS
    page = page_text("tapwire")
    for name, summary in listed:
        assert (MAN / f"tapwire-{name}.1").exists()
        assert f"tapwire-{name} (1)" in page
        assert re.search(re.escape(summary), page.replace("\n", " "), re.I), summary


def test_every_command_has_help_version_and_json(cli):
    for command in COMMANDS:
        text = cli(command, "--help").stdout
        assert text.startswith(f"Usage: tapwire {command} ")
        assert {"--json", "--help", "--version"} <= options_of_help(text).keys()


@pytest.mark.parametrize("program", ["tapwire", "tapwired", "tapwire-inspect", "tapwire-courier"])
def test_version(cli, program):
    done = cli("--version", program=program)
    assert done.returncode == 0
    assert re.fullmatch(program + r" \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("wrong,right", [("crwl", "crawl"), ("stauts", "status"), ("in", "infer"),
                                         ("checkconfig", "check-config")])
def test_an_unknown_command_names_the_one_that_was_meant(cli, wrong, right):
    done = cli(wrong)
    assert done.returncode == USAGE
    assert done.stderr == f'tapwire: unknown command "{wrong}"; did you mean "{right}"?\n'
    assert done.stdout == ""


def test_an_unknown_command_like_no_other_points_to_help(cli):
    done = cli("frobnicate")
    assert done.returncode == USAGE and done.stderr.count("\n") == 1 and "--help" in done.stderr


@pytest.mark.parametrize("argv", [[], ["crawl"], ["crawl", "a", "b"], ["crawl", "a", "--no-such"],
                                  ["crawl", "a", "--domid", "-1"], ["crawl", "a", "--host", ""],
                                  ["infer", "--disk", "a"], ["infer", "--trace", "a"],
                                  ["serve"], ["serve", "a", "--config", "b", "--post", "http://c/"],
                                  ["serve", "a", "--secret-file", "b"],
                                  ["attach"], ["attach", "a", "--tapdisk", "1"],
                                  ["attach", "a", "--stall", "100"], ["detach"],
                                  ["detach", "a", "--tapdisk", "a:b"],
                                  ["serve", "a", "--linger", "soon"],
                                  ["targets", "suspend"], ["targets", "end", "x"], ["spool", "x"],
                                  ["redeliver", "--target", "t"], ["redeliver", "--target", "t", "--since", "soon"],
                                  ["dead-letters"], ["dead-letters", "show"], ["dead-letters", "drop"],
                                  ["dead-letters", "drop", "1", "--all"], ["dead-letters", "show", "x"],
                                  ["status", "x"], ["tail", "--count", "0"], ["check-config"]],
                         ids=" ".join)
def test_a_wrong_command_line_is_64(cli, argv):
    done = cli(*argv)
    assert done.returncode == USAGE and done.stdout == "" and done.stderr


def one_line(done, status):
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
    assert done.stderr.startswith("tapwire: ")
    return done.stderr


def test_what_is_missing_is_named_in_one_line(cli, tmp_path):
    missing = tmp_path / "missing"
    assert str(missing) in one_line(cli("crawl", missing), NOINPUT)
    assert str(missing) in one_line(cli("serve", missing, "--state", tmp_path / "s"), NOINPUT)
    assert str(missing) in one_line(cli("check-config", missing), CONFIG)
    assert "no service" in one_line(cli("status", "--state", missing), UNAVAILABLE)
    assert "no service" in one_line(cli("tail", "--state", missing), UNAVAILABLE)


def test_serve_refuses_what_it_cannot_serve(cli, tmp_path):
    image, plain, state = tmp_path / "disk.img", tmp_path / "plain", tmp_path / "state"
    image.write_bytes(bytes(1 << 20))
    plain.write_bytes(b"x")
    def serve(*argv):
        return cli("serve", *argv, "--state", state)
    one_line(serve(plain), DATAERR)
    assert "http" in one_line(serve(image, "--post", "ftp://x/"), USAGE)
    assert "no socket" in one_line(serve(image, "--socket", plain), USAGE)
    assert "new file" in one_line(serve(image, "--record", plain), USAGE)
    one_line(serve(image, "--config", plain), CONFIG)
    one_line(serve(image, "--socket", tmp_path / ("x" * 120)), USAGE)


def test_a_full_standard_output_is_an_error(build, tmp_path):
    config = tmp_path / "tapwire.conf"
    config.write_text("[target a]\nurl = http://127.0.0.1:1/\n")
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([build / "tapwire", "check-config", config],
                              stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (IOERR, "tapwire: standard output: No space left on device\n")


def test_check_config_says_what_the_file_means(cli, tmp_path):
    config = tmp_path / "tapwire.conf"
    config.write_text("[target hook]\nurl = http://127.0.0.1:1/\n")
    done = cli("check-config", config)
    assert done.returncode == 0 and "hook" in done.stdout and "not signed" in done.stdout
    done = cli("check-config", "--json", config)
    assert json.loads(done.stdout) == {"file": str(config), "complaints": [], "ok": True}


def test_check_config_names_every_mistake(cli, tmp_path):
    config = tmp_path / "tapwire.conf"
    config.write_text("[target a]\nurl = gopher://x/\nbatch_evnts = 3\n")
    done = cli("check-config", config)
    assert done.returncode == CONFIG
    assert f"{config}:2:" in done.stdout and f"{config}:3:" in done.stdout
    done = cli("check-config", "--json", config)
    answer = json.loads(done.stdout)
    assert done.returncode == CONFIG and answer["ok"] is False
    assert {complaint["level"] for complaint in answer["complaints"]} == {"error"}


def test_a_path_in_an_error_does_not_reach_the_terminal_raw(cli):
    done = cli("crawl", "\x1b[31mred\n")
    assert "\x1b" not in done.stderr and done.stderr.count("\n") == 1


def test_a_dead_socket_is_no_service(cli, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    one_line(cli("status", "--state", tmp_path), UNAVAILABLE)
