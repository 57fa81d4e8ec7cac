"""The numbers in the papers' tables, and those that others report who repeated them."""

from importlib.resources import files

import pandas as pd

from rkdkit import checks
from rkdkit.papers.places import TITLES, places

PAPERS = tuple(TITLES)

ONLY_PAPER = " (paper)"
"""What the name of a line ends with that has a number of the paper and none of ours."""

_BESIDE = ["method", "metric", "paper", "table", "paper_dataset", "paper_network"]


def reported(paper: str, table: str = "") -> pd.DataFrame:
    """Return the numbers that a paper prints, one per row.

    Parameters
    ----------
    paper : "peeraid" (its Tables 1 to 7), "ard" (1 to 11) or "rkd" (1 to 12).
    table : one table, such as "Table 1"; "": all.

    Returns
    -------
    A table with the columns table, dataset, network, method (the kit's name), guide (the network that teaches), setting
    (other differences between rows), metric, unit, value and spread (the number after the paper's plus-minus sign; NaN:
    none).

    Raises
    ------
    UnknownNameError
        If there is no such paper or table.
    """
    return _as_numbers(_printed(paper, table))


def whole(text: str) -> pd.DataFrame:
    """Return the papers' own tables, whole: with the data and networks that a profile does not train, too.

    Parameters
    ----------
    text : what names the tables, such as "PeerAiD, Tables 4 and 5"; figures have no numbers.

    Returns
    -------
    The numbers as the papers print them ("48.40 ± 0.25"), a column for each metric; rows are told apart by table,
    dataset, network, method, guide and setting.
    """
    tables = [(paper, number) for paper, kind, number in sorted(places(text)) if kind == "Table"]
    numbers = pd.concat([_printed(paper, f"Table {number}") for paper, number in tables])
    spread = numbers.spread.map(lambda printed: f" ± {printed}" if printed else "")
    numbers = numbers.assign(shown=numbers.value + spread)
    rows = ["table", "dataset", "network", "method", "guide", "setting"]
    order = pd.MultiIndex.from_frame(numbers[rows].drop_duplicates())
    table = numbers.pivot(index=rows, columns="metric", values="shown")  # refuses a number that is there twice
    return table.reindex(order)[list(dict.fromkeys(numbers.metric))].fillna("")


def replications() -> pd.DataFrame:
    """Return the results that others publicly report who repeated a paper's.

    Returns
    -------
    As :func:`reported`, with the columns paper, paper_value (the number that the paper prints) and source: the thread,
    in which each number can be read as it stands here. The setting says what a report adds to the paper's label.
    """
    return _as_numbers(_read("replications"))


def with_replications(theirs: pd.DataFrame) -> pd.DataFrame:
    """Return a paper's numbers with those that others report in their place.

    What was repeated is a training, so one report can stand beside the same number in several tables.

    Parameters
    ----------
    theirs : as :func:`reported`.

    Returns
    -------
    `theirs` with the columns others and source. Both are texts, because a number can have several reports: "49 (at its
    last epoch, 100); 56.43", in the number's unit, and where they were reported. "": nobody reports one.
    """
    repeated, labels = replications(), ["dataset", "network", "method", "guide", "metric", "value"]
    said = repeated.value.map("{:g}".format) + repeated.setting.map(lambda how: f" ({how})" if how else "")
    by_number = repeated.assign(others=said, value=repeated.paper_value).groupby(labels, sort=False)
    found = by_number[["others", "source"]].agg(_listed)
    return theirs.join(found, on=labels).fillna({"others": "", "source": ""})


def beside(ours: pd.DataFrame, theirs: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Put the numbers of a paper's table beside ours, and add a line for each of its numbers that stands beside none.

    Parameters
    ----------
    ours : as `WhiteBox.table`.
    theirs : as :func:`reported` or :func:`with_replications`, in per cent; each method and metric at most once per
        dataset and network.
    dataset, network : the dataset and network of our numbers. If the paper's table does not have this dataset or
        network, the numbers of the table's first one are used; the columns paper_dataset and paper_network name it. For
        a selection of classes, no number of the paper stands beside ours.

    Returns
    -------
    `ours` with the columns paper (a fraction; NaN: not in the paper), table (where the paper prints it; "": nowhere),
    paper_dataset and paper_network, and with others and source if `theirs` has them. The further lines have the paper's
    number alone, and names such as "CAT wrn-34-10 on cifar100 (paper)" in the column method.

    Raises
    ------
    ValueError
        If `theirs` has a method and metric twice.
    """
    network, subset = network.partition("/")[0], ":" in dataset
    dataset = dataset if dataset in set(theirs.dataset) else theirs.dataset.iloc[0]
    network = network if network in set(theirs.network) else theirs.network.iloc[0]
    keys = ["method", "metric"]
    theirs = theirs.assign(paper=theirs.value / 100)
    part = (theirs.dataset == dataset) & (theirs.network == network) & (not subset)
    texts = ["table", *(column for column in ("others", "source") if column in theirs)]
    both = ours.merge(theirs[part][[*keys, "paper", *texts]], on=keys, how="left", validate="many_to_one")
    both = both.fillna(dict.fromkeys(texts, "")).assign(paper_dataset=dataset, paper_network=network)
    rest = theirs[~(part & pd.MultiIndex.from_frame(theirs[keys]).isin(pd.MultiIndex.from_frame(ours[keys])))]
    if rest.empty:
        return both
    named = rest.method + " " + rest.network + " on " + rest.dataset + ONLY_PAPER
    rest = rest.assign(method=named).rename(columns={"dataset": "paper_dataset", "network": "paper_network"})
    return pd.concat([both, rest[[*_BESIDE, *texts[1:]]]], ignore_index=True)


def their_label(label: str, numbers: pd.DataFrame) -> str:
    """Return a legend's text for the paper's numbers that also says beside which of our networks each of its stands.

    Parameters
    ----------
    label : the text without the networks.
    numbers : accuracy, network and paper_network; lines without an accuracy do not count.

    Returns
    -------
    The label, and below it a line such as "its resnet18 beside our resnet18/4" where the two are different networks.
    """
    pairs = numbers[numbers.accuracy.notna()][["network", "paper_network"]].dropna().drop_duplicates()
    pairs = pairs[pairs.network != pairs.paper_network]
    lines = [f"its {theirs} beside our {ours}" for ours, theirs in pairs.itertuples(index=False)]
    return "\n".join([label, *lines])


def _printed(paper: str, table: str = "") -> pd.DataFrame:
    """Return what :func:`reported` returns, with value and spread as the paper prints them: texts, "" for none."""
    numbers = _read(checks.one_of("paper", paper, PAPERS))
    return numbers[numbers.table == checks.one_of("table", table, numbers.table.unique())] if table else numbers


def _listed(texts: "pd.Series[str]") -> str:
    return "; ".join(dict.fromkeys(texts))


def _read(name: str) -> pd.DataFrame:
    with (files(__package__) / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def _as_numbers(printed: pd.DataFrame) -> pd.DataFrame:
    columns = [column for column in ("value", "spread", "paper_value") if column in printed]
    return printed.assign(**{column: pd.to_numeric(printed[column]) for column in columns})
