"""The numbers that the papers report, and those that others report with the released codes."""
