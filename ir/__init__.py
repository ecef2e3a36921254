"""The Focus IR: values, types, ops, text format, verifier, interpreter and passes."""

from focusc.ir.compare import difference, same_module
from focusc.ir.concentrated import Concentrated
from focusc.ir.core import Block, Module, Op, Value, clone_block, clone_op, op_class
from focusc.ir.declare import OPS, attr, defop, operand, operands, region, result
from focusc.ir.diagnostics import UNKNOWN, CompileError, Diagnostic, InferError, Loc, fail
from focusc.ir.files import read_module, write_module
from focusc.ir.interp import Executor, interpret
from focusc.ir.passes.manager import PassManager, Stats, defpass, defpipeline, parse_pipeline
from focusc.ir.resource import Resource
from focusc.ir.resource_file import ResourceTable, read_resources, write_resources
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.sampling import seeded_inputs
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

import focusc.ir.ops  # noqa: F401  isort: skip  # pyright: ignore[reportUnusedImport]  declares every op

__all__ = [
    "DTYPES",
    "OPS",
    "UNKNOWN",
    "Block",
    "BufferType",
    "Builder",
    "CompileError",
    "Concentrated",
    "ConcentratedType",
    "Diagnostic",
    "Executor",
    "IndexType",
    "InferError",
    "Loc",
    "Module",
    "Op",
    "PassManager",
    "Resource",
    "ResourceTable",
    "Rewriter",
    "Stats",
    "StreamType",
    "TensorType",
    "TileType",
    "TokensType",
    "Type",
    "Value",
    "attr",
    "clone_block",
    "clone_op",
    "defop",
    "defpass",
    "defpipeline",
    "difference",
    "dtype_name",
    "fail",
    "interpret",
    "op_class",
    "operand",
    "operands",
    "parse",
    "parse_pipeline",
    "print_module",
    "print_op",
    "read_module",
    "read_resources",
    "region",
    "result",
    "same_module",
    "seeded_inputs",
    "verify",
    "write_module",
    "write_resources",
]
