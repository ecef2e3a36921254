"""Passes that know the target: `tile` (nn level to tile level) and `plan-memory` (DRAM addresses)."""
