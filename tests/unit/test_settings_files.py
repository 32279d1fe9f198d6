"""The settings files that ship: they load, and the one of `init` says all there is to set."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from pacs_agent.settings import Destination, Rule, Settings, StudyCaller, Tls, load_settings

ROOT = Path(__file__).parents[2]
INIT_FILE = ROOT / "pacs_agent" / "pacs-agent.toml"
SITE_FILE = ROOT / "deploy" / "pacs-agent.toml"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACS_AGENT_CONFIG", raising=False)


def test_init_file_is_the_defaults() -> None:
    """The file that `init` writes changes nothing."""
    assert load_settings(INIT_FILE).model_dump() == Settings().model_dump()


def test_init_file_names_every_setting() -> None:
    """Every key of every section stands in the file, set or commented out."""
    text = INIT_FILE.read_text()
    models: list[type[BaseModel]] = [Destination, Rule, StudyCaller, Tls]
    models += [type(section) for section in dict(Settings()).values() if isinstance(section, BaseModel)]
    keys = {key for model in models for key in model.model_fields} - {"tls", "rule", "caller"}
    assert [key for key in sorted(keys) if not re.search(rf"(?m)^(# )?{key} = ", text)] == []


def test_init_file_examples_are_valid(tmp_path: Path) -> None:
    """What is commented out loads once its comment signs are taken away."""
    text = re.sub(r"(?m)^# (?=\[\[?[a-z.]+\]\]?$|[a-z_]+ = )", "", INIT_FILE.read_text())
    file = tmp_path / "pacs-agent.toml"
    file.write_text(text)
    settings = load_settings(file)
    assert settings.listener.tls is not None
    assert settings.destination[0].tls is not None
    assert [rule.body_part for rule in settings.mapping.rule] == ["wrist"]
    assert settings.study.caller[0].ae_title == "XR1"


def test_site_file() -> None:
    """The file for a site serves a network to named callers, has a destination and logs JSON."""
    settings = load_settings(SITE_FILE)
    assert not settings.listener.is_loopback
    assert settings.listener.allowed_callers
    assert [target.ae_title for target in settings.destination] == ["ORTHANC"]
    assert settings.log.format == "json"
