"""The settings: one frozen object, checked once at start, never reloaded.

Enters: a TOML file and `PACS_AGENT__SECTION__KEY` variables. Leaves: `Settings`, or a `SettingsError` of one line that
names the key.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as EnvironmentSettingsError,
)

from pacs_agent.errors import SettingsError
from pacs_agent.study.rule import RULE_FIELDS, MappingRule
from pacs_agent.study.vocabulary import BODY_PARTS

ENVIRONMENT_PREFIX = "PACS_AGENT__"
DEFAULT_FILE = "pacs-agent.toml"


def _check_ae_title(value: str) -> str:
    # PS3.5 6.2, VR AE: at most 16 characters of the default repertoire, no backslash, not only spaces.
    stripped = value.strip()
    if not 0 < len(stripped) <= 16 or not stripped.isascii() or not stripped.isprintable() or "\\" in stripped:
        raise ValueError("an AE title is 1 to 16 printable ASCII characters without a backslash")
    return stripped


AETitle = Annotated[str, AfterValidator(_check_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 7)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Agent(_Section):
    """What belongs to the daemon as a whole."""

    data_dir: Path = Path("pacs-agent-data")
    min_free_mb: int = Field(1024, ge=0, description="the disk floor: below it C-STORE answers A700")
    drain_seconds: Seconds = 30


class Database(_Section):
    """Where the record is kept."""

    url: str = "sqlite:///{data_dir}/pacs-agent.db"

    @field_validator("url")
    @classmethod
    def _sqlite_only(cls, value: str) -> str:
        if not value.startswith("sqlite:///"):
            raise ValueError("only sqlite:/// is supported")
        return value


class Tls(_Section):
    """Mutual TLS: our certificate and key, and the authority that the other side must be signed by."""

    certificate: Path
    key: Path
    ca: Path


class AllowedCaller(_Section):
    """A calling AE title and the addresses it may call from."""

    ae_title: AETitle
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `AE`, `AE@address` or `AE@address/prefix`."""
        title, _, network = text.partition("@")
        try:
            return cls(
                ae_title=title, network=ipaddress.ip_network(network.strip(), strict=False) if network.strip() else None
            )
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from error

    def allows(self, ae_title: str, address: str) -> bool:
        """Whether a caller of this title at this address is meant."""
        if ae_title.strip() != self.ae_title:
            return False
        if self.network is None:
            return True
        caller = ipaddress.ip_address(address.partition("%")[0])
        mapped = caller.ipv4_mapped if isinstance(caller, ipaddress.IPv6Address) else None
        return (mapped or caller) in self.network


class Listener(_Section):
    """The storage SCP."""

    ae_title: AETitle = "PACS_AGENT"
    host: str = "127.0.0.1"
    port: int = Field(11112, ge=0, le=65535, description="0: any free port")
    require_called_ae_title: bool = True
    allowed_calling_ae_titles: tuple[str, ...] = ()
    allow_any: bool = False
    max_associations: int = Field(64, ge=1, le=1000)
    max_associations_per_caller: int = Field(32, ge=1, le=1000, description="of one AE title at one address")
    max_pending_connections: int = Field(32, ge=1, le=1000, description="connections without an association yet")
    association_timeout_seconds: Seconds = 30
    idle_timeout_seconds: Seconds = 600
    transfer_timeout_seconds: Seconds = 300
    max_pdu_bytes: int = Field(131_072, ge=4_096, le=1_048_576)
    max_instance_mb: int = Field(512, ge=1, le=2_047)
    tls: Tls | None = None

    @field_validator("allowed_calling_ae_titles")
    @classmethod
    def _readable_callers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            AllowedCaller.parse(text)
        return value

    @cached_property
    def allowed_callers(self) -> tuple[AllowedCaller, ...]:
        """The allow-list, parsed; empty: any."""
        return tuple(AllowedCaller.parse(text) for text in self.allowed_calling_ae_titles)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can call."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @model_validator(mode="after")
    def _guarded_off_loopback(self) -> Self:
        if not (self.is_loopback or self.allowed_calling_ae_titles or self.allow_any):
            raise ValueError(
                f"host {self.host} serves a network to any caller: "
                "name allowed_calling_ae_titles, or set allow_any = true"
            )
        return self


class StudyCaller(_Section):
    """Completeness for one calling AE title."""

    ae_title: AETitle
    quiet_seconds: Seconds | None = None
    max_wait_seconds: Seconds | None = None


class Study(_Section):
    """When a study is complete."""

    quiet_seconds: Seconds = 60
    max_wait_seconds: Seconds = 900
    caller: tuple[StudyCaller, ...] = ()


class Eligibility(_Section):
    """Which instances are analysed."""

    modalities: tuple[str, ...] = ("CR", "DX")
    max_study_age_days: int = Field(0, ge=0)
    min_age_years: int = Field(0, ge=0, le=150)

    @field_validator("modalities")
    @classmethod
    def _only_projection_radiographs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for modality in value:
            if modality not in ("CR", "DX"):
                raise ValueError(f"only CR and DX can be analysed, not {modality!r}")
        return value


class Rule(_Section):
    """A text rule of the mapping."""

    field: str
    pattern: str
    body_part: str

    @field_validator("field")
    @classmethod
    def _known_field(cls, value: str) -> str:
        if value not in RULE_FIELDS:
            raise ValueError(f"unknown field {value!r}: one of {', '.join(RULE_FIELDS)}")
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @field_validator("body_part")
    @classmethod
    def _known_part(cls, value: str) -> str:
        if value not in (*BODY_PARTS, "none"):
            raise ValueError(f"unknown body part {value!r}: one of {', '.join(BODY_PARTS)}, none")
        return value


class Mapping(_Section):
    """Body-part mapping."""

    extended: bool = False
    rule: tuple[Rule, ...] = ()

    @cached_property
    def rules(self) -> tuple[MappingRule, ...]:
        """The rules as the mapping takes them."""
        return tuple(MappingRule(rule.field, rule.pattern, rule.body_part) for rule in self.rule)


class Model(_Section):
    """The model and how it runs."""

    bundle: str = "demonstration"
    also: tuple[str, ...] = Field((), description="further bundles: recorded, never reported")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    batch_images: int = Field(32, ge=1, le=1024)
    batch_studies: int = Field(16, ge=1, le=1024)
    timeout_seconds: Seconds = 300
    memory_limit_mb: int = Field(8_192, ge=2_048)
    max_megapixels: int = Field(100, ge=1, le=1_000)


class Report(_Section):
    """Which objects are made."""

    objects: tuple[Literal["sr", "capture"], ...] = ("sr", "capture")

    @field_validator("objects")
    @classmethod
    def _with_a_report(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "sr" not in value:
            raise ValueError("'sr' must be among them: it is what says the finding")
        return value


class Address(_Section):
    """Where an SCP listens."""

    host: str
    port: Port

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, an IPv6 address in brackets."""
        match = _ADDRESS.match(text.strip())
        if not match or not 0 < int(match["port"]) < 65_536:
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(host=match["host"].strip("[]"), port=int(match["port"]))


_ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\[\]\s]+):(?P<port>\d{1,5})$")
_ELSEWHERE = ("folder", "to_sender")  # instead of one AE title, host and port
FINDINGS = ("normal", "abnormal", "undetermined")


class Destination(_Section):
    """Where objects go: a PACS, whoever sent the study, or a folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    folder: Path | None = Field(None, description="Part 10 files are written there, instead of an association")
    to_sender: dict[AETitle, str] = Field({}, description="calling AE title to HOST:PORT: back to who sent the study")
    ae_title: str = Field("", validate_default=True)
    host: str = Field("", validate_default=True)
    port: int = Field(0, ge=0, le=65_535, validate_default=True)
    objects: tuple[str, ...] | None = Field(None, min_length=1, description="kinds; None: all of [report] objects")
    body_parts: tuple[str, ...] = Field((), description="only studies with a finding of one of them; empty: any")
    findings: tuple[str, ...] = Field((), description="only studies with one of them; empty: any")
    calling_ae_titles: tuple[AETitle, ...] = Field((), description="only studies that they sent; empty: any")
    storage_commitment: bool = False
    commitment_timeout_seconds: Seconds = Field(86_400, description="the longest that a commitment is waited for")
    mode: Literal["live", "silent"] = "live"
    deliver_within_hours: float = Field(0, ge=0, le=8_760)
    sr_class: Literal["comprehensive3d", "comprehensive", "enhanced"] = "comprehensive3d"
    timeout_seconds: Seconds = 60
    retry_seconds: Seconds = Field(10, description="the first pause after a failure; doubled each time")
    max_retry_seconds: Seconds = 900
    tls: Tls | None = None

    @field_validator("to_sender")
    @classmethod
    def _readable_addresses(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            Address.parse(text)
        return value

    @field_validator("folder")
    @classmethod
    def _named_folder(cls, value: Path | None) -> Path | None:
        if value == Path():
            raise ValueError("is empty")
        return value

    @field_validator("ae_title", "host", "port")
    @classmethod
    def _one_way(cls, value: Any, info: ValidationInfo) -> Any:
        elsewhere = next((key for key in _ELSEWHERE if info.data.get(key)), None)
        if elsewhere and value:
            raise ValueError(f"does not go with {elsewhere}, which says where the objects go")
        if not elsewhere and not value:
            raise ValueError("is needed (or folder, or to_sender)")
        return _check_ae_title(value) if value and info.field_name == "ae_title" else value

    @field_validator("body_parts")
    @classmethod
    def _known_parts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _known(value, "body part", BODY_PARTS)

    @field_validator("findings")
    @classmethod
    def _known_findings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _known(value, "finding", FINDINGS)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.folder and self.to_sender:
            raise ValueError("folder does not go with to_sender")
        if self.folder and (self.storage_commitment or self.tls):
            raise ValueError("storage_commitment and tls do not go with folder, where there is no association")
        return self

    @property
    def group(self) -> str:
        """The name in the settings: of `to_sender`, each AE's part is named after it."""
        return self.name.partition(":")[0]

    @property
    def address(self) -> str:
        """Where it is, for a person."""
        return str(self.folder) if self.folder else f"{self.ae_title}@{self.host}:{self.port}"

    def not_wanted(self, calling_ae_title: str, findings: Iterable[tuple[str | None, str | None]]) -> str | None:
        """Why the filters keep a study back; None where they let it through.

        Args:
            calling_ae_title: who sent the study.
            findings: body part and finding of each of its findings; one must pass both filters.
        """
        if self.calling_ae_titles and calling_ae_title.strip() not in self.calling_ae_titles:
            return f"not wanted: {calling_ae_title} is not among its calling_ae_titles"
        filters = {"body_parts": self.body_parts, "findings": self.findings}
        if any(
            all(not only or value in only for value, only in zip(finding, filters.values(), strict=True))
            for finding in findings
        ):
            return None
        named = "; ".join(f"{key} {', '.join(only)}" for key, only in filters.items() if only)
        return f"not wanted: only {named}" if named else None

    def apart(self) -> tuple[Self, ...]:
        """Itself; `to_sender` as one destination for each AE, so that none waits for another."""
        return tuple(
            self.model_copy(
                update={
                    "name": f"{self.name}:{ae_title}", "ae_title": ae_title, "to_sender": {},
                    "host": Address.parse(text).host, "port": Address.parse(text).port,
                }
            )
            for ae_title, text in self.to_sender.items()
        ) or (self,)  # fmt: skip


def _known(value: tuple[str, ...], what: str, known: Sequence[str]) -> tuple[str, ...]:
    for each in value:
        if each not in known:
            raise ValueError(f"unknown {what} {each!r}: one of {', '.join(known)}")
    return value


class Retention(_Section):
    """How long what is finished is kept; 0: for good."""

    instances_days: int = Field(7, ge=0, le=36_500)
    objects_days: int = Field(30, ge=0, le=36_500)
    rows_days: int = Field(0, ge=0, le=36_500)


class Log(_Section):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class _Environment(EnvSettingsSource):
    """`PACS_AGENT__SECTION__KEY`, refusing sections that do not exist (pydantic-settings passes over them)."""

    def __call__(self) -> dict[str, Any]:
        for name in os.environ:
            if not name.startswith(ENVIRONMENT_PREFIX):
                continue
            section = name.removeprefix(ENVIRONMENT_PREFIX).split("__")[0].lower()
            if section not in self.settings_cls.model_fields:
                raise SettingsError(f"settings: {name}: there is no section [{section}]")
        return super().__call__()


class Settings(BaseSettings):
    """Everything that can be set. Frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    agent: Agent = Agent()
    database: Database = Database()
    listener: Listener = Listener()
    study: Study = Study()
    eligibility: Eligibility = Eligibility()
    mapping: Mapping = Mapping()
    model: Model = Model()
    report: Report = Report()
    destination: tuple[Destination, ...] = ()
    retention: Retention = Retention()
    log: Log = Log()

    @field_validator("destination")
    @classmethod
    def _names_differ(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [destination.name for destination in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two destinations are named {name!r}")
            if name == "analysis":
                raise ValueError("'analysis' is the name of a stage, not of a destination")
        return value

    @model_validator(mode="after")
    def _objects_are_made(self) -> Self:
        for number, target in enumerate(self.destination):
            for kind in target.objects or ():
                if kind not in self.report.objects:
                    raise ValueError(
                        f"destination.{number}.objects: {kind!r} is not among [report] objects: "
                        f"{', '.join(self.report.objects)}"
                    )
        return self

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        """Every place that objects go to: `to_sender` taken apart."""
        return tuple(each for target in self.destination for each in target.apart())

    @property
    def data_dir(self) -> Path:
        """The data directory, absolute."""
        return self.agent.data_dir.expanduser().absolute()

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return Path(self.database.url.removeprefix("sqlite:///").replace("{data_dir}", str(self.data_dir)))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; `load_settings` names the file by subclassing."""
        return init_settings, _Environment(settings_cls), TomlConfigSettingsSource(settings_cls)


def settings_file(config: Path | None = None) -> Path | None:
    """The file that the settings come from; None where they are the defaults.

    Raises:
        SettingsError: a file was named, by *config* or `$PACS_AGENT_CONFIG`, that is not there.
    """
    if config is None and (named := os.environ.get("PACS_AGENT_CONFIG")):
        config = Path(named)
    if config is not None and not config.is_file():
        raise SettingsError(f"settings: there is no file {config}")
    return config or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None)


def load_settings(config: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        config: the file that `--config` names; else `$PACS_AGENT_CONFIG`, else `./pacs-agent.toml`, else the defaults.

    Raises:
        SettingsError: one line that names the key.
    """
    file = settings_file(config)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return FromFile()
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings: {file} is not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings: {file} cannot be read: {error}") from error
    except EnvironmentSettingsError as error:
        raise SettingsError(f"settings: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
        said = ": ".join(part for part in (key, message.removeprefix("Value error, ")) if part)
        raise SettingsError(f"settings: {said}") from error
