"""`icnet verify-signature`: whether a folder is as a key signed it."""

from collections.abc import Sequence
from pathlib import Path

from icnet_deploy import command as shared
from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.runtime.signing.trusted import check_folder


@shared.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet verify-signature`; returns its exit code."""
    parser = shared.parser(
        "icnet verify-signature",
        "Check that a folder holds the files that a key signed, and no others.",
        "icnet verify-signature release --public-key key.pub",
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="the folder that `icnet sign` signed; exit code 1 if a file was changed, added or "
        "removed",
    )
    parser.add_argument(
        "--public-key",
        required=True,
        type=Path,
        metavar="FILE",
        help="the public key of a signer whom you trust, PEM; not a key that came with the folder",
    )
    args = parser.parse_args(argv)
    try:
        signed = check_folder(args.folder, args.public_key)
    except ModelError as error:
        raise CheckFailed(str(error)) from error
    print(
        f"{args.folder} holds exactly the files that {args.public_key} signed: {len(signed)} files"
    )
    return 0
