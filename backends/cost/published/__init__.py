"""Published figures in the project's own form, each file with its source; read by `backends.cost.tables`."""
