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
        "Say whether a folder holds the files that a key signed, and no others. Exit code 1: it\n"
        "does not. What changes the folder afterwards is not found: to open what was signed, give\n"
        "the key to what opens it (`icnet predict --trusted-key`, `Predictor.open(trusted_key=)`).",
        "icnet verify-signature release --public-key key.pub",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that `icnet sign` signed")
    parser.add_argument(
        "--public-key",
        required=True,
        type=Path,
        metavar="FILE",
        help="the public key of whom you trust, PEM; not one that came with the folder",
    )
    args = parser.parse_args(argv)
    try:
        signed = check_folder(args.folder, args.public_key)
    except ModelError as error:
        raise CheckFailed(str(error)) from error
    print(f"{args.folder} is as it was signed by {args.public_key}: {len(signed)} files")
    return 0
