"""Measurements of trained networks for the exhibits, one module per kind of measurement."""
