"""A folder's signature, `model.sig`: making one, and what it says of the folder's files.

It is a bundle of OpenSSF's model signing: a statement that names each file of the folder with its
SHA-256, signed by one elliptic-curve key. No network is asked. `model_signing verify key` reads it,
too. Signatures are made and checked by the package `model-signing`, whose version is bounded in
`pyproject.toml`: it has no public way to check a signature without hashing a whole folder.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from icnet_deploy.documents import SHA256, parse
from icnet_deploy.errors import InputError, ModelError, UnavailableError, pip_install, require
from icnet_deploy.files import open_file, replacing
from icnet_deploy.runtime.signing.private import no_room, private_folder

NAME = "model.sig"
"""The signature's name in the folder that it is of."""

PASSWORD = "ICNET_KEY_PASSWORD"
"""An environment variable: the password of a private key that is encrypted."""

_MOST_BYTES = 16 << 20
"""Of a signature: about 100,000 files. A larger one is refused before it is parsed."""

_MOST_KEY_BYTES = 64 << 10

_CURVES = "a PEM file of an elliptic-curve key on P-256, P-384 or P-521"


def sign_folder(folder: Path, key: Path) -> dict[str, str]:
    """Writes the signature of a folder into it: of every file that it holds, sub-folders included.

    Args:
        folder: of artefacts and all that belongs to them.
        key: the private key, a PEM file outside of the folder; `PASSWORD` says its password.

    Returns:
        The name of each file that was signed, from the folder on -> its SHA-256.

    Raises:
        MissingPackage: `model-signing` is not installed.
        InputError: the key cannot be used, or lies in the folder; there is no such folder.
        ModelError: the folder is empty, or holds what cannot be signed, such as a link.
        OutputError: the signature cannot be written.
    """
    _require_package("`icnet sign`")
    _read_key(key, folder)
    root = Path(os.path.realpath(folder))
    names = list(files_of(root, folder))
    if not names:
        raise ModelError(f"{folder} holds no file to sign")
    for name in names:
        require_plain(name, f"cannot sign {folder}: it")
    from model_signing import hashing, signing

    files = hashing.Config().set_ignored_paths(paths=[NAME], ignore_git_paths=False)
    given = os.environ.get(PASSWORD)
    password: Any = os.fsencode(given) if given else None  # the package says text, wants bytes
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    except Exception as error:  # of its libraries, which have no common root
        raise InputError(
            f"cannot sign with {key} ({error}): expected a private key, {_CURVES}; if it is "
            f"encrypted, set the environment variable {PASSWORD} to its password"
        ) from error
    with private_folder(folder) as private:  # a new file in the folder itself would be signed
        made = private / NAME
        try:
            signer.set_hashing_config(files).sign(root, made)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot sign {folder}: {error}") from error
        content = made.read_bytes()
    with replacing(root / NAME) as temporary:
        temporary.write_bytes(content)
    statement = parse(_payload(parse(content)), strict=False)
    return {one["name"]: one["digest"] for one in statement["predicate"]["resources"]}


def signed_files(folder: Path, key: Path) -> dict[str, str]:
    """What a folder's signature says of its files, if this key made it.

    Args:
        folder: that holds the signature.
        key: the public key, a PEM file outside of the folder.

    Returns:
        The name of each file, from the folder on -> its SHA-256, which is not compared here.

    Raises:
        MissingPackage: `model-signing` is not installed.
        InputError: the key cannot be used, or lies in the folder.
        ModelError: there is no signature, it is another key's, was changed, or is of another kind.
    """
    _require_package("a signature")
    _read_key(key, folder)
    content = _read(folder)
    with private_folder(folder) as private:
        bundle = private / NAME  # the bytes that were looked at
        try:
            bundle.write_bytes(content)
        except OSError as error:
            raise no_room(error) from error
        manifest = _verified(bundle, key, folder / NAME)
    where = f"the signature {folder / NAME}"
    if manifest.serialization_type.get("method") != "files":
        raise ModelError(
            f"{where} covers parts of files, not whole files: sign the folder with `icnet sign`"
        )
    signed = {}
    for one in manifest.resource_descriptors():
        require_plain(one.identifier, where)
        if one.digest.algorithm != "sha256" or not SHA256.fits(one.digest.digest_hex):
            raise ModelError(
                f"{where} has a {one.digest.algorithm!a} for {one.identifier}, expected a "
                "SHA-256: sign the folder with `icnet sign`"
            )
        signed[one.identifier] = one.digest.digest_hex
    return signed


def files_of(root: Path, called: Path) -> Iterator[str]:
    """The files of a folder and its sub-folders, but for the signature, by their POSIX names.

    Args:
        root: the folder, no link.
        called: what it is called in messages.

    Raises:
        InputError: there is no such folder, or it cannot be read.
        ModelError: it holds a link, a pipe, a socket or a device.
    """

    waiting = [root]
    while waiting:  # not by recursion: somebody may have put a thousand folders in one another
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            modes = [entry.stat(follow_symlinks=False).st_mode for entry in entries]
        except OSError as error:
            raise InputError(f"cannot read the folder {called}: {error.strerror}") from error
        for entry, mode in zip(entries, modes, strict=True):
            path = here / entry.name
            inner = path.relative_to(root).as_posix()
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif not stat.S_ISREG(mode):
                raise ModelError(
                    f"{called} holds {inner!a:.200}, which is a link, a pipe, a socket or a "
                    "device: only plain files can be signed; put a copy in its place"
                )
            elif inner != NAME:
                yield inner


def require_plain(name: str, whose: str) -> None:
    """ModelError for the name of a file that is not inside of its folder, or is no text."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and path.parts
    try:
        name.encode()
    except UnicodeEncodeError:
        inside = False
    if not inside or str(path) != name or "\0" in name:
        raise ModelError(
            f"{whose} names {name!a}, which is not the name of a file inside the folder"
        )


def _require_package(purpose: str) -> None:
    require(purpose, "sign", "model_signing", "OpenSSL")


def _read_key(key: Path, folder: Path) -> None:
    """InputError if a key cannot be read, or lies in the folder that it is to prove."""
    try:
        with open_file(key) as file:
            if len(file.read(_MOST_KEY_BYTES + 1)) > _MOST_KEY_BYTES:
                raise InputError(f"{key} is not a key: it is larger than {_MOST_KEY_BYTES} bytes")
    except OSError as error:
        raise InputError(
            f"cannot read the key {key}: {error.strerror or error}; expected {_CURVES}"
        ) from error
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(key)]) == root:
        raise InputError(
            f"the key {key} is in the folder {folder}, whose files it protects: whoever changes "
            "the files can change the key; keep the key elsewhere"
        )


def _read(folder: Path) -> bytes:
    """The bytes of a folder's signature."""
    path = folder / NAME
    try:
        with open_file(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is not signed: it holds no {NAME}; sign it with `icnet sign {folder} --key "
            "FILE`, or use it without a key if you trust its source"
        ) from error
    except OSError as error:
        raise ModelError(f"cannot read the signature {path}: {error.strerror or error}") from error
    if len(content) > _MOST_BYTES:
        raise ModelError(f"{path} is not a signature: it is larger than {_MOST_BYTES} bytes")
    try:
        bundle = parse(content)
        # Without it the package says on stdout that it checks no hint.
        if not bundle["verificationMaterial"]["publicKey"]["hint"] or not _payload(bundle):
            raise ValueError("it does not name its key")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not a signature of `icnet sign` ({error}), or was cut off or changed: get "
            "the folder again from a source that you trust"
        ) from error
    return content


def _payload(bundle: Any) -> bytes:
    """What was signed, of a bundle's JSON: JSON in base64."""
    import base64

    return base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True)


def _verified(bundle: Path, key: Path, called: Path) -> Any:
    """The package's `Manifest` of what a key signed."""
    try:
        from model_signing._signing.sign_ec_key import Verifier
        from model_signing._signing.sign_sigstore_pb import Signature
    except ImportError as error:
        raise UnavailableError(
            f"this version does not work with the installed package 'model-signing' ({error}): "
            f"{pip_install('sign')}"
        ) from error
    try:
        verifier = Verifier(key)
    except Exception as error:  # of its libraries, which have no common root
        raise InputError(
            f"cannot check a signature with {key} ({error}): expected a public key, {_CURVES}, "
            "which `openssl ec -in PRIVATE.pem -pubout` writes"
        ) from error
    try:
        return verifier.verify(Signature.read(bundle))
    except Exception as error:  # whatever it is, nothing is verified
        said = str(error) or type(error).__name__
        raise ModelError(
            f"{called} was not made with the key of {key}, or was changed ({said[:200]}): get the "
            "folder again from a source that you trust"
        ) from error
