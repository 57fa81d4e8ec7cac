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


def beside(ours: pd.DataFrame, theirs: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Put the numbers of a paper's table beside ours.

    Parameters
    ----------
    ours : as `WhiteBox.table`.
    theirs : as :func:`reported`, a method's metric at most once for each dataset and network, in per cent.
    dataset, network : ours. Where the paper's table has no such data or network, its numbers are those of its first;
        the columns paper_dataset and paper_network say which. Some classes of a dataset have none.

    Returns
    -------
    `ours` with the columns paper (a fraction; NaN: not in the paper), paper_dataset and paper_network.

    Raises
    ------
    ValueError
        If a method's metric comes twice in `theirs`.
    """
    network, subset = network.partition("/")[0], ":" in dataset
    dataset = dataset if dataset in set(theirs.dataset) else theirs.dataset.iloc[0]
    network = network if network in set(theirs.network) else theirs.network.iloc[0]
    part = theirs[(theirs.dataset == dataset) & (theirs.network == network) & (not subset)]
    values = part[["method", "metric"]].assign(paper=part.value / 100)
    both = ours.merge(values, on=["method", "metric"], how="left", validate="many_to_one")
    return both.assign(paper_dataset=dataset, paper_network=network)


def _read(name: str) -> pd.DataFrame:
    with (files(__package__) / f"{name}.csv").open(encoding="utf-8") as file:
        numbers = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column in {"value", "spread", "paper_value"} & set(numbers):
        numbers[column] = pd.to_numeric(numbers[column])
    return numbers
