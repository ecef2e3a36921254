"""The functional emulator: architectural results, no time. `Emulator(program, strict=...).run(inputs)`."""

from focusc.isa.emulator.machine import Emulator, Run, Session
from focusc.isa.emulator.state import SicEvent, TopkEvent

__all__ = ["Emulator", "Run", "Session", "SicEvent", "TopkEvent"]
