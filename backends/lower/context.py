"""State of one lowering: which window holds which value, what is fused into what, and who writes where."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from focusc.backends.lower.emit import Emit, Ix
from focusc.backends.lower.views import ConcView, View, first_rows, matrix_shape
from focusc.backends.mapping import Rows, even
from focusc.backends.options import Tiling
from focusc.ir import (
    Block,
    BufferType,
    Builder,
    ConcentratedType,
    Loc,
    Module,
    Op,
    TensorType,
    TokensType,
    Value,
    dtype_name,
)
from focusc.ir.diagnostics import fail

STORAGE = {"f32": "f16", "f16": "f16", "i64": "i32", "i32": "i32", "bool": "i8"}
"""DRAM element type of a value's type."""

SIC_ATTRS = (
    "visual_start",
    "visual_len",
    "grid",
    "strides",
    "block",
    "threshold",
    "boundary",
    "chase",
    "layer",
    "site",
)


@dataclass(frozen=True)
class Sink:
    """Where a kernel's result goes: rows of a dense window, or a concentrated buffer through SIC."""

    view: View | ConcView
    gather: Op | None = None
    positions: View | None = None


@dataclass
class Node:
    """Accounting of one source op, for sparsity and the profile."""

    op: str
    node: str
    path: str
    region: str
    macs_dense: int
    pairs_useful: int = 0
    pairs_done: int = 0
    macs_moved: int = 0
    """Of the array, for elements that only change places: products with the identity."""

    @property
    def useful(self) -> float:
        """Share of the array's work that counts: without masked pairs, and without movement."""
        share = self.pairs_useful / self.pairs_done if self.pairs_done else 1.0
        if not self.macs_moved:
            return share
        return self.macs_dense / (self.macs_dense / share + self.macs_moved)


def origin(op: Op) -> Loc:
    """The source node of an op, without the position of the text it was read from."""
    return Loc(node=op.loc.node, module_path=op.loc.module_path)


@dataclass
class Lowering:
    """Lowers one nn-level module; `run` in `focusc.backends.lower` drives it."""

    module: Module
    tiling: Tiling
    emit: Emit = field(default_factory=lambda: Emit(Builder(Block())))
    at: dict[Value, View | ConcView] = field(default_factory=dict[Value, View | ConcView])
    destination: dict[Value, tuple[Value, int, int]] = field(default_factory=dict[Value, tuple[Value, int, int]])
    """Values that are written straight into a concatenation: its value, first row and first column."""
    absorbed: set[Op] = field(default_factory=set[Op])
    pending: dict[Op, Callable[[], None]] = field(default_factory=dict[Op, Callable[[], None]])
    nodes: dict[Loc, Node] = field(default_factory=dict[Loc, Node])
    prologues: dict[Value, tuple[Value, Callable[[Value], Value]]] = field(
        default_factory=dict[Value, tuple[Value, Callable[[Value], Value]]]
    )
    """Values that the reduction which reads them computes: what they are a function of, and the function of a tile."""
    shared: dict[str, Value] = field(default_factory=dict[str, Value])
    """Constant buffers of the lowering's own, by name."""
    exact: dict[Value, str] = field(default_factory=dict[Value, str])
    """Values of another storage type than `STORAGE` says."""
    infinite: dict[Value, bool] = field(default_factory=dict[Value, bool])
    """Whether a value may hold an infinity that the model means, as far as somebody asked."""
    masks: dict[tuple[Value, str], View] = field(default_factory=dict[tuple[Value, str], View])
    """Constant masks that are added, by storage type."""

    # -- values --------------------------------------------------------------------------------------------------
    def view(self, value: Value) -> View:
        """The dense window of a value that is already lowered; constants are bound on first use."""
        found = self.at.get(value)
        if found is None and value.op is not None and value.op.name == "tensor.constant":
            found = self.bind_constant(value)
        if isinstance(found, ConcView):
            raise fail(
                "lower.layout",
                f"%{value.name} is concentrated ({value.type}), expected a dense value here",
                self.loc_of(value),
                hint="reconstruct it with sic.scatter",
            )
        assert found is not None, f"%{value.name} is read before it is lowered"
        return found

    @staticmethod
    def loc_of(value: Value) -> Loc:
        """Location of the defining op."""
        return value.op.loc if value.op is not None else Loc()

    def bind_constant(self, value: Value) -> View:
        """A window of a constant buffer, defined in the module's body whatever loop is open."""
        assert value.op is not None
        with self.emit.outside():
            copy = self.emit.b.create("tensor.constant", value=value.op.attrs["value"], loc=value.op.loc).result
            copy.name = value.name
            view = self.bind(copy, self.exact.get(value))
        self.at[value] = view
        return view

    def bind(self, tensor: Value, dtype: str | None = None) -> View:
        """A tensor (argument or constant) as a window; `dtype` is its storage type if not the usual one."""
        assert isinstance(tensor.type, TensorType)
        rows, cols = matrix_shape(tensor.type)
        dtype = dtype or STORAGE.get(tensor.type.dtype)
        if dtype is None:
            raise fail(
                "lower.dtype",
                f"%{tensor.name} has element type {tensor.type.dtype}; expected one of {', '.join(STORAGE)}, which the "
                "machine stores as f16, i32 and i8",
                hint="convert it in the model, or compute it from constants",
            )
        buffer = self.emit.op("tile.bind", tensor, shape=(rows, cols), dtype=dtype)
        buffer.name = tensor.name
        return View(buffer, 0, 0, rows, cols, cols, dtype)

    def constant(self, name: str, array: NDArray[Any]) -> View:
        """A constant of the lowering's own, one for each name in a module."""
        if name not in self.shared:
            with self.emit.outside():
                self.shared[name] = self.bind(self.emit.b.constant(array, name=name)).buffer
        rows, cols = self.buffer_shape(self.shared[name])
        return View(self.shared[name], 0, 0, rows, cols, cols, STORAGE[str(dtype_name(array.dtype))])

    @staticmethod
    def buffer_shape(buffer: Value) -> tuple[int, int]:
        """Rows and columns of a buffer."""
        assert isinstance(buffer.type, BufferType)
        return buffer.type.shape[0], buffer.type.shape[1]

    def stand_in(self, value: Value) -> None:
        """Take a value as stored in full, if no kernel wrote it because its op was refused."""
        op, type_ = value.op, value.type
        if value in self.at or (op is not None and op.name in ("tensor.constant", "return")):
            return
        rows, cols = matrix_shape(type_)
        if isinstance(type_, ConcentratedType):
            first = min(rows, type_.m)
            shape = {"shape": (rows, cols), "dtype": "f16", "layout": "conc", "first": first, "m": type_.m}
            buffer = self.emit.op("tile.buffer", label=value.name, **shape)
            self.at[value] = ConcView(buffer, rows, cols, first, type_.m)
        elif op is not None and op.name == "sec.importance":
            self.at[value] = View(self.emit.op("tile.sec_init", count=cols), 0, 0, 1, cols, cols, "f32")
        else:
            dtype = STORAGE.get(type_.dtype, "f16") if isinstance(type_, TensorType) else "i32"
            self.at[value] = self.allocate(rows, cols, value.name, dtype)

    def allocate(self, rows: int, cols: int, label: str, dtype: str = "f16") -> View:
        """A fresh row-major buffer."""
        buffer = self.emit.op("tile.buffer", shape=(rows, cols), dtype=dtype, label=label)
        return View(buffer, 0, 0, rows, cols, cols, dtype)

    def reshaped(self, view: View, rows: int, cols: int) -> View | None:
        """The same elements as another matrix, or None if that needs a copy."""
        if (view.rows, view.cols) == (rows, cols):
            return view
        if not view.contiguous:
            return None
        if view.row == 0 and view.col == 0 and cols == view.pitch:
            return View(view.buffer, 0, 0, rows, cols, cols, view.dtype)
        alias = self.emit.op("tile.view", view.buffer, shape=(rows, cols), offset=view.offset)
        return View(alias, 0, 0, rows, cols, cols, view.dtype)

    def alone(self, view: View) -> View | None:
        """The same elements as a buffer that holds nothing else, or None if that needs a copy."""
        if not view.contiguous:
            return None
        if (view.row, view.col, *self.buffer_shape(view.buffer)) == (0, 0, view.rows, view.cols):
            return view
        alias = self.emit.op("tile.view", view.buffer, shape=(view.rows, view.cols), offset=view.offset)
        return View(alias, 0, 0, view.rows, view.cols, view.cols, view.dtype)

    # -- sinks ---------------------------------------------------------------------------------------------------
    def single_user(self, value: Value) -> Op | None:
        """The only reader of a value, if it reads it once and the value is no output."""
        return value.users[0] if value.use_count == 1 and value.users[0].name != "return" else None

    def gather_of(self, value: Value) -> Op | None:
        """The `sic.gather` that is the only reader of a value, if SIC can take it on the way out."""
        user = self.single_user(value)
        if user is None or user.name != "sic.gather" or user.operands[0] is not value:
            return None
        return user if matrix_shape(value.type)[1] % 32 == 0 else None

    def gather_rows(self, gather: Op) -> Rows:
        """The m-tiles of a concentrated value: no tile holds rows of two SIC tiles."""
        a = gather.attrs
        rows = matrix_shape(gather.results[0].type)[0]
        return Rows(rows, first_rows(rows, a["m"], (a["visual_start"], a["visual_len"])), a["m"])

    def sink(self, value: Value, *, direct: bool = True) -> Sink:
        """Decide where `value` is written: through SIC if only its gather reads it (and `direct`), into the buffer of a
        concatenation, or into a buffer of its own."""
        rows, cols = matrix_shape(value.type)
        gather = self.gather_of(value) if direct else None
        if gather is not None:
            self.absorbed.add(gather)
            return self.gather_sink(gather)
        placed = self.destination.get(value)
        if placed is not None:
            home, row, col = placed
            view = self.home(home).rows_from(row, rows).cols_from(col, cols)
        else:
            view = self.allocate(rows, cols, value.name, self.storage(value))
        self.at[value] = view
        return Sink(view)

    def storage(self, value: Value) -> str:
        """DRAM element type of a value."""
        usual = STORAGE.get(value.type.dtype, "f16") if isinstance(value.type, TensorType) else "f16"
        return self.exact.get(value, usual)

    def home(self, concat: Value) -> View:
        """The buffer of a concatenation, made when its first part is written."""
        found = self.at.get(concat)
        if not isinstance(found, View):
            found = self.allocate(*matrix_shape(concat.type), concat.name, self.storage(concat))
            self.at[concat] = found
        return found

    def result(self, value: Value) -> View:
        """The dense window that a kernel writes `value` into."""
        view = self.sink(value, direct=False).view
        assert isinstance(view, View)
        return view

    def gather_sink(self, gather: Op) -> Sink:
        """The concentrated buffer of a `sic.gather`."""
        type_ = gather.result.type
        assert isinstance(type_, ConcentratedType)
        a = gather.attrs
        if a["m"] > self.tiling.m:
            raise fail(
                "tile.m",
                f"SIC tiles of m = {a['m']} rows do not fit GEMM m-tiles of {self.tiling.m}",
                gather.loc,
                hint="concentrate{m=...} and tile{m=...} must agree",
            )
        rows, cols = matrix_shape(type_)
        first = self.gather_rows(gather).first
        buffer = self.emit.op(
            "tile.buffer",
            shape=(rows, cols),
            dtype="f16",
            layout="conc",
            first=first,
            m=a["m"],
            label=gather.result.name,
        )
        view = ConcView(buffer, rows, cols, first, a["m"])
        self.at[gather.result] = view
        positions = gather.operands[1] if len(gather.operands) > 1 else None
        return Sink(view, gather, self.view(positions) if positions is not None else None)

    def put(self, sink: Sink, tile: Value, it: Ix, row: Ix, col: Ix | int, slot: Ix | int) -> None:
        """Write one tile: rows from `row` (m-tile `it`), columns from `col` (slot `slot`)."""
        if isinstance(sink.view, View):
            self.emit.store(tile, sink.view.buffer, row + sink.view.row, Ix.of(col) + sink.view.col)
            return
        assert sink.gather is not None
        e = self.emit
        e.effect(
            "tile.sic",
            tile,
            sink.view.buffer,
            e.ix(it),
            e.ix(slot),
            e.ix(row),
            sink.positions.buffer if sink.positions is not None else None,
            loc=sink.gather.loc,
            **{key: sink.gather.attrs[key] for key in SIC_ATTRS},
        )

    def deferred(self, op: Op, emit: Callable[[], None]) -> None:
        """Write the kernel where `op`, the last op fused into it, stands: all its operands are there by then."""
        self.pending[op] = emit

    # -- partitions ----------------------------------------------------------------------------------------------
    def rows_of(self, total: int, *views: View | ConcView, most: int | None = None) -> Rows:
        """How to cut `total` rows: as the concentrated operand or result demands, else evenly into pieces of at most
        `most` (default m) rows."""
        for view in views:
            if isinstance(view, ConcView):
                return Rows(total, view.first, view.m)
        return even(total, self.tiling.m if most is None else most)

    def columns(self, rows: int, live: int, total: int, multiple: int = 32, fixed: int = 0) -> int:
        """Columns of a GEMM tile: the most (a multiple of `multiple`, at most n) of which `live` tiles of `rows` rows
        fit twice in the output buffer, or once if twice never fits; 0 if not even one does."""
        for copies in (2, 1):
            fit = (self.tiling.obuf - fixed) // (4 * rows * live * copies)
            best = min(fit, self.tiling.n) // multiple * multiple
            if best:
                return min(best, -(-total // multiple) * multiple)
        return 0

    # -- bookkeeping ---------------------------------------------------------------------------------------------
    def kernel(self, op: Op, *channels: str) -> None:
        """Start the kernel of `op`: later loads and stores wait for what earlier kernels wrote and read."""
        self.emit.at(op.loc)
        self.emit.effect("tile.fence", channels=channels or ("act", "store"))

    def name_nodes(self) -> None:
        """One node for each source location; an op without one is named by its number."""
        for number, op in enumerate(self.module.body.ops):
            if op.name not in ("return", "tensor.constant"):
                if not origin(op).known:
                    op.loc = replace(op.loc, node=f"{op.name}#{number}")
                elif op.name == "sec.importance":  # it stands at the attention it observes, but is work of its own
                    op.loc = replace(op.loc, node=f"{op.loc.node} (importance)")
                self.nodes.setdefault(origin(op), Node(op.name, op.loc.node, op.loc.module_path, "other", 0))

    def account(self, op: Op, macs: int, *, decoder: bool, useful: int = 0, done: int = 0) -> None:
        """Add the dense MACs of an op, and the share of useful (query, key) pairs if it is a causal attention."""
        node = self.nodes[origin(op)]
        node.op = op.name
        begun = any(n.region == "decoder" for n in self.nodes.values())
        node.region = "decoder" if decoder else "other" if begun else "vision"
        node.macs_dense += macs
        node.pairs_useful += useful
        node.pairs_done += done

    def account_moved(self, op: Op, macs: int) -> None:
        """Add products with the identity to the op's node: they are no work of the model."""
        self.nodes[origin(op)].macs_moved += macs

    @cached_property
    def lengths(self) -> dict[int, int]:
        """Sequence lengths that occur in the decoder -> the unpruned length."""
        layout = self.module.attrs.get("layout")
        if not layout:
            return {}
        full = layout["visual"][0] + layout["visual"][1] + layout["query"]
        pruned = [op.results[0].type for op in self.module.walk() if op.name == "sec.select"]
        return {full: full} | {t.count: full for t in pruned if isinstance(t, TokensType)}

    @cached_property
    def reads_text(self) -> set[Op]:
        """Ops that depend on embedded text: the decoder, never the vision tower. All ops if no text is embedded."""
        found: set[Op] = set()
        for op in self.module.body.ops:
            if op.name == "nn.embed" or any(v is not None and v.op in found for v in op.operands):
                found.add(op)
        return found or set(self.module.body.ops)

    def dense_rows(self, op: Op) -> tuple[int, bool]:
        """(rows that the first operand of `op` would have unpruned, whether the op works on the decoder's sequence)."""
        x = op.operands[0]
        assert x is not None and isinstance(x.type, TensorType | ConcentratedType)
        shape = x.type.shape
        rows = math.prod(shape[:-1])
        full = self.lengths.get(rows) if op in self.reads_text and len(shape) >= 2 and shape[-2] == rows else None
        return (rows, False) if full is None else (full, True)


Handler = Callable[[Lowering, Op], None]
HANDLERS: dict[str, Handler] = {}
"""Lowering of each nn-level op by name."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register the lowering of these ops."""

    def register(fn: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = fn
        return fn

    return register
