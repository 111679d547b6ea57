-- Stopping a template after the provider refused it.

-- A row without an account stands for the template in every account that has no row of its own.
CREATE OR REPLACE FUNCTION _wa_template_of_account(
    p_org uuid, p_waba_id text, p_name text, p_language text
) RETURNS uuid
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT t.id FROM wa_templates t
    WHERE t.organization_id = p_org AND lower(t.name) = lower(p_name) AND t.language = p_language
        AND (t.waba_id = p_waba_id OR t.waba_id IS NULL)
    ORDER BY t.waba_id NULLS LAST
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_template_of_account(uuid, text, text, text) IS
'Internal: the template that a message of an account was sent with; NULL when there is none.';

CREATE OR REPLACE FUNCTION _wa_block_templates(
    p_org uuid, p_ids uuid[], p_reasons text[], p_untils timestamptz[]
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_templates t
    SET blocked_reason = b.reason, blocked_at = clock_timestamp(), blocked_until = b.until
    FROM (
        SELECT DISTINCT ON (u.id) u.id, u.reason, u.until
        FROM unnest(p_ids, p_reasons, p_untils) u (id, reason, until)
        ORDER BY u.id, u.until DESC NULLS FIRST
    ) b
    WHERE t.organization_id = p_org AND t.id = b.id
$$;

COMMENT ON FUNCTION _wa_block_templates(uuid, uuid[], text[], timestamptz[]) IS
'Internal: stops templates, each with a reason, until a time or (NULL) until Meta approves it anew.';
