"""Where the keys of a TOML file stand, so that errors can name a line: `tomllib` keeps no positions."""

from __future__ import annotations

import re

__all__ = ["key_lines"]


def key_lines(text: str) -> dict[str, int]:
    """Line (from 1) of every `table.key` and every `table` of a hand-written TOML file.

    Keys inside inline tables and continued arrays have no line of their own.
    """
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = heading[1].replace('"', "").replace(" ", "") + "."
            lines.setdefault(table[:-1], number)
        elif key := re.match(r'\s*"?([\w-]+)"?\s*=', line):
            lines.setdefault(table + key[1], number)
    return lines
