"""What the papers print in their tables, and what others say they got with the released codes."""

from importlib.resources import files

import pandas as pd

from rkdkit import checks

PAPERS = ("peeraid", "ard", "rkd")


def reported(paper: str, table: str = "") -> pd.DataFrame:
    """Return the numbers that a paper prints, a row each.

    Parameters
    ----------
    paper : "peeraid" (its Tables 1 to 7), "ard" (1 to 11) or "rkd" (1 to 12).
    table : one table, such as "Table 1"; "": all.

    Returns
    -------
    Columns table, dataset, network, method (in the kit's names), guide (whom it learns from), setting (what else tells
    rows apart), metric, unit, value and spread (the number behind the paper's plus-minus sign; NaN: none).

    Raises
    ------
    UnknownNameError
        If there is no such paper or table.
    """
    numbers = _read(checks.one_of("paper", paper, PAPERS))
    return numbers[numbers.table == checks.one_of("table", table, numbers.table.unique())] if table else numbers


def replications() -> pd.DataFrame:
    """Return what others publicly report having got with the released codes.

    Returns
    -------
    As :func:`reported`, with the columns paper, paper_value (what the paper prints for it) and source.
    """
    return _read("replications")


def _read(name: str) -> pd.DataFrame:
    with (files(__package__) / f"{name}.csv").open(encoding="utf-8") as file:
        numbers = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column in {"value", "spread", "paper_value"} & set(numbers):
        numbers[column] = pd.to_numeric(numbers[column])
    return numbers
