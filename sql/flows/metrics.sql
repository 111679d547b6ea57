-- How flows do, by version and step.

CREATE OR REPLACE VIEW wa_flow_metrics WITH (security_invoker = true) AS
SELECT
    f.organization_id, f.flow_type AS flow, f.definition_version AS version, NULL::text AS step,
    count(*)::bigint AS started, count(*) FILTER (WHERE f.status IN ('active',
        'paused'))::bigint AS under_way,
    count(*) FILTER (WHERE f.status = 'completed')::bigint AS completed,
    count(*) FILTER (WHERE f.status = 'cancelled')::bigint AS cancelled,
    count(*) FILTER (WHERE f.status = 'failed')::bigint AS failed,
    count(*) FILTER (WHERE f.status = 'paused')::bigint AS paused,
    NULL::bigint AS queued, NULL::bigint AS refused, NULL::bigint AS timed_out,
    avg(f.ended_at - f.created_at) AS mean_duration
FROM wa_automation_flows f
WHERE f.definition_version IS NOT NULL
GROUP BY f.organization_id, f.flow_type, f.definition_version
UNION ALL
SELECT
    f.organization_id, f.flow_type, f.definition_version, s.step, count(*)::bigint, NULL,
    count(DISTINCT s.flow_id) FILTER (WHERE f.status = 'completed' AND f.current_step = s.step)::bigint,
    count(*) FILTER (WHERE s.type = 'state' AND s.outcome = 'cancelled')::bigint,
    count(DISTINCT s.flow_id) FILTER (WHERE f.status = 'failed' AND f.current_step = s.step)::bigint,
    count(*) FILTER (WHERE s.type = 'state' AND s.outcome = 'paused')::bigint,
    count(*) FILTER (WHERE s.outcome = 'queued')::bigint,
        count(*) FILTER (WHERE s.outcome = 'refused')::bigint,
    count(*) FILTER (WHERE s.outcome = 'timeout')::bigint,
    avg(s.ended_at - s.entered_at) FILTER (WHERE s.type <> 'state')
FROM wa_flow_steps s
JOIN wa_automation_flows f ON f.organization_id = s.organization_id AND f.id = s.flow_id
GROUP BY f.organization_id, f.flow_type, f.definition_version, s.step;

COMMENT ON VIEW wa_flow_metrics IS
'By flow and version how many runs were started, how they ended and how long they took; with a step, how '
'often it was carried out, what it queued, what was refused, how long it took, and which runs ended there.';
COMMENT ON COLUMN wa_flow_metrics.step IS 'NULL in the row of the whole version.';
