"""Target `systolic`: the same array and buffers without concentrators; its hardware description is systolic.toml."""
