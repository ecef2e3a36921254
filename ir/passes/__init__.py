"""Passes. One file is one pass: `fuse_attention.py` declares `fuse-attention` with `@defpass`; it is loaded by name."""
