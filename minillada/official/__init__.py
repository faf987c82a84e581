"""The official 16B checkpoint, read into the same classes as the small models."""

from .backbone import load_backbone

__all__ = ["load_backbone"]
