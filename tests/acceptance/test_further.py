"""A further bundle in the real daemon: the PACS gets what the live one says, the record has both."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from peers import DaemonProcess, Orthanc, answers_echo, free_port, wait_for, write_config

from pacs_agent.analyse.bundle import SHIPPED
from pacs_agent.deliver.files import parse_peer, send_files
from pacs_agent.phantom.dataset import study, write_study


def bundle(folder: Path, **changes: object) -> Path:
    """A copy of the bundle that ships, its manifest changed."""
    shutil.copytree(SHIPPED / "demonstration", folder)
    manifest = folder / "model.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    return folder


def also(*paths: object) -> str:
    return f"[model]\nalso = [{', '.join(json.dumps(str(path)) for path in paths)}]"


def send(daemon: DaemonProcess, folder: Path, seed: int) -> None:
    """A phantom study from a modality."""
    write_study(study("wrist", abnormal=True, seed=seed), folder)
    sent = list(send_files([folder], parse_peer(f"PACS_AGENT@127.0.0.1:{daemon.port}"), "XR1"))
    assert [problem for _, _, problem in sent] == [None] * len(sent)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[DaemonProcess]:
    """A daemon with a further bundle that calls nothing abnormal, and Orthanc as its destination."""
    folder = tmp_path_factory.mktemp("agent")
    never = {"default": 1.0, "per_part": {}}
    candidate = bundle(folder / "candidate", name="candidate", version="9", thresholds=never)
    running = DaemonProcess(write_config(folder, port := free_port(), orthanc, also(candidate)), port)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.mark.orthanc
def test_the_pacs_gets_what_the_live_bundle_says(daemon: DaemonProcess, orthanc: Orthanc, tmp_path: Path) -> None:
    """One report, of the live bundle; the candidate's word stands in `analyses` alone, and in `compare`."""
    send(daemon, tmp_path / "study", 1)
    [further] = wait_for(lambda: daemon.sql("SELECT * FROM analyses WHERE role = 'further'"), 90, "the further finding")
    assert (further["model_name"], further["body_part"], further["status"]) == ("candidate", "wrist", "analysed")
    assert further["finding"] == "normal"
    assert further["image_count"] == further["images_analysed"] > 0
    wait_for(lambda: daemon.sql("SELECT 1 FROM results WHERE status = 'delivered'"), 60, "the report")
    [row] = daemon.sql("SELECT * FROM results")
    assert (row["model_name"], row["finding"]) == ("demonstration", "abnormal")
    [report] = orthanc.instances("SR")
    assert b"candidate" not in orthanc.file(report)
    done = daemon.run("compare", "demonstration", "candidate", "--format", "json")
    assert json.loads(done.stdout)["groups"][0]["findings"] == 1


@pytest.mark.orthanc
def test_killed_process_of_a_further_bundle_costs_the_daemon_nothing(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Another takes its place; the listener and the live process are the same as before."""
    assert daemon.process is not None
    told = daemon.config.parent / "data" / "daemon.json"
    live = json.loads(told.read_text())["worker_pid"]
    workers = [
        child
        for child in psutil.Process(daemon.process.pid).children()
        if "pacs_agent.analyse.worker" in child.cmdline() and child.pid != live
    ]
    assert len(workers) == 1
    workers[0].kill()
    before = len(daemon.sql("SELECT 1 FROM analyses WHERE role = 'further'"))
    send(daemon, tmp_path / "study", 2)
    query = "SELECT status FROM analyses WHERE role = 'further'"
    found = wait_for(lambda: len(rows := daemon.sql(query)) > before and rows, 90, "the next further finding")
    assert {row["status"] for row in found} == {"analysed"}
    assert answers_echo(daemon.port, "PACS_AGENT")
    assert json.loads(told.read_text())["worker_pid"] == live


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ("nowhere", "bundle nowhere: neither a folder nor one that ships"),
        ("demonstration", "bundle demonstration of [model] also: demonstration 1.0.0 runs already"),
    ],
)
def test_further_bundle_that_cannot_be_loaded_is_refused(tmp_path: Path, named: str, line: str) -> None:
    """As the live one: before anything is opened, one line, exit 2; `check` says the same."""
    running = DaemonProcess(write_config(tmp_path, free_port(), more=also(named)), 0)
    done = running.run("serve")
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()
    checked = running.run("check")
    assert checked.returncode == 1
    assert f"FAIL further bundles: {line}" in checked.stdout
