"""The settings as the stations take them: rules and callables. Reads no file and starts nothing."""

from collections.abc import Callable
from datetime import date

from pacs_agent import __version__
from pacs_agent.receive.inbox import Inbox
from pacs_agent.record.store import Store
from pacs_agent.report.content import Equipment
from pacs_agent.report.uids import new_uid
from pacs_agent.settings import Settings
from pacs_agent.study.bodypart import BodyPartMapping, map_body_part
from pacs_agent.study.completeness import CompletenessRule, CompletenessRules
from pacs_agent.study.eligibility import Eligibility, EligibilityRules, assess
from pacs_agent.study.instance import Instance


def eligibility(settings: Settings) -> Callable[[Instance, date], Eligibility]:
    """Header facts and the day of receipt to eligibility."""
    rules = EligibilityRules(
        settings.eligibility.modalities, settings.eligibility.max_study_age_days, settings.eligibility.min_age_years
    )
    return lambda facts, received_on: assess(facts, rules, received_on)


def mapping(settings: Settings) -> Callable[[Instance], BodyPartMapping]:
    """Header facts to part and side."""
    return lambda facts: map_body_part(facts, settings.mapping.rules, extended=settings.mapping.extended)


def completeness(settings: Settings) -> CompletenessRules:
    """When a caller's study is complete."""
    study = settings.study
    return CompletenessRules(
        CompletenessRule(study.quiet_seconds, study.max_wait_seconds),
        {
            caller.ae_title: CompletenessRule(
                caller.quiet_seconds or study.quiet_seconds, caller.max_wait_seconds or study.max_wait_seconds
            )
            for caller in study.caller
        },
    )


def equipment(settings: Settings, store: Store) -> Equipment:
    """This installation."""
    return Equipment(
        device_uid=store.device_uid(new_uid()),
        station_name=settings.listener.ae_title,
        software_version=__version__,
    )


def inbox_of(settings: Settings, store: Store, assess: Callable[[Instance, date], Eligibility]) -> Inbox:
    """The inbox of the data directory, within the site's bounds."""
    return Inbox(
        settings.data_dir,
        store,
        assess=assess,
        min_free_bytes=settings.agent.min_free_mb << 20,
        max_instance_bytes=settings.listener.max_instance_mb << 20,
    )
