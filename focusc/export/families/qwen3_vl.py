"""Qwen3-VL: as Qwen2.5-VL, but the frames of a clip stand between time stamps of text."""

from __future__ import annotations

from .qwen_vl import media, visual

__all__ = ["MODEL_TYPES", "SEPARATORS", "media", "visual"]

MODEL_TYPES = ("qwen3_vl",)
SEPARATORS = 2
