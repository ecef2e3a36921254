"""Small configs of each family: two decoder layers, grouped queries, heads of 32, images of 28 to 56 pixels.

torch-free. They hold what a family's graph is made of and nothing of its size: the tests and docs/families.md are made
with them.

    focusc export config.json --random-weights 0 -o model.onnx      # after write_config("qwen2_vl", "config.json")
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["INSTANCES", "Instance", "write_config"]

_TEXT: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 2,
}
_NARROW: dict[str, Any] = {"hidden_size": 64}
"""Heads of 16 columns, too narrow for the 32-wide vectors of SIC: the site `query` is left out."""
_TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 7,
}
_TOKENS: dict[str, Any] = {"image_token_id": 120, "video_token_id": 121}
_TILES: dict[str, Any] = {"image_grid_pinpoints": [[28, 28], [28, 56], [56, 28], [56, 56]]}
_ROTARY: dict[str, Any] = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
_QWEN: dict[str, Any] = {"vision_start_token_id": 122, "vision_end_token_id": 123}

_CONFIGS: dict[str, dict[str, Any]] = {
    "llava_onevision": {
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **_TOWER},
        "text_config": {"model_type": "qwen2", **_TEXT}, "vision_feature_layer": -1, **_TOKENS, **_TILES},
    "llava_next_video": {
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": 32, **_TOWER},
        "text_config": {"model_type": "llama", **_TEXT}, **_TOKENS, **_TILES},
    "qwen2_vl": {
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2,
                          "patch_size": 7, "in_channels": 3},
        "text_config": {**_TEXT, "rope_parameters": _ROTARY}, **_TOKENS, **_QWEN},
    "qwen2_5_vl": {
        "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 128,
                          "num_heads": 2, "patch_size": 7, "window_size": 28, "fullatt_block_indexes": [1]},
        "text_config": {**_TEXT, "rope_parameters": _ROTARY}, **_TOKENS, **_QWEN},
    "smolvlm": {
        "vision_config": _TOWER, "text_config": {"model_type": "llama", **_TEXT}, "scale_factor": 2,
        "image_token_id": 120},
    "idefics3": {
        "vision_config": _TOWER, "text_config": {"model_type": "llama", **_TEXT, **_NARROW}, "scale_factor": 2,
        "image_token_id": 120},
    "minicpmv4_6": {
        "vision_config": {**_TOWER, "image_size": 56}, "insert_layer_id": 0, "image_size": 56,
        "text_config": {
            "model_type": "qwen3_5_text", **_TEXT, "head_dim": 32, "layer_types": ["linear_attention",
                                                                                  "full_attention"],
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
            "linear_value_head_dim": 16}, **_TOKENS},
    "qwen3_vl": {
        "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 128,
                          "num_heads": 2, "patch_size": 7, "deepstack_visual_indexes": [0, 1],
                          "num_position_embeddings": 16},
        "text_config": {**_TEXT, "head_dim": 32, "rope_parameters": {**_ROTARY, "mrope_interleaved": True}},
        **_TOKENS, **_QWEN},
    "internvl": {
        "vision_config": {**_TOWER, "image_size": [28, 28], "patch_size": [7, 7]},
        "text_config": {"model_type": "qwen2", **_TEXT}, "image_token_id": 120, "image_seq_length": 4},
    "llava": {
        "vision_config": {"model_type": "clip_vision_model", "projection_dim": 32, **_TOWER},
        "text_config": {"model_type": "llama", **_TEXT}, "image_token_id": 120, "image_seq_length": 16},
    "paligemma": {
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 128,
                          **_TOWER},
        "text_config": {"model_type": "gemma", **_TEXT, "head_dim": 32}, "image_token_id": 120, "projection_dim": 128},
    "gemma3": {
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **_TOWER},
        "text_config": {"model_type": "gemma3_text", **_TEXT, "head_dim": 32, "sliding_window": 16,
                        "layer_types": ["sliding_attention", "full_attention"]},
        "mm_tokens_per_image": 4, "image_token_id": 120},
}


@dataclass(frozen=True)
class Instance:
    """A small model and its made-up sample: `frames` of a clip, or None for one image."""

    model_type: str
    frames: int | None

    @property
    def config(self) -> dict[str, Any]:
        """Contents of its config.json."""
        return {"model_type": self.model_type, **_CONFIGS[self.model_type]}

    @property
    def name(self) -> str:
        """`llava_onevision-video` and the like."""
        return f"{self.model_type}-{'image' if self.frames is None else 'video'}"


INSTANCES = tuple(Instance(kind, frames) for kind, frames in (
    ("llava_onevision", None), ("llava_onevision", 2), ("llava_next_video", 2), ("qwen2_vl", None), ("qwen2_vl", 4),
    ("qwen2_5_vl", 4), ("smolvlm", 2), ("idefics3", None), ("minicpmv4_6", 2), ("qwen3_vl", 4), ("internvl", 2),
    ("llava", None), ("paligemma", None), ("gemma3", 2),
))
"""The variants that must pass."""


def write_config(model_type: str, path: Path | str) -> Path:
    """Write the small config of a family as JSON."""
    path = Path(path)
    path.write_text(json.dumps({"model_type": model_type, **_CONFIGS[model_type]}, indent=1), encoding="utf-8")
    return path
