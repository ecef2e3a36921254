"""Algorithms of concentration, shared by the ops `sic.*` and `sec.*` and by the pass: no IR inside `similarity`."""
