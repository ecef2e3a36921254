"""Arrays in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """`numpy.savez` of arrays by name. Its signature has `allow_pickle` among them, hence no type for the values."""
    unchecked: dict[str, Any] = dict(arrays)
    np.savez(path, **unchecked)
