"""The text format: grammar and parser, printer."""
