"""A record whose clock the test moves."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pacs_agent.record import analysing, claiming, receiving
from pacs_agent.record.analysing import FindingRow, InstanceResult, ReportRow
from pacs_agent.record.claiming import Claim
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance


class Record(Store):
    """A store whose clock the test moves, with the inbox's and the analysis' part in short."""

    moment = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)

    def receive(
        self,
        number: int,
        study: str = "1.4",
        *,
        status: Any = "received",
        content: str = "",
        is_adopted: bool = False,
        **facts: Any,
    ) -> str:
        """An instance comes in."""
        self.tick(1)
        header = Instance(
            f"1.2.{number}", "1.5", "1.3", study, **{"patient_id": "PHANTOM-1", "accession_number": "A1", **facts}
        )
        digest = f"{number}{content}"
        eligibility = Eligibility(status, None if status == "received" else "a reason")
        return receiving.Reception(self).accept(
            receiving.Receipt(header, eligibility, f"inbox/{digest}", digest, 1, "XR1", self.now(), is_adopted)
        )

    def queue(self) -> None:
        """Every study that waits is complete."""
        for waiting in claiming.receiving_studies(self):
            assert claiming.queue_study(self, waiting, "quiet for 60 s")

    def claim(self, limit: int = 10) -> list[Claim]:
        """Take what is complete, for a minute."""
        return claiming.claim_studies(self, limit, 60)

    def analyse(self, claim: Claim, replaces: Sequence[str] = (), **deliveries: Any) -> None:
        """Record an analysis with one finding and one report, which names *replaces*."""
        uid = f"9.{claim.study_id}.{claim.revision}"
        analysing.record_analysis(
            self,
            claim,
            model=("net", "1", "abc"),
            images=[InstanceResult(image.instance_id, "analysed", body_part="hand") for image in claim.instances],
            findings=[FindingRow("hand", "R", "analysed", "normal", 0.1, 0.5, 1, 1, None)],
            reports=[ReportRow("sr", "1.6", uid, "9.1", "outbox/x", deliveries, replaces=tuple(replaces))],
        )

    def state(self, study: str = "1.4") -> tuple[str, str | None]:
        """State and reason of a study."""
        [row] = self.select(f"SELECT state, reason FROM study WHERE study_instance_uid = '{study}'")
        return row

    def select(self, sql: str) -> list[Any]:
        """Rows, as outside programs read them."""
        return list(query(self.path, sql).rows)
