"""The commands without a database: wrong use is one line and exit 2, help has an example, failures are one line."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer.main
from commands import Run, runner

from pacs_agent.cli import app
from pacs_agent.cli.printing import counted, table
from pacs_agent.cli.tables import instances_table, predictions_table, results_table
from pacs_agent.prediction import Prediction
from pacs_agent.record.store import Store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in an empty folder: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PACS_AGENT_CONFIG", raising=False)
    yield runner(capsys)
    structlog.reset_defaults()


def commands() -> list[list[str]]:
    """Every command's path."""
    root: Any = typer.main.get_command(app)
    paths: list[list[str]] = [[]]
    for name, command in root.commands.items():
        paths += [[name], *([name, each] for each in getattr(command, "commands", ()))]
    return paths


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "pacs-agent: Missing command"),
        (["lunch"], "No such command 'lunch'"),
        (["model"], "pacs-agent model: Missing command"),
        (["results", "--status"], "'--status' requires an argument"),
        (["results", "--status", "fine"], "'fine' is none of receiving, queued, analysed, delivered"),
        (["results", "--body-part", "leg"], "'leg' is none of elbow, finger"),
        (["results", "--format", "xml"], "pacs-agent results: Invalid value for '--format': 'xml' is not one of"),
        (["results", "--since", "yesterday"], "'yesterday' is not a time"),
        (["release", "--since", ""], "'' is not a time"),
        (["release"], "Missing option '--since'"),
        (["withdraw", "1.2.3", "--reason", " "], "--reason"),
        (["show", ""], "pacs-agent show: "),
        (["sql", ""], "pacs-agent sql: "),
        (["accept", "1", "2"], "unexpected extra argument"),
        (["pause", "lunch"], "there is no stage 'lunch': one of analysis"),
        (["send", ".", "--to", "nowhere"], "'nowhere' is not AE@HOST:PORT"),
        (["send", "absent", "--to", "A@127.0.0.1:1"], "absent"),
        (["send", ".", "--to", "A@127.0.0.1:1", "--calling", "THISISMUCHTOOLONGATITLE"], "--calling"),
        (["predict", "absent", "."], "absent is not there; . is a folder: name its files"),
        (["predict", "absent", "--body-part", "leg"], "'leg' is none of"),
        (["check", "--config", "absent.toml"], "there is no file absent.toml"),
    ],
)
def test_wrong_use_is_one_line(run: Run, arguments: list[str], expected: str) -> None:
    """Exit 2 and one line on stderr that says what is wrong; nothing on stdout."""
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("pacs-agent")
    assert expected in err


def test_wrong_use_as_a_process(tmp_path: Path) -> None:
    """`python -m pacs_agent` answers as `main` does, and says how to get help."""
    done = subprocess.run(
        [sys.executable, "-m", "pacs_agent", "results", "--colour"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pacs-agent results: No such option: --colour; see pacs-agent results --help\n"


def test_a_command_that_only_reads_is_quick(tmp_path: Path) -> None:
    """`status` loads nothing that reads DICOM, draws tables or writes the database: each would double its time."""
    program = (
        "import sys; from pacs_agent.cli import main\n"
        "try: main(['status', '--json'])\n"
        "finally: print(*({'pydicom', 'numpy', 'rich', 'sqlalchemy', 'alembic'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = os.environ | {"PACS_AGENT__AGENT__DATA_DIR": str(tmp_path)}
    Store.open(tmp_path / "pacs-agent.db").close()
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (1, "")
    assert json.loads(done.stdout)["daemon"] is None


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help_has_an_example(run: Run, path: list[str]) -> None:
    """Every command's help shows how it is called."""
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert re.search(rf"Example: pacs-agent {' '.join(path)}", out)


def test_output_that_cannot_be_written_is_one_line() -> None:
    """A full disk under stdout: exit 1, one line, also at the interpreter's end."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pacs_agent", "model", "info"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "pacs-agent: No space left on device\n")


def test_ctrl_c_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command ends as a shell expects, without a traceback."""

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pacs_agent.analyse.bundle.load_bundle", interrupted)
    assert run("model", "info") == (130, "", "")


def test_init_leaves_what_is_there(run: Run) -> None:
    """A settings file is never overwritten."""
    assert run("init", "mine.toml")[0] == 0
    code, _, err = run("init", "mine.toml")
    assert (code, err) == (2, "pacs-agent: mine.toml exists; it is left as it is\n")


def test_model_verify_as_json(run: Run) -> None:
    """The same keys whether the hash holds or not."""
    code, out, _ = run("model", "verify", "--json")
    assert code == 0
    good = json.loads(out)
    assert (good["ok"], good["reason"], len(good["weights_sha256"])) == (True, None, 64)
    code, out, _ = run("model", "verify", "absent", "--json")
    bad = json.loads(out)
    assert (code, bad["ok"], bad.keys()) == (1, False, good.keys())


def test_check_names_the_port_that_is_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port in use is a line with its number; the other lines stand."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("PACS_AGENT__LISTENER__PORT", str(port))
        code, out, _ = run("check", "--json")
    lines = {line["check"]: line for line in json.loads(out)}
    assert code == 1
    assert [name for name, line in lines.items() if not line["ok"]] == ["port"]
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in lines["port"]["detail"]


def test_check_says_where_the_settings_come_from(run: Run) -> None:
    """The defaults, or the file."""
    assert "ok   settings: the defaults" in run("check")[1]
    run("init")
    assert "ok   settings: pacs-agent.toml\n" in run("check")[1]


def answers(files: list[Path], **_: Any) -> list[Prediction]:
    """What `predict_files` could say: a claim, and none."""
    return [
        Prediction(str(files[0]), "wrist", "argument", 0.512, (0.51, 0.49, 0.504), "abnormal", None),
        *(
            Prediction(str(file), "wrist", "argument", 0.612, (0.61, 0.62, 0.63), "undetermined", "not trained")
            for file in files[1:]
        ),
    ]


def test_predict_answers_what_it_can(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file and a folder are a line each, the others are answered, exit 1."""
    monkeypatch.setattr("pacs_agent.prediction.predict_files", answers)
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    code, out, err = run("predict", "a.png", "absent.png", ".", "b.png", "--json")
    assert (code, err.splitlines()) == (1, ["absent.png is not there", ". is a folder: name its files"])
    claim, none = json.loads(out)
    assert (claim["file"], claim["member_probabilities"]) == ("a.png", [0.51, 0.49, 0.504])
    assert (none["file"], none["abnormal_probability"]) == ("b.png", 0.612)
    assert run("predict", "a.png", "b.png")[0] == 0


def test_a_table_claims_nothing_that_the_finding_does_not() -> None:
    """A probability stands in a table beside `normal` or `abnormal` only; members as numbers, not as a list."""
    claim, none = (dict(zip(Prediction.__slots__, row, strict=True)) for row in (
        ("a", "wrist", "argument", 0.512, (0.51, 0.49, 0.504), "abnormal", None),
        ("b", "wrist", "argument", 0.612, (0.61, 0.62, 0.63), "undetermined", "not trained"),
    ))  # fmt: skip
    _, rows, _ = predictions_table([claim, none])
    assert rows[0] == ("a", "wrist", "argument", "abnormal", "0.51", "0.51 0.49 0.50", "")
    assert rows[1] == ("b", "wrist", "argument", "undetermined", "", "", "not trained")


@pytest.mark.parametrize(("finding", "shown"), [("normal", "0.61"), ("abnormal", "0.61"), ("undetermined", "")])
def test_an_image_claims_no_more_than_its_study(finding: str, shown: str) -> None:
    """The image's probability is shown where its part and side have a finding that makes a claim."""
    image = {
        "sop_instance_uid": "1.2", "status": "analysed", "body_part": "wrist", "body_part_source": "StudyDescription",
        "laterality": "L", "view_position": None, "abnormal_probability": 0.612, "reason": None,
    }  # fmt: skip
    results = [
        {"body_part": "wrist", "laterality": "R", "finding": "normal"},
        {"body_part": "wrist", "laterality": "L", "finding": finding},
    ]
    headings, [row], _ = instances_table([image], results)
    assert dict(zip(headings, row, strict=True))["probability"] == shown


def test_a_study_without_accession_number_is_named_by_its_uid() -> None:
    """Every row of the table names something that `show` finds."""
    record = dict.fromkeys(("body_part", "laterality", "finding", "abnormal_probability", "reason")) | {
        "accession_number": "", "study_instance_uid": "1.4", "received_at": "2026-01-31T08:15:00.000Z",
        "status": "receiving", "image_count": 0, "images_analysed": 0,
    }  # fmt: skip
    _, [row], _ = results_table([record])
    assert row == ("1.4", "2026-01-31 08:15", "", "", "receiving", "", "", "", "")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_value_of_a_table_is_cut(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A UID can be copied from a narrow terminal; without a terminal a row is one line."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("COLUMNS", "40")
    uid, reason = "2.25." + 39 * "7", "words " * 20
    table(("uid", "status", "reason"), [(uid, "analysed", reason.strip())])
    out = capsys.readouterr().out
    assert uid in out
    assert (reason.strip() in out) is not is_terminal


def test_counted() -> None:
    """One of a thing is one thing."""
    assert [counted(number, "delivery", "deliveries") for number in (0, 1, 2)] == [
        "0 deliveries", "1 delivery", "2 deliveries",
    ]  # fmt: skip
    assert counted(2, "instance") == "2 instances"
