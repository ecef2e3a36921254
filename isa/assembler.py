"""The assembler: `.fasm` text to a program. Every wrong line gives an AsmError with line, column and caret.

Directives: `.fasm 1`, `.target "name"`, `.arena BYTES`, `.hardware {json}`, `.plan {json}`, `.meta {json}`,
`.symbol name, kind, type, [shape], address`, `.const "hex"` (appended), `.zero COUNT` (appended), `.const_file "name",
BYTES, "digest"`, `.const_absent BYTES` (constants without values), `.debug "ir", "node", "path", "op"` (appended),
`.host {json}` (a segment of the host's: inputs, outputs, nodes), `.host_model "base64"` (appended to the one before),
`.loc N` (debug entry of the instructions that follow, -1 for none). Comments start with `;` or `#`.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, cast

import lark
import numpy as np
from lark import Lark, Token, Tree
from numpy.typing import NDArray

from focusc.isa.errors import AsmError, IsaError, suggest
from focusc.isa.fields import STREAM, Addr, AnyField, R
from focusc.isa.host import HostSegment
from focusc.isa.insns import BY_MNEMONIC, Insn
from focusc.isa.predecode import predecode
from focusc.isa.program import DebugEntry, Program, Symbol
from focusc.isa.sections import check_meta, check_plan, parse_json, segment_of

__all__ = ["assemble"]

Node = Tree[Token]
_MAX_CONST = 1 << 30
"""Bytes that `.const` and `.zero` may append in all; larger constants belong in a file."""


@functools.cache
def _parser() -> Lark:
    grammar = Path(__file__).with_name("fasm.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def assemble(text: str, *, file: str = "<fasm>", folder: Path | None = None) -> Program:
    """Program of assembly text. `folder` is where `.const_file` looks. AsmError for anything wrong."""
    return _Assembler(text, file, folder).run()


class _Assembler:
    def __init__(self, text: str, file: str, folder: Path | None) -> None:
        self.text = text
        self.lines = text.split("\n")
        self.file = file
        self.folder = folder
        self.insns: list[Insn] = []
        self.locs: list[int] = []
        self.nodes: list[Node] = []
        self.loc = -1
        self.const = bytearray()
        self.const_data: NDArray[np.uint8] | None = None
        self.symbols: list[Symbol] = []
        self.addresses: dict[str, int] = {}
        self.debug: list[DebugEntry] = []
        self.single: dict[str, Any] = {}
        self.host: list[tuple[HostSegment, bytearray]] = []

    # -------------------------------------------------------------- errors

    def fail(self, code: str, message: str, at: Any = None, hint: str = "") -> NoReturn:
        token = _first(at)
        line, col, width = (token.line or 0, token.column or 0, len(token)) if token is not None else (0, 0, 1)
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        raise AsmError(code, message, line=line, col=col, source=source, width=width, file=self.file,
                       hint=hint) from None

    def run(self) -> Program:
        tree = self.parse()
        statements = [node for node in tree.children if _is_tree(node)]
        # Symbols first: an address may name a symbol that is declared further down.
        for node in statements:
            if node.data == "directive":
                self.directive(str(node.children[0]), node)
        for node in statements:
            if node.data == "directive":
                if str(node.children[0]) == ".loc":
                    self.loc = self.integer(node.children[1] if len(node.children) == 2 else None, node)
                    if not -1 <= self.loc < len(self.debug):
                        self.fail("asm.loc", f"debug entry {self.loc} does not exist, there are {len(self.debug)}",
                                  node)
            else:
                self.insns.append(self.instruction(node))
                self.locs.append(self.loc)
                self.nodes.append(node)
        try:
            const = self.const_data if self.const_data is not None else np.frombuffer(bytes(self.const), np.uint8)
            single = self.single
            program = Program(self.insns, const, self.symbols, single.get(".arena", 0), single.get(".target", ""),
                              single.get(".hardware", {}), single.get(".plan", {}), self.debug, self.locs,
                              single.get(".meta", {}), const_bytes=single.get(".const_absent"),
                              host=[replace(segment, model=bytes(model)) for segment, model in self.host])
            predecode(program)  # loops are matched, the one halt is at the end
        except IsaError as error:
            pc = error.where.removeprefix("pc ")
            self.fail("asm.program", error.message, self.nodes[int(pc)] if pc.isdigit() else None, error.hint)
        return program

    def parse(self) -> Node:
        try:
            tree: Node = cast(Any, _parser()).parse(self.text + "\n")
            return tree
        except lark.exceptions.UnexpectedInput as error:
            line, col = max(error.line, 1), max(error.column, 1)
            if isinstance(error, lark.exceptions.UnexpectedToken):
                token: Token = cast(Any, error).token
                found = "the end of the line" if token.type in ("_NL", "$END") else repr(str(token))
                line, col = token.line or line, token.column or col
            else:
                at = error.pos_in_stream or 0
                found = repr(self.text[at:at + 1])
            source = self.lines[line - 1] if line <= len(self.lines) else ""
            raise AsmError("asm.syntax", f"{found} was not expected here", line=line, col=col, source=source,
                           file=self.file, hint="statements are `mnemonic operand, ...` or `.directive ...`, one to a "
                           "line") from None

    # -------------------------------------------------------------- directives

    def directive(self, name: str, node: Node) -> None:
        args = node.children[1:]
        if name in (".arena", ".const_absent", ".fasm", ".target", ".hardware", ".plan", ".meta"):
            if name in self.single:
                self.fail("asm.twice", f"{name} is given twice", node)
            if len(args) != 1:
                self.fail("asm.directive", f"{name} takes one argument", node)
            self.single[name] = self.one(name, args[0])
        elif name == ".symbol":
            self.symbol(node, args)
        elif name == ".const":
            for arg in args or [None]:
                try:
                    data = bytes.fromhex(self.string(arg, node))
                except ValueError:
                    self.fail("asm.hex", "constant data is not hexadecimal", arg)
                self.room(len(data), arg)
                self.const += data
        elif name == ".zero":
            count = self.integer(args[0] if len(args) == 1 else None, node)
            if not 0 <= count <= _MAX_CONST:
                self.fail("asm.zero", f".zero {count}: expected 0..{_MAX_CONST}", node)
            self.room(count, node)
            self.const += bytes(count)
        elif name == ".const_file":
            self.const_file(node, args)
        elif name == ".host":
            if len(args) != 1:
                self.fail("asm.directive", ".host takes one argument", node)
            row = self.json(name, args[0], lambda value: None)
            try:
                self.host.append((segment_of(row, len(self.host), b""), bytearray()))
            except IsaError as error:
                self.fail("asm.json", error.message, args[0])
        elif name == ".host_model":
            self.host_model(node, args)
        elif name == ".debug":
            if len(args) != 4:
                self.fail("asm.directive", ".debug takes four texts: ir, node, path, op", node)
            self.debug.append(DebugEntry(*(self.string(arg, node) for arg in args)))
        elif name != ".loc":
            self.fail("asm.directive", f"there is no directive {name}", node,
                      "directives: .fasm .target .arena .hardware .plan .meta .symbol .const .zero .const_file "
                      ".const_absent .host .host_model .debug .loc")

    def room(self, size: int, at: Any) -> None:
        if len(self.const) + size > _MAX_CONST:
            self.fail("asm.const", f"the constants grow to {len(self.const) + size} bytes, expected at most "
                      f"{_MAX_CONST}", at, "put them in a file: .const_file")

    def one(self, name: str, arg: Any) -> Any:
        if name == ".target":
            return self.string(arg, arg)
        if name in (".arena", ".const_absent", ".fasm"):
            value = self.integer(arg, arg)
            if name == ".fasm" and value != 1:
                self.fail("asm.version", f"assembly version {value}, this tool reads 1", arg)
            if not 0 <= value <= 1 << 48:
                self.fail("asm.arena", f"{'an arena' if name == '.arena' else 'constants'} of {value} bytes", arg)
            return value
        return self.json(name, arg, {".meta": check_meta, ".plan": check_plan}.get(name, lambda value: None))

    def json(self, name: str, arg: Any, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """A JSON object that `check` accepts."""
        if not isinstance(arg, Token) or arg.type != "JSON":
            self.fail("asm.directive", f"{name} takes a JSON object on one line", arg)
        try:
            value = parse_json(str(arg))
            check(value)
        except IsaError as error:
            self.fail("asm.json", error.message, arg)
        except (ValueError, RecursionError) as error:
            self.fail("asm.json", f"not valid JSON: {str(error) or type(error).__name__}", arg)
        return value

    def host_model(self, node: Node, args: list[Any]) -> None:
        if not self.host:
            self.fail("asm.directive", ".host_model stands behind the .host whose model it is", node)
        for arg in args or [None]:
            try:
                data = base64.b64decode(self.string(arg, node), validate=True)
            except (binascii.Error, ValueError):
                self.fail("asm.model", "the model is not base64", arg)
            self.room(len(data) + sum(len(model) for _, model in self.host), arg)
            self.host[-1][1].extend(data)

    def symbol(self, node: Node, args: list[Any]) -> None:
        if len(args) != 5 or not _is_tree(args[3]) or args[3].data != "list":
            self.fail("asm.directive", ".symbol takes: name, kind, type, [shape], address", node)
        name, kind, dtype = (self.string(arg, node) for arg in args[:3])
        shape = tuple(self.integer(item, node) for item in args[3].children)
        try:
            found = Symbol(name, kind, dtype, shape, self.integer(args[4], node))
        except IsaError as error:
            self.fail("asm.symbol", error.message, args[0])
        if name in self.addresses:
            self.fail("asm.twice", f"symbol {name} is defined twice", args[0])
        self.symbols.append(found)
        self.addresses[name] = found.address

    def const_file(self, node: Node, args: list[Any]) -> None:
        if len(args) != 3:
            self.fail("asm.directive", '.const_file takes: "file", bytes, "digest"', node)
        name, size, digest = self.string(args[0], node), self.integer(args[1], node), self.string(args[2], node)
        if Path(name).name != name or name in ("", ".", ".."):
            self.fail("asm.const-file", f"{name!r} is not a plain file name", args[0])
        if self.folder is None or not (self.folder / name).is_file():
            self.fail("asm.const-file", f"constants file {name} is not beside the text", args[0])
        data = np.fromfile(self.folder / name, np.uint8)
        if len(data) != size or hashlib.blake2b(data.data, digest_size=16).hexdigest() != digest:
            self.fail("asm.const-file", f"{name} has other contents ({len(data)} bytes) than the text says", args[0])
        self.const_data = data

    # -------------------------------------------------------------- tokens

    def string(self, arg: Any, near: Any) -> str:
        token = arg if isinstance(arg, Token) else _only(arg)
        if token is None or token.type not in ("STRING", "WORD"):
            self.fail("asm.operand", "a text was expected", arg if arg is not None else near)
        if token.type == "WORD":
            return str(token)
        try:
            return str(json.loads(str(token)))
        except ValueError:
            self.fail("asm.string", "the text has a wrong escape sequence", token)

    def integer(self, arg: Any, near: Any) -> int:
        atoms = _atoms(arg)
        if len(atoms) != 1 or atoms[0][1].type != "INT":
            self.fail("asm.operand", "an integer was expected", arg if arg is not None else near)
        return atoms[0][0] * self.number(atoms[0][1])

    def number(self, token: Token) -> int:
        if len(token) > 40:
            self.fail("asm.operand", "the number is too long", token)
        return int(token, 16) if token[:2].lower() == "0x" else int(token)

    # -------------------------------------------------------------- instructions

    def instruction(self, node: Node) -> Insn:
        mnemonic = str(node.children[0])
        cls = BY_MNEMONIC.get(mnemonic)
        if cls is None:
            self.fail("asm.mnemonic", f"there is no instruction {mnemonic[:40]}", node,
                      suggest(mnemonic, BY_MNEMONIC))
        free = [item for item in cls.fields.values() if item.kind not in ("flag", "enum")]
        free.sort(key=lambda item: not item.positional)  # stable: what is printed by position comes first
        values: dict[str, Any] = {}
        for operand in node.children[1:]:
            assert isinstance(operand, Tree)
            if operand.data == "named":
                name, value = str(operand.children[0]), operand.children[1]
                item = cls.fields.get(name)
                if item is None:
                    self.fail("asm.operand", f"{mnemonic} has no operand {name[:40]}", operand, "operands: "
                              + (", ".join(cls.fields) or "none"))
            else:
                value = operand.children[0]
                item = self.word(cls, value)
                if item is None:
                    item = next((f for f in free if f.name not in values), None)
                if item is None:
                    self.fail("asm.operand", f"{mnemonic} does not take this operand", operand,
                              "operands: " + (", ".join(cls.fields) or "none"))
            if item.name in values:
                self.fail("asm.twice", f"operand {item.name} is given twice", operand)
            values[item.name] = self.value(item, value)
        try:
            return cls(**values)
        except IsaError as error:
            self.fail("asm.operand", error.message, node, error.hint)

    def word(self, cls: type[Insn], value: Any) -> AnyField | None:
        """The flag or enum field that a bare word stands for."""
        token = _only(value)
        if token is None or token.type != "WORD":
            return None
        for item in cls.fields.values():
            if (item.kind == "flag" and token == item.name) or (item.kind == "enum" and token in item.choices):
                return item
        return None

    def value(self, item: AnyField, node: Any) -> Any:
        kind = item.kind
        if kind == "addr":
            if not _is_tree(node) or node.data != "address":
                self.fail("asm.operand", f"{item.name} is an address, written [symbol+offset+register]", node)
            return self.address(node)
        if _is_tree(node) and node.data == "address":
            self.fail("asm.operand", f"{item.name} is not an address", node)
        atoms = _atoms(node)
        token = atoms[0][1]
        if kind in ("ext", "sext"):
            return self.extent(item, atoms, node)
        if len(atoms) != 1:
            self.fail("asm.operand", f"{item.name} is a single value", node)
        if kind == "flag" and token == item.name:
            return 1
        if kind == "enum" and token.type == "WORD":
            return str(token)
        if kind == "reg":
            number = _numbered("r", token)
            if number is None:
                self.fail("asm.operand", f"{item.name} is a register r0..r63", node)
            return number
        if kind == "tile":
            number = STREAM if token == "s" else _numbered("t", token)
            if number is None or (number == STREAM and token != "s"):
                self.fail("asm.operand", f"{item.name} is a tile t0..t30" + (" or s" if "s" in item.access else ""),
                          node)
            return number
        if kind == "f32":
            if token == "inf" or (token.type in ("INT", "FLOAT") and len(token) <= 40):
                return atoms[0][0] * (float(token) if token[:2].lower() != "0x" else float(int(token, 16)))
            self.fail("asm.operand", f"{item.name} is a number", node)
        return self.integer(node, node)

    def extent(self, item: AnyField, atoms: list[tuple[int, Token]], node: Any) -> int | R:
        register, total = 0, 0
        for sign, token in atoms:
            number = _numbered("r", token)
            if number is not None and sign > 0 and not register:
                register = number
            elif token.type == "INT":
                total += sign * self.number(token)
            else:
                self.fail("asm.operand", f"{item.name} is a number, a register, or a register plus a number", node)
        return R(register, total) if register else total

    def address(self, node: Node) -> Addr:
        register, total = 0, 0
        for sign, token in _atoms(node.children[0]):
            if token.type == "INT":
                total += sign * self.number(token)
                continue
            number = _numbered("r", token) if token.type == "WORD" else None
            if number is not None and sign > 0 and not register:
                register = number
                continue
            if token.type == "FLOAT":
                self.fail("asm.operand", "an address is made of symbols, numbers and one register", token)
            name = self.string(token, token)
            if name not in self.addresses:
                self.fail("asm.symbol", f"there is no symbol {name[:60]}", token)
            total += sign * self.addresses[name]
        return Addr(register, total)


def _is_tree(node: Any) -> TypeGuard[Node]:
    return isinstance(node, Tree)


def _atoms(node: Any) -> list[tuple[int, Token]]:
    """Signed atoms of a `sum`."""
    out: list[tuple[int, Token]] = []
    sign = 1
    for child in node.children if _is_tree(node) else []:
        if isinstance(child, Token):
            sign = -1 if child == "-" else 1
        else:
            if child.data != "atom":
                return []
            token = child.children[0]
            if isinstance(token, Token):
                out.append((sign, token))
            sign = 1
    return out


def _only(node: Any) -> Token | None:
    """The one unsigned atom of a `sum`, if that is what it is."""
    atoms = _atoms(node)
    return atoms[0][1] if len(atoms) == 1 and atoms[0][0] > 0 else None


def _first(node: Any) -> Token | None:
    """The first token inside a node."""
    while _is_tree(node):
        if not node.children:
            return None
        node = node.children[0]
    return node if isinstance(node, Token) else None


def _numbered(letter: str, token: Token) -> int | None:
    """n of `rn` or `tn` for n below 64."""
    digits = token[1:]
    if token[:1] != letter or not digits.isascii() or not digits.isdigit() or len(digits) > 2:
        return None
    if str(int(digits)) != digits:
        return None
    return int(digits) if int(digits) < 64 else None
