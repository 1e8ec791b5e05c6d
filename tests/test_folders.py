"""Searching a folder for files."""

import os

import pytest

from icnet_deploy.errors import InputError
from icnet_deploy.folders import find_files

SUFFIXES = {".png", ".jpg"}


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_of_the_suffixes_are_found_in_sub_folders_and_the_others_are_named(tmp_path):
    fill(tmp_path, "b.PNG", "a.jpg", "sub/deep/c.png", "sub/notes.txt", "d.heic")
    found = find_files(tmp_path, SUFFIXES)
    assert names(tmp_path, found.files) == ["a.jpg", "b.PNG", "sub/deep/c.png"]
    assert names(tmp_path, found.left_out) == ["d.heic", "sub/notes.txt"]
    assert found.says_left_out() == "2 left out: d.heic, notes.txt"
    assert found.says_left_out(1) == "2 left out: d.heic, ..."
    assert find_files(tmp_path, {*SUFFIXES, ".txt", ".heic"}).says_left_out() == ""


def test_a_linked_sub_folder_is_searched_once(tmp_path):
    fill(tmp_path, "folder/own/a.png", "elsewhere/b.png")
    folder = tmp_path / "folder"
    (folder / "1st").symlink_to(tmp_path / "elsewhere")
    (folder / "2nd").symlink_to(tmp_path / "elsewhere")
    (folder / "also").symlink_to(folder / "own")  # sorted before the folder that it leads to
    (folder / "single.png").symlink_to(folder / "own" / "a.png")
    found = find_files(folder, SUFFIXES)
    assert names(folder, found.files) == ["1st/b.png", "own/a.png", "single.png"]
    assert found.left_out == ()


def test_links_in_circles_upwards_and_to_nowhere_do_no_harm(tmp_path):
    fill(tmp_path, "folder/a.png", "beside.png", "elsewhere/b.png")
    folder = tmp_path / "folder"
    (folder / "circle").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "nowhere.png").symlink_to(tmp_path / "none.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    found = find_files(folder, SUFFIXES)
    assert names(folder, found.files) == ["a.png", "link/b.png"]
    assert names(folder, found.left_out) == ["itself.png", "nowhere.png", "up"]


def test_hidden_and_temporary_files_are_never_taken(tmp_path):
    fill(tmp_path, "a.png", ".b.png", ".c.123.tmp.png", ".icnet-abcdef.tmp", ".hidden/d.png")
    found = find_files(tmp_path, SUFFIXES)
    assert names(tmp_path, found.files) == ["a.png"]
    assert names(tmp_path, found.left_out) == [".hidden"]


def test_a_folder_of_an_images_name_is_searched_not_taken(tmp_path):
    fill(tmp_path, "street.png/a.png")
    assert names(tmp_path, find_files(tmp_path, SUFFIXES).files) == ["street.png/a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path):
    fill(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    found = find_files(tmp_path, SUFFIXES)
    (tmp_path / "closed").chmod(0o755)
    assert names(tmp_path, found.left_out) == ["closed"]


def test_what_is_no_folder_is_refused(tmp_path):
    fill(tmp_path, "a.png")
    for path in (tmp_path / "a.png", tmp_path / "none"):
        with pytest.raises(InputError, match=f"cannot read the folder .*{path.name}"):
            find_files(path, SUFFIXES)
