"""Scalar side of code generation: affine index values, registers, and the instructions that compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from focusc.ir.diagnostics import fail
from focusc.isa import Addr, Insn, R
from focusc.isa.insns import Add, Addi, Li, Mov, Muli

EXT_MOST = (1 << 24) - 1


@dataclass(frozen=True)
class Lin:
    """const + sum(coef * register)."""

    const: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Lin | int) -> Lin:
        rhs = other if isinstance(other, Lin) else Lin(other)
        coefs = dict(self.terms)
        for reg, coef in rhs.terms:
            coefs[reg] = coefs.get(reg, 0) + coef
        return Lin(self.const + rhs.const, tuple(sorted((r, c) for r, c in coefs.items() if c)))

    def __mul__(self, factor: int) -> Lin:
        return Lin(self.const * factor, tuple((r, c * factor) for r, c in self.terms) if factor else ())

    @property
    def is_const(self) -> bool:
        """Whether no register is involved."""
        return not self.terms


@dataclass
class Scope:
    """Registers and remembered expressions of one loop body; freed together."""

    registers: list[int] = field(default_factory=list[int])
    known: dict[tuple[tuple[int, int], ...], int] = field(default_factory=dict[tuple[tuple[int, int], ...], int])


class Scalars:
    """Register allocation by scopes. Values that are computed twice in one body are computed once."""

    def __init__(self, emit: Callable[[Insn], None]) -> None:
        self.emit = emit
        self.free = list(range(63, 0, -1))
        self.scopes: list[Scope] = [Scope()]

    def push(self) -> None:
        """Enter a loop body."""
        self.scopes.append(Scope())

    def pop(self) -> None:
        """Leave it: its registers are free again."""
        self.free += self.scopes.pop().registers

    def register(self) -> int:
        """A register of the current scope."""
        if not self.free:
            raise fail(
                "codegen.registers", "a kernel needs more than the 63 scalar registers", hint="report this model"
            )
        reg = self.free.pop()
        self.scopes[-1].registers.append(reg)
        return reg

    def value(self, lin: Lin) -> tuple[int, int]:
        """(register, offset): a register holding the terms of `lin`, and what is to be added; register 0 is zero."""
        if not lin.terms:
            return 0, lin.const
        for scope in self.scopes:
            if lin.terms in scope.known:
                return scope.known[lin.terms], lin.const
        if len(lin.terms) == 1 and lin.terms[0][1] == 1:
            return lin.terms[0][0], lin.const
        total = self.register()
        spare: int | None = None
        for position, (reg, coef) in enumerate(lin.terms):
            if position == 0:
                self.emit(Muli(rd=total, rs=reg, imm=coef))
            elif coef == 1:
                self.emit(Add(rd=total, rs=total, rt=reg))
            else:
                spare = self.register() if spare is None else spare
                self.emit(Muli(rd=spare, rs=reg, imm=coef))
                self.emit(Add(rd=total, rs=total, rt=spare))
        self.scopes[-1].known[lin.terms] = total
        return total, lin.const

    def ext(self, lin: Lin) -> int | R:
        """An extent operand."""
        reg, offset = self.value(lin)
        if reg == 0:
            if not 0 <= offset <= EXT_MOST:
                return R(self.load(lin))
            return offset
        if 0 <= offset <= EXT_MOST:
            return R(reg, offset)
        return R(self.load(lin))

    def addr(self, lin: Lin) -> Addr:
        """A DRAM address operand."""
        reg, offset = self.value(lin)
        return Addr(reg, offset)

    def load(self, lin: Lin, into: int | None = None) -> int:
        """A register holding exactly `lin`."""
        reg, offset = self.value(lin)
        target = self.register() if into is None else into
        if reg == 0:
            self.emit(Li(rd=target, imm=offset))
        elif offset:
            self.emit(Addi(rd=target, rs=reg, imm=offset))
        else:
            self.emit(Mov(rd=target, rs=reg))
        return target
