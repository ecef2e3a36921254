"""Models that ship with the compiler. Nothing outside this package and its export adapter may know them."""
