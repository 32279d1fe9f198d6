"""The published checkpoint becomes a bundle with the same probabilities; nothing in the file is executed."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble
from pacs_agent.analyse.pixels import model_input, read_picture
from pacs_agent.study.bodypart import BODY_PARTS
from training import torchfile
from training.cli import main
from training.torchfile import open_torch_file

# -- The author's network as its description has it, written without looking at pacs_agent.analyse.network.


class AuthorsBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, stride=1, padding=1)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, kernel_size=1, stride=stride), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out))
        return (out + self.shortcut(x)).relu()


class AuthorsModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=1, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        before = 16
        for number, width in enumerate((32, 64, 128), start=1):
            setattr(
                self, f"layer{number}", nn.Sequential(AuthorsBlock(before, width, 2), AuthorsBlock(width, width, 1))
            )
            before = width
        self.attention = nn.Sequential(nn.Conv2d(128, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1), nn.Sigmoid())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
        return self.fc(self.avgpool(x * self.attention(x)).flatten(1))


class AuthorsEnsemble(nn.Module):
    """With both faults of the published code: keys without XR_, and the first sample's part for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.model1, self.model2, self.model3 = AuthorsModel(), AuthorsModel(), AuthorsModel()
        self.part_attention = nn.ModuleDict(
            {
                part: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3), nn.Softmax(dim=1))
                for part in ("SHOULDER", "ELBOW")
            }
        )
        self.default_weights = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor, body_parts: list[str]) -> torch.Tensor:
        outputs = [self.model1(x), self.model2(x), self.model3(x)]
        if body_parts[0] in self.part_attention:
            weights = self.part_attention[body_parts[0]](torch.cat(outputs, dim=1))
        else:
            weights = self.default_weights.softmax(0).expand(len(x), 3)
        return sum(weights[:, index : index + 1] * output for index, output in enumerate(outputs))


def authors_input(picture: np.ndarray) -> torch.Tensor:
    """Stretched to 160 × 160, RGB, scaled and normalised, as torchvision's transforms do it."""
    rgb = Image.fromarray(picture).convert("RGB").resize((160, 160), Image.Resampling.BILINEAR)
    scaled = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 255
    return ((scaled - 0.485) / 0.229).unsqueeze(0)


def trained_looking(seed: int) -> AuthorsEnsemble:
    """Random weights, running statistics and default weights that are not those of a fresh network."""
    torch.manual_seed(seed)
    network = AuthorsEnsemble()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(321)
        network.default_weights.copy_(torch.tensor([0.7, 1.4, 0.9]))
        for model in (network.model1, network.model2, network.model3):
            model.fc.weight.mul_(60)
    return network.eval()


def content(network: nn.Module) -> dict[str, Any]:
    """What the author's script saves: optimizer and scheduler states hold numpy scalars."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    network.default_weights.grad = torch.ones(3)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = np.float64(3e-5)
    return {
        "epoch": 187,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": {"last_epoch": np.int64(9), "_last_lr": [np.float64(3e-5)], "when": np.array([1, 2])},
        "val_accuracy": np.float64(0.8226),
        "val_part_accuracy": {"XR_SHOULDER": 0.79, "XR_WRIST": np.float64(0.85)},
    }


@pytest.fixture(scope="module")
def network() -> AuthorsEnsemble:
    return trained_looking(5)


@pytest.fixture
def checkpoint(tmp_path: Path, network: AuthorsEnsemble) -> Path:
    path = tmp_path / "published.pth"
    torch.save(content(network), path)
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else -1


def refusal(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an import that must fail, and leave nothing."""
    out = path.parent / "bundle"
    assert run("import-published", path, "--out", out) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"pacs-train: {path}: ")
    assert captured.err.count("\n") == 1
    assert sorted(path.parent.iterdir()) == [path]
    return captured.err


def test_the_probabilities_are_those_of_the_authors_code(
    checkpoint: Path, network: AuthorsEnsemble, tmp_path: Path
) -> None:
    """For random pictures of every shape and every part, the bundle's probability is the author's to 1e-6."""
    assert run("import-published", checkpoint, "--out", tmp_path / "bundle") == 0
    bundle = load_bundle(tmp_path / "bundle")
    ensemble = Ensemble(bundle, "cpu")
    rng = np.random.default_rng(8)
    probabilities = []
    for number, part in enumerate(sorted(BODY_PARTS)):
        rows, columns = (int(side) for side in rng.integers(90, 513, 2))
        picture = Image.fromarray(rng.integers(0, 256, (24, 20), dtype=np.uint8)).resize((columns, rows))
        path = tmp_path / f"{number}.png"
        (picture.convert("RGB") if number % 2 else picture).save(path)
        with torch.inference_mode():
            # The data set's names: XR_SHOULDER finds no gate.
            expected = network(authors_input(np.asarray(picture)), [f"XR_{part.upper()}"]).softmax(1)[0, 1].item()
        inputs = np.stack([model_input(read_picture(path, max_pixels=10**6), bundle.manifest.input)])
        found = ensemble.predict(inputs, [part], 1)[0].item()
        assert found == pytest.approx(expected, abs=1e-6)
        probabilities.append(found)
    assert max(probabilities) - min(probabilities) > 0.01  # it is not one number for all


def test_predict_gives_the_probability(checkpoint: Path, network: AuthorsEnsemble, tmp_path: Path) -> None:
    """`pacs-agent predict` with the bundle tells the author's probability, and a finding by the rule of 0.5."""
    assert run("import-published", checkpoint, "--out", tmp_path / "bundle") == 0
    picture = np.random.default_rng(3).integers(0, 256, (300, 200), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    command = ["predict", tmp_path / "x.png", "--bundle", tmp_path / "bundle", "--body-part", "shoulder", "--json"]
    answer = subprocess.run(
        [sys.executable, "-m", "pacs_agent", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = json.loads(answer.stdout)
    told = told[0] if isinstance(told, list) else told
    with torch.inference_mode():
        expected = network(authors_input(picture), ["XR_SHOULDER"]).softmax(1)[0, 1].item()
    assert told["abnormal_probability"] == pytest.approx(expected, abs=1e-6)
    assert told["finding"] == ("abnormal" if expected > 0.5 else "normal")
    assert len(told["member_probabilities"]) == 3


def test_it_says_where_it_comes_from(checkpoint: Path, tmp_path: Path) -> None:
    """The manifest names the file's hash, epoch and accuracies, default gating, no calibration, threshold 0.5."""
    assert run("import-published", checkpoint, "--out", tmp_path / "bundle") == 0
    manifest = load_bundle(tmp_path / "bundle").manifest
    with open_torch_file(checkpoint) as file:
        assert manifest.provenance["sha256"] == file.sha256
    assert manifest.provenance["epoch"] == 187
    assert manifest.provenance["val_accuracy"] == 0.8226
    assert manifest.provenance["val_part_accuracy"] == {"XR_SHOULDER": 0.79, "XR_WRIST": 0.85}
    assert (manifest.gating, manifest.calibration, manifest.trained) == ("default", None, True)
    assert (manifest.thresholds.default, manifest.thresholds.per_part) == (0.5, {})
    assert not manifest.requires_quality_control_subject


@pytest.mark.parametrize("changed", ["half", "view", "protocol 4"])
def test_other_ways_to_store_the_same(
    tmp_path: Path, network: AuthorsEnsemble, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half precision, tensors that are views into a larger storage, and pickles of another protocol are read right."""
    state = dict(network.state_dict())
    if changed == "half":
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if changed == "view":
        state["model1.fc.weight"] = torch.cat([torch.zeros(3, 128), state["model1.fc.weight"]])[3:].T.contiguous().T
        assert not state["model1.fc.weight"].is_contiguous()
    path = tmp_path / "x.pth"
    torch.save({"model_state_dict": state}, path, pickle_protocol=4 if changed == "protocol 4" else 2)
    assert run("import-published", path, "--out", tmp_path / "bundle") == 0
    loaded = Ensemble(load_bundle(tmp_path / "bundle"), "cpu").network.state_dict()
    for name, tensor in state.items():
        assert torch.equal(loaded[name].cpu(), tensor.to(loaded[name].dtype))


class Command:
    """Runs when unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_command_in_the_pickle_does_not_run(
    tmp_path: Path, network: AuthorsEnsemble, capsys: pytest.CaptureFixture[str]
) -> None:
    """os.system, eval, and a class of an installed package: never run, one line that names them."""
    import os  # noqa: PLC0415

    proof = tmp_path / "proof"
    for number, (command, named) in enumerate(
        [
            (Command(os.system, f"touch {proof}"), "system"),
            (Command(eval, f"open({str(proof)!r}, 'w')"), "eval"),
            (Command(Path, str(proof)), "pathlib"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(content(network) | {"optimizer_state_dict": command}, folder / "x.pth")
        line = refusal(folder / "x.pth", capsys)
        assert named in line
        assert "not loaded" in line
    assert not proof.exists()


def test_a_name_of_torch_or_numpy_is_not_called(tmp_path: Path, network: AuthorsEnsemble) -> None:
    """Functions of torch and numpy that write or load files are replaced by something inert: never called."""
    proof = tmp_path / "proof.npy"
    writing = Command(np.save, str(proof), 1)
    loading = Command(torch.load, str(tmp_path / "not-there"))
    torch.save(content(network) | {"optimizer_state_dict": [writing, loading]}, tmp_path / "x.pth")
    assert run("import-published", tmp_path / "x.pth", "--out", tmp_path / "bundle") == 0
    assert not proof.exists()


@pytest.mark.parametrize("named", sorted(torchfile._BUILT))
@pytest.mark.parametrize("state", [{"__doc__": "x", "append": None}, (None, {"__doc__": "x", "append": None})])
def test_a_pickle_changes_nothing_of_the_program(named: tuple[str, str], state: Any) -> None:
    """BUILD on whatever a name stands for is refused: the next file is read by the same code."""
    stands_for = torchfile._BUILT[named]
    before = (stands_for.__doc__, getattr(stands_for, "append", "none"))
    built = b"\x80\x02c" + "\n".join(named).encode() + b"\n" + pickle.dumps(state, 2)[2:-1] + b"b."
    with pytest.raises((AttributeError, TypeError)):  # which `TorchFile` tells as damage
        torchfile._Tensors(io.BytesIO(built)).load()
    assert (stands_for.__doc__, getattr(stands_for, "append", "none")) == before


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00K\x01\x85K\x01\x85\x89NtR"


@pytest.mark.parametrize("built", [STORAGE, TENSOR])
def test_build_does_not_go_round_the_checks_of_a_tensor(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], built: bytes
) -> None:
    """BUILD on a tensor's description, or on its storage's, which would forge sizes and strides, is refused."""
    rewritten(checkpoint, lambda name, data: b"\x80\x02" + built + b"]b." if name == "data.pkl" else data)
    assert "changes a tensor's description" in refusal(checkpoint, capsys)


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda saved: {name: value for name, value in saved.items() if name != key}


def with_state(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Changes to the state dict; None takes a key away, `__` stands for a dot."""

    def change(saved: dict[str, Any]) -> Any:
        state = dict(saved["model_state_dict"]) | {name.replace("__", "."): value for name, value in changes.items()}
        return {**saved, "model_state_dict": {name: value for name, value in state.items() if value is not None}}

    return change


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        (without("model_state_dict"), "holds no model_state_dict"),
        (lambda saved: saved["model_state_dict"], "holds no model_state_dict"),
        (lambda saved: [1, 2], "holds no model_state_dict"),
        (lambda saved: {**saved, "model_state_dict": {}}, "lacks 'default_weights' and"),
        (with_state(model2__fc__bias=None), "lacks 'model2.fc.bias':"),
        (with_state(model4__fc__bias=torch.ones(2)), "has the unknown key 'model4.fc.bias'"),
        (
            with_state(model1__fc__weight=torch.ones(3, 128)),
            "model1.fc.weight is torch.float32 (3, 128), the network's",
        ),
        (with_state(model1__fc__weight=torch.ones(2, 128, dtype=torch.int64)), "model1.fc.weight is torch.int64"),
        (with_state(default_weights=torch.tensor([1.0, float("nan"), 1.0])), "not finite"),
        (with_state(default_weights="text"), "default_weights is not a tensor"),
        (lambda saved: {**saved, "model_state_dict": {**saved["model_state_dict"], 10**5000: 1}}, "unknown key 'int'"),
        (lambda saved: {10**5000: 1}, "holds no model_state_dict"),
    ],
)
def test_another_network_is_one_line(
    tmp_path: Path,
    network: AuthorsEnsemble,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], Any],
    tells: str,
) -> None:
    """Wrong keys, shapes, kinds and numbers: one line that names the first, nothing written."""
    torch.save(change(content(network)), tmp_path / "x.pth")
    assert tells in refusal(tmp_path / "x.pth", capsys)


def test_a_file_that_is_cut_short_is_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever the file ends, one line."""
    whole = checkpoint.read_bytes()
    for length in (0, 3, 40, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:length])
        assert ("cut short" if length > 3 else "no zip file") in refusal(checkpoint, capsys)


def test_damaged_bytes_are_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit in a tensor or in the pickle is found by the archive's checksums."""
    whole = checkpoint.read_bytes()
    for place in (2000, len(whole) // 3):
        checkpoint.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert "damaged" in refusal(checkpoint, capsys)


def test_other_formats_are_one_line(
    tmp_path: Path, network: AuthorsEnsemble, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's format of before 1.6, a plain pickle, another zip, a folder and nothing at all: each its own line."""
    path = tmp_path / "x.pth"
    torch.save({"epoch": 1}, path, _use_new_zipfile_serialization=False)
    assert "before 1.6" in refusal(path, capsys)
    path.write_bytes(pickle.dumps({"epoch": 1}))
    assert "not a checkpoint of torch.save" in refusal(path, capsys)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")
    assert "no data.pkl" in refusal(path, capsys)
    path.unlink()
    assert run("import-published", path, "--out", tmp_path / "bundle") == 2
    assert "No such file" in capsys.readouterr().err
    path.mkdir()
    assert "Is a directory" in refusal(path, capsys)


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Write the archive again with changed records, its checksums right."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as before, zipfile.ZipFile(path, "w", compression) as after:
        for name in before.namelist():
            after.writestr(name, change(name.partition("/")[2], before.read(name)))


@pytest.mark.parametrize(
    ("change", "compression", "tells"),
    [
        (lambda name, data: data[:-4] if name.startswith("data/") else data, zipfile.ZIP_STORED, "beyond its record"),
        (lambda name, data: b"big" if name == "byteorder" else data, zipfile.ZIP_STORED, "little endian"),
        (lambda name, data: data[:-20] if name == "data.pkl" else data, zipfile.ZIP_STORED, "pickle is damaged"),
        (lambda name, data: b"." if name == "data.pkl" else data, zipfile.ZIP_STORED, "pickle is damaged"),
        (
            lambda name, data: b"\x80\x02K\x01Q." if name == "data.pkl" else data,
            zipfile.ZIP_STORED,
            "refers to something",
        ),
        (
            lambda name, data: b"\x80\x02}r\xff\xff\xff\xff." if name == "data.pkl" else data,
            zipfile.ZIP_STORED,
            "(memo)",
        ),
        (lambda name, data: data, zipfile.ZIP_DEFLATED, "compressed"),
    ],
)
def test_a_forged_archive_is_one_line(
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[str, bytes], bytes],
    compression: int,
    tells: str,
) -> None:
    """Records that do not hold what the pickle says, and compressed ones, are refused before they cost memory."""
    rewritten(checkpoint, change, compression)
    assert tells in refusal(checkpoint, capsys)


def test_an_existing_folder_is_kept(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle is never written over."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").touch()
    assert run("import-published", checkpoint, "--out", tmp_path / "bundle") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["mine"]
