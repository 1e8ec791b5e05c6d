"""The error tree, and how errors become exit codes and one line on stderr."""

import errno
import importlib.metadata
import inspect
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from icnet_deploy import errors
from icnet_deploy.command import command

WRONG_REQUESTS = [
    errors.InputError,
    errors.ImageError,
    errors.ModelError,
    errors.DatasetError,
    errors.LabelSetError,
    errors.OutputError,
    errors.UnavailableError,
    errors.DeviceError,
]


CLASSES = [name for name, value in vars(errors).items() if inspect.isclass(value)]


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_belongs_to_the_tree_and_stands_in_its_picture(name):
    assert issubclass(getattr(errors, name), errors.IcnetError)
    assert f"{name}\n" in errors.__doc__ or f"{name} " in errors.__doc__


def test_a_package_that_is_missing_is_named_before_the_work():
    errors.require("export", "export", "json", "pathlib")
    with pytest.raises(errors.MissingPackage, match=r"export needs .*no_such_package"):
        errors.require("export", "export", "json", "no_such_package")


def test_without_a_working_directory_pytorch_is_not_begun(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    errors.require("a prediction", "cpu", "json")
    with pytest.raises(errors.InputError, match="the working directory is gone"):
        errors.require("export", "export", "json", "torch")


@pytest.mark.parametrize("error", WRONG_REQUESTS)
def test_a_wrong_request_exits_with_2_and_one_line(error, capsys):
    @command
    def main(argv=None):
        raise error("first line\n   second line")

    assert main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "icnet: error: first line second line\n")


@pytest.mark.parametrize("error", [errors.CheckFailed, errors.BackendError, errors.IcnetError])
def test_a_failed_check_exits_with_1_and_one_line(error, capsys):
    @command
    def main(argv=None):
        raise error("no")

    assert main([]) == 1
    assert capsys.readouterr().err == "icnet: error: no\n"


def test_a_failed_check_is_no_input_error():
    assert not issubclass(errors.CheckFailed, errors.InputError)
    assert not issubclass(errors.BackendError, errors.InputError)


def test_a_missing_package_names_itself_its_extra_and_its_purpose():
    error = errors.MissingPackage("openvino", extra="openvino", purpose="runtime 'openvino'")
    assert (error.package, error.extra, error.exit_code) == ("openvino", "openvino", 2)
    assert isinstance(error, errors.UnavailableError)
    assert "runtime 'openvino' needs" in str(error)
    assert errors.pip_install("openvino") in str(error)


def test_an_unforeseen_error_is_not_swallowed():
    @command
    def main(argv=None):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP, errno.EROFS])
def test_a_path_that_cannot_be_used_is_one_line(capsys, number):
    @command
    def main(argv=None):
        raise OSError(number, os.strerror(number), "x" * 300)

    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("icnet: error: cannot use 'xxx")
    assert said.endswith(f"...: {os.strerror(number)}\n")
    assert len(said) < 200


def test_an_error_of_the_system_that_names_no_path_is_raised():
    @command
    def main(argv=None):
        raise OSError(errno.EACCES, "no")

    with pytest.raises(OSError, match="no"):
        main([])


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path, name):
    script = """
import os, signal, sys
from pathlib import Path
from icnet_deploy.command import command
from icnet_deploy.files import replacing

@command
def main(argv=None):
    with replacing(Path(sys.argv[1])) as file:
        file.write_text("half of it")
        try:
            os.kill(os.getpid(), number)
            print("went on")
        finally:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)
    return 0

number = signal.Signals(int(sys.argv[2]))
status = main([])
assert signal.getsignal(number) is signal.SIG_DFL
sys.exit(status)
"""
    number = getattr(signal, name)
    arguments = [sys.executable, "-c", script, str(tmp_path / "out.mp4"), str(int(number))]
    # Not those of `nohup`, which this run may have been started by.
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "icnet: terminated\n")
    assert not list(tmp_path.iterdir())


def test_a_programs_own_way_with_sigterm_stays():
    @command
    def main(argv=None):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        assert main([]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_a_command_on_another_thread_leaves_signals_alone():
    @command
    def main(argv=None):
        return 0 if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 1

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, []).result() == 0


def test_an_interrupt_exits_with_130(capsys):
    @command
    def main(argv=None):
        raise KeyboardInterrupt

    assert main([]) == 130
    assert capsys.readouterr().err == "icnet: interrupted\n"


def test_a_message_is_no_book_and_what_it_repeats_can_be_shown():
    error = errors.ImageError(f"the file {'x' * 100_000} is none: give another")
    assert len(str(error)) <= 4000
    assert str(error).startswith("the file xxx")
    assert str(error).endswith("xxx is none: give another")
    assert str(errors.InputError("a\x1b[31m\0\ud800\u2028 b\n\tc")) == (
        "a\\x1b[31m\\x00\\ud800\\u2028 b\n\tc"
    )
    assert str(errors.InputError("Straße, 道路")) == "Straße, 道路"
    assert str(errors.InputError()) == ""


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, 'pip install "icnet-deploy[cpu]"'),
        (
            '{"url": "file:///gone/i.whl", "archive_info": {}}',
            'pip install "icnet-deploy[cpu]"',
        ),
        (
            '{"dir_info": {"editable": true}, "url": "file://HERE"}',
            'pip install --editable "HERE[cpu]"',
        ),
        (
            '{"dir_info": {}, "url": "file://HERE"}',
            'pip install "icnet-deploy[cpu] @ file://HERE"',
        ),
        (
            '{"url": "https://git.example/i.git", "vcs_info": {"commit_id": "0a1", "vcs": "git"}}',
            'pip install "icnet-deploy[cpu] @ git+https://git.example/i.git@0a1"',
        ),
        ("no JSON", 'pip install "icnet-deploy[cpu]"'),
    ],
)
def test_a_remedy_names_where_the_package_came_from(origin, command, monkeypatch, tmp_path):
    here = str(tmp_path)

    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin and origin.replace("HERE", here)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert errors.pip_install("cpu") == command.replace("HERE", here)
