"""All instructions: one class each, imported for their declarations; `INSNS` is the registry by opcode."""

from focusc.isa.insns.base import BY_MNEMONIC, ENGINES, INSNS, Insn, decode, decode_word, encode
from focusc.isa.insns.concentrate import SecFold, SecInit, SecTopk, Sic
from focusc.isa.insns.matrix import Mma
from focusc.isa.insns.sequencer import (
    DTYPES, Add, Addi, CfgConvIn, CfgConvWin, CfgLayout, CfgPos, CfgSic, Divi, Endl, Fence, Halt, Li, Loop, Max, Min, Mov,
    Mul, Muli, Nop, Sub, Tile, Trap,
)
from focusc.isa.insns.stream import LdAct, LdConc, LdIdx, LdPatch, LdWgt, St, StIdx
from focusc.isa.insns.vector import (
    Fwd, VAdd, VAddi, VCopy, VDiv, VExp, VExps, VFill, VGelu, VGelue, VGeluQuick, VLd, VMask, VMax, VMaxi, VMul, VMuli,
    VNeg, VRecip, VRmax, VRot, VRsqrt, VRsum, VRsumsq, VSigmoid, VSilu, VSub, VTanh,
)

__all__ = [
    "Add", "Addi", "BY_MNEMONIC", "CfgConvIn", "CfgConvWin", "CfgLayout", "CfgPos", "CfgSic", "DTYPES", "Divi",
    "ENGINES", "Endl", "Fence", "Fwd", "Halt", "INSNS", "Insn", "LdAct", "LdConc", "LdIdx", "LdPatch", "LdWgt", "Li", "Loop",
    "Max", "Min", "Mma", "Mov", "Mul", "Muli", "Nop", "SecFold", "SecInit", "SecTopk", "Sic", "St", "StIdx", "Sub",
    "Tile", "Trap", "VAdd", "VAddi", "VCopy", "VDiv", "VExp", "VExps", "VFill", "VGelu", "VGeluQuick", "VGelue", "VLd",
    "VMask", "VMax", "VMaxi", "VMul", "VMuli", "VNeg", "VRecip", "VRmax", "VRot", "VRsqrt", "VRsum", "VRsumsq",
    "VSigmoid", "VSilu", "VSub", "VTanh", "decode", "decode_word", "encode",
]
