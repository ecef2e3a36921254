"""Target `focus`: the array with semantic and similarity concentrators; its hardware description is focus.toml."""
