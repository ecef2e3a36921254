"""Workload files of the shipped models, read by `focusc.backends.workload`."""
