-- The timeline: what happened around a lead, booking, trip or any other object of the host.

CREATE TABLE timeline_entries (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_type text NOT NULL,
    source text NOT NULL DEFAULT 'SYSTEM',
    entity_type text,
    entity_id text,
    actor text NOT NULL DEFAULT session_user,
    actor_role text,
    content jsonb NOT NULL DEFAULT '{}',
    conversation_id bigint,
    message_id bigint,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT timeline_entries_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT timeline_entries_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    -- Queries compare with capitals; an entry in small letters would silently not be counted.
    CONSTRAINT timeline_entries_type_check CHECK (event_type <> '' AND event_type = upper(event_type)),
    CONSTRAINT timeline_entries_source_check CHECK (source <> '' AND source = upper(source)),
    CONSTRAINT timeline_entries_entity_check CHECK ((entity_type IS NULL) = (entity_id IS NULL)),
    CONSTRAINT timeline_entries_content_check CHECK (jsonb_typeof(content) = 'object')
);

CREATE INDEX timeline_entries_entity_idx ON timeline_entries (entity_type, entity_id, occurred_at);
CREATE INDEX timeline_entries_action_idx ON timeline_entries ((content ->> 'action'), event_type, source);

COMMENT ON TABLE timeline_entries IS
'What happened around an object of the host, in order; applications add entries and change none.';
COMMENT ON COLUMN timeline_entries.event_type IS 'SYSTEM, MESSAGE, INCIDENT or any other word in capitals.';
COMMENT ON COLUMN timeline_entries.source IS 'Where it came from: WHATSAPP, WEB, SYSTEM …, in capitals.';
COMMENT ON COLUMN timeline_entries.entity_type IS 'Kind of the object, for example lead, booking, trip.';
COMMENT ON COLUMN timeline_entries.entity_id IS 'The host''s own id of the object.';
COMMENT ON COLUMN timeline_entries.actor_role IS 'What the actor is: customer, sales, operations ….';
COMMENT ON COLUMN timeline_entries.content IS
'The entry itself; "action" says in a word what was done, for example LEAD_CREATED.';
COMMENT ON COLUMN timeline_entries.conversation_id IS 'Id in wa_conversations, if it came out of one.';
COMMENT ON COLUMN timeline_entries.message_id IS 'Id in wa_messages, if a message caused it.';
