"""Passes that know the target: `tile` (nn level to tile level), `plan-memory` (DRAM addresses), `place-fences`."""
