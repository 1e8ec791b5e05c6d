"""What a signature says of a folder, and each way in which it is refused."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import shutil
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from signed_folders import CONTENTS, refused

from icnet_deploy.errors import InputError, ModelError, OutputError
from icnet_deploy.runtime.signing import trusted
from icnet_deploy.runtime.signing.signature import NAME, sign_folder, signed_files
from icnet_deploy.runtime.signing.trusted import check_folder, trusted_file, trusted_folder


def test_what_was_signed_is_opened_in_a_copy_of_ones_own(signed, keys):
    assert set(check_folder(signed, keys[1])) == set(CONTENTS)
    with trusted_folder(signed, keys[1]) as copy:
        assert copy != signed
        assert copy.stat().st_mode & 0o777 == 0o700
        there = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if not p.is_dir()}
        assert there == set(CONTENTS)
        for name, content in CONTENTS.items():
            assert (copy / name).read_bytes() == content
    assert not copy.exists()
    with trusted_file(signed / "icnet.engine", keys[1], None, engine=True) as copy:
        assert sorted(path.name for path in copy.parent.iterdir()) == [
            "icnet.engine",
            "icnet.engine.json",
        ]
    assert not copy.parent.exists()


def test_it_is_signed_again_and_by_any_path(signed, keys, monkeypatch):
    (signed / "icnet.onnx").write_bytes(b"another model")
    refused(signed, keys[1], "icnet.onnx is not the file that was signed")
    sign_folder(signed, keys[0])
    check_folder(signed, keys[1])
    link = signed.parent / "current"
    link.symlink_to(signed)
    check_folder(link, keys[1])
    monkeypatch.chdir(signed)
    check_folder(Path("."), keys[1])
    sign_folder(Path("."), keys[0])
    with trusted_file(Path("icnet.onnx"), keys[1], None) as copy:
        assert copy.read_bytes() == b"another model"


@st.composite
def attacks(draw):
    """What somebody does to a folder: a function of it, and what it touches."""
    names = sorted(CONTENTS)
    victim = draw(st.sampled_from(names))
    how = draw(st.sampled_from(["flip", "cut", "grow", "add", "remove", "swap", "rename", "link"]))
    size = len(CONTENTS[victim])
    at, bit = draw(st.integers(0, 1 << 16)), draw(st.integers(0, 7))
    extra = draw(st.binary(min_size=1, max_size=4))
    other = draw(st.sampled_from(names))
    new = draw(st.sampled_from(["new", "sub/new", "icnet.plan", "icnet.onnx.json", "a/b/c", "é"]))
    assume(how not in ("flip", "cut") or size)
    assume(how != "swap" or CONTENTS[victim] != CONTENTS[other])

    def attack(folder):
        path = folder / victim
        content = bytearray(path.read_bytes())
        if how == "flip":
            content[at % size] ^= 1 << bit
            path.write_bytes(content)
        elif how == "cut":
            path.write_bytes(content[: at % size])
        elif how == "grow":
            path.write_bytes(content + extra)
        elif how == "add":
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            (folder / new).write_bytes(extra)
        elif how == "remove":
            path.unlink()
        elif how == "swap":
            path.write_bytes(CONTENTS[other])
            (folder / other).write_bytes(content)
        elif how == "rename":
            path.rename(folder / "renamed")
        else:
            path.rename(folder.parent / "elsewhere")
            path.symlink_to(folder.parent / "elsewhere")

    return how, victim, attack


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(attack=attacks())
def test_whatever_is_changed_is_refused(signed, keys, tmp_path, attack):
    how, victim, change = attack
    copy = tmp_path / "attacked" / "copy"
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(signed, copy)
    check_folder(copy, keys[1])
    change(copy)
    refused(copy, keys[1])
    if how not in ("add", "link"):  # of a file: its bytes alone count, and a link has them
        with pytest.raises(ModelError), trusted_file(copy / victim, keys[1], None):
            pytest.fail("it was opened")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    at=st.integers(0, 1 << 16), value=st.integers(0, 255), how=st.sampled_from(["put", "cut", "in"])
)
def test_a_changed_signature_never_says_anything_else(signed, keys, at, value, how):
    """Some bytes of it say nothing, such as a space: then it says what it said."""
    original = (signed / NAME).read_bytes()
    at %= len(original)
    middle = {"put": bytes([value]) + original[at + 1 :], "cut": b"", "in": bytes([value])}[how]
    rest = original[at:] if how == "in" else b""
    wanted = signed_files(signed, keys[1])
    try:
        (signed / NAME).write_bytes(original[:at] + middle + rest)
        with suppress(ModelError):
            assert signed_files(signed, keys[1]) == wanted
    finally:
        (signed / NAME).write_bytes(original)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"verificationMaterial": {}}',
        b'{"verificationMaterial": {"publicKey": {"hint": "a"}}, "dsseEnvelope": null}',
        b'{"verificationMaterial": {"publicKey": {"hint": "a"}}, '
        b'"dsseEnvelope": {"payload": "e30="}}',
        b"[" * 100_000,
        b'{"a":' * 50 + b"1" + b"}" * 50,
        b"\xff\xfe\x00",
        b" " * ((16 << 20) + 1),
    ],
    ids=range(11),
)
def test_what_is_no_signature_is_refused(signed, keys, content):
    (signed / NAME).write_bytes(content)
    refused(signed, keys[1], NAME)


def test_a_signature_that_is_no_file_is_refused(signed, keys):
    (signed / NAME).unlink()
    assert "icnet sign" in refused(signed, keys[1], "is not signed: it holds no model.sig")
    os.mkfifo(signed / NAME)
    refused(signed, keys[1], "pipe")
    (signed / NAME).unlink()
    (signed / NAME).mkdir()
    refused(signed, keys[1], "directory")


def test_another_keys_and_another_folders_signatures_are_refused(signed, folder, keys, key_pair):
    private, public = key_pair()
    refused(signed, public, "was not made with the key of")
    other = folder(CONTENTS | {"icnet.onnx": b"the second model"}, "other")
    sign_folder(other, private)
    shutil.copy(other / NAME, signed / NAME)
    refused(signed, keys[1], "was not made with the key of")  # of its own folder, by somebody else
    sign_folder(other, keys[0])
    shutil.copy(other / NAME, signed / NAME)
    refused(signed, keys[1], "icnet.onnx is not the file that was signed")
    check_folder(other, keys[1])
    refused(other, public, "was not made with the key of")


def test_a_signature_whose_hint_names_the_trusted_key_is_refused(signed, key_pair, keys):
    """Somebody signs by their own key, and says that it is yours."""
    mine = json.loads((signed / NAME).read_text())
    sign_folder(signed, key_pair()[0])
    theirs = json.loads((signed / NAME).read_text())
    theirs["verificationMaterial"] = mine["verificationMaterial"]
    (signed / NAME).write_text(json.dumps(theirs))
    refused(signed, keys[1], "was not made with the key of")
    theirs["dsseEnvelope"]["signatures"] = mine["dsseEnvelope"]["signatures"] * 2
    (signed / NAME).write_text(json.dumps(theirs))
    check_folder(signed, keys[1])  # of the same files: what your key signed
    theirs["dsseEnvelope"]["signatures"] = []
    (signed / NAME).write_text(json.dumps(theirs))
    refused(signed, keys[1], "was not made with the key of")
    theirs["verificationMaterial"]["publicKey"]["hint"] = ""
    (signed / NAME).write_text(json.dumps(theirs))
    refused(signed, keys[1], "does not name its key")


def test_an_encoded_statement_that_was_changed_is_refused(signed, keys):
    bundle = json.loads((signed / NAME).read_text())
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    del statement["predicate"]["resources"][0]
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (signed / NAME).write_text(json.dumps(bundle))
    refused(signed, keys[1], "was changed")


@pytest.mark.parametrize("name", ["../icnet.onnx", "/etc/passwd", "a/../../b", "."])
def test_names_outside_of_the_folder_are_refused_even_if_they_are_signed(signed, keys, name):
    from model_signing._hashing.hashing import Digest
    from model_signing._signing.sign_ec_key import Signer
    from model_signing._signing.signing import Payload
    from model_signing.manifest import FileManifestItem, Manifest, SerializationType

    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    item = FileManifestItem(path=PurePosixPath(name), digest=Digest("sha256", bytes(32)))
    manifest = Manifest("release", [item], SerializationType.from_args(how))
    Signer(keys[0]).sign(Payload(manifest)).write(signed / NAME)
    refused(signed, keys[1], "which is not the name of a file inside the folder")


def test_the_tool_of_the_package_and_ours_agree(signed, folder, keys):
    from model_signing import hashing, signing, verifying

    theirs = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    theirs.verify(signed, signed / NAME)
    other = folder({"a.onnx": b"a"}, "other")
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.sign(other, other / NAME)
    assert set(check_folder(other, keys[1])) == {"a.onnx"}
    (other / ".gitignore").write_bytes(b"")  # which theirs leaves out, and ours does not
    theirs = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    refused(other, keys[1], r"were not signed: \.gitignore")
    for change, match in (
        (hashing.Config().use_shard_serialization(), "parts of files"),
        (hashing.Config().use_file_serialization(hashing_algorithm="blake3"), "a 'blake3' for"),
    ):
        signer.set_hashing_config(change.set_ignored_paths(paths=[NAME], ignore_git_paths=False))
        signer.sign(other, other / NAME)
        refused(other, keys[1], match)


def test_no_network_is_asked(folder, keys, monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    made = folder()
    sign_folder(made, keys[0])
    check_folder(made, keys[1])


def test_a_key_in_the_folder_proves_nothing(signed, keys):
    for key, how in ((keys[1], check_folder), (keys[0], sign_folder)):
        inside = shutil.copy(key, signed / "sub" / key.name)
        with pytest.raises(InputError, match="is in the folder"):
            how(signed, inside)
        (signed / "sub" / key.name).unlink()
        link = signed.parent / f"link-to-{key.name}"
        link.symlink_to(inside)
        shutil.copy(key, inside)
        with pytest.raises(InputError, match="is in the folder"):
            how(signed, link)
        inside.unlink()


def test_what_is_added_under_any_name_is_refused(signed, keys):
    for name in (b"\xff.onnx", b"new\nline", b"model.sig.json"):
        added = os.fsencode(signed) + b"/" + name
        with open(added, "wb"):
            pass
        refused(signed, keys[1], "holds files that were not signed")
        os.unlink(added)
    (signed / "sub" / NAME).write_bytes((signed / NAME).read_bytes())
    refused(signed, keys[1], "were not signed: sub/model.sig")
    (signed / "sub" / NAME).unlink()
    (signed / "folder").mkdir()  # holds nothing
    check_folder(signed, keys[1])


@contextmanager
def folders_in_one_another(count):
    """Goes down into new folders, and afterwards up again, without them."""
    for _ in range(count):
        os.mkdir("a")
        os.chdir("a")
    yield
    for _ in range(count):
        os.chdir("..")
        os.rmdir("a")


def test_a_thousand_folders_in_one_another(signed, keys, monkeypatch):
    monkeypatch.chdir(signed)
    with folders_in_one_another(1200):
        check_folder(signed, keys[1])  # they hold nothing
        Path("new").write_bytes(b"")
        refused(signed, keys[1], "were not signed: a/a/a")
        Path("new").unlink()
        with (
            folders_in_one_another(1200),  # past what a path may be long
            pytest.raises(InputError, match=r"cannot read the folder .*too long"),
        ):
            check_folder(signed, keys[1])


def test_a_file_that_grows_while_it_is_read_is_read_once(signed, keys, monkeypatch):
    """What is added behind the bytes that were signed is not in the copy, and reading ends."""

    class Growing:
        def __init__(self, path):
            self.path, self.file = path, path.open("rb")
            self.fileno = self.file.fileno

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def read(self, count):
            with self.path.open("ab") as more:
                more.write(b"more")
            return self.file.read(count)

    monkeypatch.setattr(trusted, "open_file", Growing)
    with trusted_file(signed / "icnet.onnx", keys[1], None) as copy:
        assert copy.read_bytes() == CONTENTS["icnet.onnx"]
    assert (signed / "icnet.onnx").read_bytes() == CONTENTS["icnet.onnx"] + b"more"


def test_where_there_is_no_room_for_a_copy(signed, keys, monkeypatch, tmp_path):
    class Full(io.BytesIO):
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open

    def open_full(path, mode="r", *args, **options):
        return Full() if mode in ("xb", "wb") else opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", open_full)
    with (
        pytest.raises(OutputError, match=r"No space left.*TMPDIR"),
        trusted_folder(signed, keys[1]),
    ):
        pytest.fail("it was opened")
    with pytest.raises(OutputError, match=r"No space left.*TMPDIR"):
        trusted._copy(signed / "icnet.onnx", tmp_path / "copy")
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    for use, key in ((check_folder, keys[1]), (sign_folder, keys[0])):
        with pytest.raises(OutputError, match="TMPDIR"):
            use(signed, key)
