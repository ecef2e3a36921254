"""Accelerator `adaptiv` (AdapTiV, MICRO 2024), for comparison: description and cost model."""
