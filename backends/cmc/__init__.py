"""Accelerator `cmc` (CMC, ASPLOS 2024), for comparison: description and cost model."""
