# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""Assembly text: exact round trips, messages with carets, and text that nobody should trust."""

from __future__ import annotations

import string
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.isa import AsmError, IsaError, Program, Symbol, assemble, disassemble
from focusc.isa.assembler import _parser
from focusc.isa.fields import Addr, R
from focusc.isa.insns import BY_MNEMONIC, Endl, Halt, LdAct, Loop, St
from tests.isa.test_isa_container import programs, sample


@settings(max_examples=25, deadline=None)
@given(programs())
def test_round_trip_is_exact(program: Program) -> None:
    text = disassemble(program)
    again = assemble(text)
    assert again == program and again.text.tobytes() == program.text.tobytes()
    assert disassemble(again) == text


def test_constants_in_a_file(tmp_path: Path) -> None:
    text = disassemble(sample(), const_file="w.bin")
    (tmp_path / "w.bin").write_bytes(sample().const.tobytes())
    assert assemble(text, folder=tmp_path) == sample()
    for damage in (b"", bytes(100)):
        (tmp_path / "w.bin").write_bytes(damage)
        with pytest.raises(AsmError) as caught:
            assemble(text, folder=tmp_path)
        assert caught.value.code == "asm.const-file" and caught.value.line


def test_symbols_print_where_addresses_fall_into_them() -> None:
    program = Program([Loop(2), LdAct(Addr(3, 70), 1, 1, 0), Endl(), St("s", 64, 0), LdAct(Addr(4, -2), 1, 1, 0), Halt()],
                      symbols=[Symbol("a b", "scratch", "f16", (8,), 64), Symbol("r1", "scratch", "f16", (8,), 0)],
                      arena_bytes=128)
    assert disassemble(program).split("\n\n")[1].splitlines() == [
        '    loop 2', '      ld.act ["a b"+0x6+r3], rows=1, cols=1, stride=0', "    endl", '    st s, ["a b"], stride=0',
        "    ld.act [r4-0x2], rows=1, cols=1, stride=0", "    halt"]


def test_comments_case_spacing_and_operand_order() -> None:
    text = ("; first\n\n.symbol x, input, f16, [4], 0x0   # a symbol\n.arena 64\r\n"
            "ld.act [x + 2 + r3 - 0x2], stride = 8, cols=r2 + 4, rows=0x4, f16 ; done\nmma t1, acc, k=8\nv.fill t2, -inf\nhalt")
    program = assemble(text)
    assert [str(i) for i in program.insns] == ["ld.act [r3], rows=4, cols=r2+4, stride=8", "mma t1, k=8, acc",
                                               "v.fill t2, -inf", "halt"]
    assert program.insns[0] == LdAct(Addr(3, 0), 4, R(2, 4), 8)


MESSAGES = {
    "mma t1": "2:1: error[asm.operand]: mma: operand k is missing\n    2 | mma t1\n      | ^^^\n  hint: operands: t, k, acc",
    "mma t1, k=5 k": "2:13: error[asm.syntax]: 'k' was not expected here\n    2 | mma t1, k=5 k\n      |             ^\n"
                     "  hint: statements are `mnemonic operand, ...` or `.directive ...`, one to a line",
    "mma t1,": "2:8: error[asm.syntax]: the end of the line was not expected here\n    2 | mma t1,\n      |        ^\n"
               "  hint: statements are `mnemonic operand, ...` or `.directive ...`, one to a line",
    "mmma t1, k=5": "2:1: error[asm.mnemonic]: there is no instruction mmma\n    2 | mmma t1, k=5\n      | ^^^^\n"
                    "  hint: did you mean mma?",
    "ld.act [zz], rows=1, cols=2, stride=3": "2:9: error[asm.symbol]: there is no symbol zz\n"
                                             "    2 | ld.act [zz], rows=1, cols=2, stride=3\n      |         ^^",
    "mma t31, k=5": "2:5: error[asm.operand]: t is a tile t0..t30\n    2 | mma t31, k=5\n      |     ^^^",
    "mma t1, k=3, k=4": "2:14: error[asm.twice]: operand k is given twice\n    2 | mma t1, k=3, k=4\n      |              ^",
    "mma t1, k=r1+r2": "2:11: error[asm.operand]: k is a number, a register, or a register plus a number\n"
                       "    2 | mma t1, k=r1+r2\n      |           ^^",
    "v.add t1, s, s, s": "2:17: error[asm.operand]: v.add does not take this operand\n    2 | v.add t1, s, s, s\n"
                         "      |                 ^\n  hint: operands: d, a, b",
    "st t1, 64, stride=2": "2:8: error[asm.operand]: addr is an address, written [symbol+offset+register]\n"
                           "    2 | st t1, 64, stride=2\n      |        ^^",
    "st t1, [64], stride=99999999": "2:1: error[asm.operand]: st: operand stride is 99999999, expected an integer or R(n) in "
                                    "0..16777215\n    2 | st t1, [64], stride=99999999\n      | ^^",
    "li r1, " + "9" * 60: "2:8: error[asm.operand]: the number is too long\n    2 | li r1, " + "9" * 60 + "\n      |        "
                          + "^" * 60,
    '.const "0g"': '2:8: error[asm.hex]: constant data is not hexadecimal\n    2 | .const "0g"\n      |        ^^^^',
    ".loc 0": "2:1: error[asm.loc]: debug entry 0 does not exist, there are 0\n    2 | .loc 0\n      | ^^^^",
    ".arena 1 \n.arena 2": "3:1: error[asm.twice]: .arena is given twice\n    3 | .arena 2\n      | ^^^^^^",
    '.meta {"a":NaN}': '2:7: error[asm.json]: not valid JSON: NaN is not JSON\n    2 | .meta {"a":NaN}\n      |       ^^^^^^^^^',
    '.meta {"sites":5}': '2:7: error[asm.json]: sites is 5, expected a list of objects\n    2 | .meta {"sites":5}\n'
                         '      |       ^^^^^^^^^^^',
    ".symbol x, input, f99, [1], 0": "2:9: error[asm.symbol]: symbol x: type is 'f99', expected one of f16, bf16, f32, i8, u8, "
                                     "u16, i32\n    2 | .symbol x, input, f99, [1], 0\n      |         ^",
    ".frob": "2:1: error[asm.directive]: there is no directive .frob\n    2 | .frob\n      | ^^^^^\n  hint: directives: .fasm "
             ".target .arena .hardware .plan .meta .symbol .const .zero .const_file .const_absent "
             ".host .host_model .debug .loc",
    ".host_model \"\"": "2:1: error[asm.directive]: .host_model stands behind the .host whose model it is\n"
                        "    2 | .host_model \"\"\n      | ^^^^^^^^^^^",
    ".host {}": "2:7: error[asm.json]: host segment 0 is not an object with inputs, outputs and nodes\n    2 | .host {}\n"
                "      |       ^^",
    '.host {"inputs":[],"outputs":[],"nodes":[]}\n.host_model "*"':
        "3:13: error[asm.model]: the model is not base64\n    3 | .host_model \"*\"\n      |             ^^^",
    "host 1": "2:1: error[asm.program]: host: there is no such segment, the program has 0\n    2 | host 1\n      | ^^^^",
    ".symbol x, input, f16, [9], 0": "error[asm.program]: symbol x (18 bytes at 0x0) lies outside the arena [0x0, 0x0)",
    "loop 2\nloop 3\nendl": "2:1: error[asm.program]: loop without an endl\n    2 | loop 2\n      | ^^^^",
    "halt": "2:1: error[asm.program]: halt stands before the end of the program\n    2 | halt\n      | ^^^^",
    '.const_file "../x", 1, "a"': "2:13: error[asm.const-file]: '../x' is not a plain file name\n"
                                  '    2 | .const_file "../x", 1, "a"\n      |             ^^^^^^',
}


@pytest.mark.parametrize(("line", "message"), MESSAGES.items())
def test_messages(line: str, message: str) -> None:
    with pytest.raises(AsmError) as caught:
        assemble(f"nop\n{line}\nhalt", file="a.fasm")
    assert caught.value.render() == ("a.fasm:" if message[0].isdigit() else "a.fasm: ") + message


WORDS = [*BY_MNEMONIC, "t1", "t31", "r3", "s", "k=", "=", "[", "]", "+", "-", ",", "\n", ".symbol", ".const", ".zero", ".debug", ".loc",
         ".arena", ".meta", '"', '"x"', "{", "}", "0x", "1e9", "1e999", "inf", "-1", "99999999999999999999", "x", "f16", "acc", ";", "#",
         "\0", "\u2028", "é", "\\", "input"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(string.printable, max_size=60))
def test_any_text_assembles_or_is_refused(text: str) -> None:
    try:
        program = assemble(text + "\nhalt")
    except AsmError as error:
        assert error.render().count("\n") <= 3
    else:
        assert assemble(disassemble(program)) == program


def test_large_and_hostile_text_is_quick() -> None:
    start = time.process_time()
    for text in ("[" * 20_000, "loop 1\n" * 1_000, '"' * 20_000, ".zero 99999999999999999999", "add " + "r1+" * 5_000, "{" * 9_999,
                 ".const " + '"' + "0" * 99_999 + '"', "a" * 100_000, ".meta " + "{" * 50_000, ".zero -5", "v.fill t1, " + "1" * 300):
        with pytest.raises(IsaError):
            assemble(text)
    assert time.process_time() - start < 20


def test_constants_have_a_total_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focusc.isa.assembler._MAX_CONST", 100)
    with pytest.raises(AsmError) as caught:
        assemble('.zero 60\n.zero 39\n.const "0011"\nhalt')
    assert caught.value.render() == (
        '<fasm>:3:8: error[asm.const]: the constants grow to 101 bytes, expected at most 100\n'
        '    3 | .const "0011"\n      |        ^^^^^^\n  hint: put them in a file: .const_file')


def test_the_grammar_has_no_collisions() -> None:
    """LALR tables build without conflicts, and the parser is built once."""
    assert _parser() is _parser()
    assert _parser().options.parser == "lalr"
