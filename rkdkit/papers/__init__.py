"""The numbers that the papers report, and those that others report who repeated them."""
