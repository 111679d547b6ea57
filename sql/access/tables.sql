-- Who may come in over HTTP: keys, what was asked with each, and requests that may be repeated.

CREATE TABLE wa_api_keys (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL,
    role_name name NOT NULL,
    scopes text [] NOT NULL,
    is_test boolean NOT NULL DEFAULT false,
    requests_per_minute integer,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    last_used_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT wa_api_keys_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_api_keys_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_api_keys_hash_check CHECK (octet_length(secret_hash) = 32),
    CONSTRAINT wa_api_keys_scopes_check CHECK (
        scopes <@ '{send,read,media,templates,metrics,admin}' AND cardinality(scopes) > 0
    ),
    CONSTRAINT wa_api_keys_rate_check CHECK (requests_per_minute > 0)
);

-- A request brings the key alone, and no organization.
CREATE INDEX wa_api_keys_hash_idx ON wa_api_keys (secret_hash);

-- Written with every request of a key that has a limit: narrow, and without an index beside its key.
CREATE TABLE wa_api_key_uses (
    organization_id uuid NOT NULL,
    key_id uuid NOT NULL,
    minute timestamptz NOT NULL,
    requests integer NOT NULL,
    CONSTRAINT wa_api_key_uses_pkey PRIMARY KEY (organization_id, key_id),
    CONSTRAINT wa_api_key_uses_key_fkey FOREIGN KEY (organization_id, key_id)
    REFERENCES wa_api_keys (organization_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE wa_idempotent_requests (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    caller text NOT NULL,
    idempotency_key text NOT NULL,
    body_hash bytea NOT NULL,
    result jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_idempotent_requests_pkey PRIMARY KEY (organization_id, caller, idempotency_key),
    CONSTRAINT wa_idempotent_requests_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX wa_idempotent_requests_created_at_idx ON wa_idempotent_requests (created_at);

COMMENT ON TABLE wa_api_keys IS
'Keys of the HTTP API. A request with a key runs as its role, in its organization.';
COMMENT ON COLUMN wa_api_keys.prefix IS 'How the key begins, by which a person knows it again.';
COMMENT ON COLUMN wa_api_keys.secret_hash IS 'SHA-256 of the whole key, which is told once and never stored.';
COMMENT ON COLUMN wa_api_keys.role_name IS
'The database role of its requests: their grants and row security are those of this role.';
COMMENT ON COLUMN wa_api_keys.scopes IS
'What it is for: send, read, media, templates, metrics, admin. The rights of the role hold beside it.';
COMMENT ON COLUMN wa_api_keys.is_test IS 'Reaches business numbers with is_test only.';
COMMENT ON COLUMN wa_api_keys.requests_per_minute IS
'So many requests a minute are answered; NULL: any number.';
COMMENT ON COLUMN wa_api_keys.last_used_at IS 'To the minute.';
COMMENT ON TABLE wa_api_key_uses IS 'Requests in the present minute, of keys with a limit.';
COMMENT ON TABLE wa_idempotent_requests IS
'Requests that came with an Idempotency-Key: a repetition finds what the first one did.';
COMMENT ON COLUMN wa_idempotent_requests.caller IS
'The key (or token) and the operation that it was used for.';
COMMENT ON COLUMN wa_idempotent_requests.body_hash IS
'SHA-256 of the body: another one under the same key is refused.';
COMMENT ON COLUMN wa_idempotent_requests.result IS
'What the first one did, by its ids; the answer is made from the rows as they are now.';
