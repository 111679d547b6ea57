-- Templates: what follows from their text, which one a name means, and whether it may be sent.

-- Only what Meta approved counts as approved, so that a paused template is not offered as ready for use.
CREATE OR REPLACE FUNCTION _wa_template_approval(p_status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_status = 'APPROVED' THEN 'approved'
    WHEN p_status IN ('REJECTED', 'DISABLED', 'DELETED', 'PENDING_DELETION', 'MISSING') THEN 'rejected'
    ELSE 'pending'
END;

COMMENT ON FUNCTION _wa_template_approval(text) IS
'Internal: the approval_status that goes with a state of Meta; only APPROVED counts as approved.';

CREATE OR REPLACE FUNCTION _wa_template_component(p_components jsonb, p_type text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT c.value
    FROM jsonb_array_elements(p_components) WITH ORDINALITY c (value, position)
    WHERE upper(c.value ->> 'type') = p_type
    ORDER BY c.position
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_template_component(jsonb, text) IS 'Internal: the component of a type, or NULL.';

-- Parts that have no column of their own (carousel, limited-time offer) are kept as they are, and so is what
-- a part has beside its text: the sample file of a header, the minutes in which a code expires.
CREATE OR REPLACE FUNCTION _wa_template_components_of(
    p_header_format text, p_header_text text, p_body_text text, p_footer_text text, p_buttons jsonb,
    p_old jsonb
) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(c.value) ORDER BY c.place, c.position), '[]')
    FROM (
        SELECT 1 AS place, 0 AS position, CASE
            WHEN p_header_format <> 'TEXT' AND upper(h.value ->> 'format') = p_header_format THEN h.value
            ELSE '{}' END
            || jsonb_build_object('type', 'HEADER', 'format', p_header_format, 'text', p_header_text) AS value
        FROM (SELECT _wa_template_component(p_old, 'HEADER') AS value) h
        WHERE p_header_format IS NOT NULL
        UNION ALL
        SELECT 2, 0, coalesce(_wa_template_component(p_old, 'BODY') - '{text,example}'::text[], '{}')
            || jsonb_build_object('type', 'BODY', 'text', p_body_text)
        UNION ALL
        SELECT 3, 0, coalesce(f.value, '{}') || jsonb_build_object('type', 'FOOTER', 'text', p_footer_text)
        FROM (SELECT _wa_template_component(p_old, 'FOOTER') - 'text' AS value) f
        WHERE p_footer_text IS NOT NULL OR f.value ? 'code_expiration_minutes'
        UNION ALL
        SELECT 4, 0, jsonb_build_object('type', 'BUTTONS', 'buttons', p_buttons) WHERE p_buttons <> '[]'
        UNION ALL
        SELECT 5, o.position, o.value
        FROM jsonb_array_elements(p_old) WITH ORDINALITY o (value, position)
        WHERE upper(o.value ->> 'type') NOT IN ('HEADER', 'BODY', 'FOOTER', 'BUTTONS')
    ) c;
END;

COMMENT ON FUNCTION _wa_template_components_of(text, text, text, text, jsonb, jsonb) IS
'Internal: the components as Meta writes them, from the columns; parts without a column are taken from the '
'old ones.';

CREATE OR REPLACE FUNCTION _wa_template_in_review(p_new wa_templates, p_old wa_templates) RETURNS wa_templates
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    p_new.status := upper(p_new.status);
    IF p_new.status = coalesce(p_old.status, 'PENDING') THEN
        IF p_new.approval_status <> _wa_template_approval(p_new.status) THEN
            p_new.status := upper(p_new.approval_status);
        END IF;
    ELSE
        p_new.approval_status := _wa_template_approval(p_new.status);
    END IF;
    IF p_new.status = 'APPROVED' AND p_old.status <> 'APPROVED'
        AND p_new.blocked_at IS NOT DISTINCT FROM p_old.blocked_at
    THEN
        p_new.blocked_at := NULL;
        p_new.blocked_until := NULL;
        p_new.blocked_reason := NULL;
    END IF;
    RETURN p_new;
END
$$;

COMMENT ON FUNCTION _wa_template_in_review(wa_templates, wa_templates) IS
'Internal: a template whose status and approval_status say the same, by the one that was written; the block '
'of one that becomes approved is lifted. The old row is NULL for a new one.';

CREATE OR REPLACE FUNCTION _wa_template_in_parts(p_new wa_templates, p_old wa_templates) RETURNS wa_templates
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_header jsonb;
BEGIN
    IF p_new.components <> coalesce(p_old.components, '[]') THEN
        v_header := _wa_template_component(p_new.components, 'HEADER');
        p_new.header_format := upper(coalesce(
            v_header ->> 'format', CASE WHEN v_header ? 'text' THEN 'TEXT' END
        ));
        p_new.header_text := v_header ->> 'text';
        -- An authentication template may come without its text: Meta writes that one.
        p_new.body_text := coalesce(
            _wa_template_component(p_new.components, 'BODY') ->> 'text', p_new.body_text, ''
        );
        p_new.footer_text := _wa_template_component(p_new.components, 'FOOTER') ->> 'text';
        p_new.buttons := coalesce(_wa_template_component(p_new.components, 'BUTTONS') -> 'buttons', '[]');
    ELSIF (p_new.header_format, p_new.header_text, p_new.body_text, p_new.footer_text, p_new.buttons)
        IS DISTINCT FROM
        (p_old.header_format, p_old.header_text, p_old.body_text, p_old.footer_text, p_old.buttons)
    THEN
        p_new.header_format := upper(coalesce(
            p_new.header_format, CASE WHEN p_new.header_text IS NOT NULL THEN 'TEXT' END
        ));
        p_new.components := _wa_template_components_of(
            p_new.header_format, p_new.header_text, p_new.body_text, p_new.footer_text, p_new.buttons,
            p_new.components
        );
    END IF;
    RETURN p_new;
END
$$;

COMMENT ON FUNCTION _wa_template_in_parts(wa_templates, wa_templates) IS
'Internal: a template whose text columns and components say the same, by those that were written. The old '
'row is NULL for a new one.';

CREATE OR REPLACE FUNCTION _wa_template_derived(p_template wa_templates) RETURNS wa_templates
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    p_template.body_placeholders := _wa_sorted_placeholders(p_template.body_text);
    p_template.header_placeholders := CASE
        WHEN p_template.header_format = 'TEXT' THEN _wa_sorted_placeholders(p_template.header_text) ELSE '{}'
    END;
    p_template.button_parameters := _wa_template_button_parameters(p_template.buttons);
    IF p_template.category = 'AUTHENTICATION' AND p_template.body_placeholders = '{}' THEN
        p_template.body_placeholders := '{1}';
    END IF;
    p_template.parameter_format := CASE
        WHEN concat_ws(',', p_template.body_placeholders, p_template.header_placeholders) ~ '[a-z]'
            THEN 'NAMED'
        ELSE 'POSITIONAL'
    END;
    p_template.is_plain := p_template.category <> 'AUTHENTICATION'
        AND p_template.header_placeholders = '{}' AND coalesce(p_template.header_format, 'TEXT') = 'TEXT'
        AND p_template.button_parameters = '[]'
        AND NOT p_template.buttons @? '$[*].type ? (@ like_regex "^flow$" flag "i")'
        AND _wa_template_cards(p_template) IS NULL AND NOT _wa_template_takes_offer(p_template);
    RETURN p_template;
END
$$;

COMMENT ON FUNCTION _wa_template_derived(wa_templates) IS
'Internal: a template with what follows from its texts and components.';

CREATE OR REPLACE FUNCTION tg_wa_templates__derive() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_problem text;
BEGIN
    IF 'array' <> ANY (ARRAY[jsonb_typeof(NEW.buttons), jsonb_typeof(NEW.components)]) THEN
        PERFORM _wa_refuse_template(NEW, 'buttons and components must be JSON arrays');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    -- Until 2022 Meta called it TRANSACTIONAL; OTP is what some of its pages call the third.
    NEW.category := CASE upper(NEW.category)
        WHEN 'TRANSACTIONAL' THEN 'UTILITY' WHEN 'OTP' THEN 'AUTHENTICATION' ELSE upper(NEW.category)
    END;
    -- Meta writes en_US; people, and one of Meta's own examples, write en-US.
    NEW.language := replace(NEW.language, '-', '_');
    NEW := _wa_template_in_review(NEW, OLD);
    NEW := _wa_template_in_parts(NEW, OLD);
    NEW := _wa_template_derived(NEW);
    -- What Meta has taken needs no check, and must not fail for being of a newer kind than this release.
    IF NEW.provider_template_id IS NULL AND (TG_OP = 'INSERT' OR (
        NEW.name, NEW.header_format, NEW.header_text, NEW.body_text, NEW.footer_text, NEW.buttons,
        NEW.parameters, NEW.variable_mapping
    ) IS DISTINCT FROM (
        OLD.name, OLD.header_format, OLD.header_text, OLD.body_text, OLD.footer_text, OLD.buttons,
        OLD.parameters, OLD.variable_mapping
    )) THEN
        v_problem := _wa_template_structure_problem(NEW);
        IF v_problem IS NOT NULL THEN
            PERFORM _wa_refuse_template(NEW, v_problem);
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_templates__derive() IS
'Keeps status with approval_status and the text columns with components, whichever of them is written; '
'derives the placeholders and the buttons that need a value; lifts a block when the template becomes '
'approved; refuses a draft whose structure is wrong.';

-- {{2}} may stand before {{1}} in a translation: positional values go by number, named ones by first
-- appearance.
CREATE OR REPLACE FUNCTION _wa_sorted_placeholders(p_text text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found text[] := coalesce(_wa_template_placeholders(coalesce(p_text, '')), '{}');
BEGIN
    IF array_to_string(v_found, '') ~ '^[0-9]+$' THEN
        RETURN ARRAY(SELECT f FROM unnest(v_found) f ORDER BY f::numeric);
    END IF;
    RETURN v_found;
END
$$;

COMMENT ON FUNCTION _wa_sorted_placeholders(text) IS
'Internal: the distinct placeholders of a text in the order in which values are given.';

CREATE OR REPLACE TRIGGER derive BEFORE INSERT OR UPDATE ON wa_templates
FOR EACH ROW EXECUTE FUNCTION tg_wa_templates__derive();

CREATE OR REPLACE FUNCTION _wa_is_template_sendable(
    p_status text, p_blocked_at timestamptz, p_blocked_until timestamptz, p_now timestamptz
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_status = 'APPROVED' AND (p_blocked_at IS NULL OR coalesce(p_blocked_until <= p_now, false));

COMMENT ON FUNCTION _wa_is_template_sendable(text, timestamptz, timestamptz, timestamptz) IS
'Internal: whether a template may be sent at a time: approved by Meta and not stopped.';

CREATE OR REPLACE FUNCTION _wa_template_problem(p_template wa_templates, p_now timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN _wa_is_template_sendable(
        (p_template).status, (p_template).blocked_at, (p_template).blocked_until, p_now
    ) THEN NULL
    WHEN (p_template).status <> 'APPROVED' THEN format(
        'template "%s" (%s) is %s, not APPROVED',
        (p_template).name, (p_template).language, (p_template).status
    )
    ELSE format(
        'template "%s" (%s) is stopped%s: %s', (p_template).name, (p_template).language,
        coalesce(
            to_char((p_template).blocked_until AT TIME ZONE 'UTC', '" until "YYYY-MM-DD HH24:MI" UTC"'), ''
        ),
        coalesce((p_template).blocked_reason, 'no reason recorded')
    )
END;

COMMENT ON FUNCTION _wa_template_problem(wa_templates, timestamptz) IS
'Internal: why a template may not be sent at a time, in one sentence; NULL when it may.';

-- Of the languages that Meta knows only Chinese is written in two scripts.
CREATE OR REPLACE FUNCTION _wa_language_script(p_language text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_language ~* '^zh_(hant|tw|hk|mo)' THEN 'Hant' WHEN p_language ~* '^zh(_|$)' THEN 'Hans' ELSE ''
END;

COMMENT ON FUNCTION _wa_language_script(text) IS
'Internal: the script of a language, where languages of that name are written in more than one.';

-- A region that was not asked for is another language to its reader: pt_BR is not sent for pt_PT.
CREATE OR REPLACE FUNCTION _wa_language_fit(p_language text, p_wanted text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_language = p_wanted THEN 3
    WHEN split_part(p_language, '_', 1) <> split_part(p_wanted, '_', 1)
        OR _wa_language_script(p_language) <> _wa_language_script(p_wanted) THEN 0
    WHEN position('_' IN p_language) = 0 THEN 2
    WHEN position('_' IN p_wanted) = 0 THEN 1
    ELSE 0
END;

COMMENT ON FUNCTION _wa_language_fit(text, text) IS
'Internal: how a language, in small letters, serves who wants another: 3 it is the same, 2 it names no '
'region (es for es_MX), 1 no region was asked for (es_AR for es), 0 not at all.';

-- Not inlined: every insert would make its many expressions ready anew, mostly for one row. Where no language
-- is asked for only one is needed.
CREATE OR REPLACE FUNCTION _wa_template_rank(
    p_language text, p_wanted text, p_default_language text, p_is_approved boolean, p_is_of_account boolean
) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_language CONSTANT text := lower(p_language);
    v_default CONSTANT text := lower(p_default_language);
    v_fit integer;
BEGIN
    IF p_wanted IS NULL THEN
        RETURN 64 + p_is_approved::integer * 32 + coalesce(v_language = v_default, false)::integer * 16
            + coalesce(split_part(v_language, '_', 1) = split_part(v_default, '_', 1), false)::integer * 8
            + (v_language = 'en')::integer * 4 + (v_language LIKE 'en\_%')::integer * 2
            + p_is_of_account::integer;
    END IF;
    v_fit := _wa_language_fit(v_language, lower(replace(p_wanted, '-', '_')));
    v_fit := CASE
        WHEN v_fit = 1 AND v_language = v_default THEN 5
        WHEN v_fit = 1 THEN 4
        WHEN v_fit > 1 THEN 4 + v_fit
        WHEN v_default IS NULL THEN 0
        ELSE _wa_language_fit(v_language, v_default)
    END;
    RETURN v_fit * 8 - (v_fit = 0)::integer * 8
        + (p_is_approved AND v_fit IN (1, 4))::integer * 4 + p_is_of_account::integer * 2
        + p_is_approved::integer;
END
$$;

COMMENT ON FUNCTION _wa_template_rank(text, text, text, boolean, boolean) IS
'Internal: how well a template of a language serves where one is asked for (NULL: any): the higher, the '
'better. Eighths say how the language fits: 7 the one asked for, 6 the same without a region, 5 the '
'default_language where no region was asked for, 4 another region then; 3 to 1 the same for the '
'default_language; below zero not at all.';

-- A set of at most one, so that it is inlined into a join.
CREATE OR REPLACE FUNCTION _wa_best_template(
    p_org uuid, p_name text, p_language text, p_waba_id text, p_default_language text, p_now timestamptz
) RETURNS TABLE (
    id uuid, category text, body_count integer, is_plain boolean, is_sendable boolean, language text,
    is_of_language boolean
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT b.id, b.category, b.body_count, b.is_plain, b.is_sendable, b.language,
        -- One region stands for the language only where no other could.
        CASE WHEN b.rank >> 3 IN (1, 4) THEN NOT EXISTS (
            SELECT FROM wa_templates x
            WHERE x.organization_id = p_org AND lower(x.name) = lower(p_name)
                AND (p_waba_id IS NULL OR x.waba_id IS NULL OR x.waba_id = p_waba_id)
                AND x.language <> b.language
                AND _wa_template_rank(
                    x.language, p_language, p_default_language, x.status = 'APPROVED', false
                ) >> 2 = b.rank >> 2
        ) ELSE b.rank >= 0 END
    FROM (
        SELECT t.id, t.category, t.language, cardinality(t.body_placeholders) AS body_count, t.is_plain,
            _wa_is_template_sendable(t.status, t.blocked_at, t.blocked_until, p_now) AS is_sendable,
            _wa_template_rank(
                t.language, p_language, p_default_language, t.status = 'APPROVED', t.waba_id IS NOT NULL
            ) AS rank
        FROM wa_templates t
        WHERE t.organization_id = p_org AND lower(t.name) = lower(p_name)
            AND (p_waba_id IS NULL OR t.waba_id IS NULL OR t.waba_id = p_waba_id)
        ORDER BY rank DESC, t.created_at, t.id
        LIMIT 1
    ) b;
END;

COMMENT ON FUNCTION _wa_best_template(uuid, text, text, text, text, timestamptz) IS
'Internal: the template of a name that comes nearest to a language, what queueing has to know of it, and '
'whether its language may stand for the one asked for; see _wa_template_of().';

CREATE OR REPLACE FUNCTION _wa_template_of(
    p_org uuid, p_name text, p_language text, p_waba_id text, p_default_language text, p_now timestamptz
) RETURNS TABLE (id uuid, category text, body_count integer, is_plain boolean, is_sendable boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT b.id, b.category, b.body_count, b.is_plain, b.is_sendable
    FROM _wa_best_template(p_org, p_name, p_language, p_waba_id, p_default_language, p_now) b
    WHERE b.is_of_language;
END;

COMMENT ON FUNCTION _wa_template_of(uuid, text, text, text, text, timestamptz) IS
'Internal: which template a name and language mean, and what queueing has to know of it. The exact language; '
'else the same one and script without a region (es for es_MX); where none is asked for (es) that of the only '
'region there is an approved one for; else, by the same rules, the organization''s default_language. Never '
'another region or script. Without a language an approved one, the default language first, then en. A row of '
'the account goes before one of every account. No row: unknown.';

CREATE OR REPLACE FUNCTION _wa_pick_template(p_org uuid, p_name text, p_language text, p_waba_id text)
RETURNS SETOF wa_templates
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT t.*
    FROM wa_organizations o
    CROSS JOIN LATERAL _wa_template_of(p_org, p_name, p_language, p_waba_id, o.default_language, NULL) f
    JOIN wa_templates t ON t.organization_id = p_org AND t.id = f.id
    WHERE o.id = p_org;
END
$$;

COMMENT ON FUNCTION _wa_pick_template(uuid, text, text, text) IS
'Internal: the row of the template that a name and language mean, see _wa_template_of(). No row: unknown.';

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_templates
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id', 'synced_at');
