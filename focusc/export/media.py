"""Pictures and clips from files: RGB frames as uint8 arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .errors import ExportError

__all__ = ["read_image", "read_video"]

Frames = np.ndarray[Any, np.dtype[np.uint8]]


def read_image(path: Path) -> Frames:
    """[height, width, 3]. ExportError if the file is no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ExportError(f"this picture cannot be read: {getattr(error, 'strerror', None) or error}",
                          code="export.image", where=str(path), hint="PNG, JPEG and WebP are read") from None


def read_video(path: Path, frames: int, *, every: int | None = None) -> Frames:
    """[frames, height, width, 3]: evenly spaced frames, the first and the last included; or every `every`th from the
    first on.

    ExportError if the file cannot be decoded or has fewer frames.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ExportError("the file has no video stream", code="export.video", where=str(path))
            count = sum(1 for _ in container.decode(video=0))
        needed = frames if every is None else (frames - 1) * every + 1
        if count < needed:
            raise ExportError(f"the clip has {count} frames, {needed} were asked for", code="export.frames",
                              where=str(path), hint=f"use --frames {count} or fewer" if count else "")
        step = (count - 1) / max(1, frames - 1) if every is None else every
        wanted = {round(i * step) for i in range(frames)}
        with av.open(str(path)) as container:
            kept = [frame.to_ndarray(format="rgb24") for index, frame in enumerate(container.decode(video=0))
                    if index in wanted]
    except ExportError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise ExportError(f"this clip cannot be decoded: {getattr(error, 'strerror', None) or error}",
                          code="export.video", where=str(path), hint="PyAV (FFmpeg) must know its format") from None
    return np.stack(kept).astype(np.uint8, copy=False)
