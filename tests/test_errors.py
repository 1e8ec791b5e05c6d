"""The error tree, and how errors become exit codes and one line on stderr."""

import inspect

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
    assert 'pip install "icnet-deploy[openvino]"' in str(error)


def test_an_unforeseen_error_is_not_swallowed():
    @command
    def main(argv=None):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


def test_an_interrupt_exits_with_130(capsys):
    @command
    def main(argv=None):
        raise KeyboardInterrupt

    assert main([]) == 130
    assert capsys.readouterr().err == "icnet: interrupted\n"
