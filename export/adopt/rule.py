"""How the logits of a foreign file become pixels: what was said of it, held against the file."""

from icnet_deploy.errors import InputError
from icnet_deploy.export.adopt.ending import Ending, rules_of
from icnet_deploy.export.adopt.foreign_file import ForeignFile
from icnet_deploy.networks.own.probe import Behaviour
from icnet_deploy.networks.own.request import NetworkRequest
from icnet_deploy.networks.own.said import hold_said


def rule_of(file: ForeignFile, behaviour: Behaviour, said: str | None) -> str:
    """The rule of the last upsampling, of `metadata.UPSAMPLINGS`.

    Args:
        file: the file.
        behaviour: what was found of it; its `upsampling` is the rule of a Resize that is taken off.
        said: the rule that was said; None: none was.

    Raises:
        InputError: what was said is not what the file does; or nothing places its logits.
    """
    found, run = behaviour.upsampling, behaviour.runs[0]
    grids = f"{run.grid[0]}x{run.grid[1]} for an image of {run.size[0]}x{run.size[1]}"
    if said is not None and found not in (None, said):
        raise InputError(
            f"--upsampling {said} was said, but the last Resize of {file.path} is {found}: leave "
            f"--upsampling out, or say {found}"
        )
    if said not in (None, "none") and behaviour.is_whole:
        raise InputError(
            f"--upsampling {said} was said, but the logits of {file.path} are {grids}: nothing is "
            "left to be upsampled; leave --upsampling out, or say none"
        )
    if said == "none" and not behaviour.is_whole:
        raise InputError(
            f"--upsampling none was said, but the logits of {file.path} are {grids}: leave "
            "--upsampling out, or say half-pixel or aligned-corners, as the network was trained"
        )
    return hold_said(NetworkRequest(str(file.path), upsampling=said), behaviour, str(file.path))


def rule_in_words(file: ForeignFile, ending: Ending, rule: str, said: str | None) -> str:
    """The rule, and where it comes from.

    Args:
        file: the file.
        ending: where its logits are.
        rule: as `rule_of` gives it.
        said: the rule that was said; None: none was.
    """
    if said is not None:
        return f"{rule} (said)"
    if ending.upsampling is not None:
        return f"{rule} (found: its last Resize is taken off)"
    if rule == "none":
        return f"{rule} (found)"
    hint = ""
    if rules_of(file.model) == {"aligned-corners"}:
        hint = "; its own Resizes align corners: say --upsampling aligned-corners if this one "
        hint += "does, too"
    return f"{rule} (assumed, PyTorch's default: the file does not say it{hint})"
