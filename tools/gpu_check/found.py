"""What is there, what the device can do at most, and what a frame takes at least."""

from collections.abc import Callable
from functools import partial
from typing import Any

from icnet_deploy.networks import SHIPPED, load_checkpoint
from icnet_deploy.networks.registry import cost
from icnet_deploy.precisions import PRECISIONS
from icnet_deploy.runtime.machine import examine
from tools.gpu_check.steps import Setting

_RUNS = 10


def found(setting: Setting) -> dict[str, Any]:
    """What `icnet doctor` finds, the device's ceilings, and the floor of a frame."""
    setting.results["found"] = results = {"doctor": examine()}
    setting.save()
    ceilings = _ceilings(setting.device)
    network = load_checkpoint(SHIPPED).network
    spent = cost(network, setting.size)
    floor = floor_of(spent.macs, spent.parameters, setting.size, ceilings)
    return results | {"ceilings": ceilings, "floor": floor}


def floor_of(
    macs: int, parameters: int, size: tuple[int, int], ceilings: dict[str, Any]
) -> dict[str, Any]:
    """What the operations and the fewest bytes of a frame take: the larger is the floor.

    Args:
        macs, parameters: of one frame.
        size: (height, width) of the frame, uint8 RGB, and of its label map, uint8.
        ceilings: as `_ceilings` measures them; {} gives no times.
    """
    floor: dict[str, Any] = {"macs": macs, "parameters": parameters}
    for bits in sorted({row.bits for row in PRECISIONS.values()}):
        row = {"fewest_bytes": float(parameters * bits // 8 + 4 * size[0] * size[1])}
        if rate := ceilings.get("copy_bytes_per_s"):
            row["fewest_bytes_ms"] = 1e3 * row["fewest_bytes"] / rate
        if products := ceilings.get(f"macs_per_s_{bits}_bits"):
            row["macs_ms"] = 1e3 * macs / products
            row["floor_ms"] = max(row["macs_ms"], row["fewest_bytes_ms"])
        floor[f"{bits} bits"] = row
    return floor


def _ceilings(device: str) -> dict[str, Any]:
    """Bytes a second of a copy, read plus written, and multiply-adds a second of products."""
    import torch

    large = device == "cuda"
    count, side = (1 << 28, 8192) if large else (1 << 22, 256)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates: dict[str, Any] = {
        "copy_bytes_per_s": 2 * count / _best(lambda: target.copy_(source), device)
    }
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for bits, kind in ((32, torch.float32), (16, torch.float16)):
            a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
            seconds = _best(partial(torch.matmul, a, b), device)
            rates[f"macs_per_s_{bits}_bits"] = side**3 / seconds
        a, b = (torch.randint(-9, 9, (side, side), device=device).char() for _ in range(2))
        # Tensor cores want the second one by columns.
        rates["macs_per_s_8_bits"] = side**3 / _best(partial(torch._int_mm, a, b.t()), device)
    except (AttributeError, RuntimeError) as error:  # `_int_mm` is not torch's public interface
        rates["left_out"] = f"{type(error).__name__}: {error}"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return rates


def _best(work: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of some runs after two: a ceiling is what the device can do."""
    from torch.utils.benchmark import Timer

    timer = Timer("work()", globals={"work": work}, num_threads=16)  # waits for the device
    timer.timeit(2)
    return min(timer.timeit(1).median for _ in range(_RUNS))
