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
from focusc.driver.files import existing, write_text
from focusc.driver.load import load_program
from focusc.driver.progress import Progress, silent
from focusc.isa.errors import IsaError

if TYPE_CHECKING:
    from focusc.isa import Program, Trace
    from focusc.isa.dynamic import DynamicCounts
    from focusc.isa.machine import Machine
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
        """Write the data-dependent counts, for `simulate`."""
        self.counts.save(path, self.program)


class Runner:
    """One program, ready to run many times: its expansion and its constants are prepared once."""

    def __init__(self, program: Program, machine: Machine | None = None, *, strict: bool = False) -> None:
        from focusc.isa.emulator import Emulator

        self.program = program
        self.machine = machine if machine is not None else machine_of(program)
        self._emulator = Emulator(program, strict=strict)
        self._trace: Trace | None = None

    def run(self, inputs: Mapping[str, Any], *, array: str = "pipelined", timeline: Path | None = None) -> Result:
        """Execute on `inputs`, then time; `timeline` is written for the Perfetto viewer."""
        done = self._emulator.run(inputs)
        timing = self.time(done.counts, array)
        if timeline is not None:
            from focusc.isa.timeline import write_timeline

            write_timeline(timeline, self.program, self.machine, timing, done.counts)
        outputs = {name: _plain(value) for name, value in done.outputs.items()}
        return Result(outputs, self.stats(done.counts, timing), self.program, done.counts)

    def outputs(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Execute without timing."""
        return {name: _plain(value) for name, value in self._emulator.run(inputs).outputs.items()}

    def time(self, counts: DynamicCounts | None, array: str = "pipelined") -> Timing:
        """Time a run from its counts."""
        from focusc.isa import expand
        from focusc.isa.timing import simulate as time_program

        if self._trace is None:
            self._trace = expand(self.program)
        return time_program(self.program, self.machine, counts, array, trace=self._trace)

    def stats(self, counts: DynamicCounts | None, timing: Timing) -> dict[str, Any]:
        """The statistics of a timed run."""
        from focusc.isa.stats import stats

        return stats(self.program, self.machine, counts, timing)


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
    trace: DynamicCounts | Path,
    *,
    array: ArrayModel = "pipelined",
    timeline: Path | None = None,
) -> dict[str, Any]:
    """Statistics of a program from recorded counts alone: no weights are read and no values are computed."""
    from focusc.isa.dynamic import DynamicCounts

    loaded = load_program(program) if isinstance(program, (str, os.PathLike)) else program
    counts = trace if isinstance(trace, DynamicCounts) else DynamicCounts.load(existing(trace, "recorded trace (.npz)"))
    runner = Runner(loaded)
    timing = runner.time(counts, array)
    if timeline is not None:
        from focusc.isa.timeline import write_timeline

        write_timeline(timeline, loaded, runner.machine, timing, counts)
    return runner.stats(counts, timing)


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
    trace: Path,
    *,
    stats: Path | None = None,
    timeline: Path | None = None,
    array: ArrayModel = "pipelined",
) -> dict[str, Any]:
    """`focusc simulate`: statistics from a program file and a trace file."""
    found = simulate(program, trace, array=array, timeline=timeline)
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
