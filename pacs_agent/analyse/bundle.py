"""A model bundle: the folder of `model.json` and `weights.safetensors`, all that a model needs to run and be trusted.

Enters: a folder or the name of a bundle that ships. Leaves: a checked `Bundle`, or a `BundleError` of one line. Never
imports torch, because the listening process reads bundles too; never unpickles.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open

from pacs_agent.analyse.finding import ModelIdentity
from pacs_agent.analyse.pixels import InputSpec
from pacs_agent.durable import sync
from pacs_agent.errors import BundleError

FORMAT_VERSION: Final = 1
MANIFEST_NAME = "model.json"
WEIGHTS_NAME = "weights.safetensors"
SHIPPED = Path(__file__).parent.parent / "bundles"
ARCHITECTURES = frozenset(
    {"enhanced_ensemble", "backbone_ensemble"}
)  # those of network.py, which cannot be asked here: it imports torch
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_WEIGHTS_BYTES = 4 * 1024**3

Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(_Part):
    """Which network, and the arguments it is built with."""

    name: str
    arguments: dict[str, JsonValue] = {}

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {value!r}: one of {', '.join(sorted(ARCHITECTURES))}")
        return value


class Calibration(_Part):
    """What turns a mean over images into a probability: sigmoid(logit(mean) / temperature + bias).

    It is applied once, after averaging, to the mean of a study's images; thresholds then apply to what leaves here.
    """

    temperature: float = Field(gt=0, allow_inf_nan=False)
    bias: float = Field(allow_inf_nan=False)

    def apply(self, mean: float) -> float:
        """The calibrated probability of a mean of 0 to 1."""
        mean = min(max(mean, 1e-12), 1 - 1e-12)
        logit = math.log(mean / (1 - mean)) / self.temperature + self.bias
        return 1 / (1 + math.exp(-min(max(logit, -700.0), 700.0)))


class Thresholds(_Part):
    """Abnormal when the probability is greater than this."""

    default: Probability = 0.5
    per_part: dict[str, Probability] = {}


class GuardSettings(_Part):
    """What the guard needs beside its tensors (`guard.*` in the weights): see guard.py.

    Attributes:
        parts: what the body-part head tells apart, in the order of its outputs.
        part_threshold: a picture is of another part than its header says when that part's probability is greater.
        distance_threshold: a picture is unlike the training data when its distance is greater.
        false_alarm_rate: of both together, for which the thresholds were chosen.
        measured: rates on the hold-out; for people, never read by the program.
    """

    parts: tuple[str, ...] = Field(min_length=1)
    part_threshold: Probability
    distance_threshold: float = Field(gt=0, allow_inf_nan=False)
    false_alarm_rate: Probability
    measured: dict[str, JsonValue] = {}


class BundleManifest(_Part):
    """What `model.json` says.

    Attributes:
        input: the picture that the network was trained on.
        body_parts: the parts that the model was made for; of any other every finding is `undetermined`.
        gating: `by_part`: each sample by its own part; `default`: the default weights for every part.
        calibration: None: the probabilities are raw outputs.
        test_time_flip: the logits are the mean of the picture's and its mirror image's.
        guard: None: nothing watches for pictures that the model was not made for.
        trained: false: every finding is `undetermined`.
        requires_quality_control_subject: findings only for phantoms (QualityControlSubject YES).
        provenance: data set, split, seed, metrics with intervals; for people, never read by the program.
        weights_sha256: of `weights.safetensors`, hex.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: str = Field(min_length=1, max_length=64)
    version: str = Field(min_length=1, max_length=64)
    architecture: Architecture
    input: InputSpec
    body_parts: tuple[str, ...] = Field(min_length=1)
    gating: Literal["by_part", "default"] = "by_part"
    calibration: Calibration | None = None
    thresholds: Thresholds = Thresholds()
    test_time_flip: bool = False
    guard: GuardSettings | None = None
    trained: bool
    requires_quality_control_subject: bool
    intended_use: str = Field(min_length=1)
    provenance: dict[str, JsonValue] = {}
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _thresholds_of_own_parts(self) -> Self:
        if strangers := sorted(set(self.thresholds.per_part) - set(self.body_parts)):
            raise ValueError(f"thresholds name {', '.join(strangers)}, which body_parts does not")
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose weights have the hash that its manifest states.

    Attributes:
        path: the folder.
        manifest: what it says.
        weights_path: `weights.safetensors` in it.
    """

    path: Path
    manifest: BundleManifest
    weights_path: Path

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is, as records and reports name it."""
        return ModelIdentity(
            name=self.manifest.name,
            version=self.manifest.version,
            bundle_hash=self.manifest.weights_sha256,
            trained=self.manifest.trained,
            calibrated=self.manifest.calibration is not None,
            requires_quality_control_subject=self.manifest.requires_quality_control_subject,
            body_parts=self.manifest.body_parts,
        )

    def calibrate(self, mean: float) -> float:
        """The calibrated probability of a mean over images; the mean itself where nothing was fitted."""
        calibration = self.manifest.calibration
        return calibration.apply(mean) if calibration else mean

    def threshold(self, body_part: str | None) -> float:
        """The threshold of a part; the default one where the part is None or has none of its own."""
        thresholds = self.manifest.thresholds
        return thresholds.per_part.get(body_part or "", thresholds.default)


def shipped_names() -> tuple[str, ...]:
    """The names of the bundles that ship."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST_NAME}")))


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read a bundle and check it whole, its weights by their SHA-256.

    Args:
        name_or_path: the name of a bundle that ships (`demonstration`), else a folder.

    Raises:
        BundleError: one line that names the bundle and what is wrong with it.
    """
    text = str(name_or_path)
    path = SHIPPED / text if text in shipped_names() else Path(text).expanduser().absolute()
    if not path.is_dir():
        raise BundleError(f"bundle {text}: neither a folder nor one that ships ({', '.join(shipped_names())})")
    try:
        manifest = _read_manifest(path / MANIFEST_NAME)
        weights_path = path / WEIGHTS_NAME
        _check_weights(weights_path, manifest.weights_sha256)
    except FileNotFoundError as error:
        raise BundleError(f"bundle {text}: {Path(error.filename or '').name} is missing") from error
    except OSError as error:
        raise BundleError(f"bundle {text}: cannot be read: {error.strerror}") from error
    except BundleError as error:
        raise BundleError(f"bundle {text}: {error}") from error
    return Bundle(path, manifest, weights_path)


def load_further(names: Sequence[str], live: Bundle) -> list[Bundle]:
    """The bundles that run beside the live one, each checked as that is.

    Raises:
        BundleError: one cannot be used, or is another of them: nothing could tell their findings apart.
    """
    found = [live]
    for name in names:
        bundle = load_bundle(name)
        if any(bundle.identity.key == other.identity.key for other in found):
            manifest = bundle.manifest
            raise BundleError(f"bundle {name} of [model] also: {manifest.name} {manifest.version} runs already")
        found.append(bundle)
    return found[1:]


def write_bundle(folder: Path, fields: Mapping[str, Any], weights: Path) -> Bundle:
    """Write a bundle whole: either the folder is there with all that it needs, or it is not there.

    Args:
        folder: to be made; it must not exist, or be empty.
        fields: those of `BundleManifest`, without `weights_sha256`.
        weights: a safetensors file, copied.

    Raises:
        BundleError: fields or weights that `load_bundle` would refuse, or a folder that cannot be written.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            inner = Path(temporary) / "bundle"
            inner.mkdir()
            digest = _sha256(Path(shutil.copyfile(weights, inner / WEIGHTS_NAME)))
            manifest = _parse_manifest({**fields, "weights_sha256": digest})
            text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
            (inner / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
            for path in (inner / WEIGHTS_NAME, inner / MANIFEST_NAME, inner):
                sync(path)
            _check_weights(inner / WEIGHTS_NAME, digest)
            inner.rename(folder)  # replaces an empty folder, fails on any other
        sync(folder.parent)
    except OSError as error:
        raise BundleError(f"bundle {folder}: cannot be written: {error.strerror}") from error
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from error
    return load_bundle(folder)


def _read_manifest(path: Path) -> BundleManifest:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_NAME} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BundleError(f"{MANIFEST_NAME} is not a JSON object")
    return _parse_manifest(fields)


def _parse_manifest(fields: Mapping[str, Any]) -> BundleManifest:
    # Looked at first: of another version's fields nothing useful can be said.
    if (version := fields.get("format_version", FORMAT_VERSION)) != FORMAT_VERSION:
        raise BundleError(f"format version {version!r} is unknown: this program reads {FORMAT_VERSION}")
    try:
        return BundleManifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
        where = f"{MANIFEST_NAME}: {key}" if key else MANIFEST_NAME
        raise BundleError(f"{where}: {message.removeprefix('Value error, ')}") from error


def _check_weights(path: Path, expected_sha256: str) -> None:
    if (size := path.stat().st_size) > MAX_WEIGHTS_BYTES:
        raise BundleError(f"{WEIGHTS_NAME} is larger than {MAX_WEIGHTS_BYTES} bytes ({size})")
    if (found := _sha256(path)) != expected_sha256:
        raise BundleError(f"{WEIGHTS_NAME} has SHA-256 {found}, {MANIFEST_NAME} states {expected_sha256}")
    try:
        # The header is checked against the file's length; no tensor is read.
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise BundleError(f"{WEIGHTS_NAME} is not a safetensors file: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
