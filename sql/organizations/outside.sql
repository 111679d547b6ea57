-- Calls to URLs that a tenant can set: which of them are made at all, and which addresses a name may lead to.
-- Here is what may be; bin/pg_whatsapp/outside.py holds it against the address that it connects to.

-- By the registries of special-purpose addresses of RFC 6890. Of IPv6 only 2000::/3 is in use outside.
CREATE OR REPLACE FUNCTION _wa_inner_networks() RETURNS TABLE (network cidr, reason text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT n.network::cidr, n.reason
    FROM (
        VALUES
        ('0.0.0.0/8', 'this host'),
        ('10.0.0.0/8', 'private'),
        ('100.64.0.0/10', 'behind a carrier''s translator'),
        ('127.0.0.0/8', 'this host'),
        ('168.63.129.16/32', 'the platform of a cloud'),
        ('169.254.0.0/16', 'link-local; the metadata of clouds'),
        ('172.16.0.0/12', 'private'),
        ('192.0.0.0/24', 'protocols of the IETF'),
        ('192.0.2.0/24', 'documentation'),
        ('192.88.99.0/24', '6to4 relays'),
        ('192.168.0.0/16', 'private'),
        ('198.18.0.0/15', 'benchmarks'),
        ('198.51.100.0/24', 'documentation'),
        ('203.0.113.0/24', 'documentation'),
        ('224.0.0.0/4', 'multicast'),
        ('240.0.0.0/4', 'reserved; broadcast'),
        ('::/3', 'this host; IPv4 in IPv6; translators (NAT64)'),
        ('2001::/23', 'protocols of the IETF; Teredo'),
        ('2001:db8::/32', 'documentation'),
        ('2002::/16', '6to4'),
        ('3fff::/20', 'documentation'),
        ('4000::/2', 'not in use'),
        ('8000::/1', 'private, link-local, multicast; not in use')
    ) n (network, reason);
END;

COMMENT ON FUNCTION _wa_inner_networks() IS
'Internal: the addresses that URLs of tenants may not lead to, unless wa_installations.outside_networks has '
'them.';

CREATE OR REPLACE FUNCTION get_wa_outside_rules()
RETURNS TABLE (allows_plain_http boolean, allowed_networks text[], refused_networks text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT i.outside_plain_http, i.outside_networks::text[],
        ARRAY(SELECT n.network::text FROM _wa_inner_networks() n)
    FROM wa_installations i
$$;

COMMENT ON FUNCTION get_wa_outside_rules() IS
'For processes that call URLs of tenants: whether http will do, and the networks that addresses may be in '
'whatever the third column says, which lists those that they may not be in.';

CREATE OR REPLACE FUNCTION _wa_may_lead_to(p_address inet) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (SELECT FROM wa_installations i WHERE p_address <<= ANY (i.outside_networks))
        OR NOT EXISTS (SELECT FROM _wa_inner_networks() n WHERE p_address <<= n.network)
$$;

COMMENT ON FUNCTION _wa_may_lead_to(inet) IS
'Internal: whether a URL of a tenant may lead to an address.';

-- So narrow that no two programs can read it differently: no user, no fragment, no backslash, no host in
-- another script, and none of the forms but one in which an IPv4 address can be written.
CREATE OR REPLACE FUNCTION _wa_require_outside_url(p_url text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_parts text[] := regexp_match(p_url,
        '^(https?)://([A-Za-z0-9_-]+(?:[.][A-Za-z0-9_-]+)*|[[][0-9A-Fa-f:.]+[]])(?::([0-9]{1,5}))?'
        '(?:[/?][][A-Za-z0-9._~:/?@!$&''()*+,;=%-]*)?$');
    v_fault text;
    v_address inet;
BEGIN
    IF v_parts IS NULL OR length(p_url) > 2000 THEN
        v_fault := 'It is not of the form https://host/path, in ASCII, of at most 2000 characters and without '
            'user and fragment.';
    ELSIF v_parts[3]::integer NOT BETWEEN 1 AND 65535 THEN
        v_fault := 'There is no such port.';
    ELSIF v_parts[1] = 'http' AND NOT (SELECT i.outside_plain_http FROM wa_installations i) THEN
        v_fault := 'It is http, which everybody on the way can read.';
    ELSIF v_parts[2] ~ '^[[]' OR v_parts[2] ~ '(^|[.])([0-9]+|0[xX][0-9A-Fa-f]*)$' THEN
        BEGIN
            v_address := btrim(v_parts[2], '[]')::inet;
        EXCEPTION WHEN invalid_text_representation THEN
            v_address := NULL;
        END;
        IF v_address IS NULL OR (family(v_address) = 4 AND host(v_address) <> v_parts[2]) THEN
            v_fault := 'Its host is neither a name nor an address in the usual form.';
        ELSIF NOT _wa_may_lead_to(v_address) THEN
            v_fault := 'Its address is not one of the internet.';
        END IF;
    END IF;
    IF v_fault IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA041',
            MESSAGE = 'this URL is not called',
            DETAIL = v_fault,
            HINT = 'A wa_admin may allow http and networks of your own: UPDATE wa_installations SET '
                'outside_plain_http = true, outside_networks = ''{10.0.0.0/8}''.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_outside_url(text) IS
'Internal: raises WA041 for a URL of a tenant that would never be called. What a name leads to is looked at '
'with each call.';

CREATE OR REPLACE FUNCTION tg_wa_installations__audit_outside() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO audit_log (organization_id, event, entity, meta)
    SELECT o.id, 'outside_rules_changed', 'wa_installations', jsonb_build_object(
        'old', jsonb_build_object(
            'networks', OLD.outside_networks::text[], 'plain_http', OLD.outside_plain_http
        ),
        'new', jsonb_build_object(
            'networks', NEW.outside_networks::text[], 'plain_http', NEW.outside_plain_http
        )
    )
    FROM wa_organizations o;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_installations__audit_outside() IS
'Leaves an audit row with every organization when it changes where URLs of tenants may lead.';

CREATE OR REPLACE TRIGGER audit_outside AFTER UPDATE ON wa_installations
FOR EACH ROW WHEN (
    (OLD.outside_networks, OLD.outside_plain_http)
    IS DISTINCT FROM (NEW.outside_networks, NEW.outside_plain_http)
)
EXECUTE FUNCTION tg_wa_installations__audit_outside();
