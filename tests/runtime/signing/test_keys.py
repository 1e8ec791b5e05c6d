"""Keys and passwords, what can be signed with them, and the package that signs."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from icnet_deploy.errors import InputError, MissingPackage, ModelError
from icnet_deploy.runtime.signing.signature import NAME, PASSWORD, sign_folder
from icnet_deploy.runtime.signing.trusted import check_folder


def test_keys_that_cannot_be_used_are_refused(signed, folder, keys, key_pair, tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    rsa_key = rsa.generate_private_key(65537, 2048)
    pem, form = s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "rsa.pub").write_bytes(rsa_key.public_key().public_bytes(pem, form))
    (tmp_path / "rsa.pem").write_bytes(
        rsa_key.private_bytes(pem, s.PrivateFormat.PKCS8, s.NoEncryption())
    )
    (tmp_path / "text").write_text("no key")
    (tmp_path / "large").write_bytes(keys[1].read_bytes() + b"\n" * (64 << 10))
    os.mkfifo(tmp_path / "pipe")
    bitcoin = key_pair(ec.SECP256K1())
    signature = (signed / NAME).read_bytes()
    for key in (keys[0], bitcoin[1], tmp_path / "rsa.pub", tmp_path / "text"):
        with pytest.raises(InputError, match=r"cannot check a signature with .*P-256.*openssl ec"):
            check_folder(signed, key)
    for key in (keys[1], bitcoin[0], tmp_path / "rsa.pem", tmp_path / "text"):
        with pytest.raises(InputError, match=r"cannot sign with .*P-256"):
            sign_folder(signed, key)
    for key in ("large", "pipe", "absent", "."):
        for use in (check_folder, sign_folder):
            with pytest.raises(InputError, match=r"key"):
                use(signed, tmp_path / key)
    assert (signed / NAME).read_bytes() == signature


@pytest.mark.parametrize("curve", ["SECP384R1", "SECP521R1"])
def test_other_curves(folder, key_pair, curve):
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = key_pair(getattr(ec, curve)())
    made = folder()
    sign_folder(made, private)
    check_folder(made, public)


def test_a_password(folder, key_pair, monkeypatch):
    private, public = key_pair(password=b"secret")
    made = folder()
    for wrong in (None, "wrong"):
        if wrong:
            monkeypatch.setenv(PASSWORD, wrong)
        with pytest.raises(InputError, match=PASSWORD):
            sign_folder(made, private)
    monkeypatch.setenv(PASSWORD, "secret")
    sign_folder(made, private)
    check_folder(made, public)


def test_keys_of_openssl(folder, tmp_path):
    """As the guide says to make them."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]
    subprocess.run([*make, private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True)
    made = folder()
    sign_folder(made, private)
    check_folder(made, public)


def test_what_cannot_be_signed(folder, tmp_path, keys):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError, match="holds no file to sign"):
        sign_folder(tmp_path / "nothing", keys[0])
    with pytest.raises(InputError, match="cannot read the folder"):
        sign_folder(tmp_path / "absent", keys[0])
    made = folder()
    for place in (made / "link", made / "sub" / "link"):
        for target in ("icnet.onnx", "sub", "/etc", "nowhere"):
            place.symlink_to(target)
            with pytest.raises(ModelError, match=r"'(sub/)?link', which is a link"):
                sign_folder(made, keys[0])
            place.unlink()
    os.mkfifo(made / "pipe")
    with pytest.raises(ModelError, match="a pipe"):
        sign_folder(made, keys[0])
    (made / "pipe").unlink()
    with open(os.fsencode(made) + b"/\xff.onnx", "wb"):
        pass
    with pytest.raises(ModelError, match="not the name of a file"):
        sign_folder(made, keys[0])
    assert not (made / NAME).exists()


def test_without_the_package(signed, keys, without):
    without("model_signing")
    for use in (check_folder, sign_folder):
        with pytest.raises(MissingPackage, match=r"'model_signing'.*icnet-deploy\[sign\]"):
            use(signed, keys[1])


def test_a_version_of_the_package_that_is_not_known(signed, keys, without):
    without("model_signing._signing.sign_ec_key")
    with pytest.raises(
        InputError, match=r"does not work with the installed package.*icnet-deploy\[sign\]"
    ):
        check_folder(signed, keys[1])
