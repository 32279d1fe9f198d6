"""A preset, as its TOML file tells it: the recipe of three members and of what is fitted on top of them.

Enters: a name or a path. Leaves: a frozen `Preset`, or one line that names the key. The presets are data: `card`
follows the model card, `pretrained` goes past it.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pacs_agent.analyse.bundle import Architecture
from pacs_agent.analyse.network import DROPOUT
from pacs_agent.analyse.pixels import InputSpec
from training.errors import TrainingError

PRESETS = Path(__file__).parent / "presets"

Share = Annotated[float, Field(ge=0, lt=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HoldOut(_Table):
    """Shares of train's studies that are held out."""

    choose: float = Field(gt=0, lt=0.5)
    calibrate: float = Field(gt=0, lt=0.5)


class Augmentation(_Table):
    """How a picture is varied while training; see augment.py.

    Attributes:
        flip: probability of a mirror image.
        rotation_deg, shear_deg: either way, at most.
        zoom: enlarged or reduced by at most this share.
        shift: share of the side, either way.
        grid: points of the distortion grid are moved by at most this share of the side, either way.
        brightness: added to grey of 0 to 1, either way.
        contrast: the spread about the mean is changed by at most this share.
    """

    flip: Share = 0
    rotation_deg: float = Field(0, ge=0, le=180)
    shear_deg: float = Field(0, ge=0, le=45)
    zoom: Share = 0
    shift: Share = 0
    grid: Share = 0
    brightness: Share = 0
    contrast: Share = 0


class Recipe(_Table):
    """How one member is trained.

    Attributes:
        backbone: of timm; None: the card's own network.
        learning_rate: the highest.
        schedule: see schedule.py; each but `one-cycle` has `warm_up_epochs` first.
        dropout: before the last layer of a backbone.
        stage_dropout: after the first convolution and after each stage of the card's network.
        head_epochs: the first epochs, in which only the last layer learns.
    """

    backbone: str | None = None
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0, ge=0)
    momentum: Share = 0.9
    schedule: Literal["constant", "cosine", "step", "cyclic", "one-cycle"]
    warm_up_epochs: float = Field(0, ge=0)
    epochs: int = Field(ge=1)
    head_epochs: int = Field(0, ge=0)
    batch: int = Field(ge=2)
    dropout: Share = 0
    stage_dropout: tuple[Share, Share, Share, Share] = DROPOUT
    label_smoothing: Share = 0
    gradient_norm: float | None = Field(None, gt=0)
    ema: Share = 0.999
    augment: Augmentation = Augmentation()


class ThresholdRule(_Table):
    """How thresholds are chosen: what they maximise, and how many studies the global one weighs in a part's own."""

    objective: Literal["kappa", "youden", "accuracy"] = "kappa"
    shrink_studies: float = Field(200, ge=0)


class GuardRule(_Table):
    """How the guard is chosen: its false alarms in all, and the least probability that contradicts a header."""

    false_alarms: float = Field(0.02, gt=0, lt=0.5)
    least_part_probability: float = Field(0.9, ge=0.5, lt=1)


class Preset(_Table):
    """A whole recipe."""

    name: str = Field(min_length=1)
    input: InputSpec
    architecture: Architecture
    test_time_flip: bool = False
    rebalance: bool = False
    hold_out: HoldOut
    members: tuple[Recipe, Recipe, Recipe]
    thresholds: ThresholdRule = ThresholdRule()
    guard: GuardRule = GuardRule()

    @model_validator(mode="after")
    def _ensemble_of_the_members(self) -> Self:
        """Told now: the ensemble is put together only after days of training."""
        named = [member.backbone for member in self.members]
        own = self.architecture.name == "enhanced_ensemble"
        asked = {"num_classes": 2, **self.architecture.arguments}
        fitting = {"num_classes": 2} if own else {"num_classes": 2, "backbones": named}
        if asked != fitting or any((name is None) != own for name in named):
            raise ValueError(
                "architecture must be enhanced_ensemble of members without a backbone, or backbone_ensemble whose "
                "arguments.backbones are those of the members, in order; num_classes is 2"
            )
        return self

    def changed(self, *, epochs: int | None, rebalance: bool) -> "Preset":
        """The same with other epochs, or with rebalancing on."""
        members = tuple(member.model_copy(update={"epochs": epochs or member.epochs}) for member in self.members)
        return self.model_copy(update={"members": members, "rebalance": rebalance or self.rebalance})


def read_preset(name: str) -> Preset:
    """The preset of a name (`card`, `pretrained`) or of a TOML file.

    Raises:
        TrainingError: there is none, or a key of it cannot be used.
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
        raise TrainingError(f"preset {name}: there is none; one of {there}, or the path of a .toml file") from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"preset {name}: cannot be read: {error}") from error
    return make_preset(name, fields)


def make_preset(name: str, fields: dict[str, Any]) -> Preset:
    """A preset of its tables: what stands under `training` and `training.augment` holds for each member without it.

    Raises:
        TrainingError: a key cannot be used.
    """
    fields = dict(fields)
    common = fields.pop("training", {})
    if isinstance(common, dict) and isinstance(fields.get("members"), list):
        fields["members"] = [
            {**common, **member, "augment": {**common.get("augment", {}), **member.get("augment", {})}}
            for member in fields["members"]
        ]
    try:
        return Preset.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"preset {name}: {key}: {first['msg'].removeprefix('Value error, ')}") from error
