"""Import rules, grouped by topic. Every module in this folder is imported, so that adding a file is enough."""

from __future__ import annotations

import importlib
import pkgutil

for _found in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_found}")
