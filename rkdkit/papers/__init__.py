"""What the papers claim and report, one module a paper."""
