"""What is measured on trained networks for the exhibits, one module a kind of measurement."""
