"""Traces: made from a workload, from masks, or by a run; described in tables and plots."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.driver.errors import InputError
from focusc.driver.files import check_outputs, existing, toml_file

if TYPE_CHECKING:
    from focusc.backends.trace import Trace
    from focusc.backends.workload import Workload

PLOTS = (".png", ".svg", ".pdf")


def synthesize_trace(
    workload: Workload,
    output: str | os.PathLike[str],
    *,
    compression: float,
    correlation: float | None = None,
    seed: int = 0,
    m: int = 1024,
    links: bool = False,
    source: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Write a synthetic trace of a workload and return its facts; `source` is the file that the workload is from.

    `correlation` None: `trace_synth.CORRELATION`, fitted to the published utilisation of tiles.
    """
    from focusc.backends.trace_file import save
    from focusc.backends.trace_synth import CORRELATION, synthesize

    _check_name(output)
    check_outputs({"-o": output}, {"the workload": toml_file(source)})
    correlation = CORRELATION if correlation is None else correlation
    trace = synthesize(workload, compression=compression, correlation=correlation, seed=seed, m=m, links=links)
    save(output, trace)
    return {**trace_facts(trace), "path": os.fspath(output), "bytes": os.path.getsize(output)}


def import_trace(
    masks: str | os.PathLike[str], output: str | os.PathLike[str], *, workload: str = "", m: int = 1024
) -> dict[str, Any]:
    """Write the trace of masks (`SITE.mask_zero`, `SITE.mask_similar` in an .npz) and return its facts."""
    from focusc.backends.trace_file import save
    from focusc.backends.trace_masks import import_masks

    _check_name(output)
    check_outputs({"-o": output}, {"the masks": masks})
    trace = import_masks(existing(masks, "file of masks (.npz)"), workload=workload, m=m)
    save(output, trace)
    return {**trace_facts(trace), "path": os.fspath(output), "bytes": os.path.getsize(output)}


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """The tables of a trace file; CompileError or IsaError for anything that is not one."""
    from focusc.backends.trace_file import load

    found = load(existing(path, "trace (.npz)")).trace
    if found is None:
        raise InputError(
            "trace.tables",
            "the file has the counts of one program and no tables by layer and site",
            where=os.fspath(path),
            hint="`focusc simulate` can use it with that program; tables need all five sites of a decoder",
        )
    return found


def trace_info(
    path: str | os.PathLike[str], *, workload: Workload | None = None, plot: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Facts of a trace file; `workload` is checked against it, `plot` (.png, .svg, .pdf) is drawn."""
    if plot is not None and Path(plot).suffix.lower() not in PLOTS:
        raise InputError("trace.plot", f"a plot ends in {', '.join(PLOTS)}", where=os.fspath(plot))
    check_outputs({"--plot": plot}, {"the trace": path})
    trace = load_trace(path)
    if workload is not None:
        trace.check(workload)
    facts = {**trace_facts(trace), "path": os.fspath(path), "bytes": os.path.getsize(path)}
    if plot is not None:
        from focusc.report.traces import draw

        draw(trace, plot)
        facts["plot"] = os.fspath(plot)
    return facts


def trace_facts(trace: Trace) -> dict[str, Any]:
    """What a trace says, as plain data: by layer and site the retained tokens, the unique vectors and their spread over
    m-tiles and slots, the compression = retained / unique."""
    from focusc.backends.trace import SITES

    compression = trace.compression()
    rows: list[dict[str, Any]] = []
    for layer in range(trace.layers):
        for column, site in enumerate(SITES):
            row: dict[str, Any] = {
                "layer": layer,
                "site": site,
                "retained": int(trace.retained[layer, column]),
                "slots": int(trace.columns[column]),
                "similar": int(trace.similar[layer, column]),
                "zero": int(trace.zero[layer, column]),
                "compression": float(compression[layer, column]),
            }
            if trace.unique is not None:
                found = trace.unique_of(layer, site)
                share = found / trace.tile_rows(layer, site)[:, None]
                row["tiles"] = len(found)
                row["unique"] = {"mean": float(found.mean()), "min": int(found.min()), "max": int(found.max())}
                tenth = np.minimum((share * 10).astype(int), 9).reshape(-1)
                row["occupancy"] = np.bincount(tenth, minlength=10).tolist()
            rows.append(row)
    return {
        "workload": trace.workload,
        "source": dict(trace.source),
        "layers": trace.layers,
        "tokens": trace.tokens,
        "m": trace.m,
        "heads": trace.heads.tolist(),
        "slots": trace.slots.tolist(),
        "compression": float(compression.mean()),
        "unique": trace.unique is not None,
        "links": trace.links is not None,
        "sites": rows,
    }


def _check_name(output: str | os.PathLike[str]) -> None:
    if Path(output).suffix != ".npz":
        raise InputError("file.suffix", "a trace is an .npz file", where=os.fspath(output), hint="end the name in .npz")
