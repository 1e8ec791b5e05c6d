"""The `icnet` command: its frame, its argument types, and closed pipes."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from icnet_deploy import __version__
from icnet_deploy.cli import COMMANDS, main
from icnet_deploy.command import (
    add_output_options,
    check_outputs,
    command,
    count,
    error_words,
    import_named,
    number_type,
    parser,
    size,
)
from icnet_deploy.documents import PERCENT
from icnet_deploy.errors import InputError, OutputError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1024x2048", (1024, 2048)), ("64X64", (64, 64)), (" 1025x2049 ", (1025, 2049))],
)
def test_a_size_is_height_times_width(text, value):
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "1024", "x", "1024x", "1024*2048", "-64x64", "64.0x64"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="HEIGHTxWIDTH"):
        size(text)


@pytest.mark.parametrize("text", ["63x64", "64x63", "0x0", "16385x64", "64x99999999999"])
def test_a_size_out_of_range_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="64 to 16384"):
        size(text)


@pytest.mark.parametrize(("text", "value"), [("1", 1), (" 20 ", 20), ("007", 7)])
def test_a_count_is_a_whole_number_from_1_on(text, value):
    assert count(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many", "1e3", "²"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        count(text)


def test_a_number_is_of_its_kind():
    percent = number_type(PERCENT)
    assert [percent(text) for text in ("0", " 1.5 ", "1e2")] == [0, 1.5, 100]
    for text in ("", "many", "-1", "100.1", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not a number in 0 to 100"):
            percent(text)


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    asked = parser("icnet example", "An example.", "icnet example")
    add_output_options(asked)
    check_outputs(asked.parse_args([]))
    check_outputs(asked.parse_args(["--json", str(tmp_path / "new" / "a.json")]))
    assert (tmp_path / "new").is_dir()
    with pytest.raises(OutputError, match="a folder of that name is there"):
        check_outputs(asked.parse_args(["--report", str(tmp_path)]))


def test_a_file_to_write_is_no_other_argument(tmp_path):
    """A report that is named as the model is, by another path or a link, would replace it."""
    asked = parser("icnet example", "An example.", "icnet example")
    add_output_options(asked)
    asked.add_argument("models", nargs="*", type=Path)
    asked.add_argument("--plot", type=Path)
    model, link = tmp_path / "a.onnx", tmp_path / "link"
    model.touch()
    link.symlink_to(model)
    (tmp_path / "x").mkdir()
    for same in (model, tmp_path / "x" / ".." / "a.onnx", link):
        with pytest.raises(
            InputError, match=r"--json .* is also given as models, and would replace it"
        ):
            check_outputs(asked.parse_args(["b.onnx", str(model), "--json", str(same)]))
    twice = asked.parse_args(["--report", str(tmp_path / "r"), "--plot", str(tmp_path / "r")])
    with pytest.raises(
        InputError, match="is also given as plot, and would replace it: name another file"
    ):
        check_outputs(twice)
    twice.report = None
    check_outputs(twice, "plot")


def test_text_does_not_replace_a_model(tmp_path):
    """A folder of artefacts is verified; its report has the name of one of them."""
    asked = parser("icnet example", "An example.", "icnet example")
    add_output_options(asked)
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x00")
    (tmp_path / "old.json").write_text("{}")
    with pytest.raises(InputError, match=r"a.onnx is a binary file, which text would replace"):
        check_outputs(asked.parse_args(["--report", str(tmp_path / "a.onnx")]))
    check_outputs(asked.parse_args(["--json", str(tmp_path / "old.json")]))


@command
def example(argv=None):
    p = parser("icnet example", "An example.", "icnet example --count 3")
    p.add_argument("--count", type=count, default=1)
    print(p.parse_args(argv).count)
    return 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "'0' is not a whole number"),
        (["--count", "9" * 5000], "invalid count value"),
        (["--cou", "3"], "unknown option --cou: did you mean --count?"),  # no abbreviations
        (["more\nlines"], "more lines"),
    ],
)
def test_a_usage_error_is_one_line_and_exits_with_2(arguments, words, capsys):
    assert example(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("icnet example: error: ")
    assert words in err
    assert "icnet example --help" in err


def test_help_shows_an_example_and_exits_with_0(capsys):
    assert example(["--help"]) == 0
    assert "example:\n  icnet example --count 3" in capsys.readouterr().out


def test_help_breaks_long_lines_but_no_example(capsys):
    long, copied = " ".join(["word"] * 40), f"icnet example {'option ' * 20}FILE"
    made = parser("icnet example", f"Short.\n{long}", copied)
    made.add_argument_group("a group", long)
    with pytest.raises(SystemExit):
        made.parse_args(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert "Short." in lines
    assert f"  {copied}" in lines
    assert max(len(line) for line in lines if copied not in line) <= 92


def test_without_arguments_the_commands_are_listed_and_the_exit_code_is_2(capsys):
    assert main([]) == 2
    out = capsys.readouterr().err
    assert "error: no command was named" in out
    for name, (_, what) in COMMANDS.items():
        assert f"  {name} " in out
        assert what in out


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands_and_exits_with_0(option, capsys):
    assert main([option]) == 0
    assert "usage: icnet COMMAND" in capsys.readouterr().out


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"icnet-deploy {__version__}\n"


def test_an_unknown_command_is_one_line_with_the_known_ones(capsys):
    assert main(["segment", "--help"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "unknown command 'segment'" in err
    assert all(name in err for name in COMMANDS)


def test_a_command_gets_the_rest_of_the_arguments(tmp_path, capsys):
    out = tmp_path / "scenes"
    assert main(["scenes", str(out), "--count", "1", "--size", "64x64"]) == 0
    assert "1 scenes of 64x64" in capsys.readouterr().out
    assert main(["scenes", "--help"]) == 0


def icnet(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "icnet_deploy", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )


def test_python_m_runs_the_command():
    done = icnet("--version", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"icnet-deploy {__version__}\n", "")
    assert icnet("nothing", stdout=subprocess.PIPE).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(unbuffered):
    with open("/dev/full", "w") as full:
        done = icnet("--help", stdout=full, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    assert done.stderr == "icnet: error: cannot write: No space left on device\n"
    assert done.returncode == 2


def test_without_a_stdout_it_works():
    script = f"exec {shlex.quote(sys.executable)} -m icnet_deploy --help >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_daemon_without_streams_does_its_work(tmp_path, closed):
    command = f"-m icnet_deploy scenes {shlex.quote(str(tmp_path / 'scenes'))}"
    script = f"exec {shlex.quote(sys.executable)} {command} --count 2 --size 64x64 {closed}"
    done = subprocess.run(["sh", "-c", script], check=False)
    assert done.returncode == 0
    assert len(list((tmp_path / "scenes").rglob("*leftImg8bit.png"))) == 2


def test_an_error_does_not_stand_among_the_results_where_stderr_is_closed():
    script = f"exec {shlex.quote(sys.executable)} -m icnet_deploy evaluate nothing.onnx 2>&-"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = icnet("--help", stdout=writing, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """Writes modules into the current folder; what they are is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_own_code_is_found_in_the_current_folder_and_may_import_its_neighbour(own_code):
    own_code(
        my_code="from my_part import VALUE\ndef make():\n    return VALUE\n"
        "class Net:\n    @classmethod\n    def small(cls):\n        return 'small'\n",
        my_part="VALUE = 7\n",
    )
    assert import_named("my_code:make", "--network")() == 7
    assert import_named("my_code:Net.small", "--network")() == "small"
    assert import_named("os.path:join", "--network") is os.path.join


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_code", "--x my_code is not PACKAGE.MODULE:NAME; expected e.g. my_code:make"),
        (
            "my_code.py:make",
            "my_code.py:make is not PACKAGE.*the file my_code.py is named my_code$",
        ),
        ("./my/code.py:make", r"the file ./my/code.py is named my\.code$"),
        ("./my_code:make", "./my_code:make is not PACKAGE.MODULE:NAME"),
        ("my_none:make", "no module my_none, neither in the folder .* nor installed"),
        ("my_needs:make", "the module my_needs needs my_absent, which is not installed"),
        (
            "my_fails:make",
            r"fails when it is imported: ValueError: too bad \(my_fails.py, line 2\)",
        ),
        ("my_exits:make", "fails when it is imported: SystemExit: 3"),
        ("my_typo:make", r"SyntaxError: .*my_typo.py, line 1\); `python -c"),
        ("my_code:mak", "my_code has no mak; my_code has make$"),
        ("my_code:make.it", "my_code.make has no it"),
        ("my_code:VALUE", "names int VALUE, which cannot be called"),
    ],
)
def test_own_code_that_cannot_be_had_says_why(own_code, text, message):
    own_code(
        my_code="VALUE = 3\ndef make():\n    return 1\n",
        my_needs="import my_absent\n",
        my_fails="\nraise ValueError('too bad')\n",
        my_exits="raise SystemExit(3)\n",
        my_typo="def (\n",
    )
    with pytest.raises(InputError, match=message):
        import_named(text, "--x")


def test_an_error_of_own_code_is_told_with_its_line():
    assert error_words(KeyError()) == "KeyError"


def test_a_misspelt_name_is_asked_about(capsys):
    """`--modle` was answered by "--model is required"."""
    assert main(["predict", "a.png", "--modle", "net.onnx", "-o", "out"]) == 2
    assert "unknown option --modle: did you mean --model?" in capsys.readouterr().err
    assert main(["predict", "a.png", "--model=net.onnx", "--zzz=1", "-o", "out"]) == 2
    assert "unknown option --zzz (see icnet predict --help)" in capsys.readouterr().err
    assert main(["exprot"]) == 2
    assert "unknown command 'exprot': did you mean export?" in capsys.readouterr().err
