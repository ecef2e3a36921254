"""Hypothesis profiles for all tests: `fixed` (make test, CI) draws the same examples each time, `random` does not."""

import os

from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code: two test workers and numba's first compilation share the cores.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("fixed", derandomize=True, max_examples=60, **_COMMON)
settings.register_profile("random", max_examples=300, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
