"""Networks of other libraries, each by a function that `--network my_networks:NAME` calls.

    pip install torchvision segmentation-models-pytorch transformers

All begin with new weights; `train.py` trains them. In a project of your own this file is yours:
what the kit asks for is a function that gives a `torch.nn.Module`.
"""

from __future__ import annotations

import torch
from torch import nn

# torchvision looks up two operators of its own when it is imported. Where torch is a build for CPUs
# alone, torchvision's package index may bring a build that lacks them, and the import fails. No
# network here calls them, so that their names are enough. Where they are there, nothing is done.
try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    _OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401


def lraspp(num_classes: int = 8) -> nn.Module:
    """torchvision's LR-ASPP on MobileNetV3: it upsamples its logits inside, by half-pixel."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes)


def unet(num_classes: int = 8) -> nn.Module:
    """segmentation-models-pytorch's U-Net on ResNet-18: its logits have the image's size."""
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, classes=num_classes)


def deeplabv3plus(num_classes: int = 8) -> nn.Module:
    """segmentation-models-pytorch's DeepLabV3+ on ResNet-18: it upsamples, corners aligned."""
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=num_classes)


def segformer(num_classes: int = 8) -> nn.Module:
    """transformers' SegFormer-B0: its logits are a quarter of the image's size."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=num_classes))


def road() -> nn.Module:
    """A U-Net of one channel of logits: road where they are above 0, something else below."""
    return unet(num_classes=1)
