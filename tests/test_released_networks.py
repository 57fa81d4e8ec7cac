"""Networks as their authors wrote them, in plain torch: the kit reads their weights and gives the same logits."""

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from fifos import fifo
from torch import nn

from rkdkit import interchange
from rkdkit.checks import UnknownNameError
from rkdkit.interchange import StateDictError

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


class DeepMindBlock(nn.Module):
    """Padded by hand where it has a stride."""

    def __init__(self, in_width, width, stride):
        super().__init__()
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        self.batchnorm_0 = nn.BatchNorm2d(in_width)
        self.conv_0 = nn.Conv2d(in_width, width, 3, stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(width)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        if in_width != width:
            self.shortcut = nn.Conv2d(in_width, width, 1, stride, bias=False)

    def forward(self, x):
        active = F.silu(self.batchnorm_0(x))
        beside = self.shortcut(active) if hasattr(self, "shortcut") else x
        inner = F.silu(self.batchnorm_1(self.conv_0(F.pad(active, self.padding))))
        return beside + self.conv_1(inner)


class DeepMindStage(nn.Module):
    def __init__(self, in_width, width, stride):
        super().__init__()
        first = DeepMindBlock(in_width, width, stride)
        self.block = nn.Sequential(first, *(DeepMindBlock(width, width, 1) for _ in range(3)))

    def forward(self, x):
        return self.block(x)


class DeepMindWRN(nn.Module):
    """A WRN-28 that normalises its images by numbers that are in the program alone."""

    def __init__(self, width, mean, std):
        super().__init__()
        self.by = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        widths = [16, width, 2 * width, 4 * width]
        self.init_conv = nn.Conv2d(len(mean), 16, 3, padding=1, bias=False)
        self.layer = nn.Sequential(*(DeepMindStage(*widths[i : i + 2], stride=min(i, 1) + 1) for i in range(3)))
        self.batchnorm = nn.BatchNorm2d(4 * width)
        self.logits = nn.Linear(4 * width, 10)

    def forward(self, x):
        mean, std = self.by
        maps = self.layer(self.init_conv((x - mean) / std))
        return self.logits(F.silu(self.batchnorm(maps)).mean((2, 3)))


class PreActBlock(nn.Module):
    def __init__(self, in_width, width, stride, activated_shortcut):
        super().__init__()
        self.activated_shortcut = activated_shortcut
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if in_width != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False))

    def forward(self, x):
        active = F.relu(self.bn1(x))
        beside = x
        if hasattr(self, "shortcut"):
            beside = self.shortcut(active if self.activated_shortcut else x)
        return beside + self.conv2(F.relu(self.bn2(self.conv1(active))))


class PreActResNet18(nn.Module):
    """Without a norm after the last block."""

    def __init__(self, width, activated_shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        in_width = width
        for i in range(4):
            wider = width * 2**i
            first = PreActBlock(in_width, wider, 2 if i else 1, activated_shortcut)
            setattr(self, f"layer{i + 1}", nn.Sequential(first, PreActBlock(wider, wider, 1, activated_shortcut)))
            in_width = wider
        self.linear = nn.Linear(in_width, 10)

    def forward(self, x):
        maps = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(maps.mean((2, 3)))


def lived_in(make):
    """A network of random weights whose running statistics are of some images."""
    torch.manual_seed(0)
    network = make()
    channels = next(network.parameters()).shape[1]
    for _ in range(3):
        network(torch.rand(16, channels, 32, 32))
    return network.eval()


def deepminds(mean=CIFAR10[0], std=CIFAR10[1]):
    return lived_in(lambda: DeepMindWRN(10, mean, std))


def saved(network, folder, **more):
    torch.save({"model_state_dict": {**network.state_dict(), **more}}, folder / "weights.pt")
    return folder / "weights.pt"


def difference(one, other):
    """The largest difference of two networks' logits in float64, as a share of the logits' spread."""
    x = torch.rand(6, next(one.parameters()).shape[1], 32, 32, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        logits, others = (network.double()(x) for network in (one, other))
    one.float(), other.float()
    return ((logits - others).abs().max() / logits.std(0).mean()).item()


@pytest.mark.parametrize(
    ("of", "settings"),
    [
        (CIFAR10, {"normalisation": "cifar10"}),
        (CIFAR10, {"mean": CIFAR10[0], "std": CIFAR10[1]}),
        (CIFAR100, {"normalisation": "cifar100"}),
        (((0.0,) * 3, (1.0,) * 3), {"normalisation": "none"}),
    ],
)
def test_deepminds_network_gives_the_same_logits(tmp_path, of, settings):
    theirs = deepminds(*of)
    ours = interchange.load_state_dict(saved(theirs, tmp_path), "wrn-28-10-silu/16", **settings)
    assert difference(theirs, ours) < 1e-12


def test_deepminds_network_of_grey_images_gives_the_same_logits(tmp_path):
    path = saved(theirs := deepminds((0.0,), (1.0,)), tmp_path)
    ours = interchange.load_state_dict(path, "wrn-28-10-silu/16", normalisation="none")
    assert difference(theirs, ours) < 1e-12
    with pytest.raises(StateDictError, match="mean must have one number for each of 1 input channels"):
        interchange.load_state_dict(path, "wrn-28-10-silu/16", normalisation="cifar10")


@pytest.mark.parametrize(
    ("settings", "missing"), [({}, "mean and std"), ({"mean": CIFAR10[0]}, "std"), ({"std": CIFAR10[1]}, "mean")]
)
def test_deepminds_network_is_not_read_without_its_normalisation(tmp_path, settings, missing):
    message = rf"does not hold the {missing} of its network's images.*Write normalisation='cifar10' or .*'none'"
    with pytest.raises(StateDictError, match=message):
        interchange.load_state_dict(saved(deepminds(), tmp_path), "wrn-28-10-silu/16", **settings)


@pytest.mark.parametrize("names", [("mean", "std"), ("mu", "sigma"), ("normalizer.mean", "normalizer.std")])
def test_a_normalisation_in_the_file_needs_no_name_but_no_other_goes_with_it(tmp_path, names):
    theirs = deepminds()
    path = saved(theirs, tmp_path, **dict(zip(names, map(torch.tensor, CIFAR10), strict=True)))
    for settings in ({}, {"normalisation": "cifar10"}):
        assert difference(theirs, interchange.load_state_dict(path, "wrn-28-10-silu/16", **settings)) < 1e-12
    for other in ({"normalisation": "none"}, {"normalisation": "cifar100"}, {"std": (0.2, 0.2, 0.2)}):
        with pytest.raises(StateDictError, match=r"holds its own (mean|std)"):
            interchange.load_state_dict(path, "wrn-28-10-silu/16", **other)


def test_a_normalisation_is_given_once_and_by_a_known_name(tmp_path):
    path = saved(deepminds(), tmp_path)
    for more in ({"mean": CIFAR10[0]}, {"std": CIFAR10[1]}):
        with pytest.raises(ValueError, match="either normalisation='cifar10' or mean and std, not both"):
            interchange.load_state_dict(path, "wrn-28-10-silu/16", normalisation="cifar10", **more)
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        interchange.load_state_dict(path, "wrn-28-10-silu/16", normalisation="cifar-10")


VARIANTS = {"preact-resnet18-kuangliu": True, "preact-resnet18-wong": False}
"""Whether the shortcuts of a PreAct ResNet-18 without a last norm take the activated input."""


@pytest.mark.parametrize("name", VARIANTS)
def test_a_preact_resnet_without_a_last_norm_gives_the_same_logits(tmp_path, name):
    theirs = lived_in(lambda: PreActResNet18(4, VARIANTS[name]))
    path = saved(theirs, tmp_path)
    ours = {
        each: interchange.load_state_dict(path, f"{each}/16", normalisation="none", num_classes=10) for each in VARIANTS
    }
    assert difference(theirs, ours.pop(name)) < 1e-12
    (other,) = ours.values()
    assert difference(theirs, other) > 0.01, "the same weights of another network"


def test_a_preact_resnet_without_a_last_norm_is_none_with_it(tmp_path):
    path = saved(lived_in(lambda: PreActResNet18(4, activated_shortcut=True)), tmp_path)
    with pytest.raises(StateDictError, match=r"2 missing \(norm.weight, norm.bias|4 missing \(norm.weight, norm.bias"):
        interchange.load_state_dict(path, "preact-resnet18/16")


def test_wongs_network_is_not_read_without_its_normalisation(tmp_path):
    path = saved(theirs := lived_in(lambda: PreActResNet18(4, activated_shortcut=False)), tmp_path)
    with pytest.raises(StateDictError, match="Write normalisation='cifar10'"):
        interchange.load_state_dict(path, "preact-resnet18-wong/16")
    ours = interchange.load_state_dict(path, "preact-resnet18-wong/16", normalisation="cifar10")
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in CIFAR10)
    x = torch.rand(3, 3, 32, 32).double()
    with torch.no_grad():
        assert torch.allclose(ours.double()(x), theirs.double()((x - mean) / std), atol=1e-12)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_fifo_in_place_of_weights_is_refused_and_not_waited_for(tmp_path, suffix):
    refused = pytest.raises(StateDictError, match="cannot be read: it is not a file")
    with fifo(tmp_path / f"weights{suffix}") as path, refused:
        interchange.load_state_dict(path, "resnet18/16")


def test_the_kits_own_networks_hold_their_normalisation(tmp_path):
    network = interchange.models.build("wrn-28-10-silu/16", 10, *CIFAR10)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    again = interchange.load_state_dict(tmp_path / "weights.safetensors", "wrn-28-10-silu/16")
    assert torch.equal(again.mean, network.mean)
