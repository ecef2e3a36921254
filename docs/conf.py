"""Sphinx: MyST Markdown with the Furo theme. `make docs`."""

from importlib.metadata import version as _version

project = "focusc"
copyright = "the focusc authors"  # the name that Sphinx gives this setting
version = release = _version("focusc")
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"focusc {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
