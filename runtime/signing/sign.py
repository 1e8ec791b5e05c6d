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
        "Sign every file of a folder, so that others can prove where the folder comes from.",
        "icnet sign release --key key.pem",
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help=f"the folder of artefacts, complete: sign after `icnet verify`; it gets the file "
        f"{NAME}",
    )
    parser.add_argument(
        "--key",
        required=True,
        type=Path,
        metavar="FILE",
        help="your private key, PEM, on the curve P-256, P-384 or P-521 (docs/reliability.md shows "
        f"how to make one); the environment variable {PASSWORD} holds its password",
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
            f"{folder} holds {left[0]}, which a command is writing now, or left when it was "
            "killed: wait until that command ends, or delete the file"
        )
