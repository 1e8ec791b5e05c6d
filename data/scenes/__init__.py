"""Street scenes drawn by a program: any size, all 19 Cityscapes classes, seeded."""

from icnet_deploy.data.scenes.dataset import write_scenes
from icnet_deploy.data.scenes.scene import Scene, draw_scene

__all__ = ["Scene", "draw_scene", "write_scenes"]
