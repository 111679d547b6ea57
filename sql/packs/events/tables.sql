-- The events pack: an event business's own tables, for a host that has none. What the product needs of them
-- is little: who organises, when it starts and in which time zone, how attendees are reached. They keep the
-- keys that the host knows, a uuid each; the organizer is the organization, and no row points across two. An
-- id is an organization's own: whether another has it, nobody learns.

CREATE TABLE ai_events (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    organizer_id uuid NOT NULL DEFAULT current_wa_organization(),
    name text NOT NULL,
    start_date timestamptz NOT NULL,
    time_zone text NOT NULL,
    location text,
    status text NOT NULL DEFAULT 'published',
    reminders jsonb NOT NULL DEFAULT '{"7": "event_update", "1": "event_reminder_24h", "0": "event_update"}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ai_events_pkey PRIMARY KEY (id, organizer_id),
    CONSTRAINT ai_events_organizer_fkey FOREIGN KEY (organizer_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT ai_events_status_check CHECK (status IN ('draft', 'published', 'completed', 'cancelled')),
    CONSTRAINT ai_events_reminders_check CHECK (
        jsonb_typeof(reminders) = 'object' AND NOT jsonb_path_exists(
            reminders,
            '$.keyvalue() ? (!(@.key like_regex "^[0-9]{1,3}$") || @.value.type() != "string")'
        )
    )
);

CREATE TABLE orders (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    event_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'confirmed',
    created_at timestamptz NOT NULL DEFAULT now(),
    organizer_id uuid NOT NULL DEFAULT current_wa_organization(),
    CONSTRAINT orders_pkey PRIMARY KEY (id, organizer_id),
    CONSTRAINT orders_event_fkey FOREIGN KEY (organizer_id, event_id)
    REFERENCES ai_events (organizer_id, id) ON DELETE CASCADE,
    CONSTRAINT orders_status_check CHECK (status IN ('pending', 'confirmed', 'cancelled', 'refunded'))
);

CREATE INDEX orders_event_idx ON orders (event_id);

CREATE TABLE attendees (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    order_id uuid NOT NULL,
    attendee_info jsonb NOT NULL DEFAULT '{}',
    ticket_type text,
    created_at timestamptz NOT NULL DEFAULT now(),
    organizer_id uuid NOT NULL DEFAULT current_wa_organization(),
    CONSTRAINT attendees_pkey PRIMARY KEY (id, organizer_id),
    CONSTRAINT attendees_order_fkey FOREIGN KEY (organizer_id, order_id)
    REFERENCES orders (organizer_id, id) ON DELETE CASCADE,
    CONSTRAINT attendees_info_check CHECK (jsonb_typeof(attendee_info) = 'object')
);

CREATE INDEX attendees_order_idx ON attendees (order_id);

CREATE TABLE ai_tasks (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    event_id uuid NOT NULL,
    task_type text NOT NULL,
    status text DEFAULT 'pending',
    scheduled_for timestamptz NOT NULL,
    template_name text NOT NULL,
    recipient_filter jsonb,
    metadata jsonb DEFAULT '{}',
    created_at timestamptz DEFAULT now(),
    organizer_id uuid NOT NULL DEFAULT current_wa_organization(),
    CONSTRAINT ai_tasks_pkey PRIMARY KEY (id, organizer_id),
    CONSTRAINT ai_tasks_event_fkey FOREIGN KEY (organizer_id, event_id)
    REFERENCES ai_events (organizer_id, id) ON DELETE CASCADE,
    CONSTRAINT ai_tasks_type_check CHECK (task_type IN ('send_reminder', 'send_update', 'check_in_prep'))
);

CREATE INDEX ai_tasks_event_idx ON ai_tasks (event_id);
CREATE INDEX ai_tasks_due_idx ON ai_tasks (scheduled_for) WHERE status = 'pending';

-- As all tenant tables: by role membership; wa_admin sees all.
DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['ai_events', 'orders', 'attendees', 'ai_tasks'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (organizer_id = current_wa_organization())'
            ' WITH CHECK (organizer_id = current_wa_organization())', v_table
        );
        EXECUTE format('CREATE POLICY admin ON %I TO wa_admin USING (true) WITH CHECK (true)', v_table);
    END LOOP;
END
$$;

COMMENT ON TABLE ai_events IS
'Events. A published one has its reminders planned as rows of ai_tasks; to move or cancel it moves or '
'cancels them and what is queued.';
COMMENT ON COLUMN ai_events.organizer_id IS 'The organization that holds the event and sends its messages.';
COMMENT ON COLUMN ai_events.time_zone IS
'Zone of the place, for example America/New_York: reminders keep its calendar, messages its clock. Left out, '
'the organization''s.';
COMMENT ON COLUMN ai_events.status IS
'draft, published, completed or cancelled. Tasks of a draft are not executed; of a cancelled one only '
'updates are.';
COMMENT ON COLUMN ai_events.reminders IS
'Days before the event and the template of that reminder; 0 is the day itself. {} plans none.';
COMMENT ON TABLE orders IS 'Orders of tickets.';
COMMENT ON COLUMN orders.status IS
'pending, confirmed, cancelled or refunded; attendees of the last two get no messages.';
COMMENT ON COLUMN orders.organizer_id IS 'The organization of the event.';
COMMENT ON TABLE attendees IS 'Who comes, a row per ticket.';
COMMENT ON COLUMN attendees.attendee_info IS
'name, phone and whatever else the host keeps; its fields can fill variables of a template.';
COMMENT ON COLUMN attendees.organizer_id IS 'The organization of the event.';
COMMENT ON TABLE ai_tasks IS
'Messages to the attendees of an event, planned or made by hand. To set a pending one to executing queues '
'them; run_wa_event_tasks() does so when it is due.';
COMMENT ON COLUMN ai_tasks.status IS 'pending, executing, completed, failed or cancelled.';
COMMENT ON COLUMN ai_tasks.recipient_filter IS
'Only attendees whose attendee_info and ticket_type contain this, for example {"ticket_type": "VIP"}.';
COMMENT ON COLUMN ai_tasks.metadata IS
'Its fields can fill variables of the template, for example update_message. The outcome is written to '
'result: how many were queued, refused or left out, and why; to reason: why it was cancelled.';
COMMENT ON COLUMN ai_tasks.organizer_id IS 'The organization of the event.';
