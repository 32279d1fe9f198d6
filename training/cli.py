"""`pacs-train`: the commands of training; the only module here that prints or exits.

Exit codes: 0 good, 1 it ran and the answer is no, 2 used wrongly (one line, no traceback).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from pacs_agent.errors import PacsAgentError
from training.export import seed_bundle

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)


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
    bundle = seed_bundle(out, seed)
    print(f"{bundle.path}: {bundle.manifest.name} {bundle.manifest.version}, {bundle.manifest.weights_sha256}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    try:
        code = app(args=arguments, prog_name="pacs-train", standalone_mode=False)
    except TyperException as error:
        sys.exit(_used_wrongly(error.format_message()))
    except PacsAgentError as error:
        sys.exit(_used_wrongly(str(error)))
    except typer.Abort:
        sys.exit(130)
    sys.exit(code or 0)


def _used_wrongly(message: str) -> int:
    print(f"pacs-train: {' '.join(message.split())}", file=sys.stderr)
    return 2
