"""How the logits of a foreign file become pixels, in words."""

from icnet_deploy.export.adopt.ending import Ending, rules_of
from icnet_deploy.export.adopt.foreign_file import ForeignFile


def rule_in_words(file: ForeignFile, ending: Ending, rule: str, said: str | None) -> str:
    """The rule, and where it comes from.

    Args:
        file: the file.
        ending: where its logits are.
        rule: of the last upsampling, of `metadata.UPSAMPLINGS`.
        said: the rule that was said; None: none was.
    """
    if said is not None:
        return f"{rule} (given)"
    if ending.upsampling is not None:
        return f"{rule} (found in its last Resize, which is removed)"
    if rule == "none":
        return f"{rule} (found)"
    hint = ""
    if rules_of(file.model) == {"aligned-corners"}:
        hint = "; its own Resizes align corners: if this one does also, give --upsampling "
        hint += "aligned-corners"
    return f"{rule} (assumed: PyTorch's default{hint})"
