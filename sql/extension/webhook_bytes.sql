-- What happens to the bytes of a webhook before any table is touched: the signature check, and taking a body
-- apart. The definitions of an included file are made once a session; after that the first two lines are all
-- that runs.

CREATE FUNCTION verify_wa_signature(p_body bytea, p_header text, p_secrets text[]) RETURNS boolean
LANGUAGE plpython3u IMMUTABLE PARALLEL SAFE
AS $plpython$
if "verify" in SD:
    return SD["verify"](p_body, p_header, p_secrets)
@@include plpython/verify_wa_signature.py@@
SD["verify"] = verify_signature
return verify_signature(p_body, p_header, p_secrets)
$plpython$;
COMMENT ON FUNCTION verify_wa_signature(bytea, text, text[]) IS
'Whether an X-Hub-Signature-256 header signs these raw bytes with one of the app secrets; compared in '
'constant time, false for anything malformed.';

CREATE FUNCTION _wa_hmac_sha256_hex(p_body bytea, p_secret text) RETURNS text
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE
AS $plpython$
if "sign" in SD:
    return SD["sign"](p_body, p_secret)
@@include plpython/verify_wa_signature.py@@
SD["sign"] = hmac_sha256_hex
return hmac_sha256_hex(p_body, p_secret)
$plpython$;
COMMENT ON FUNCTION _wa_hmac_sha256_hex(bytea, text) IS
'HMAC-SHA256 of some bytes under a secret, in hexadecimal: what Meta sends behind sha256= in its signature '
'header.';

CREATE FUNCTION _wa_split_webhook(p_body bytea) RETURNS TABLE (
    atom int,
    kind text,
    field text,
    waba_id text,
    phone_number_id text,
    display_phone text,
    entry_time timestamptz,
    payload jsonb,
    contact jsonb,
    dedupe_key text,
    note text,
    error text
)
LANGUAGE plpython3u IMMUTABLE PARALLEL SAFE
AS $plpython$
if "split" in SD:
    return SD["split"](p_body)
@@include plpython/split_webhook.py@@
SD["split"] = split_webhook
return split_webhook(p_body)
$plpython$;
COMMENT ON FUNCTION _wa_split_webhook(bytea) IS
'The atoms (messages, statuses, events) of one webhook body in its order. Never raises: what cannot be read '
'is a row with its error.';

CREATE FUNCTION _wa_split_webhooks(p_ids bigint[], p_bodies bytea[]) RETURNS TABLE (
    log_id bigint,
    atom int,
    kind text,
    field text,
    waba_id text,
    phone_number_id text,
    display_phone text,
    entry_time timestamptz,
    payload jsonb,
    contact jsonb,
    dedupe_key text,
    note text,
    error text
)
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE
AS $plpython$
if "split" in SD:
    return SD["split"](p_ids, p_bodies)
@@include plpython/split_webhook.py@@
def split_batch(ids, bodies):
    return [(log_id, *atom) for log_id, body in zip(ids, bodies, strict=True) for atom in split_webhook(body)]
SD["split"] = split_batch
return split_batch(p_ids, p_bodies)
$plpython$;
COMMENT ON FUNCTION _wa_split_webhooks(bigint[], bytea[]) IS
'As _wa_split_webhook for a batch: body n belongs to id n, which leads its rows.';

CREATE FUNCTION _wa_redact_webhooks(p_ids bigint[], p_bodies bytea[], p_who text[], p_own text[])
RETURNS TABLE (log_id bigint, body bytea, atoms jsonb)
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE
AS $plpython$
if "redact" in SD:
    return SD["redact"](p_ids, p_bodies, p_who, p_own)
@@include plpython/redact_webhook.py@@
SD["redact"] = redact_webhooks
return redact_webhooks(p_ids, p_bodies, p_who, p_own)
$plpython$;
COMMENT ON FUNCTION _wa_redact_webhooks(bigint[], bytea[], text[], text[]) IS
'Of bodies that say something of a person (digits of numbers, user ids) at the numbers and accounts in '
'p_own: the body without it, and what was taken out. Others have no row.';

CREATE FUNCTION _wa_read_form(p_body bytea) RETURNS jsonb
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE
AS $plpython$
if "read" in SD:
    return SD["read"](p_body)
@@include plpython/read_form.py@@
SD["read"] = read_form
return read_form(p_body)
$plpython$;
COMMENT ON FUNCTION _wa_read_form(bytea) IS
'The fields of a body in the form of a web form (application/x-www-form-urlencoded) as an object of texts; '
'NULL for what is none.';
