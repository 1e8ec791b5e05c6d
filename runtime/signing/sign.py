"""`icnet sign`: signs every file of a folder with a private key."""

from collections.abc import Sequence
from pathlib import Path

from icnet_deploy import command as shared
from icnet_deploy.errors import InputError
from icnet_deploy.files import is_leftover, why_no_folder
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.signing.signature import NAME, PASSWORD, sign_folder


@shared.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet sign`; returns its exit code."""
    parser = shared.parser(
        "icnet sign",
        "Sign a folder of artefacts: every file that it holds, with its name. Sign it last, after\n"
        f"`icnet verify`. It writes {NAME} into the folder, in the format of OpenSSF's model\n"
        "signing, which `icnet verify-signature`, `icnet predict --trusted-key` and\n"
        "`Predictor.open(trusted_key=)` check. No network is asked. A key is made by:\n"
        "  openssl ecparam -name prime256v1 -genkey -noout -out key.pem\n"
        "  openssl ec -in key.pem -pubout -out key.pub",
        "icnet sign release --key key.pem",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of artefacts")
    parser.add_argument(
        "--key",
        required=True,
        type=Path,
        metavar="FILE",
        help="the private key, PEM, on the curve P-256, P-384 or P-521; the environment's "
        f"{PASSWORD} says its password",
    )
    args = parser.parse_args(argv)
    _require_folder(args.folder)
    signed = sign_folder(args.folder, args.key)
    for name, digest in sorted(signed.items()):
        print(f"{digest}  {name}")
    print(f"signed {len(signed)} files: {args.folder / NAME}")
    return 0


def _require_folder(folder: Path) -> None:
    """InputError for what is no folder, or one in which something was half written."""
    if kind_of(folder) != "folder":
        raise InputError(f"{folder} {why_no_folder(folder)}: name a folder that holds artefacts")
    left = sorted(path.name for path in folder.iterdir() if is_leftover(path))
    if left:
        raise InputError(
            f"{folder} holds {left[0]}, which a command that was killed left, or is writing now: "
            "delete it, or sign when that command has ended"
        )
