"""The Focus IR: values, types, ops, text format, verifier, interpreter and passes."""

from focusc.ir.core import Block, Module, Op, Value, clone_block, clone_op, op_class
from focusc.ir.declare import OPS, attr, defop, operand, operands, region, result
from focusc.ir.diagnostics import UNKNOWN, CompileError, Diagnostic, InferError, Loc, fail
from focusc.ir.interp import Executor, interpret
from focusc.ir.passes.manager import PassManager, Stats, defpass, defpipeline, parse_pipeline
from focusc.ir.resource import Resource
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.text.parser import parse
from focusc.ir.text.printer import print_module, print_op
from focusc.ir.types import (
    DTYPES,
    BufferType,
    ConcentratedType,
    IndexType,
    StreamType,
    TensorType,
    TileType,
    TokensType,
    Type,
    dtype_name,
)
from focusc.ir.verify import verify

import focusc.ir.ops  # noqa: E402,F401  isort: skip  (declares every op; needs the names above)

__all__ = [
    "DTYPES", "OPS", "UNKNOWN", "Block", "BufferType", "Builder", "CompileError", "ConcentratedType", "Diagnostic",
    "Executor", "IndexType", "InferError", "Loc", "Module", "Op", "PassManager", "Resource", "Rewriter", "Stats",
    "StreamType", "TensorType", "TileType", "TokensType", "Type", "Value", "attr", "clone_block", "clone_op", "defop",
    "defpass", "defpipeline", "dtype_name", "fail", "interpret", "op_class", "operand", "operands", "parse", "parse_pipeline",
    "print_module", "print_op", "region", "result", "verify",
]
