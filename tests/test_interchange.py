"""Weights from elsewhere: every known naming, nothing half loaded, nothing executed; networks for elsewhere."""

import pickle
import pickletools
import re
import zipfile
from itertools import accumulate

import pytest
import safetensors
import safetensors.torch
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from rkdkit import interchange, models
from rkdkit.interchange import StateDictError
from rkdkit.store import RunFolder

PLAIN = ([0.0] * 3, [1.0] * 3)


def network_of(name, mean=PLAIN[0], std=PLAIN[1], seed=1):
    """A network whose running statistics are of some images, so that eval mode is telling."""
    network = models.build(name, 4, mean, std, seed=seed)
    network(torch.rand(16, len(mean), 16, 16, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def same_logits(one, other):
    x = torch.rand(3, one.mean.shape[1], 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.allclose(one(x), other(x), atol=1e-6)


def renamed(network, depths, block, renamings):
    """The state dict of a network under other names; `block` is where one of a stage stands, as a format string."""
    starts = [0, *accumulate(depths)]
    state = {}
    for name, tensor in network.state_dict().items():
        if match := re.match(r"stages\.(\d+)\.", name):
            stage = max(s for s, start in enumerate(starts) if start <= int(match[1]))
            name = block.format(stage=stage, one=stage + 1, i=int(match[1]) - starts[stage]) + name[match.end() :]
        for ours, theirs in renamings.items():
            name = re.sub(ours, theirs, name)
        if name not in ("mean", "std"):
            state[name] = tensor
    return state


STEM = {r"^stem\.0": "conv1", r"^stem\.1": "bn1"}
RICE = {"^stem": "conv1", "^head": "linear", "^norm": "bn", r"shortcut\.": "shortcut.0."}
TRADES = {"^stem": "conv1", "^head": "fc", "^norm": "bn1", "shortcut": "convShortcut"}
DEEPMIND = {"^stem": "init_conv", "^head": "logits", "^norm": "batchnorm"} | {
    rf"\.{ours}{i + 1}": f".{theirs}_{i}" for i in (0, 1) for ours, theirs in (("bn", "batchnorm"), ("conv", "conv"))
}
MOBILE = STEM | {"^head": "linear", r"^last\.0": "conv2", r"^last\.1": "bn2"}
NAMINGS = {
    "kuangliu": ("resnet18", (2, 2, 2, 2), "layer{one}.{i}.", STEM | {"^head": "linear"}),
    "torchvision": ("resnet34", (3, 4, 6, 3), "layer{one}.{i}.", STEM | {"^head": "fc", "shortcut": "downsample"}),
    "rice": ("preact-resnet18", (2, 2, 2, 2), "layer{one}.{i}.", RICE),
    "kuangliu preact": ("preact-resnet18-kuangliu", (2, 2, 2, 2), "layer{one}.{i}.", RICE),
    "wong": ("preact-resnet18-wong", (2, 2, 2, 2), "layer{one}.{i}.", RICE),
    "trades": ("wrn-34-10", (5, 5, 5), "block{one}.layer.{i}.", TRADES),
    "deepmind": ("wrn-28-10-silu", (4, 4, 4), "layer.{stage}.block.{i}.", DEEPMIND),
    "kuangliu mobile": ("mobilenetv2", (17,), "layers.{i}.", MOBILE),
}
WRAPPINGS = {
    "kuangliu": lambda state: {"net": {f"module.{k}": v for k, v in state.items()}, "acc": 95.0, "epoch": 199},
    "torchvision": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
    "rice": lambda state: {"state_dict": {"model": state}},
    "kuangliu preact": lambda state: {"net": state},
    "wong": lambda state: {f"module.{k}": v for k, v in state.items()},
    "trades": lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
    "deepmind": lambda state: {"model_state_dict": {f"module.0.{k}": v for k, v in state.items()}},
    "kuangliu mobile": lambda state: state,
}


@pytest.fixture(scope="module")
def resnet():
    return network_of("resnet18/16")


@pytest.fixture(scope="module")
def resnet_state(resnet):
    return renamed(resnet, *NAMINGS["kuangliu"][1:])


def load(state, tmp_path, *arguments, **settings):
    torch.save(state, tmp_path / "weights.pt")
    return interchange.load_state_dict(tmp_path / "weights.pt", *(arguments or ("resnet18/16",)), **settings)


@pytest.mark.parametrize("naming", NAMINGS)
def test_public_namings_and_wrappings_are_understood(naming, tmp_path):
    architecture, *names = NAMINGS[naming]
    network = network_of(f"{architecture}/16")
    state = renamed(network, *names)
    assert not any(name.startswith(("stem.", "stages.", "head.")) for name in state)
    plain = {"normalisation": "none"} if architecture in interchange.NORMALISING else {}
    loaded = load(WRAPPINGS[naming](state), tmp_path, f"{architecture}/16", **plain)
    assert not loaded.training
    assert same_logits(network, loaded)


def test_every_architecture_has_a_naming():
    of_the_plane = {"mlp-10", "mlp-5"}  # nobody publishes their weights: only the kit's own snapshots are read
    assert {naming[0] for naming in NAMINGS.values()} == set(models.ARCHITECTURES) - of_the_plane


def test_a_wide_resnet_is_not_taken_for_the_other_kind(tmp_path):
    network = models.build("wrn-34-10/16", 4, *PLAIN)
    state = renamed(network, (5, 5, 5), "layer.{stage}.block.{i}.", DEEPMIND)
    with pytest.raises(StateDictError, match=r"unknown .*init_conv"):
        load(state, tmp_path, "wrn-34-10/16")


def test_safetensors_under_public_names_are_read(resnet, resnet_state, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in resnet_state.items()}, path)
    assert same_logits(resnet, interchange.load_state_dict(path, "resnet18/16"))


def test_the_kits_own_snapshots_are_read(tmp_path):
    network = network_of("resnet18/16", [0.3], [0.2])
    RunFolder(tmp_path).write_tensors("student-0001.safetensors", network.state_dict())
    loaded = interchange.load_state_dict(tmp_path / "student-0001.safetensors", "resnet18/16", 4)
    assert same_logits(network, loaded)
    assert interchange.digest_of_module(network) == interchange.digest_of_module(loaded)


def test_the_stage_that_trades_never_calls_is_left_out(tmp_path):
    architecture, *names = NAMINGS["trades"]
    network = network_of(f"{architecture}/16")
    state = renamed(network, *names)
    unused = {f"sub_{name}": value for name, value in state.items() if name.startswith("block1.")}
    assert same_logits(network, load({**state, **unused}, tmp_path, f"{architecture}/16"))


def test_the_number_of_batches_may_be_missing(resnet, resnet_state, tmp_path):
    state = {name: value for name, value in resnet_state.items() if not name.endswith("num_batches_tracked")}
    assert same_logits(resnet, load(state, tmp_path))


def test_normalisation_is_the_files_or_the_callers_or_none(resnet, resnet_state, tmp_path):
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    normalising = network_of("resnet18/16", mean, std)
    normalising.load_state_dict(
        {**normalising.state_dict(), **{k: v for k, v in resnet.state_dict().items() if "." in k}}
    )
    held = {"normalize.mean": torch.tensor(mean), "normalize.std": torch.tensor(std).view(1, 3, 1, 1)}
    assert same_logits(resnet, load(resnet_state, tmp_path))
    assert same_logits(normalising, load(resnet_state, tmp_path, mean=mean, std=std))
    assert same_logits(normalising, load({**held, **{f"1.{k}": v for k, v in resnet_state.items()}}, tmp_path))
    assert same_logits(normalising, load({**held, **resnet_state}, tmp_path, mean=mean, std=std))
    for other in ([0.0] * 3, [0.5, 0.4]):
        with pytest.raises(StateDictError, match="holds its own mean"):
            load({**held, **resnet_state}, tmp_path, mean=other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": [0.5]}, "each of 3 input channels"),
        ({"std": [0.2, 0.2, 0.0]}, "std must be"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean must be"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(resnet_state, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        load(resnet_state, tmp_path, **settings)


def without(state, *parts):
    return {name: value for name, value in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda s: without(s, "layer2.0.bn1"), [r"4 missing \(stages.2.bn1.weight, stages.2.bn1.bias, "]),
        (lambda s: without(s, "linear"), [r"2 missing \(head.weight, head.bias\)"]),
        (lambda s: without(s, "conv1.weight", "layer1.0.conv1"), [r"missing \(stem.0.weight"]),
        (lambda s: {**s, "aux.weight": torch.ones(1)}, [r"1 unknown \(aux.weight\)"]),
        (lambda s: {**s, "fc.weight": s["linear.weight"]}, [r"1 unknown \(fc.weight\)"]),
        (lambda s: {**s, "bn1.bias": torch.ones(5)}, [r"1 of another .*bn1.bias is .*\(5,\) and should be .*\(4,\)"]),
        (lambda s: {**s, "bn1.bias": torch.ones(4, dtype=torch.int8)}, ["bn1.bias is not floating point"]),
        (lambda s: without({**s, "a": torch.ones(1)}, "bn1.bias"), ["9 missing", "1 unknown"]),
        (lambda _: {f"x{i}": torch.ones(1) for i in range(9)}, ["missing", r"9 unknown \(x0, x1, x2, x3, x4, ...\)"]),
        (lambda _: {}, ["missing"]),
    ],
)
def test_weights_that_are_not_the_networks_are_named(resnet_state, tmp_path, change, messages):
    with pytest.raises(StateDictError) as error:
        load(change(resnet_state), tmp_path)
    for message in messages:
        assert re.search(message, str(error.value)), str(error.value)


@pytest.mark.parametrize("arguments", [("resnet34/16",), ("resnet18/8",), ("resnet18/16", 10), ("mobilenetv2/16",)])
def test_another_architecture_width_or_number_of_classes_is_refused(resnet_state, tmp_path, arguments):
    with pytest.raises(StateDictError, match="Nothing was loaded"):
        load(resnet_state, tmp_path, *arguments)


def test_an_unknown_architecture_is_refused(resnet_state, tmp_path):
    with pytest.raises(ValueError, match=r"Known: .*resnet18"):
        load(resnet_state, tmp_path, "resnet19")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "executed"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"conv1.weight": Malicious(trace)}, 2))
    torch.save({"state_dict": Malicious(trace)}, tmp_path / "zipped.pt")
    for name in ("plain.pt", "zipped.pt"):
        with pytest.raises(StateDictError, match="nothing in it was executed"):
            interchange.load_state_dict(tmp_path / name, "resnet18/16")
    assert not trace.exists()
    # read as a list of instructions, not run: it is a file that would call open(trace) for whoever unpickled it
    instructions = [
        (code.name, argument) for code, argument, _ in pickletools.genops((tmp_path / "plain.pt").read_bytes())
    ]
    assert [argument.split()[-1] for name, argument in instructions if name == "GLOBAL"] == ["open"]
    assert str(trace) in [argument for _, argument in instructions]
    assert "REDUCE" in [name for name, _ in instructions]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        (
            {"epoch": 3, "student": {"conv1.weight": torch.ones(2)}},
            r"2 entries that are not plain tensors \(epoch, stu",
        ),
        ({"conv1.weight": torch.ones(2, 2).to_sparse()}, "not plain tensors"),
        ({"conv1.weight": torch.ones(2, device="meta")}, "not plain tensors"),
        ({1: torch.ones(2)}, "not plain tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    with pytest.raises(StateDictError, match=message):
        load(content, tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_random_bytes_are_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"random{suffix}"
    path.write_bytes(content)
    with pytest.raises(StateDictError):
        interchange.load_state_dict(path, "resnet18/16")


@given(end=st.floats(0, 0.999), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_a_truncated_file_is_refused(tmp_path_factory, resnet_state, end, suffix):
    path = tmp_path_factory.getbasetemp() / f"truncated{suffix}"
    save = torch.save if suffix == ".pt" else safetensors.torch.save_file
    save({name: value.contiguous() for name, value in resnet_state.items()}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(end * len(content))])
    with pytest.raises(StateDictError):
        interchange.load_state_dict(path, "resnet18/16")


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "."])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(StateDictError, match="cannot be read"):
        interchange.load_state_dict(tmp_path / name, "resnet18/16")


def test_exported_safetensors_come_back(tmp_path):
    network = network_of("wrn-28-10-silu/16", [0.3], [0.2]).train().on("cpu")
    path = tmp_path / "folder" / "network.safetensors"
    interchange.export(network, path)
    assert network.training
    assert same_logits(network.eval(), interchange.load_state_dict(path, "wrn-28-10-silu/16"))
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"architecture": "wrn-28-10-silu/16", "num_classes": "4"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["resnet18", "preact-resnet18", "wrn-28-10-silu", "mobilenetv2"])
def test_an_exported_program_gives_the_same_logits_for_any_number_of_images(name, tmp_path):
    network = network_of(f"{name}/16").train().on("cpu")
    interchange.export(network, tmp_path / "network.pt2", example_shape=(3, 8, 8))
    assert network.training
    with zipfile.ZipFile(tmp_path / "network.pt2") as archive:
        assert not any(str(ROOT).encode() in archive.read(name) for name in archive.namelist())
    program = torch.export.load(tmp_path / "network.pt2").module()
    network.eval()
    for n in (1, 5):
        x = torch.rand(n, 3, 8, 8)
        assert torch.allclose(program(x), network(x), atol=1e-5)


def test_an_export_says_what_it_needs(resnet, tmp_path):
    with pytest.raises(ValueError, match=r"Known: \.safetensors, \.pt2"):
        interchange.export(resnet, tmp_path / "network.onnx")
    with pytest.raises(ValueError, match=r"example_shape=\(C, H, W\)"):
        interchange.export(resnet, tmp_path / "network.pt2")
    assert not list(tmp_path.iterdir())


def test_a_digest_is_of_names_dtypes_shapes_and_values(resnet):
    digest = interchange.digest_of_module
    assert re.fullmatch(r"[0-9a-f]{16}", digest(resnet))
    assert digest(resnet) == digest(network_of("resnet18/16").on("cpu").train())
    assert digest(resnet) != digest(network_of("resnet18/16", seed=2))

    def of(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return digest(module)

    ones = torch.ones(2, 3)
    others = [
        of(b=ones),
        of(a=ones.view(3, 2)),
        of(a=ones.bfloat16()),
        of(a=ones.int()),
        of(a=ones.nextafter(ones * 2)),
    ]
    assert len({of(a=ones), *others}) == 6
    assert of(a=ones, b=ones * 2) == of(b=ones * 2, a=ones.T.contiguous().T)
    assert of(a=torch.tensor(1)) != of(a=torch.tensor(2))
