"""Settings: what is wrong is one line that names the key."""

from pathlib import Path

import pytest

from pacs_agent.errors import SettingsError
from pacs_agent.settings import AllowedCaller, load_settings, settings_file

NETWORK = '[[destination]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 1\n'


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PACS_AGENT_CONFIG", raising=False)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_defaults_need_no_file(tmp_path: Path) -> None:
    """Without a file everything has the contract's default."""
    settings = load_settings()
    assert settings.listener.ae_title == "PACS_AGENT"
    assert (settings.listener.host, settings.listener.port, settings.listener.max_associations) == (
        "127.0.0.1", 11112, 64,
    )  # fmt: skip
    assert (settings.study.quiet_seconds, settings.study.max_wait_seconds) == (60, 900)
    assert settings.database_path == tmp_path / "pacs-agent-data" / "pacs-agent.db"
    assert settings.destination == ()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[listener]\nprot = 104", "listener.prot"),
        ("[listner]\nport = 104", "listner"),
        ("colour = 1", "colour"),
        ('[listener]\nport = "many"', "listener.port"),
        ("[listener]\nport = 70000", "listener.port"),
        ('[listener]\nae_title = "LONGER_THAN_16_CHARS"', "listener.ae_title"),
        ('[listener]\nallowed_calling_ae_titles = ["XR1@10.0.0.0/99"]', "listener.allowed_calling_ae_titles"),
        ('[listener]\nallowed_calling_ae_titles = ["@10.0.0.1"]', "listener.allowed_calling_ae_titles"),
        ('[listener]\nhost = "0.0.0.0"', "listener"),
        ("[study]\nquiet_seconds = -1", "study.quiet_seconds"),
        ('[eligibility]\nmodalities = ["CT"]', "eligibility.modalities"),
        ('[model]\ndevice = "tpu"', "model.device"),
        ('[report]\nobjects = ["hologram"]', "report.objects"),
        ("[report]\nobjects = []", "report.objects"),
        ('[report]\nobjects = ["capture"]', "report.objects: 'sr' must be among them"),
        ('[database]\nurl = "postgresql://x"', "database.url"),
        ("[retention]\ninstances_days = 999999", "retention.instances_days"),
        (NETWORK + "deliver_within_hours = inf", "destination.0.deliver_within_hours"),
        (NETWORK + "deliver_within_hours = nan", "destination.0.deliver_within_hours"),
        ('[[destination]]\nname = "f"\nfolder = ""', "destination.0.folder"),
        ('[[mapping.rule]]\nfield = "StudyDescription"\npattern = "("\nbody_part = "wrist"', "mapping.rule.0.pattern"),
        ('[[mapping.rule]]\nfield = "Nonsense"\npattern = "x"\nbody_part = "wrist"', "mapping.rule.0.field"),
        ('[[mapping.rule]]\nfield = "StudyDescription"\npattern = "x"\nbody_part = "leg"', "mapping.rule.0.body_part"),
        ('[[destination]]\nname = "pacs"\nae_title = "A"\nhost = "h"', "destination.0.port"),
        ('[[destination]]\nname = "a b"\nae_title = "A"\nhost = "h"\nport = 1', "destination.0.name"),
        (2 * '[[destination]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 1\n', "destination"),
        ('[[destination]]\nname = "analysis"\nae_title = "A"\nhost = "h"\nport = 1', "destination"),
        (NETWORK + 'body_parts = ["hand", "knee"]', "destination.0.body_parts: unknown body part 'knee': one of elbow"),
        (NETWORK + 'findings = ["broken"]', "destination.0.findings: unknown finding 'broken'"),
        (NETWORK + 'calling_ae_titles = ["LONGER_THAN_16_CHARS"]', "destination.0.calling_ae_titles"),
        (NETWORK + 'objects = ["hologram"]', "destination.0.objects: 'hologram' is not among [report] objects"),
        (NETWORK + 'folder = "x"', "destination.0.ae_title: does not go with folder"),
        ('[[destination]]\nname = "d"\nto_sender = {XR1 = "h"}', "destination.0.to_sender: 'h' is not HOST:PORT"),
        ('[[destination]]\nname = "d"\nfolder = "x"\nstorage_commitment = true', "destination.0: storage_commitment"),
        ('[log]\nlevel = "loud"', "log.level"),
        ("[listener", "is not TOML"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    """An unknown key, a wrong type or an impossible value."""
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_said(tmp_path: Path) -> None:
    """A file that was named must be there."""
    with pytest.raises(SettingsError, match=r"there is no file .*absent\.toml"):
        load_settings(tmp_path / "absent.toml")


def test_file_that_is_not_text_is_said(tmp_path: Path) -> None:
    """Bytes that are not UTF-8."""
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"x\.toml"):
        load_settings(tmp_path / "x.toml")


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config, else $PACS_AGENT_CONFIG, else ./pacs-agent.toml."""
    (tmp_path / "pacs-agent.toml").write_text("[listener]\nport = 1")
    assert load_settings().listener.port == 1
    (tmp_path / "env.toml").write_text("[listener]\nport = 2")
    monkeypatch.setenv("PACS_AGENT_CONFIG", str(tmp_path / "env.toml"))
    assert load_settings().listener.port == 2
    assert load_settings(write(tmp_path, "[listener]\nport = 3")).listener.port == 3


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable replaces one value and leaves its neighbours."""
    monkeypatch.setenv("PACS_AGENT__LISTENER__PORT", "104")
    monkeypatch.setenv("PACS_AGENT__LISTENER__ALLOWED_CALLING_AE_TITLES", '["XR1"]')
    settings = load_settings(write(tmp_path, '[listener]\nport = 3\nae_title = "OTHER"'))
    assert (settings.listener.port, settings.listener.ae_title) == (104, "OTHER")
    assert settings.listener.allowed_calling_ae_titles == ("XR1",)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("PACS_AGENT__LISTENER__PROT", "1", "prot"),
        ("PACS_AGENT__LISTNER__PORT", "1", "LISTNER"),
        ("PACS_AGENT__LISTENER__PORT", "many", "listener.port"),
        ("PACS_AGENT__LISTENER__ALLOWED_CALLING_AE_TITLES", "[", "listener"),
    ],
)
def test_wrong_variable_is_one_line_with_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str
) -> None:
    """The environment is checked as the file is."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", ["allow_any = true", 'allowed_calling_ae_titles = ["XR1"]'])
def test_a_network_is_served_when_that_is_said(tmp_path: Path, more: str) -> None:
    """Off loopback: an allow-list, or `allow_any`."""
    assert load_settings(write(tmp_path, f'[listener]\nhost = "0.0.0.0"\n{more}')).listener.host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_serves_any_caller(tmp_path: Path, host: str) -> None:
    """Only this machine can call there."""
    assert load_settings(write(tmp_path, f'[listener]\nhost = "{host}"')).listener.allowed_callers == ()


def test_settings_are_frozen() -> None:
    """Nobody changes a value while the daemon runs."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings().listener.port = 1


@pytest.mark.parametrize(
    ("text", "title", "address", "allowed"),
    [
        ("XR1", "XR1", "10.9.8.7", True),
        ("XR1", "XR1 ", "10.9.8.7", True),
        ("XR1", "xr1", "10.9.8.7", False),
        ("XR1@10.9.8.7", "XR1", "10.9.8.7", True),
        ("XR1@10.9.8.7", "XR1", "10.9.8.8", False),
        ("XR1@10.9.0.0/16", "XR1", "10.9.255.1", True),
        ("XR1@10.9.0.0/16", "XR1", "10.8.0.1", False),
        ("XR1@10.9.0.0/16", "XR2", "10.9.0.1", False),
        ("XR1@10.9.0.0/16", "XR1", "::ffff:10.9.0.1", True),
        ("XR1@fe80::/10", "XR1", "fe80::1%eth0", True),
        ("XR1@fe80::/10", "XR1", "10.9.0.1", False),
    ],
)
def test_address_ranges(text: str, title: str, address: str, allowed: bool) -> None:
    """Title and address must both be meant; a mapped IPv4 address is the IPv4 address."""
    assert AllowedCaller.parse(text).allows(title, address) is allowed


def test_the_file_in_use_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None for the defaults; the file of the folder; the environment's before it; the named one before all."""
    assert settings_file() is None
    here, environment, named = tmp_path / "pacs-agent.toml", tmp_path / "e.toml", tmp_path / "n.toml"
    for file in (here, environment, named):
        file.touch()
    assert settings_file() == Path("pacs-agent.toml")
    monkeypatch.setenv("PACS_AGENT_CONFIG", str(environment))
    assert settings_file() == environment
    assert settings_file(named) == named


def test_to_sender_is_a_destination_for_each(tmp_path: Path) -> None:
    """Named after the AE title, at its address, with the rest of the settings; IPv6 in brackets."""
    table = 'to_sender = {XR1 = "10.0.0.5:104", XR2 = "[::1]:11112"}\nretry_seconds = 3'
    settings = load_settings(write(tmp_path, f'[[destination]]\nname = "sender"\n{table}'))
    found = [(each.name, each.group, each.address, each.retry_seconds) for each in settings.destinations]
    assert found == [("sender:XR1", "sender", "XR1@10.0.0.5:104", 3), ("sender:XR2", "sender", "XR2@::1:11112", 3)]
