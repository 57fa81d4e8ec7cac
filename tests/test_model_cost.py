"""What networks cost: counted by the kit, by torch's own counter, and by ARD."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rkdkit import claims, executors, exhibits, figures, models
from rkdkit.executors import Here
from rkdkit.exhibits import tab11_model_cost as tab11
from rkdkit.provenance import processor


@pytest.fixture(scope="module")
def counted():
    return tab11.counts(list(models.ARCHITECTURES))


def values(table):
    return table.set_index(["network", "quantity"]).value.to_dict()


@pytest.mark.parametrize("name", [f"{name}/8" for name in models.ARCHITECTURES])
def test_multiply_adds_are_half_of_what_torchs_counter_counts(name):
    """An image goes through a network with weights, not through one without."""
    shape = tab11.shape_of(name)
    network = models.build(name, 2 if name.startswith("mlp") else 10, [0.5] * shape[0], [0.25] * shape[0]).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, *shape))
    found = values(tab11.counts([name]))
    assert 2 * found[name, "multiply-adds"] == counter.get_total_flops() > 0
    assert found[name, "parameters"] == sum(p.numel() for p in network.parameters())


def test_multiplications_and_additions_of_a_network_counted_by_hand():
    network = models.build("mlp-5/16", 3, [0.5] * 2, [0.25] * 2)
    by_hand = 8 * (2 + 1) + 3 * 8 * (8 + 7) + 3 * (8 + 7)
    assert models.cost(network, (2, 1, 1)).operations == by_hand
    block = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, 2, 1, groups=2, bias=False), torch.nn.BatchNorm2d(6))
    after = block[0](torch.rand(1, 4, 8, 8))
    assert models.costs.operations_of(block[0], after) == 6 * 16 * (18 + 17)
    assert models.costs.operations_of(block[1], after) == 6 * 16 * 4
    with_bias = torch.nn.Conv2d(4, 6, 1)
    assert models.costs.operations_of(with_bias, with_bias(torch.rand(1, 4, 3, 3))) == 6 * 9 * (4 + 4)


@pytest.mark.parametrize("name", tab11.PRINTED)
def test_what_ard_prints_are_multiplications_and_additions(counted, name):
    found, printed = values(counted), tab11.PRINTED[name]
    for quantity, printed_as in (("multiplications and additions", "multiply-adds"), ("parameters", "parameters")):
        value, unit = printed[printed_as]
        assert round(found[name, quantity] / unit) == round(value / unit)
    value, unit = printed["multiply-adds"]
    assert round(found[name, "multiply-adds"] / unit) < 0.6 * value / unit


def test_twice_the_multiply_adds_are_not_what_ard_prints_of_mobilenet(counted):
    assert round(2 * values(counted)["mobilenetv2", "multiply-adds"] / 1e6) == 182


def test_the_papers_numbers_stand_beside_what_they_are_compared_with(counted):
    printed = counted[counted.paper.notna()].set_index(["network", "quantity"]).paper.to_dict()
    assert printed["mobilenetv2", "multiply-adds"] == printed["mobilenetv2", "multiplications and additions"] == 187e6
    assert printed["resnet18", "parameters"] == 11.2e6
    assert len(printed) == 9
    assert len(counted) == 3 * len(models.ARCHITECTURES)


def test_the_claims_take_the_papers_words_at_their_word(counted):
    found = {claim.text: claim for claim in tab11.check_claims(counted)}
    assert len(found) == 10
    assert {text for text, claim in found.items() if claim.verdict == claims.FAILS} == {
        "wrn-34-10 has about 13.3 G multiply-adds.",
        "resnet18 has about 1.1 G multiply-adds.",
        "mobilenetv2 has about 187 M multiply-adds.",
    }
    assert {claim.verdict for claim in found.values()} == {claims.HOLDS, claims.FAILS}
    distance = found["mobilenetv2 has about 2.3 M parameters."].lower.estimate.value
    assert distance == pytest.approx((2.3e6 - 2_296_922) / 1e5)


def test_a_count_is_judged_by_the_last_digit_printed():
    def verdict(count):
        return tab11._printed("", "6", count, 1.1e9, 0.1e9).verdict

    assert [verdict(count) for count in (1.04e9, 1.06e9, 1.14e9, 1.16e9)] == [
        claims.FAILS,
        claims.HOLDS,
        claims.HOLDS,
        claims.FAILS,
    ]


@pytest.mark.parametrize(("profile", "divisor"), [("smoke", 16), ("quick", 4), ("small", 4), ("paper", 1)])
def test_every_network_is_counted_in_full_width_and_in_the_profiles(profile, divisor):
    names = tab11.networks(exhibits.setup("tab11_model_cost", profile))
    full = [name for name in models.ARCHITECTURES if not name.startswith("preact-resnet18-")]
    narrow = [f"{name}/{divisor}" for name in full] if divisor > 1 else []
    assert names == [*full, *narrow]


def test_networks_that_are_not_shown_cost_what_another_does_without_its_last_norm(counted):
    found, norm = values(counted), 2 * 512
    for name in tab11.OF_OTHERS_COST:
        assert found[name, "multiply-adds"] == found["preact-resnet18", "multiply-adds"]
        assert found[name, "parameters"] == found["preact-resnet18", "parameters"] - norm


def test_networks_take_turns_and_the_first_batch_is_not_timed(monkeypatch):
    """A clock that is given: batch i of a takes 2, 1, 6, 3 s, of b ten times as long."""
    seconds = iter([s for batch in (2, 1, 6, 3) for s in (0, batch, 0, 10 * batch)])
    monkeypatch.setattr(tab11, "_now", lambda _: next(seconds))
    times = tab11.inference_times(["mlp-5/16", "mobilenetv2/16"], batches=3, batch_size=2).set_index("network")
    assert times.loc["mlp-5/16", ["value", "fastest", "slowest"]].tolist() == [1500, 500, 3000]
    assert times.loc["mobilenetv2/16", ["value", "fastest", "slowest"]].tolist() == [15_000, 5000, 30_000]
    assert set(times.quantity) == {"inference"}


@pytest.mark.parametrize("wrong", [{"batches": 2}, {"batches": 3.5}, {"batch_size": 0}, {"batch_size": math.nan}])
def test_wrong_numbers_of_batches_are_refused_before_a_network_is_built(monkeypatch, wrong):
    monkeypatch.setattr(models, "build", None)
    with pytest.raises(ValueError, match="batch"):
        tab11.inference_times(["resnet18"], **{"batches": 3, **wrong})


def test_nothing_is_timed_where_nothing_is_drawn(monkeypatch):
    class Asking(Here):
        def before_drawing(self):
            raise RuntimeError("only asked")

    monkeypatch.setattr(models, "build", None)
    with executors.using(Asking()), pytest.raises(RuntimeError, match="only asked"):
        tab11.inference_times(["resnet18"], batches=3)


def test_a_caption_names_the_machine_and_what_was_timed(monkeypatch):
    monkeypatch.setattr(tab11, "processor", lambda: "Some CPU")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with executors.using(Here(device="cpu")):
        assert tab11.where_timed(batches=15) == (
            "Time per image: median of 15 batches of one image, from the fastest to the slowest, on Some CPU, "
            "2 threads."
        )
    assert processor()


def test_the_table_to_read_is_in_millions_and_in_the_networks_order(counted):
    order = list(dict.fromkeys(counted.network))
    times = pd.DataFrame({"network": order, "quantity": "inference", "value": 1.5})
    shown = tab11.shown(pd.concat([counted, times]))
    assert list(shown.index) == order
    assert shown.loc["wrn-34-10"].tolist() == ["46.160", "6,658.906", "13,326.177", "1.50"]


def test_the_picture_has_every_cost_and_what_ard_prints(counted):
    order = list(dict.fromkeys(counted.network))
    times = pd.DataFrame({"network": order, "quantity": "inference", "value": 1.5, "fastest": 1.0, "slowest": 4.0})
    panels = figures.model_costs(pd.concat([counted, times]), "title").axes
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == order
    shown = {line.get_label(): list(line.get_xdata()) for panel in panels for line in panel.get_lines()}
    bars = [tuple(bar[:, 0]) for bar in panels[2].collections[0].get_segments()]
    assert bars == [(1.0, 4.0)] * len(order)
    assert [panel.get_xscale() for panel in panels] == ["log"] * 3
    by_panel = [
        [list(line.get_xdata()) for line in panel.get_lines() if line.get_marker() in ("o", "s")] for panel in panels
    ]
    of = {quantity: list(part.value) for quantity, part in counted.groupby("quantity")}
    assert by_panel == [
        [of["parameters"]],
        [of["multiply-adds"], of["multiplications and additions"]],
        [[1.5] * len(order)],
    ]
    printed = shown["printed by ARD"]
    assert dict(zip(order, printed, strict=True))["mobilenetv2"] == 187e6, "of the second panel, the later one"
    assert sum(not math.isnan(value) for value in printed) == 3
    plt.close("all")
