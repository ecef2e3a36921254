"""The one driver below the command line, the Python API, the tests and the benchmarks.

Every name is loaded on first use, so that a command pays only for what it does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focusc.driver.assembly import assemble_file
    from focusc.driver.comparison import compare
    from focusc.driver.compiler import Compilation, compile, compile_model
    from focusc.driver.demonstration import demo
    from focusc.driver.errors import InputError
    from focusc.driver.execution import Result, run, run_files, simulate, simulate_files
    from focusc.driver.exporter import export, export_vlm, vlm_request
    from focusc.driver.inspection import objdump
    from focusc.driver.load import load_model, load_program
    from focusc.driver.options import CompileOptions, layout_facts
    from focusc.driver.progress import Progress
    from focusc.driver.snapshots import opt
    from focusc.driver.support import concentration_sites, ops
    from focusc.driver.traces import import_trace, load_trace, synthesize_trace, trace_info
    from focusc.driver.workloads import list_workloads, load_workload, write_workload

# where each name lives; no module is called like a function here, or importing it would hide the function
_HOME = {
    "Compilation": "compiler",
    "CompileOptions": "options",
    "InputError": "errors",
    "Progress": "progress",
    "Result": "execution",
    "assemble_file": "assembly",
    "compare": "comparison",
    "compile": "compiler",
    "compile_model": "compiler",
    "concentration_sites": "support",
    "demo": "demonstration",
    "export": "exporter",
    "export_vlm": "exporter",
    "import_trace": "traces",
    "layout_facts": "options",
    "list_workloads": "workloads",
    "load_model": "load",
    "load_program": "load",
    "load_trace": "traces",
    "load_workload": "workloads",
    "objdump": "inspection",
    "ops": "support",
    "opt": "snapshots",
    "run": "execution",
    "run_files": "execution",
    "simulate": "execution",
    "simulate_files": "execution",
    "synthesize_trace": "traces",
    "trace_info": "traces",
    "vlm_request": "exporter",
    "write_workload": "workloads",
}

__all__ = [
    "Compilation",
    "CompileOptions",
    "InputError",
    "Progress",
    "Result",
    "assemble_file",
    "compare",
    "compile",
    "compile_model",
    "concentration_sites",
    "demo",
    "export",
    "export_vlm",
    "import_trace",
    "layout_facts",
    "list_workloads",
    "load_model",
    "load_program",
    "load_trace",
    "load_workload",
    "objdump",
    "ops",
    "opt",
    "run",
    "run_files",
    "simulate",
    "simulate_files",
    "synthesize_trace",
    "trace_info",
    "vlm_request",
    "write_workload",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'focusc.driver' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"focusc.driver.{_HOME[name]}"), name)
    globals()[name] = value
    return value
