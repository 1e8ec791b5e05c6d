"""Training and compression. Needs torch, once a training starts."""

from icnet_deploy.training.config import TrainConfig, load_config

__all__ = ["TrainConfig", "load_config"]
