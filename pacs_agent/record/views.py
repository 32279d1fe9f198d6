"""The five views: the public face of the database. Their columns are a promise; docs/sql.md tells what they mean."""

_STATUS = """
CASE
  WHEN s.state <> 'analysed' THEN s.state
  WHEN f.status = 'unsupported' THEN 'unsupported'
  WHEN r.id IS NULL THEN 'analysed'
  WHEN NOT EXISTS (SELECT 1 FROM delivery d JOIN report r2 ON r2.id = d.report_id
                   WHERE r2.analysis_id = a.id AND d.status NOT IN ('held', 'cancelled')) THEN 'held'
  WHEN NOT EXISTS (SELECT 1 FROM delivery d JOIN report r2 ON r2.id = d.report_id
                   WHERE r2.analysis_id = a.id AND d.status NOT IN ('delivered', 'committed', 'cancelled'))
       THEN 'delivered'
  ELSE 'analysed'
END
"""

_ANALYSES = f"""
SELECT
  s.study_instance_uid, s.accession_number, s.patient_id, s.study_date, s.calling_ae_title,
  f.body_part, f.laterality, {_STATUS} AS status, f.finding, f.abnormal_probability, f.threshold,
  COALESCE(f.image_count, 0) AS image_count, COALESCE(f.images_analysed, 0) AS images_analysed,
  a.model_name, a.model_version, a.bundle_hash, a.revision,
  COALESCE(CASE WHEN s.state <> 'analysed' THEN s.reason END, f.reason,
           CASE WHEN r.id IS NOT NULL AND NOT EXISTS
                     (SELECT 1 FROM delivery d JOIN report r2 ON r2.id = d.report_id WHERE r2.analysis_id = a.id)
                THEN 'no destination is configured' END) AS reason,
  s.station_name, s.manufacturer, s.manufacturer_model_name, s.received_at, a.analysed_at,
  CASE WHEN {_STATUS} = 'delivered' THEN
    (SELECT MAX(d.delivered_at) FROM delivery d JOIN report r2 ON r2.id = d.report_id WHERE r2.analysis_id = a.id)
  END AS delivered_at,
  r.sop_instance_uid AS report_sop_instance_uid
FROM study s
LEFT JOIN analysis a ON a.study_id = s.id {{latest}}
LEFT JOIN finding f ON f.analysis_id = a.id
LEFT JOIN report r ON r.id = (SELECT MIN(id) FROM report WHERE analysis_id = a.id)
{{where}}
"""  # noqa: S608 - constants only

VIEWS: dict[str, str] = {
    "results": _ANALYSES.format(
        latest="AND a.revision = (SELECT MAX(revision) FROM analysis WHERE study_id = s.id)", where=""
    ),
    "analyses": _ANALYSES.format(latest="", where="WHERE a.id IS NOT NULL"),
    "image_results": """
SELECT s.study_instance_uid, i.series_instance_uid, i.sop_instance_uid, i.body_part, i.body_part_source,
  i.laterality, i.laterality_source, json_extract(i.facts, '$.view_position') AS view_position, i.status,
  i.abnormal_probability, i.member_probabilities, i.reason
FROM instance i JOIN study s ON s.id = i.study_id
WHERE i.is_current
""",
    "deliveries": """
SELECT s.study_instance_uid, r.sop_instance_uid, r.object, d.destination, COALESCE(d.status, 'held') AS status,
  COALESCE(d.attempts, 0) AS attempts, d.last_status, d.last_error, d.next_attempt_at, d.delivered_at, d.committed_at
FROM report r
JOIN analysis a ON a.id = r.analysis_id
JOIN study s ON s.id = a.study_id
LEFT JOIN delivery d ON d.report_id = r.id
""",
    "events": "SELECT at, study_instance_uid, sop_instance_uid, event, detail FROM event ORDER BY id",
}
