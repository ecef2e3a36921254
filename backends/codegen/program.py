"""From a planned tile-level module to a program: constants, symbols, configuration, debug information, text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.backends.codegen.kernel import Buffer, KernelCode
from focusc.backends.codegen.scalars import Lasting
from focusc.backends.constants import constant_of, stored
from focusc.backends.obuf import Placement, Planner
from focusc.backends.passes.plan_memory import buffer_bytes, conc_geometry
from focusc.ir import Loc, Module, Op, TensorType, Value
from focusc.ir.diagnostics import fail
from focusc.isa import Addr, DebugEntry, Insn, Program, Symbol
from focusc.isa import insns as isa
from focusc.isa.host import HostNode, HostSegment
from focusc.isa.machine import Machine
from focusc.isa.program import ITEM_BYTES

HostModel = Callable[[Op], bytes]
"""Writes the ONNX model of a `host.call`: inputs x0, x1 ..., outputs y0, y1 ... of the call's operands and results."""
DECLARATIONS = ("tile.bind", "tile.buffer", "tile.view", "tile.read", "tensor.constant", "return")
"""Ops that belong to no kernel, as index constants do."""


def generate(
    module: Module,
    machine: Machine,
    meta: dict[str, Any] | None = None,
    *,
    weights: bool = True,
    host: HostModel | None = None,
) -> Program:
    """The program of a module that went through `tile` and `plan-memory`.

    Without `weights` the constants' values are left out: the program can be timed, not executed. `host` writes the
    models of what the host runs; a module with host calls needs it. Raises CompileError if
    a kernel's tiles do not fit the output buffer, a value does not fit its storage type, or a weight has no values.
    """
    return _Generator(module, machine, host, weights).run(meta or {})


class _Generator:
    def __init__(self, module: Module, machine: Machine, host: HostModel | None, weights: bool) -> None:
        self.module, self.machine, self.weights = module, machine, weights
        self.host_model = host if weights else None
        self.segments: list[HostSegment] = []
        self.text: list[Insn] = []
        self.index: list[int] = []
        self.entries: dict[Loc, int] = {}
        self.nodes: list[dict[str, Any]] = [dict(n) for n in module.attrs.get("nodes", ())]
        self.debug = [DebugEntry(n["op"], n["node"], n["path"], n["op"]) for n in self.nodes]
        for i, n in enumerate(self.nodes):
            self.entries.setdefault(Loc(node=n["node"], module_path=n["path"]), i)
        self.buffers: dict[Value, Buffer] = {}
        self.sites: dict[tuple[int, str], int] = {}
        self.site_table: list[dict[str, Any]] = []
        self.state: dict[str, Insn] = {}
        self.lasting = Lasting()
        self.obuf_peak = self.obuf_bound = self.obuf_next = 0

    def run(self, meta: dict[str, Any]) -> Program:
        self._place_buffers()
        const = self._constants() if self.weights else np.zeros(0, np.uint8)
        for kernel in self._kernels():
            self._kernel(kernel)
        self._emit(isa.Halt(), Loc())
        plan: dict[str, Any] = dict(self.module.attrs["plan"])
        plan["obuf_lower_bound_bytes"] = self.obuf_bound
        plan["obuf_peak_bytes"], plan["obuf_bytes"] = self.obuf_peak, self.machine.buffers.output.bytes
        symbols = self._symbols()
        unused = self._unused(symbols)
        return Program(
            self.text,
            const,
            symbols,
            arena_bytes=plan["peak_bytes"],
            target=self.machine.name,
            hardware=self.machine.to_dict(),
            plan=plan,
            debug=self.debug,
            debug_index=self.index,
            meta={
                **meta,
                "model": self.module.name,
                "sites": self.site_table,
                "nodes": self.nodes,
                "layout": _plain(self.module.attrs.get("layout", {})),
                **({"unused_inputs": unused} if unused else {}),
            },
            const_bytes=plan["constant_bytes"],
            host=self.segments,
        )

    def _emit(self, insn: Insn, loc: Loc) -> None:
        self.text.append(insn)
        self.index.append(self._entry(loc))

    def _entry(self, loc: Loc) -> int:
        if not loc.known:
            return -1
        key = Loc(node=loc.node, module_path=loc.module_path)
        found = self.entries.get(key)
        if found is None:
            found = self.entries[key] = len(self.debug)
            self.debug.append(DebugEntry("", loc.node, loc.module_path, ""))
            self.nodes.append(
                {"op": "", "node": loc.node, "path": loc.module_path, "region": "other", "macs_dense": 0, "useful": 1.0}
            )
        return found

    # -- data ----------------------------------------------------------------------------------------------------
    def _place_buffers(self) -> None:
        for op in self.module.body.ops:
            if op.name in ("tile.bind", "tile.buffer"):
                self.buffers[op.results[0]] = Buffer(op, op.attrs["address"], op.attrs["shape"][1], op.attrs["dtype"])
            elif op.name == "tile.view":
                assert op.operands[0] is not None
                base = self.buffers[op.operands[0]]
                dtype = op.attrs["dtype"] or base.dtype
                start = base.address + op.attrs["offset"] * ITEM_BYTES[dtype]
                self.buffers[op.results[0]] = Buffer(op, start, op.attrs["shape"][1], dtype)

    def _constants(self) -> NDArray[np.uint8]:
        const = np.zeros(self.module.attrs["plan"]["constant_bytes"], np.uint8)
        for op in self.module.body.ops:
            if constant_of(op) is not None:
                data = stored(op)
                at = op.attrs["address"]
                const[at : at + len(data)] = np.frombuffer(data, np.uint8)
        return const

    def _unused(self, symbols: list[Symbol]) -> list[str]:
        """Names of the model's inputs that the program has no place for, since nothing depends on them."""
        names = {*self.module.attrs.get("unused_inputs", ()), *(arg.name for arg in self.module.args)}
        return sorted(names - {symbol.name for symbol in symbols if symbol.kind == "input"})

    def _symbols(self) -> list[Symbol]:
        found: list[Symbol] = []
        by_value = {arg: arg.name for arg in self.module.args}
        names: set[str] = set()
        for op in self.module.body.ops:
            if op.name == "tile.bind" and op.operands[0] in by_value:
                value = op.operands[0]
                assert value is not None and isinstance(value.type, TensorType)
                found.append(Symbol(value.name, "input", op.attrs["dtype"], value.type.shape, op.attrs["address"]))
                names.add(value.name)
        for name, value in zip(self.module.outputs, self.module.results, strict=True):
            read = value.op
            assert read is not None and read.operands[0] is not None
            buffer = self.buffers[read.operands[0]]
            found.append(Symbol(name, "output", buffer.dtype, read.attrs["shape"], buffer.address))
            names.add(name)
        for op in self.module.body.ops:
            if op.name in ("tile.bind", "tile.buffer") and op.operands[:1] != [None]:
                if op.name == "tile.bind" and op.operands[0] in by_value:
                    continue
                source = constant_of(op)
                kind = "const" if source is not None else "scratch"
                label = source.attrs["value"].name if source is not None else op.attrs.get("label", op.results[0].name)
                label = label or f"{kind}{len(found)}"
                while label in names:
                    label += "_"
                names.add(label)
                conc = op.attrs.get("layout") == "conc"
                shape = (buffer_bytes(op),) if conc else tuple(op.attrs["shape"])
                found.append(Symbol(label, kind, "u8" if conc else op.attrs["dtype"], shape, op.attrs["address"]))
        return found

    # -- kernels -------------------------------------------------------------------------------------------------
    def _kernels(self) -> list[list[Op]]:
        """Runs of ops that start at a fence; declarations belong to none."""
        kernels: list[list[Op]] = []
        for op in self.module.body.ops:
            if op.name == "tile.fence":
                kernels.append([op])
            elif op.name not in DECLARATIONS and (op.name != "tile.affine" or op.operands):
                kernels[-1].append(op)
        return kernels

    def _kernel(self, ops: list[Op]) -> None:
        fence, *rest = ops
        channels = fence.attrs["channels"]
        self._emit(isa.Fence(**dict.fromkeys(channels, 1)), fence.loc)
        if rest and rest[0].name == "host.call":
            self._host(rest[0])
            return
        self._configure(rest)
        capacity = self.machine.buffers.output.bytes
        place = Planner(rest, capacity).plan()
        # Kernels take turns in the buffer where they fit side by side, so that one need not wait for the last to drain.
        base = self.obuf_next if self.obuf_next + place.peak <= capacity else 0
        place.move(base)
        self.obuf_next = base + place.peak
        self.obuf_peak = max(self.obuf_peak, place.peak)
        self.obuf_bound = max(self.obuf_bound, place.lower_bound)
        self._code(rest, place)

    def _code(self, ops: list[Op], place: Placement) -> None:
        """The commands of a kernel, behind the numbers that they need. What loop registers count follows from the code
        itself, which is written a first time to find out."""
        draft = KernelCode(lambda insn, loc: None, self.buffers.__getitem__, self._site, Lasting())
        draft.run(ops, place)
        code: list[tuple[Insn, Loc]] = []
        final = KernelCode(
            lambda insn, loc: code.append((insn, loc)), self.buffers.__getitem__, self._site, self.lasting, draft.units
        )
        final.run(ops, place)
        for number in self.lasting.flush():
            self._emit(number, ops[0].loc)
        for insn, loc in code:
            self._emit(insn, loc)

    def _host(self, call: Op) -> None:
        """A segment of the host's, and the instruction that runs it."""
        loc = call.loc
        if self.host_model is None and self.weights:
            raise fail(
                "codegen.host",
                "a part of the model is the host's to run, and nothing here writes its ONNX model",
                loc,
                hint="compile with focusc.compile or `focusc compile`, which do",
            )
        reads = [v.op for v in call.operands if v is not None and v.op is not None]
        binds = [user for v in call.results for user in v.users if user.name == "tile.bind"]
        inputs = [self._tensor(f"x{i}", "input", op.operands[0], op.results[0].type) for i, op in enumerate(reads)]
        outputs = [
            self._tensor(f"y{i}", "output", op.results[0], v.type)
            for i, (v, op) in enumerate(zip(call.results, binds, strict=True))
        ]
        nodes = tuple(HostNode(**node) for node in call.attrs["nodes"])
        model = self.host_model(call) if self.host_model is not None else b""
        self._emit(isa.Host(len(self.segments)), loc)
        self.segments.append(HostSegment(tuple(inputs), tuple(outputs), nodes, model))

    def _tensor(self, name: str, kind: str, buffer: Value | None, type_: Any) -> Symbol:
        assert buffer is not None and isinstance(type_, TensorType)
        found = self.buffers[buffer]
        return Symbol(name, kind, found.dtype, type_.shape, found.address)

    def _configure(self, ops: list[Op]) -> None:
        """Emit the descriptors that the kernel's commands read, where they differ from what is set."""
        for op in (inner for outer in ops for inner in outer.walk()):
            if op.name == "tile.sic":
                a = op.attrs
                self._set(isa.CfgLayout(*a["grid"], *a["strides"]), op)
                self._set(
                    isa.CfgSic(
                        bf=a["block"][0],
                        bh=a["block"][1],
                        bw=a["block"][2],
                        vector=32,
                        threshold=a["threshold"],
                        boundary=a["boundary"],
                        chase=a["chase"],
                    ),
                    op,
                )
                self._positions(op, op.operands[5], a["visual_len"], a["visual_start"])
            elif op.name == "tile.sec_topk":
                self._positions(op, op.operands[1], op.attrs["visual_len"], op.attrs["visual_start"])
            elif op.name == "tile.load_patch":
                self._patch(op)

    def _positions(self, op: Op, listed: Value | None, count: int, start: int) -> None:
        address = self.buffers[listed].address if listed is not None else 0
        self._set(isa.CfgPos(addr=Addr(0, address), count=count, visual_start=start, identity=int(listed is None)), op)

    def _patch(self, op: Op) -> None:
        a = op.attrs
        _, c, d, h, w = a["image"]
        begins, ends = a["pads"][:3], a["pads"][-3:]  # the machine takes those behind an axis from its output extent
        out = [
            (n + p + q - k) // s + 1
            for n, p, q, k, s in zip((d, h, w), begins, ends, a["kernel"], a["stride"], strict=True)
        ]
        dtype = self.buffers[op.operands[0]].dtype if op.operands[0] is not None else "f16"
        self._set(isa.CfgConvIn(c=c, d=d, h=h, w=w, dtype=dtype), op)
        self._set(isa.CfgConvWin(*a["kernel"], *a["stride"], *begins, *out), op)

    def _set(self, insn: Insn, op: Op) -> None:
        if self.state.get(insn.mnemonic) != insn:
            self.state[insn.mnemonic] = insn
            self._emit(insn, op.loc)

    def _site(self, op: Op) -> int:
        """Number of the site table's row for a `tile.sic`; rows are made in program order."""
        a = op.attrs
        key = (a["layer"], a["site"])
        if key not in self.sites:
            self.sites[key] = len(self.site_table)
            assert op.operands[1] is not None
            buffer = self.buffers[op.operands[1]]
            rows, cols = buffer.op.attrs["shape"]
            layout = self.module.attrs.get("layout", {})
            full = layout["visual"][1] if layout else a["visual_len"]
            self.site_table.append(
                {
                    "layer": a["layer"],
                    "site": a["site"],
                    "tokens": full,
                    "retained": a["visual_len"],
                    "rows": rows,
                    "slots": math.ceil(cols / 32),
                    # where its blocks lie, so that counts by m-tile and slot find the commands that they belong to
                    "visual_start": a["visual_start"],
                    "m": buffer.op.attrs["m"],
                    "first": buffer.op.attrs["first"],
                    "address": buffer.address,
                    "cap": conc_geometry(buffer.op)[2],
                }
            )
        return self.sites[key]


def _plain(value: Any) -> Any:
    """Tuples as lists, for JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
