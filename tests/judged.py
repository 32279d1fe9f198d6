"""A site with findings of two models and what it knows of them."""

from collections.abc import Iterable
from random import Random

from records import Record

from pacs_agent.record import analysing
from pacs_agent.record.analysing import FindingRow, InstanceResult
from pacs_agent.record.further import FurtherFinding, next_further, record_further

LIVE = ("net", "1", "a1" * 32)
CANDIDATE = ("candidate", "2", "c2" * 32)


def spoken(probability: float | None) -> str:
    """What a model says of a probability at the threshold of .5; None: no claim."""
    return "undetermined" if probability is None else "abnormal" if probability > 0.5 else "normal"


def analysed(
    record: Record,
    study: str,
    findings: Iterable[tuple[str, str | None, float | None]],
    *,
    candidate: Iterable[float | None] | None = None,
    model: tuple[str, str, str] = LIVE,
    reason: str | None = None,
    **facts: str,
) -> None:
    """A study is received and analysed: a finding each of part, side and probability; *candidate* sees the same."""
    findings = list(findings)
    number = int(study.rpartition(".")[2]) * 100 + record.select("SELECT COUNT(*) FROM instance")[0][0]
    for index, _ in enumerate(findings):
        record.receive(number + index, study, **{"patient_id": f"P-{study}", "accession_number": f"A-{study}", **facts})
    record.queue()
    [claim] = record.claim()
    told = dict(zip(claim.instances[-len(findings) :], findings, strict=True))
    analysing.record_analysis(
        record,
        claim,
        model=model,
        images=[
            InstanceResult(image.instance_id, "analysed", body_part=part, laterality=side)
            for image, (part, side, _) in told.items()
        ],
        findings=[
            FindingRow(part, side, "analysed", spoken(value), value, 0.5, 1, 1, reason if value is None else None)
            for part, side, value in findings
        ],
        reports=[],
        further=[CANDIDATE] if candidate is not None else [],
    )
    if candidate is not None:
        work = next_further(record, CANDIDATE)
        assert work is not None
        record_further(
            record,
            work,
            [
                FurtherFinding(part, side, spoken(value), value, 0.5, 1, 1, None)
                for (part, side, _), value in zip(findings, candidate, strict=True)
            ],
        )


def site(record: Record, count: int = 60, seed: int = 1) -> list[tuple[str, str]]:
    """*count* studies of hands and wrists at two stations, a tenth undetermined; accession number and truth of each."""
    random = Random(seed)
    truths = []
    for index in range(count):
        study, is_abnormal = f"1.4.{index}", index % 2 == 0
        value = min(max(random.gauss(0.65 if is_abnormal else 0.35, 0.15), 0.01), 0.99)
        analysed(
            record,
            study,
            [("hand" if index % 3 else "wrist", "LR"[index % 5 > 1], None if index % 10 == 9 else value)],
            candidate=[min(value + 0.05, 0.99)],
            reason="the picture is not what the model knows",
            station_name="XR-ONE" if index % 4 else "XR-TWO",
        )
        truths.append((f"A-{study}", "abnormal" if is_abnormal else "normal"))
    return truths
