"""What is declared is what is on disk, and what is on disk is in the wheel."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from icnet_deploy import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = SETUPTOOLS["package-dir"]


def packages_on_disk():
    """Package names -> folders, of every folder with Python files below the mapped ones."""
    found = {}
    for package, folder in FOLDERS.items():
        for sub in [ROOT / folder, *(p for p in (ROOT / folder).rglob("*") if p.is_dir())]:
            if list(sub.glob("*.py")):
                parts = sub.relative_to(ROOT / folder).parts
                found[".".join([package, *parts])] = sub
    return found


def names(requirements):
    return {re.match(r"[\w.-]+", r)[0].lower() for r in requirements}


def test_the_list_of_packages_is_what_is_on_disk():
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_on_disk())


def test_every_package_has_an_init():
    assert [n for n, f in packages_on_disk().items() if not (f / "__init__.py").is_file()] == []


def test_every_room_on_disk_is_mapped():
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests", "tools"}
    assert rooms <= set(FOLDERS.values())


def beside_a_script(folder):
    """The modules of a folder in which one can be run by its path."""
    files = list(folder.glob("*.py"))
    scripts = [f for f in files if "__main__" in f.read_text(encoding="utf-8")]
    return files if scripts else []


def test_no_script_hides_the_library_that_it_uses():
    """A script's folder comes first on its path: `export/onnx.py` would hide onnx."""
    taken = names(PROJECT["project"]["dependencies"])
    for requirements in PROJECT["project"]["optional-dependencies"].values():
        taken |= names(requirements)
    taken |= {"cv2", "tensorrt", "tensorrt_rtx", "cuda", "pytorch_lightning", "typing", "logging"}
    modules = {f.stem for folder in packages_on_disk().values() for f in beside_a_script(folder)}
    assert modules & taken == set()


def test_every_extra_is_there():
    extras = set(PROJECT["project"]["optional-dependencies"])
    wanted = {"cpu", "openvino", "cuda", "tensorrt", "export", "train", "benchmark", "test"}
    assert wanted <= extras


def test_every_extra_that_a_message_names_is_there():
    extras = set(PROJECT["project"]["optional-dependencies"])
    named = set()
    for folder in packages_on_disk().values():
        for file in folder.glob("*.py"):
            text = file.read_text(encoding="utf-8")
            named |= set(re.findall(r'extra="([\w-]+)"|icnet-deploy\[([\w-]+)\]', text))
    named = {name for pair in named for name in pair if name}
    assert named
    assert named <= extras


def test_the_base_brings_no_runtime_and_no_framework():
    base = names(PROJECT["project"]["dependencies"])
    assert base == {"numpy", "opencv-python-headless", "pillow", "tqdm"}


def test_no_extra_brings_both_builds_of_onnx_runtime():
    for name, requirements in PROJECT["project"]["optional-dependencies"].items():
        assert not names(requirements) >= {"onnxruntime", "onnxruntime-gpu"}, name


def test_the_version_has_one_home():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "icnet_deploy._version.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", __version__)


def test_the_installed_version_is_the_sources():
    try:
        installed = importlib.metadata.version("icnet-deploy")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("icnet-deploy is not installed here; its sources are on the path")
    assert installed == __version__


def copy_sources(target):
    """Copies what the build reads, so that it leaves nothing in the clone."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    project = PROJECT["project"]
    for name in ["pyproject.toml", project["readme"], *project["license-files"]]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def build_wheel(source, out, **environment):
    """By setuptools, without a network; skips the test where it is too old."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"building the wheel needs setuptools 77 or later; here is {version}")
    copy_sources(source)
    script = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, out],
        cwd=source,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built once."""
    return build_wheel(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel"))


def test_the_source_distribution_holds_what_the_repository_does(tmp_path):
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no clone, so that nothing says which files are the repository's")
    files = [f for f in listed.stdout.splitlines() if (ROOT / f).is_file()]
    source = tmp_path / "source"
    for file in files:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / file)
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    not_meant = {".gitignore", ".ci/run"}
    assert sorted(set(files) - held - not_meant) == []
    assert not [name for name in held if "__pycache__" in name or name.endswith(".so")]


def test_the_wheel_holds_every_module_and_every_file_that_they_read(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"icnet_deploy/py.typed"}
    for package, folder in packages_on_disk().items():
        wanted |= {f"{package.replace('.', '/')}/{f.name}" for f in folder.glob("*.py")}
    for pattern in ("training/configs/*.toml", "networks/weights/*"):
        files = list(ROOT.glob(pattern))
        assert files, f"{pattern} is empty"
        wanted |= {f"icnet_deploy/{f.relative_to(ROOT)}" for f in files}
    assert sorted(wanted - held) == []


def test_the_wheel_holds_nothing_beside_the_package(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"icnet_deploy", f"icnet_deploy-{__version__}.dist-info"}
    assert wheel.name.startswith(f"icnet_deploy-{__version__}-cp311-abi3-")


def test_the_wheel_brings_the_command_and_the_licences(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"icnet_deploy-{__version__}.dist-info"
    assert "icnet = icnet_deploy.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    for name in PROJECT["project"]["license-files"]:
        assert f"{info}/licenses/{name}" in archive.namelist()


LABEL_MAP = "icnet_deploy/runtime/native/labelmap.abi3.so"


def kind_from(wheel, folder):
    """What an installation of this wheel says of its label map, and the map of a small array."""
    zipfile.ZipFile(wheel).extractall(folder)
    script = """if True:
        import numpy as np
        from icnet_deploy.runtime import labelmap
        labels = labelmap.label_map(np.eye(4, dtype=np.float32).reshape(2, 2, 4), (3, 5))
        print(labelmap.__file__, labelmap.kind()[0], *labels.ravel())
    """
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, *found = done.stdout.split()
    assert Path(file).is_relative_to(folder)
    return found


def test_the_wheel_brings_the_compiled_label_map(wheel, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc or gcc) is here")
    assert LABEL_MAP in zipfile.ZipFile(wheel).namelist()
    assert kind_from(wheel, tmp_path)[0] == "compiled"


def test_without_a_compiler_the_wheel_is_built_and_works(wheel, tmp_path):
    (tmp_path / "wheel").mkdir()
    plain = build_wheel(tmp_path / "source", tmp_path / "wheel", CC="/bin/false")
    assert LABEL_MAP not in zipfile.ZipFile(plain).namelist()
    kind, *labels = kind_from(plain, tmp_path / "plain")
    assert kind == "numpy"
    assert labels == kind_from(wheel, tmp_path / "usual")[1:]
