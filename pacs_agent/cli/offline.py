"""Commands that need no database: predictions of files, and what a bundle is."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from pacs_agent.cli import printing
from pacs_agent.cli.options import JsonOption, one_of
from pacs_agent.errors import BundleError, PacsAgentError
from pacs_agent.study.vocabulary import BODY_PARTS

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="A folder, or the name of one that ships.")]


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="DICOM, PNG or JPEG; no folders.")],
    body_part: Annotated[
        str | None,
        typer.Option(
            "--body-part",
            metavar="P",
            callback=one_of(BODY_PARTS),
            help=f"Instead of what the header says: one of {', '.join(BODY_PARTS)}.",
        ),
    ] = None,
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="BUNDLE", help="A folder, or the name of one that ships.")
    ] = "demonstration",
    as_json: JsonOption = False,
) -> None:
    """Analyse files without a daemon or a database.

    A file that is missing, or is a folder, is a line on stderr; the others are answered, and the exit code is 1. It is
    2 when no argument names a file, and 1 too when no file could be analysed.

    Example: pacs-agent predict wrist.png --body-part wrist --json
    """
    from pacs_agent.cli.tables import predictions_table
    from pacs_agent.logs import configure
    from pacs_agent.prediction import predict_files

    configure("warning", "console")
    wrong = {file: why for file in files if (why := _why_not(file))}
    readable = [file for file in files if file not in wrong]
    if not readable:
        raise PacsAgentError("; ".join(f"{file} {why}" for file, why in wrong.items()))
    for file, why in wrong.items():
        printing.note(f"{file} {why}")
    answers = [dataclasses.asdict(each) for each in predict_files(readable, body_part=body_part, bundle_name=bundle)]
    if as_json:
        printing.document(answers)
    else:
        printing.table(*predictions_table(answers))
    if wrong or all(answer["abnormal_probability"] is None for answer in answers):
        raise typer.Exit(1)


def model_info(bundle: BundleArgument = "demonstration", as_json: JsonOption = False) -> None:
    """What a bundle is.

    Example: pacs-agent model info demonstration
    """
    from pacs_agent.analyse.bundle import load_bundle
    from pacs_agent.cli.tables import manifest_lines

    manifest = load_bundle(bundle).manifest.model_dump(mode="json")
    if as_json:
        printing.document(manifest)
    else:
        for text in manifest_lines(manifest):
            printing.line(text)


def model_verify(bundle: BundleArgument = "demonstration", as_json: JsonOption = False) -> None:
    """Whether a bundle's hash holds; exit 1 when not.

    Example: pacs-agent model verify ./bundle
    """
    from pacs_agent.analyse.bundle import load_bundle

    digest = reason = None
    try:
        digest = load_bundle(bundle).manifest.weights_sha256
    except BundleError as error:
        reason = str(error)
    if as_json:
        printing.document({"bundle": bundle, "ok": reason is None, "weights_sha256": digest, "reason": reason})
    else:
        printing.line(f"FAIL {reason}" if reason else f"ok   {bundle}: {digest}")
    if reason:
        raise typer.Exit(1)


def _why_not(file: Path) -> str | None:
    if file.is_dir():
        return "is a folder: name its files"
    return None if file.exists() else "is not there"
