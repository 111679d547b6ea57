-- Who agreed to be written to, and who asked not to be: what is in force (wa_opt_outs), what was agreed to
-- (wa_opt_ins), and the record of both that nobody changes (wa_consent_events).

CREATE TABLE wa_opt_ins (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL DEFAULT 'marketing',
    source text NOT NULL,
    proof jsonb NOT NULL DEFAULT '{}',
    opted_in_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_opt_ins_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_ins_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_opt_ins_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
    )
);

CREATE INDEX wa_opt_ins_contact_idx ON wa_opt_ins (contact_id);

CREATE TABLE wa_opt_outs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL DEFAULT 'marketing',
    phone_number text,
    reason text,
    source text NOT NULL DEFAULT 'admin',
    opt_out_date timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz,
    revoked_source text,
    is_keyword boolean NOT NULL DEFAULT false,
    last_asked_at timestamptz,
    proof jsonb NOT NULL DEFAULT '{}',
    confirmation_id uuid,
    CONSTRAINT wa_opt_outs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_outs_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_opt_outs_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
    ),
    CONSTRAINT wa_opt_outs_proof_check CHECK (jsonb_typeof(proof) = 'object')
);

-- One that a word set stands beside one that somebody else did: START lifts the former alone.
CREATE UNIQUE INDEX wa_opt_outs_active_key
ON wa_opt_outs (contact_id, scope, is_keyword, organization_id) WHERE revoked_at IS NULL;

CREATE TABLE wa_consent_events (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    event text NOT NULL,
    scope text NOT NULL,
    source text NOT NULL,
    phone_number text,
    reason text,
    text_shown text,
    language text,
    wa_message_id text,
    proof jsonb NOT NULL DEFAULT '{}',
    actor text NOT NULL DEFAULT session_user,
    acting_user text,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_consent_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_consent_events_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_consent_events_event_check CHECK (
        event IN ('opt_out', 'opt_in', 'lifted', 'returned', 'requested')
    ),
    CONSTRAINT wa_consent_events_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
    )
);

CREATE INDEX wa_consent_events_contact_idx ON wa_consent_events (contact_id, occurred_at);

CREATE TABLE wa_opt_in_requests (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL,
    source text NOT NULL,
    proof jsonb NOT NULL DEFAULT '{}',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    CONSTRAINT wa_opt_in_requests_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_in_requests_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_opt_in_requests_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
    ),
    CONSTRAINT wa_opt_in_requests_proof_check CHECK (jsonb_typeof(proof) = 'object')
);

CREATE INDEX wa_opt_in_requests_open_idx ON wa_opt_in_requests (contact_id) WHERE confirmed_at IS NULL;

-- Words and texts come in two tables each: ours, which every release fills anew, and an organization's own.
CREATE TABLE wa_default_keywords (
    word_key text NOT NULL,
    word text NOT NULL,
    meaning text NOT NULL,
    scope text,
    language text,
    CONSTRAINT wa_default_keywords_pkey PRIMARY KEY (word_key),
    CONSTRAINT wa_default_keywords_meaning_check CHECK (meaning IN ('stop', 'cancel', 'start', 'confirm')),
    CONSTRAINT wa_default_keywords_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'all')
    )
);

CREATE TABLE wa_keywords (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    word_key text NOT NULL,
    word text NOT NULL,
    meaning text NOT NULL,
    scope text,
    language text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_keywords_pkey PRIMARY KEY (organization_id, word_key),
    CONSTRAINT wa_keywords_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_keywords_meaning_check CHECK (
        meaning IN ('stop', 'cancel', 'start', 'confirm', 'nothing')
    ),
    CONSTRAINT wa_keywords_scope_check CHECK (scope IN ('marketing', 'utility', 'authentication', 'all'))
);

CREATE TABLE wa_default_consent_texts (
    scope text NOT NULL,
    language text NOT NULL,
    body text NOT NULL,
    CONSTRAINT wa_default_consent_texts_pkey PRIMARY KEY (scope, language),
    CONSTRAINT wa_default_consent_texts_scope_check CHECK (scope IN ('marketing', 'all'))
);

CREATE TABLE wa_consent_texts (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    scope text NOT NULL,
    language text NOT NULL,
    body text NOT NULL,
    CONSTRAINT wa_consent_texts_pkey PRIMARY KEY (organization_id, scope, language),
    CONSTRAINT wa_consent_texts_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_consent_texts_scope_check CHECK (scope IN ('marketing', 'all')),
    CONSTRAINT wa_consent_texts_language_check CHECK (language ~ '^[a-z]{2,3}(_[A-Z]{2,3})?$'),
    CONSTRAINT wa_consent_texts_body_check CHECK (body ~ '[^[:space:]]' AND char_length(body) <= 1024)
);

COMMENT ON TABLE wa_opt_ins IS 'Proofs of consent, never changed.';
COMMENT ON COLUMN wa_opt_ins.scope IS 'marketing, utility, authentication: templates of it. all: everything.';
COMMENT ON COLUMN wa_opt_ins.proof IS
'What shows the consent: text (as it was shown), language, wa_message_id, and whatever else (form, version).';
COMMENT ON TABLE wa_opt_outs IS
'Requests not to be written to. A row without revoked_at is in force; rows are kept for good.';
COMMENT ON COLUMN wa_opt_outs.scope IS
'marketing: MARKETING templates. utility: UTILITY templates and free-form messages. authentication: its '
'templates. all: every message.';
COMMENT ON COLUMN wa_opt_outs.phone_number IS 'The number as it was given when the opt-out was recorded.';
COMMENT ON COLUMN wa_opt_outs.opt_out_date IS 'When it was asked for; of a message: when that was written.';
COMMENT ON COLUMN wa_opt_outs.is_keyword IS
'A word that was written or a button that was pressed set it: START lifts such ones alone.';
COMMENT ON COLUMN wa_opt_outs.last_asked_at IS 'When it was asked for again last, while it was in force.';
COMMENT ON COLUMN wa_opt_outs.proof IS 'text, language, wa_message_id of what was said, and whatever else.';
COMMENT ON COLUMN wa_opt_outs.confirmation_id IS
'The queued message that confirms it, which it does not stop: id of wa_outbound_queue.';
COMMENT ON TABLE wa_consent_events IS
'The record of consent: rows are added by whatever changes wa_opt_outs, wa_opt_ins or wa_opt_in_requests, '
'and '
'nobody but the owner of the table may change or delete one. Kept for good.';
COMMENT ON COLUMN wa_consent_events.event IS
'opt_out, opt_in; lifted: an opt-out ended; returned: START was written; requested: an opt-in was asked for.';
COMMENT ON COLUMN wa_consent_events.source IS
'keyword, button, user_preferences, provider (an error told it), admin, api, import, shared, merged, or a '
'name '
'that the caller gave.';
COMMENT ON COLUMN wa_consent_events.text_shown IS 'What was said, or shown to whom agreed.';
COMMENT ON COLUMN wa_consent_events.actor IS 'The database role.';
COMMENT ON COLUMN wa_consent_events.acting_user IS 'Whom that role named as the user (wa.acting_user).';
COMMENT ON COLUMN wa_consent_events.occurred_at IS
'When it was said or asked; recorded_at: when we learned of it.';
COMMENT ON TABLE wa_opt_in_requests IS
'Opt-ins that were asked for and count once the contact writes a word of confirmation in time.';
COMMENT ON TABLE wa_default_keywords IS
'Words that opt out and in, as a whole message. Those of wa_keywords come first. Filled anew by each '
'release.';
COMMENT ON COLUMN wa_default_keywords.word_key IS 'The word as _wa_word_key() compares it.';
COMMENT ON COLUMN wa_default_keywords.meaning IS
'stop: opts out, whatever it answers. cancel: opts out unless it answers a question. start: lifts what a '
'word '
'set. confirm: confirms an opt-in that was asked for.';
COMMENT ON COLUMN wa_default_keywords.scope IS 'Of stop and cancel; NULL: wa_organizations.stop_scopes.';
COMMENT ON COLUMN wa_default_keywords.language IS 'Of the confirmation; NULL: that of the organization.';
COMMENT ON TABLE wa_keywords IS
'Words of an organization beside wa_default_keywords: it sets word, and the rest follows.';
COMMENT ON COLUMN wa_keywords.meaning IS
'As in wa_default_keywords; nothing: the word means nothing here, whatever it means by default.';
COMMENT ON TABLE wa_default_consent_texts IS
'What confirms an opt-out, by language. Those of wa_consent_texts come first. Filled anew by each release.';
COMMENT ON TABLE wa_consent_texts IS 'An organization''s own texts that confirm an opt-out.';
COMMENT ON COLUMN wa_consent_texts.scope IS
'marketing: of an opt-out of marketing alone; all: of a wider one.';
