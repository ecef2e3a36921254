"""What people look at: tables (rich) and pictures (matplotlib). Nothing here computes results."""
