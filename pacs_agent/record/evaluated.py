"""What models said and what a site knows, read for `compare` and `site-report`; nothing is written.

The tables are read rather than the views: a reason here is that of the finding alone, not what became of its report.
"""

from pathlib import Path

from pacs_agent.evaluation.said import ModelName, Said
from pacs_agent.evaluation.site import Truth
from pacs_agent.record import reading

_MODELS = """
SELECT model_name, model_version, bundle_hash FROM (
  SELECT DISTINCT model_name, model_version, bundle_hash FROM analysis WHERE model_name IS NOT NULL
  UNION
  SELECT DISTINCT model_name, model_version, bundle_hash FROM further_analysis WHERE state = 'analysed'
) ORDER BY 1, 2, 3
"""

_LIVE = """
SELECT model_name, model_version, bundle_hash FROM analysis WHERE model_name IS NOT NULL ORDER BY id DESC LIMIT 1
"""

# Of each study the model's latest revision, whatever was live then.
_SAID = """
WITH seen AS (
  SELECT study_id, revision, id AS analysis_id, NULL AS further_id FROM analysis
  WHERE model_name = ?1 AND model_version = ?2 AND bundle_hash = ?3
  UNION ALL
  SELECT study_id, revision, NULL, id FROM further_analysis
  WHERE model_name = ?1 AND model_version = ?2 AND bundle_hash = ?3 AND state = 'analysed'
), latest AS (
  SELECT *, RANK() OVER (PARTITION BY study_id ORDER BY revision DESC) AS place FROM seen
), found AS (
  SELECT l.study_id, f.id, f.body_part, f.laterality, f.finding, f.abnormal_probability, f.threshold, f.reason
  FROM latest l JOIN finding f ON f.analysis_id = l.analysis_id WHERE l.place = 1 AND f.status = 'analysed'
  UNION ALL
  SELECT l.study_id, f.id, f.body_part, f.laterality, f.finding, f.abnormal_probability, f.threshold, f.reason
  FROM latest l JOIN further_finding f ON f.further_analysis_id = l.further_id WHERE l.place = 1
)
SELECT s.study_instance_uid, s.accession_number,
  CASE WHEN s.patient_id <> '' THEN s.issuer_of_patient_id || '/' || s.patient_id ELSE '' END AS patient_id,
  s.station_name, s.calling_ae_title, COALESCE(f.body_part, 'unknown') AS body_part, f.laterality, f.finding,
  f.abnormal_probability, f.threshold, f.reason
FROM found f JOIN study s ON s.id = f.study_id
WHERE s.state <> 'withdrawn' AND s.received_at >= ?4
ORDER BY s.received_at, f.id
"""

_TRUTH = """
SELECT s.study_instance_uid, t.body_part, NULLIF(t.laterality, '') AS laterality, t.label,
  COALESCE((SELECT MIN(status) FROM results r WHERE r.study_instance_uid = s.study_instance_uid), s.state) AS status
FROM site_truth t JOIN study s ON s.id = t.study_id
WHERE s.received_at >= ? ORDER BY t.id
"""


def models(path: Path) -> list[ModelName]:
    """Every model that has said anything."""
    return [ModelName(*row) for row in reading.query(path, _MODELS).rows]


def live_model(path: Path) -> ModelName | None:
    """The model of the latest report; None where none was asked yet."""
    return next((ModelName(*row) for row in reading.query(path, _LIVE).rows), None)


def said(path: Path, model: ModelName, since: str | None = None) -> list[Said]:
    """A model's latest word on every part and side of every study received since; withdrawn studies left out."""
    rows = reading.query(path, _SAID, [model.name, model.version, model.bundle_hash, since or ""]).rows
    return [Said(*row) for row in rows]


def truths(path: Path, since: str | None = None) -> list[Truth]:
    """What the site knows of studies received since."""
    return [Truth(*row) for row in reading.query(path, _TRUTH, [since or ""]).rows]
