"""The least that a frame takes: operations and bytes, at the rates that were measured."""

from __future__ import annotations

from typing import Any

from tools.gpu_check.setting import Setting

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Of one weight or activation."""


def floor(setting: Setting) -> dict[str, Any]:
    """For one frame of the setting's size; times only where `found` measured the ceilings."""
    from icnet_deploy.networks.registry import cost

    network = setting.checkpoint.network
    ceilings = setting.results.get("found", {}).get("ceilings", {})
    spent, elements = cost(network, setting.size), _activations(network, setting.size)
    return floor_of(spent.macs, spent.parameters, elements, setting.size, ceilings)


def floor_of(
    macs: int,
    parameters: int,
    activations: int,
    size: tuple[int, int],
    ceilings: dict[str, float],
) -> dict[str, Any]:
    """The bytes of each precision, and what they and the operations take.

    Args:
        macs, parameters: of one frame.
        activations: elements that the convolutions give, of one frame.
        size: (height, width) of the frame, uint8 RGB, and of its label map, uint8.
        ceilings: as `found` measures them; {} gives no times.
    """
    pixels = size[0] * size[1]
    told: dict[str, Any] = {"macs": macs, "parameters": parameters, "activations": activations}
    for name, width in BYTES.items():
        least = parameters * width + 4 * pixels
        row: dict[str, Any] = {
            "fewest_bytes": least,
            "bytes_with_activations": least + 2 * activations * width,
        }
        if "copy_bytes_per_s" in ceilings:
            rate = ceilings["copy_bytes_per_s"]
            row["fewest_bytes_ms"] = 1e3 * row["fewest_bytes"] / rate
            row["bytes_with_activations_ms"] = 1e3 * row["bytes_with_activations"] / rate
        if products := ceilings.get(f"{name}_macs_per_s"):
            row["macs_ms"] = 1e3 * macs / products
            row["floor_ms"] = max(row["macs_ms"], row["fewest_bytes_ms"])
        told[name] = row
    return told


def _activations(network: Any, size: tuple[int, int]) -> int:
    """How many elements all convolutions give for one frame; the others can be merged into them."""
    import torch

    from icnet_deploy.networks.registry import build_network

    with torch.device("meta"):
        twin = build_network(network.description(guidance=False)).eval()
    total = 0

    def count(_module: object, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel()

    for module in twin.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        twin(torch.empty(1, 3, *size, device="meta"))
    return total
