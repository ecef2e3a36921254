"""Scalar side of code generation: affine index values, registers, and the instructions that compute them."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd

from focusc.ir.diagnostics import fail
from focusc.isa import Addr, Insn, R
from focusc.isa.insns import Add, Addi, Li, Mov, Muli

Factor = int | Fraction
EXT_MOST = (1 << 24) - 1
LASTING = 12
"""Registers, from r63 down, that hold numbers from one kernel to the next."""


@dataclass(frozen=True)
class Lin:
    """const + sum(coef * register). A register that counts in larger units than its value has fractions, which the use
    makes whole."""

    const: int = 0
    terms: tuple[tuple[int, Factor], ...] = ()

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
    known: dict[tuple[tuple[int, Factor], ...], int] = field(default_factory=dict[tuple[tuple[int, Factor], ...], int])


class Lasting:
    """Numbers that loops of many kernels need, loaded in front of the first and kept until others need the register.

    A load must not stand in a loop: one without rounds would leave it out.
    """

    def __init__(self) -> None:
        self.held: OrderedDict[int, int] = OrderedDict()  # number -> register, the one used longest ago first
        self.free = list(range(64 - LASTING, 64))
        self.fresh: list[Li] = []
        self.used: set[int] = set()

    def flush(self) -> list[Li]:
        """End a kernel: the loads that must stand in front of it."""
        fresh, self.fresh, self.used = self.fresh, [], set()
        return fresh

    def register(self, number: int) -> int | None:
        """The register that holds a number all through this kernel; None if all hold others that it needs."""
        if number not in self.held:
            if not self.free:
                oldest = next(iter(self.held))
                if oldest in self.used:
                    return None
                self.free.append(self.held.pop(oldest))
            self.held[number] = self.free.pop()
            self.fresh.append(Li(rd=self.held[number], imm=number))
        self.held.move_to_end(number)
        self.used.add(number)
        return self.held[number]


class Scalars:
    """Register allocation by scopes. Values that are computed twice in one body are computed once."""

    def __init__(self, emit: Callable[[Insn], None], lasting: Lasting) -> None:
        self.emit = emit
        self.lasting = lasting
        self.free = list(range(63 - LASTING, 0, -1))
        self.scopes: list[Scope] = [Scope()]
        self.factors: defaultdict[int, set[Factor]] = defaultdict(set)
        """By register, what its value was multiplied by."""

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
                "codegen.registers",
                f"a kernel needs more than {63 - LASTING} scalar registers",
                hint="report this model",
            )
        reg = self.free.pop()
        self.scopes[-1].registers.append(reg)
        return reg

    def value(self, lin: Lin) -> tuple[int, int]:
        """(register, offset): a register holding the terms of `lin`, and what is to be added; register 0 is zero."""
        if not lin.terms:
            return 0, lin.const
        for reg, coef in lin.terms:
            self.factors[reg].add(coef)
        for scope in self.scopes:
            if lin.terms in scope.known:
                return scope.known[lin.terms], lin.const
        if len(lin.terms) == 1 and lin.terms[0][1] == 1:
            return lin.terms[0][0], lin.const
        total = self.register()
        spare: int | None = None
        sums = [reg for reg, coef in lin.terms if coef == 1]
        products = [(reg, int(coef)) for reg, coef in lin.terms if coef != 1]
        assert all(coef == int(coef) for _, coef in lin.terms), "the unit of a register divides all its uses"
        if not products:
            self.emit(Add(rd=total, rs=sums[0], rt=sums[1]))
            sums = sums[2:]
        for position, (reg, coef) in enumerate(products):
            if position == 0:
                self.emit(Muli(rd=total, rs=reg, imm=coef))
            else:
                spare = self.register() if spare is None else spare
                self.emit(Muli(rd=spare, rs=reg, imm=coef))
                self.emit(Add(rd=total, rs=total, rt=spare))
        for reg in sums:
            self.emit(Add(rd=total, rs=total, rt=reg))
        self.scopes[-1].known[lin.terms] = total
        return total, lin.const

    def number(self, value: int) -> int:
        """A register holding a number, which must not be written to."""
        found = self.lasting.register(value)
        return self.load(Lin(value)) if found is None else found

    def held(self, lin: Lin) -> int:
        """A register holding exactly `lin`, which must not be written to."""
        reg, offset = self.value(lin)
        return reg if reg and not offset else self.load(lin)

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


@dataclass(frozen=True)
class Units:
    """What the registers of a loop count, so that uses need not multiply: `offset` times the offset, `number` times the
    round; `joined` says that the round is taken from the offset, which has a register alone."""

    offset: int = 1
    number: int = 1
    joined: bool = False

    @staticmethod
    def of(offsets: set[Factor], numbers: set[Factor], step: int, first: int, pieces: bool) -> Units:
        """From the factors of all uses, in a loop whose registers counted ones; with `pieces` the length of a round is
        computed from the offset, which counts rows then."""
        joined = first == step and all(n % step == 0 for n in numbers)
        if joined:
            offsets, numbers = offsets | {n // step for n in numbers}, set()
        return Units(1 if pieces else _gcd(offsets), _gcd(numbers), joined)


def _gcd(numbers: Iterable[Factor]) -> int:
    return gcd(*map(int, numbers)) or 1
