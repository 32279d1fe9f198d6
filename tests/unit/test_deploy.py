"""deploy/: what can be checked of it without systemd running and without a container."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EXPOSURE = 2.0  # of 10, of which 1.0 is what it is for: sockets, and the host's network
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
PINS = {
    canonicalize_name(name): version
    for name, _, version in (line.partition("==") for line in (DEPLOY / "constraints.txt").read_text().split())
}


def test_exposure_of_the_unit() -> None:
    """systemd's own estimate of what the unit leaves open."""
    if not (tool := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    made = subprocess.run(
        [tool, "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", str(DEPLOY / "pacs-agent.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Unknown" in made.stderr or "unrecognized option" in made.stderr:
        pytest.skip(f"this systemd-analyze knows no --offline: {made.stderr.strip()}")
    assert made.returncode == 0, made.stdout[-500:] + made.stderr


def stages() -> list[list[tuple[str, str]]]:
    """Instructions of the Dockerfile, stage by stage, continued lines joined."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    made: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            made.append([])
        if made:
            made[-1].append((word, rest.strip()))
    return made


def test_image_runs_as_a_number_that_is_not_root() -> None:
    """The last USER of the last stage stands before what is run, and nothing of the build comes along but the venv."""
    final = stages()[-1]
    words = [word for word, _ in final]
    [user] = [rest for word, rest in final if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert words.index("USER") < min(words.index("ENTRYPOINT"), words.index("CMD"))
    assert "RUN" not in words[words.index("USER") :]
    assert [rest.split()[0] for word, rest in final if word == "COPY"] == ["--from=build", "deploy/pacs-agent.toml"]
    assert "ADD" not in [word for stage in stages() for word, _ in stage]


def test_image_installs_what_is_pinned() -> None:
    """Every pip install has the constraints."""
    installs = [rest for stage in stages() for word, rest in stage if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("-c deploy/constraints.txt" in rest for rest in installs)


def test_composition_is_closed() -> None:
    """Read-only root, no capability, no new privilege, one place to write besides the volume, ports on loopback."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    agent = services["agent"]
    assert agent["read_only"] is True
    assert agent["cap_drop"] == ["ALL"]
    assert agent["security_opt"] == ["no-new-privileges:true"]
    assert agent["tmpfs"] == ["/tmp"]
    assert [volume.rpartition(":")[2] for volume in agent["volumes"]] == ["ro", "/var/lib/pacs-agent"]
    assert {"privileged", "cap_add", "network_mode", "pid", "user"}.isdisjoint(agent)
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])


@pytest.mark.parametrize("requirement", [Requirement(each) for each in REQUIRED], ids=str)
def test_every_requirement_is_pinned(requirement: Requirement) -> None:
    """To a version that it allows."""
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_audit_asks_nobody_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is skipped with its reason; so it is where what it would ask cannot be reached."""
    for online, reason in (("", "AUDIT=online"), ("online", "cannot be reached|not installed")):
        monkeypatch.setenv("AUDIT", online)
        made = subprocess.run(
            [sys.executable, str(DEPLOY / "audit.py"), "http://127.0.0.1:9/"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        assert re.match(f"audit skipped: .*({reason})", made.stdout)


def test_sbom_names_what_is_installed(tmp_path: Path) -> None:
    """CycloneDX of this environment, valid by the tool's own schema, with every dependency in its version."""
    if importlib.util.find_spec("cyclonedx_py") is None:
        pytest.skip("cyclonedx-bom is not installed (extra `test`)")
    out = tmp_path / "sbom.cdx.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    subprocess.run([*command, "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(out)], check=True)
    sbom = json.loads(out.read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == PROJECT["name"]
    named = {canonicalize_name(each["name"]): each["version"] for each in sbom["components"]}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(named[canonicalize_name(requirement.name)])
