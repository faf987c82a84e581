"""The official 16B checkpoint: `load(folder_or_hub_id)` returns a model that draws and answers."""

from .backbone import load_backbone
from .calls import OfficialModel, load

__all__ = ["OfficialModel", "load", "load_backbone"]
