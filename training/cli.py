"""`pacs-train`: the commands of training; the only module here that prints or exits.

Exit codes: 0 good, 1 it ran and the answer is no, or the disk failed, 2 used wrongly (one line, no traceback).
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn
from typer.exceptions import TyperException

from pacs_agent.errors import SHORTAGES, PacsAgentError

if TYPE_CHECKING:
    from pacs_agent.analyse.bundle import Bundle

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_STOPPED = 130
_GOES_ON = {"fit": "; a run goes on with --resume", "phantoms": "; the same command goes on"}


@app.callback()
def commands() -> None:
    """From a MURA folder to an evaluated bundle that the daemon runs."""


@app.command("seed-bundle")
def seed_bundle_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The bundle's folder; it must not exist yet.")],
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the random weights.")],
) -> None:
    """Write a bundle of the card's ensemble with random weights, for tests of everything but its findings.

    Example: pacs-train seed-bundle bundles/seeded --seed 1
    """
    from training.export import seed_bundle

    bundle = seed_bundle(out, seed)
    _print_bundle(bundle)


@app.command("evaluate")
def evaluate_command(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or one that ships.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The folder of MURA-v1.1, or of phantoms.")],
    split: Annotated[str, typer.Option("--split", metavar="train|valid", help="Which split.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Made for metrics.json, the plots and the page.")],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    resamples: Annotated[int, typer.Option("--resamples", min=10, max=100_000, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="metrics.json on stdout instead of the table.")] = False,
) -> None:
    """Measure a bundle on a split, image level and study level, with intervals: metrics.json, plots, one HTML page.

    Example: pacs-train evaluate bundles/card MURA-v1.1 --split valid --out evaluation
    """
    from pacs_agent.analyse.bundle import load_bundle
    from training.evaluate import evaluate, metrics_json
    from training.page import prepare, table, write_evaluation

    if split not in ("train", "valid"):
        raise PacsAgentError(f"--split is train or valid, not {split!r}")
    _check_device(device)
    prepare(out)
    with _Bars() as bars:
        evaluation = evaluate(
            load_bundle(bundle),
            data,
            "train" if split == "train" else "valid",
            device=device,
            resamples=resamples,
            seed=seed,
            progress=bars.told(split),
        )
    write_evaluation(evaluation, out)
    print(json.dumps(metrics_json(evaluation), indent=2, allow_nan=False) if as_json else table(evaluation))


@app.command("import-published")
def import_published_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT.pth", help="The author's published checkpoint.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The bundle's folder; it must not exist yet.")],
) -> None:
    """Make a bundle of the published checkpoint, with the same probabilities. Nothing in the file is executed.

    Example: pacs-train import-published MURA-EnhancedEnsemble-V5.pth --out bundles/published
    """
    from training.published import import_published

    bundle = import_published(checkpoint, out)
    _print_bundle(bundle)


@app.command("phantoms")
def phantoms_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to hold MURA-v1.1.")],
    patients: Annotated[int, typer.Option("--patients", min=2, max=99_999, help="How many; about 3 images each.")],
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="The same seed gives the same bytes.")],
    subtle: Annotated[float, typer.Option("--subtle", help="Share of abnormal studies that are subtle.")] = 0.1,
    valid: Annotated[float, typer.Option("--valid", help="Share of the patients that are in valid.")] = 0.2,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes; they change no byte.")] = 2,
) -> None:
    """Write a MURA-v1.1 tree of synthetic radiographs. An interrupted run goes on where it stopped.

    Example: pacs-train phantoms data --patients 2600 --seed 1
    """
    from training.phantoms import TreeSettings, write_tree

    with _Bars() as bars:
        settings = TreeSettings(patients, seed, subtle, valid)
        root = write_tree(out, settings, workers=workers, progress=bars.told("phantoms"))
    print(root)


@app.command("inspect")
def inspect_command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The folder of MURA-v1.1, or of phantoms.")],
    decode: Annotated[bool, typer.Option("--decode/--no-decode", help="Open every picture.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of the table.")] = False,
) -> None:
    """Count a data folder by split, part and label, and tell what does not fit; exit code 1 where something does not.

    Example: pacs-train inspect MURA-v1.1
    """
    from training.inspect import inspect, table

    with _Bars() as bars:
        bars.begin("pictures", 0)
        found = inspect(data, decode=decode, advance=bars.advance)
    print(json.dumps(found.to_json(), indent=2) if as_json else table(found))
    raise typer.Exit(0 if found.fits else 1)


@app.command("fit")
def fit_command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The folder of MURA-v1.1, or of phantoms.")],
    preset: Annotated[str, typer.Option("--preset", help="card, pretrained, or the path of a .toml file.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run's folder.")],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    pretrained: Annotated[bool, typer.Option("--pretrained/--no-pretrained", help="Weights for backbones.")] = True,
    member: Annotated[int | None, typer.Option("--member", min=1, max=3, help="Train this member only.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of all that is random.")] = 1,
    rebalance: Annotated[bool, typer.Option("--rebalance", help="Weigh labels by their share in each part.")] = False,
    parts: Annotated[str, typer.Option("--parts", help="Those to train with, separated by commas.")] = "all",
    cache: Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Decoded pictures; else in RUN.")] = None,
) -> None:
    """Train the members of a preset, then gates, calibration, thresholds and guard; `export` makes the bundle.

    A run that was stopped goes on with --resume to the same end.

    Example: pacs-train fit MURA-v1.1 --preset card --out runs/card
    """
    from training.fit import Options, fit
    from training.mura import PARTS
    from training.preset import read_preset

    _check_device(device)
    chosen = PARTS if parts == "all" else tuple(dict.fromkeys(part.strip().lower() for part in parts.split(",")))
    if strangers := sorted(set(chosen) - set(PARTS)):
        raise PacsAgentError(f"--parts: {', '.join(strangers)!r} is none of {', '.join(PARTS)}")
    options = Options(seed, device, resume, pretrained, member, chosen, cache)
    with _Bars() as bars:
        result = fit(data, read_preset(preset).changed(epochs=epochs, rebalance=rebalance), out, options, bars)
    if result is None:
        print(f"{out}: member {member} is trained; others are still to be")
        return
    for name, told in result["hold_outs"].items():
        at, half = told["at_thresholds"]["overall"], told["at_half"]["overall"]["kappa"]["value"]
        kappa, auroc, ece = (at[figure]["value"] for figure in ("kappa", "auroc", "ece"))
        print(
            f"{name}: {told['studies']} studies, kappa {kappa:.3f} (at 0.5: {half:.3f}), "
            f"AUROC {auroc:.3f}, ECE {ece:.3f}"
        )
    print(f"{out}: pacs-train export {out} --out BUNDLE makes the bundle")


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that has come to its end.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The bundle's folder; it must not exist yet.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the model; else the preset's.")] = None,
    version: Annotated[str, typer.Option("--version", help="Of the model.")] = "1.0.0",
) -> None:
    """Make a bundle of a run, with where it comes from: data, split, seed, preset, versions, figures of the hold-outs.

    Example: pacs-train export runs/card --out bundles/card
    """
    from training.export import export_run

    bundle = export_run(run, out, name=name, version=version)
    _print_bundle(bundle)


def _print_bundle(bundle: "Bundle") -> None:
    print(f"{bundle.path}: {bundle.manifest.name} {bundle.manifest.version}, {bundle.manifest.weights_sha256}")


class _Bars:
    """Progress with the time left, on stderr; a `Reporter` of fit.py."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (*Progress.get_default_columns(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int) -> None:
        self._task = self._progress.add_task(what, total=total or None)

    def advance(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def told(self, what: str) -> Callable[[int, int], None]:
        """Begin something whose length is told with each step: how many are done, of how many."""
        task = self._progress.add_task(what, total=None)
        return lambda done, total: self._progress.update(task, completed=done, total=total)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments, prog_name="pacs-train", standalone_mode=False)
    except TyperException as error:
        sys.exit(_used_wrongly(error.format_message()))
    except PacsAgentError as error:
        code = _used_wrongly(str(error))
        sys.exit(1 if getattr(error.__cause__, "errno", None) in SHORTAGES else code)  # no fault of who asked
    except typer.Abort:
        code = _STOPPED
    if code == _STOPPED:  # typer's code for Ctrl-C
        print(f"pacs-train: stopped{_GOES_ON.get(next(iter(arguments), ''), '')}", file=sys.stderr)
    sys.exit(code or 0)


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda|cuda:\d{1,3}", device):
        raise PacsAgentError(f"--device is auto, cpu, cuda or cuda:N, not {device!r}")


def _used_wrongly(message: str) -> int:
    print(f"pacs-train: {' '.join(message.split())}", file=sys.stderr)
    return 2
