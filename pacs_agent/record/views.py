"""The views: the public face of the database. Their columns are a promise; docs/sql.md tells what they mean."""

# A rejection note is no result.
_OBJECTS = (
    "FROM report o LEFT JOIN delivery d ON d.report_id = o.id WHERE o.analysis_id = a.id AND o.object <> 'rejection'"
)

# Held because its time has passed: it was wanted, and is not there. A silent one has no error.
_IS_LATE = "(d.status = 'held' AND d.last_error IS NOT NULL)"

# What became of one analysis. A silent object is not wanted until a person releases it, a cancelled one never.
_OWN_STATUS = f"""
CASE WHEN f.status = 'unsupported' THEN 'unsupported' WHEN r.id IS NULL THEN 'analysed' ELSE (
  SELECT CASE
    WHEN COUNT(d.id) = 0 THEN 'held'
    WHEN SUM(d.status IN ('waiting', 'parked')) THEN 'analysed'
    WHEN SUM({_IS_LATE}) THEN 'held'
    WHEN SUM(d.status IN ('delivered', 'committed')) THEN 'delivered'
    WHEN SUM(d.status = 'held') THEN 'held'
    ELSE 'analysed'
  END {_OBJECTS}
) END
"""

# Why its objects do not go, where they do not.
_STANDSTILL = f"""
CASE WHEN f.status = 'unsupported' OR r.id IS NULL THEN NULL ELSE (
  SELECT CASE
    WHEN COUNT(d.id) = 0 THEN 'no destination was there for it'
    WHEN SUM(d.status = 'parked')
      -- of DISTINCT ones SQLite sets a comma between, and nothing else
      THEN 'parked at' || GROUP_CONCAT(
        DISTINCT CASE WHEN d.status = 'parked' THEN ' ' || d.destination || ': ' || d.last_error END
      )
    WHEN SUM({_IS_LATE})
      THEN 'held at ' || GROUP_CONCAT(CASE WHEN {_IS_LATE} THEN d.destination END, ', ') || ': '
           || MAX(CASE WHEN {_IS_LATE} THEN d.last_error END) || '; `pacs-agent release` sends it'
    WHEN SUM(d.status NOT IN ('held', 'cancelled')) THEN NULL
    WHEN SUM(d.status = 'held') THEN 'held: silent mode; `pacs-agent release` sends it'
    ELSE 'deliveries were cancelled' || COALESCE(': ' || MAX(d.last_error), '')
  END {_OBJECTS}
) END
"""

_LATEST = "(SELECT MAX(revision) FROM analysis WHERE study_id = s.id)"


def _analyses(open_state: str, rest: str, more: str = "") -> str:
    """One row a finding.

    Args:
        open_state: SQL that is true where the study's own state and reason stand over those of the row's analysis.
        rest: joins, from `study s` to `analysis a`.
        more: further columns.
    """
    return f"""
SELECT
  s.study_instance_uid, s.accession_number, s.patient_id, s.study_date, s.calling_ae_title, f.body_part, f.laterality,
  CASE WHEN {open_state} THEN s.state ELSE {_OWN_STATUS} END AS status,
  f.finding, f.abnormal_probability, f.threshold,
  COALESCE(f.image_count, 0) AS image_count, COALESCE(f.images_analysed, 0) AS images_analysed,
  a.model_name, a.model_version, a.bundle_hash, a.revision,
  CASE
    WHEN {open_state} AND s.state = 'held' THEN s.reason || '; `pacs-agent accept` or `pacs-agent withdraw` decides'
    WHEN {open_state} THEN COALESCE(s.reason, f.reason)
    ELSE COALESCE(f.reason || '; ' || {_STANDSTILL}, f.reason, {_STANDSTILL})
  END AS reason,
  s.station_name, s.manufacturer, s.manufacturer_model_name, s.received_at, a.analysed_at,
  CASE WHEN (NOT ({open_state}) OR s.state = 'held') AND {_OWN_STATUS} = 'delivered'
    THEN (SELECT MAX(d.delivered_at) {_OBJECTS}) END AS delivered_at,
  r.sop_instance_uid AS report_sop_instance_uid{more}
FROM study s
{rest}
LEFT JOIN finding f ON f.analysis_id = a.id
LEFT JOIN report r ON r.id = (SELECT MIN(id) FROM report WHERE analysis_id = a.id AND object = 'sr')
"""  # noqa: S608 - constants only


# What further bundles found, in the columns of `analyses`: it has no report and goes nowhere.
_FURTHER = """
SELECT
  s.study_instance_uid, s.accession_number, s.patient_id, s.study_date, s.calling_ae_title, f.body_part, f.laterality,
  CASE WHEN s.state = 'withdrawn' THEN s.state ELSE a.state END,
  f.finding, f.abnormal_probability, f.threshold, COALESCE(f.image_count, 0), COALESCE(f.images_analysed, 0),
  a.model_name, a.model_version, a.bundle_hash, a.revision, COALESCE(a.reason, f.reason),
  s.station_name, s.manufacturer, s.manufacturer_model_name, s.received_at, a.analysed_at, NULL, NULL, 'further'
FROM further_analysis a
JOIN study s ON s.id = a.study_id
LEFT JOIN further_finding f ON f.further_analysis_id = a.id
WHERE a.state <> 'waiting'
"""

VIEWS: dict[str, str] = {
    "results": _analyses(
        "s.state <> 'analysed'", f"LEFT JOIN analysis a ON a.study_id = s.id AND a.revision = {_LATEST}"
    ),
    # An earlier revision keeps what became of it, whatever the study is in now.
    "analyses": _analyses(
        f"(s.state <> 'analysed' AND a.revision = {_LATEST})",
        "JOIN analysis a ON a.study_id = s.id",
        ", 'live' AS role",
    )
    + f"UNION ALL{_FURTHER}",
    "image_results": """
SELECT s.study_instance_uid, i.series_instance_uid, i.sop_instance_uid, i.body_part, i.body_part_source,
  i.laterality, i.laterality_source, json_extract(i.facts, '$.view_position') AS view_position, i.status,
  i.abnormal_probability, i.member_probabilities, i.reason
FROM instance i JOIN study s ON s.id = i.study_id
WHERE i.is_current
""",
    # What waits for a destination out of reach waits as long as the destination does, and for its reason.
    "deliveries": """
SELECT s.study_instance_uid, r.sop_instance_uid, r.object, d.destination, COALESCE(d.status, 'held') AS status,
  COALESCE(d.attempts, 0) AS attempts, d.last_status,
  CASE
    WHEN d.id IS NULL THEN 'no destination was there for it'
    WHEN d.status = 'waiting' THEN COALESCE(t.last_error, d.last_error)
    WHEN d.status = 'held' THEN COALESCE(d.last_error, 'silent mode')
    ELSE d.last_error
  END AS last_error,
  CASE WHEN d.status = 'waiting' THEN MAX(d.next_attempt_at, COALESCE(t.next_attempt_at, '')) END AS next_attempt_at,
  d.delivered_at, d.committed_at
FROM report r
JOIN analysis a ON a.id = r.analysis_id
JOIN study s ON s.id = a.study_id
LEFT JOIN delivery d ON d.report_id = r.id
LEFT JOIN destination t ON t.name = d.destination
""",
    "truth": """
SELECT s.study_instance_uid, s.accession_number, t.body_part, NULLIF(t.laterality, '') AS laterality, t.label, t.file,
  t.imported_at
FROM site_truth t JOIN study s ON s.id = t.study_id
""",
    "events": "SELECT at, study_instance_uid, sop_instance_uid, event, detail FROM event ORDER BY id",
}
