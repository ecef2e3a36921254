"""Running programs on the emulator, timing them, and timing recorded runs again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from focusc.driver.arrays import read_npz, write_npz
from focusc.driver.errors import InputError
from focusc.driver.files import check_outputs, existing, toml_file, write_text
from focusc.driver.load import load_program
from focusc.driver.progress import Progress, silent
from focusc.isa.errors import IsaError

if TYPE_CHECKING:
    from focusc.backends.trace import Trace
    from focusc.host import HostSegments
    from focusc.isa import Program
    from focusc.isa.dynamic import DynamicCounts
    from focusc.isa.machine import Machine
    from focusc.isa.site_counts import SiteCounts
    from focusc.isa.timing import Timing

Array = np.ndarray[Any, np.dtype[Any]]
ArrayModel = Literal["scalesim", "pipelined"]
Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """Outputs by name (f16 results as float32) and the statistics of stats.json; `counts` is the recorded trace."""

    outputs: dict[str, Array]
    stats: dict[str, Any]
    program: Program = field(repr=False)
    counts: DynamicCounts = field(repr=False)

    def save_stats(self, path: Path) -> None:
        """Write the statistics as JSON."""
        write_text(path, json.dumps(self.stats, indent=1) + "\n")

    def save_trace(self, path: Path) -> None:
        """Write the trace: the counts of this run, for `simulate`, and their tables by layer and site."""
        from focusc.backends.trace_file import save
        from focusc.backends.trace_program import record

        save(path, record(self.program, self.counts), self.counts, self.program)


class Runner:
    """One program, ready to run many times: its expansion and its constants are prepared once."""

    def __init__(self, program: Program, machine: Machine | None = None, *, strict: bool = False) -> None:
        from focusc.isa.emulator import Emulator

        self.program = program
        self.machine = machine if machine is not None else machine_of(program)
        self._host = host_of(program)
        self._emulator = Emulator(program, strict=strict, host=self._host)

    def run(self, inputs: Mapping[str, Any], *, array: str = "pipelined", timeline: Path | None = None) -> Result:
        """Execute on `inputs`, then time; `timeline` is written for the Perfetto viewer."""
        before = self._host.seconds if self._host is not None else 0.0
        done = self._emulator.run(inputs)
        timing = timed(self.program, self.machine, done.counts, array, timeline)
        outputs = {name: _plain(value) for name, value in done.outputs.items()}
        stats = statistics(self.program, self.machine, done.counts, timing)
        if self._host is not None:
            stats["host"]["seconds"] = self._host.seconds - before
            stats["host"]["clipped"] = done.clipped
        return Result(outputs, stats, self.program, done.counts)

    def outputs(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Execute without timing."""
        return {name: _plain(value) for name, value in self._emulator.run(inputs).outputs.items()}


def host_of(program: Program) -> HostSegments | None:
    """What runs a program's host segments; onnxruntime is imported only if there are some."""
    if not program.host:
        return None
    from focusc.host import HostSegments

    return HostSegments(program)


def timed(
    program: Program,
    machine: Machine,
    counts: DynamicCounts | SiteCounts | None,
    array: str,
    timeline: Path | None = None,
    progress: Progress = silent,
) -> Timing:
    """Time a program from unique counts. A timeline wants every command's times: it is timed once more for it, so that
    the statistics are the same to the last bit with and without one."""
    from focusc.isa.timing import simulate as time_program

    if timeline is not None:
        from focusc.isa.timeline import write_timeline

        write_timeline(timeline, program, machine, time_program(program, machine, counts, array))
    return time_program(
        program, machine, counts, array, detail=False, progress=lambda done: progress(f"{done:,} commands", 0, 1)
    )


def statistics(
    program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None, timing: Timing
) -> dict[str, Any]:
    """The statistics of a timed run."""
    from focusc.isa.stats import stats

    return stats(program, machine, counts, timing)


def run(
    program: Program | Path,
    inputs: Mapping[str, Any],
    *,
    array: ArrayModel = "pipelined",
    strict: bool = False,
    timeline: Path | None = None,
) -> Result:
    """Run a program on named arrays and time it on the hardware it was compiled for.

    `array` is the timing model of the systolic array; `strict` adds the emulator's checks (unwritten memory, races, NaN
    from finite inputs). Raises IsaError for unfit inputs and Fault for a program that goes wrong.
    """
    loaded = load_program(program) if isinstance(program, (str, os.PathLike)) else program
    return Runner(loaded, strict=strict).run(inputs, array=array, timeline=timeline)


def simulate(
    program: Program | Path,
    trace: Trace | DynamicCounts | Path | None = None,
    *,
    array: ArrayModel = "pipelined",
    timeline: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Statistics of a program from a trace alone: no weights are read and no values are computed.

    `trace` is a trace file, a `Trace` or the counts of a run; None for a program that does not concentrate. A file that
    was recorded from this very program gives the exact counts of that run, any other its tables by layer and site.
    """
    loaded = load_program(program) if isinstance(program, (str, os.PathLike)) else program
    machine = machine_of(loaded)
    counts = counts_for(loaded, trace)
    timing = timed(loaded, machine, counts, array, timeline, progress)
    return statistics(loaded, machine, counts, timing)


def counts_for(program: Program, trace: Trace | DynamicCounts | Path | None) -> DynamicCounts | SiteCounts | None:
    """The unique counts that a trace has for a program's commands; CompileError or IsaError if they do not fit."""
    from focusc.backends.trace import Trace
    from focusc.backends.trace_file import load
    from focusc.backends.trace_program import site_counts
    from focusc.isa.dynamic import DynamicCounts, program_digest

    if trace is None or isinstance(trace, DynamicCounts):
        return trace
    if isinstance(trace, Trace):
        return site_counts(trace, program)
    found = load(existing(trace, "trace (.npz)"))
    if found.trace is None or (found.counts is not None and found.counts.digest == program_digest(program)):
        return found.counts
    return site_counts(found.trace, program)


def run_files(
    program: Path,
    inputs: Path,
    output: Path,
    *,
    stats: Path | None = None,
    timeline: Path | None = None,
    record_trace: Path | None = None,
    array: ArrayModel = "pipelined",
    target: str | None = None,
    strict: bool = False,
    progress: Progress = silent,
) -> Result:
    """`focusc run`: everything from files to files. Nothing is written unless the run succeeds."""
    check_outputs(
        {"-o": output, "--stats": stats, "--timeline": timeline, "--record-trace": record_trace},
        {"the program": program, "--inputs": inputs, "--target": toml_file(target)},
    )
    progress("load", 0, 3)
    if timeline is not None and os.path.splitext(timeline)[1].lower() not in (".pftrace", ".json"):
        raise InputError(
            "timeline.format", "a timeline ends in .pftrace (Perfetto) or .json (Chrome)", os.fspath(timeline)
        )
    loaded = load_program(program)
    if target is not None:
        check_target(loaded, target, where=os.fspath(program))
    arrays = read_npz(inputs)
    progress("run", 1, 3)
    try:
        result = run(loaded, arrays, array=array, strict=strict, timeline=timeline)
    except IsaError as error:
        if error.code.startswith("input."):
            error.where = os.fspath(inputs)
        raise
    result.stats["digests"]["file"] = file_digest(program)
    progress("write", 2, 3)
    write_npz(output, result.outputs)
    if stats is not None:
        result.save_stats(stats)
    if record_trace is not None:
        result.save_trace(record_trace)
    progress("done", 3, 3)
    return result


def simulate_files(
    program: Path,
    trace: Path | None = None,
    *,
    stats: Path | None = None,
    timeline: Path | None = None,
    array: ArrayModel = "pipelined",
    progress: Progress = silent,
) -> dict[str, Any]:
    """`focusc simulate`: statistics from a program file and a trace file."""
    check_outputs({"--stats": stats, "--timeline": timeline}, {"the program": program, "--trace": trace})
    try:
        found = simulate(program, trace, array=array, timeline=timeline, progress=progress)
    except IsaError as error:
        if error.code.startswith("counts.") and not error.where:
            error.where = f"{os.fspath(trace or '')} (with {os.fspath(program)})"
        raise
    found["digests"]["file"] = file_digest(program)
    if stats is not None:
        write_text(stats, json.dumps(found, indent=1) + "\n")
    return found


def machine_of(program: Program) -> Machine:
    """The hardware description that the program carries; IsaError if it is not a valid one."""
    from focusc.isa.machine import Machine

    return Machine.from_dict(program.hardware, "the program's hardware description")


def check_target(program: Program, target: str, where: str = "") -> None:
    """InputError unless the program was compiled for exactly this hardware (a target name or a TOML file)."""
    from focusc.backends import load_hardware

    machine = load_hardware(target)
    if program.hardware_digest != machine.digest:
        message = f"compiled for {program.target} (hardware {program.hardware_digest[:12]}), not for {machine.name} "
        raise InputError(
            "program.target",
            f"{message}({machine.digest[:12]})",
            where=where,
            hint=f"compile the model again with --target {target}",
        )


def file_digest(path: Path) -> str:
    """blake2b-128 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def mean_costs(stats: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over several runs: cycles, time_s, energy_mj, dram_bytes, sparsity, macs."""

    def mean(values: Sequence[float]) -> float:
        return float(sum(values)) / len(values)

    return {
        "cycles": mean([item["cycles"] for item in stats]),
        "time_s": mean([item["time_s"] for item in stats]),
        "energy_mj": mean([item["energy_mj"]["total"] for item in stats]),
        "dram_bytes": mean([item["dram_bytes"]["read"] + item["dram_bytes"]["write"] for item in stats]),
        "sparsity": mean([item["sparsity"] for item in stats]),
        "macs": mean([item["macs"] for item in stats]),
    }


def _plain(value: Array) -> Array:
    """f16 results as float32, which every tool can read; others as they are."""
    return value.astype(np.float32) if value.dtype == np.float16 else value
