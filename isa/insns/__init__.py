"""All instructions: one class each, imported for their declarations; `INSNS` is the registry by opcode."""

from focusc.isa.insns.base import BY_MNEMONIC, ENGINES, INSNS, Insn, decode, decode_word, encode
from focusc.isa.insns.concentrate import SecFold, SecInit, SecTopk, Sic
from focusc.isa.insns.matrix import Mma
from focusc.isa.insns.sequencer import (
    DTYPES,
    Add,
    Addi,
    CfgConvIn,
    CfgConvWin,
    CfgLayout,
    CfgPos,
    CfgSic,
    Divi,
    Endl,
    Fence,
    Halt,
    Host,
    Li,
    Loop,
    Max,
    Min,
    Mov,
    Mul,
    Muli,
    Nop,
    Sub,
    Tile,
    Trap,
)
from focusc.isa.insns.stream import LdAct, LdConc, LdIdx, LdPatch, LdWgt, St, StIdx
from focusc.isa.insns.vector_arithmetic import VAdd, VAddi, VDiv, VMax, VMaxi, VMin, VMini, VMul, VMuli, VSub
from focusc.isa.insns.vector_functions import (
    VErf,
    VExp,
    VExps,
    VGelu,
    VGelue,
    VGeluQuick,
    VLog,
    VNeg,
    VRecip,
    VRsqrt,
    VSigmoid,
    VSilu,
    VSqrt,
    VTanh,
)
from focusc.isa.insns.vector_masks import VBlend, VMask, VSel
from focusc.isa.insns.vector_moves import Fwd, VCopy, VFill, VLd, VRot
from focusc.isa.insns.vector_reduce import VRmax, VRsum, VRsumsq

__all__ = [
    "Add", "Addi", "BY_MNEMONIC", "CfgConvIn", "CfgConvWin", "CfgLayout", "CfgPos", "CfgSic", "DTYPES", "Divi",
    "ENGINES", "Endl", "Fence", "Fwd", "Halt", "Host", "INSNS", "Insn", "LdAct", "LdConc", "LdIdx", "LdPatch", "LdWgt",
    "Li", "Loop", "Max", "Min", "Mma", "Mov", "Mul", "Muli", "Nop", "SecFold", "SecInit", "SecTopk", "Sic", "St",
    "StIdx", "Sub", "Tile", "Trap", "VAdd", "VAddi", "VBlend", "VCopy", "VDiv", "VErf", "VExp", "VExps", "VFill",
    "VGelu", "VGeluQuick", "VGelue", "VLd", "VLog", "VMask", "VMax", "VMaxi", "VMin", "VMini", "VMul", "VMuli", "VNeg",
    "VRecip", "VRmax", "VRot", "VRsqrt", "VRsum", "VRsumsq", "VSel", "VSigmoid", "VSilu", "VSqrt", "VSub", "VTanh",
    "decode", "decode_word", "encode",
]
