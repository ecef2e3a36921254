"""The demo model in torch: LLaVA/Qwen2-VL in miniature. Every width and head size is a multiple of 32.

pixels -> patch convolution -> ViT blocks within each frame -> projector, plus positions -> causal decoder -> logits of
the last position
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import VISUAL
from .scene import FRAMES, GRID, PATCH
from .tokenizer import PREFIX, QUERY, VOCAB_SIZE

__all__ = ["Config", "DemoModel", "positions", "read_weights"]


@dataclass(frozen=True)
class Config:
    """Sizes of the model; the defaults are the shipped one."""

    vision_width: int = 128
    vision_heads: int = 4
    vision_mlp: int = 512
    vision_layers: int = 2
    width: int = 192
    heads: int = 6
    kv_heads: int = 2
    head_size: int = 32
    mlp: int = 384
    layers: int = 6
    axes: tuple[int, int, int] = (6, 5, 5)
    """Rotary pairs given to the t, h and w axes; they add up to half the head size."""
    rope_base: float = 100.0


def positions() -> Tensor:
    """Rotary positions int64 [3, T] on the t, h, w axes, as Qwen2-VL counts them: text advances all three together,
    visual tokens take their place on the grid, and the text after them goes on from the largest position used."""
    start = len(PREFIX)
    before = torch.arange(start).expand(3, -1)
    t, h, w = torch.meshgrid(torch.arange(FRAMES), torch.arange(GRID), torch.arange(GRID), indexing="ij")
    visual = torch.stack([t.flatten(), h.flatten(), w.flatten()]) + start
    after = torch.arange(QUERY).expand(3, -1) + start + max(FRAMES, GRID)
    return torch.cat([before, visual, after], dim=1)


def rotary(config: Config) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [T, head_size]; the two halves of a head rotate together (half-rotation)."""
    pos = positions().float()
    angles = [pos[i][:, None] * config.rope_base ** (-torch.arange(n) / n) for i, n in enumerate(config.axes)]
    half = torch.cat(angles, dim=1)
    both = torch.cat([half, half], dim=1)
    return both.cos(), both.sin()


def coordinates(width: int) -> Tensor:
    """Start of the positions added to visual tokens, float32 [8, 36, width]: t, h and w, each of unit variance, along
    one random direction each. Rotary positions tell attention where a token is, but not the token itself; without this
    the features hold no trace of their cell, and comparing places ("left of") is learnt late or never."""
    t, h, w = torch.meshgrid(torch.arange(FRAMES), torch.arange(GRID), torch.arange(GRID), indexing="ij")
    axes = torch.stack([(a - a.float().mean()) / a.float().std() for a in (t, h, w)], dim=-1)
    return (1.2 * axes @ torch.randn(3, width)).view(FRAMES, GRID * GRID, width)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to x [..., T, head_size]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class VisionBlock(nn.Module):
    """Bidirectional attention within a frame, then a GELU MLP; x is [frames, 36, width]."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads = c.vision_heads
        self.norm1 = nn.LayerNorm(c.vision_width)
        self.qkv = nn.Linear(c.vision_width, 3 * c.vision_width)
        self.proj = nn.Linear(c.vision_width, c.vision_width)
        self.norm2 = nn.LayerNorm(c.vision_width)
        self.fc1 = nn.Linear(c.vision_width, c.vision_mlp)
        self.fc2 = nn.Linear(c.vision_mlp, c.vision_width)

    def forward(self, x: Tensor) -> Tensor:
        n, p, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, p, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5, dim=-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(n, p, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Vision(nn.Module):
    """Patch convolution, learnt positions, ViT blocks: [frames, 3, 48, 48] -> [frames, 36, width]."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, c.vision_width, PATCH, stride=PATCH)
        self.position = nn.Parameter(torch.randn(GRID * GRID, c.vision_width) * 0.02)
        self.blocks = nn.ModuleList(VisionBlock(c) for _ in range(c.vision_layers))
        self.norm = nn.LayerNorm(c.vision_width)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Projector(nn.Module):
    """Two layers from the vision width to the decoder's."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c.vision_width, c.width)
        self.fc2 = nn.Linear(c.width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """Grouped-query attention. `project` and `o_proj` are apart so that training can pack questions in between."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = c.heads, c.kv_heads, c.head_size
        self.q_proj = nn.Linear(c.width, c.heads * c.head_size)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_size)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_size)
        self.o_proj = nn.Linear(c.heads * c.head_size, c.width, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated q [B, heads, T, size], rotated k and plain v [B, kv_heads, T, size]; query head h reads key head
        h // (heads / kv_heads)."""
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.size).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.project(x, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.width, c.mlp, bias=False)
        self.up_proj = nn.Linear(c.width, c.mlp, bias=False)
        self.down_proj = nn.Linear(c.mlp, c.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP with residual adds."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.input_norm = RMSNorm(c.width)
        self.attention = Attention(c)
        self.mlp_norm = RMSNorm(c.width)
        self.mlp = MLP(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.input_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))


class DemoModel(nn.Module):
    """The whole prefill: `forward(pixel_values [8, 3, 48, 48] f32, input_ids [1, 301] i64) -> logits [1, 64]`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or Config()
        self.vision = Vision(c)
        self.projector = Projector(c)
        self.position = nn.Parameter(coordinates(c.width))
        self.embed_tokens = nn.Embedding(VOCAB_SIZE, c.width)
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.width)
        self.lm_head = nn.Linear(c.width, VOCAB_SIZE, bias=False)
        cos, sin = rotary(c)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                std = 0.02 if isinstance(module, nn.Embedding) else module.in_features**-0.5
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @staticmethod
    def random(seed: int) -> DemoModel:
        """An untrained model; torch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = DemoModel().eval()
            for parameter in model.parameters():         # constant biases and gains would hide mistakes, and be merged
                if parameter.ndim == 1:
                    parameter.data += 0.1 * torch.randn_like(parameter)
            return model

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        start, end = len(PREFIX), len(PREFIX) + VISUAL
        visual = (self.projector(self.vision(pixel_values)) + self.position).reshape(1, VISUAL, -1)
        text = self.embed_tokens(input_ids)
        x = torch.cat([text[:, :start], visual, text[:, end:]], dim=1)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.lm_head(self.norm(x[:, -1]))


def read_weights(path: Path) -> DemoModel:
    """A model in eval mode with the float16 weights of a safetensors file, widened to float32."""
    from safetensors.torch import load_file

    model = DemoModel()
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model.eval()
