-- Tenants, who belongs to which, and the identity of the database that may send.

-- Of the indexes of a table that grows or empties, here and in the other files, only the primary key starts
-- with the organization. Plans are made when such tables are small, all indexes that match look alike, and
-- one that matches by the organization alone would be walked from end to end once the table has grown.

CREATE TABLE wa_organizations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    default_region text,
    default_area_code text,
    default_number_id bigint,
    rate_limit_per_minute integer DEFAULT 50,
    window_margin interval NOT NULL DEFAULT interval '60 seconds',
    allow_manual_window boolean NOT NULL DEFAULT false,
    on_refusal text NOT NULL DEFAULT 'raise',
    on_unknown text NOT NULL DEFAULT 'fail',
    unknown_grace interval NOT NULL DEFAULT interval '15 minutes',
    unknown_grace_silent interval NOT NULL DEFAULT interval '24 hours',
    order_mode text NOT NULL DEFAULT 'accepted',
    order_wait interval NOT NULL DEFAULT interval '30 seconds',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    message_retention interval DEFAULT interval '1 year',
    audit_retention interval,
    default_language text,
    time_zone text NOT NULL DEFAULT 'UTC',
    event_delivery_retention interval DEFAULT interval '7 days',
    public_url text,
    media_store text,
    media_location text,
    media_quota bigint,
    media_contact_quota bigint DEFAULT 1073741824,
    text_retention interval DEFAULT interval '90 days',
    media_retention interval DEFAULT interval '90 days',
    retention_previewed_at timestamptz DEFAULT '-infinity',
    unknown_users text NOT NULL DEFAULT 'allow',
    stop_scopes text [] NOT NULL DEFAULT '{marketing,utility}',
    confirms_opt_outs boolean NOT NULL DEFAULT true,
    require_opt_in text [] NOT NULL DEFAULT '{}',
    archive_location text,
    sms_fallback boolean NOT NULL DEFAULT false,
    sms_authentication_after interval,
    sms_requires_opt_in boolean NOT NULL DEFAULT true,
    sends_templates boolean NOT NULL DEFAULT true,
    CONSTRAINT wa_organizations_pkey PRIMARY KEY (id),
    CONSTRAINT wa_organizations_region_check CHECK (default_region ~ '^[A-Z]{2}$'),
    CONSTRAINT wa_organizations_rate_check CHECK (rate_limit_per_minute > 0),
    CONSTRAINT wa_organizations_margin_check CHECK (
        window_margin >= interval '0' AND window_margin < interval '24 hours'
    ),
    CONSTRAINT wa_organizations_archive_location_check CHECK (
        archive_location ~ '^(/.*[^/]|s3://[a-z0-9.-]{3,63}(/.*[^/])?)$'
    ),
    CONSTRAINT wa_organizations_unknown_users_check CHECK (unknown_users IN ('allow', 'refuse')),
    CONSTRAINT wa_organizations_refusal_check CHECK (on_refusal IN ('raise', 'record')),
    CONSTRAINT wa_organizations_unknown_check CHECK (on_unknown IN ('fail', 'retry')),
    CONSTRAINT wa_organizations_order_check CHECK (order_mode IN ('accepted', 'delivered')),
    CONSTRAINT wa_organizations_order_wait_check CHECK (
        order_wait >= interval '0' AND order_wait <= interval '1 day'
    ),
    CONSTRAINT wa_organizations_grace_check CHECK (
        unknown_grace >= interval '0' AND unknown_grace <= interval '30 days'
        AND unknown_grace_silent >= interval '0' AND unknown_grace_silent <= interval '30 days'
    ),
    CONSTRAINT wa_organizations_message_retention_check CHECK (message_retention >= interval '2 days'),
    CONSTRAINT wa_organizations_audit_retention_check CHECK (audit_retention >= interval '1 day'),
    CONSTRAINT wa_organizations_text_retention_check CHECK (text_retention >= interval '2 days'),
    CONSTRAINT wa_organizations_media_retention_check CHECK (media_retention >= interval '2 days'),
    CONSTRAINT wa_organizations_language_check CHECK (default_language ~ '^[a-z]{2,3}(_[A-Z]{2,3})?$'),
    CONSTRAINT wa_organizations_time_zone_check CHECK (
        time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
    ),
    CONSTRAINT wa_organizations_event_delivery_retention_check CHECK (
        event_delivery_retention >= interval '1 hour'
    ),
    CONSTRAINT wa_organizations_public_url_check CHECK (
        public_url ~ '^https?://[^/?#[:space:]]+(/[^?#[:space:]]*[^/?#[:space:]])?$'
    ),
    CONSTRAINT wa_organizations_media_store_check CHECK (
        CASE media_store
            WHEN 'directory' THEN coalesce(media_location ~ '^/.*[^/]$', false)
            WHEN 's3' THEN coalesce(media_location ~ '^s3://[a-z0-9.-]{3,63}(/.*[^/])?$', false)
            ELSE media_location IS NULL AND coalesce(media_store = 'database', true)
        END
    ),
    CONSTRAINT wa_organizations_media_quota_check CHECK (media_quota >= 0 AND media_contact_quota >= 0),
    CONSTRAINT wa_organizations_stop_scopes_check CHECK (
        stop_scopes <@ '{marketing,utility,authentication,all}' AND cardinality(stop_scopes) > 0
    ),
    CONSTRAINT wa_organizations_opt_in_check CHECK (require_opt_in <@ '{marketing,utility,authentication}'),
    CONSTRAINT wa_organizations_sms_check CHECK (
        sms_authentication_after >= interval '5 seconds' AND sms_authentication_after <= interval '10 minutes'
    )
);

CREATE UNIQUE INDEX wa_organizations_default_key ON wa_organizations (is_default) WHERE is_default;

CREATE TABLE wa_organization_roles (
    organization_id uuid NOT NULL,
    role_name name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_organization_roles_pkey PRIMARY KEY (organization_id, role_name),
    CONSTRAINT wa_organization_roles_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

-- Its list of rights remembers roles themselves, not their names, and a role with rights cannot be dropped
-- unnoticed: whoever takes the name of one that is gone is not in it.
CREATE DOMAIN _wa_bound_role AS name;
REVOKE ALL ON DOMAIN _wa_bound_role FROM PUBLIC;

CREATE TABLE wa_installations (
    is_current boolean NOT NULL DEFAULT true,
    system_identifier text NOT NULL,
    database_oid oid NOT NULL,
    timeline_id integer NOT NULL,
    data_directory_mark text NOT NULL,
    adopted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    adopted_by text NOT NULL DEFAULT session_user,
    is_sending_enabled boolean NOT NULL DEFAULT true,
    sending_note text,
    webhook_log_retention interval DEFAULT interval '90 days',
    outside_networks cidr[] NOT NULL DEFAULT '{}',
    outside_plain_http boolean NOT NULL DEFAULT false,
    public_url text,
    media_store text NOT NULL DEFAULT 'database',
    media_location text,
    CONSTRAINT wa_installations_pkey PRIMARY KEY (is_current),
    CONSTRAINT wa_installations_current_check CHECK (is_current),
    CONSTRAINT wa_installations_webhook_log_retention_check CHECK (webhook_log_retention >= interval '1 day'),
    CONSTRAINT wa_installations_public_url_check CHECK (
        public_url ~ '^https?://[^/?#[:space:]]+(/[^?#[:space:]]*[^/?#[:space:]])?$'
    ),
    CONSTRAINT wa_installations_media_store_check CHECK (
        CASE media_store
            WHEN 'directory' THEN coalesce(media_location ~ '^/.*[^/]$', false)
            WHEN 's3' THEN coalesce(media_location ~ '^s3://[a-z0-9.-]{3,63}(/.*[^/])?$', false)
            ELSE media_location IS NULL AND media_store = 'database'
        END
    )
);

COMMENT ON COLUMN wa_organizations.unknown_users IS
'allow or refuse: requests over HTTP that name a user who is none of wa_users. Nobody is unknown while '
'there are no users.';
COMMENT ON TABLE wa_organizations IS
'A tenant and its settings. A single-tenant database has one row, the default, and never mentions it.';
COMMENT ON COLUMN wa_organizations.is_default IS
'The organization that needs no setting while it is the only one.';
COMMENT ON COLUMN wa_organizations.default_region IS
'ISO country whose national phone number forms are understood, for example AR.';
COMMENT ON COLUMN wa_organizations.default_area_code IS
'Area code assumed for local forms that leave it out, for example 11 for Buenos Aires.';
COMMENT ON COLUMN wa_organizations.default_number_id IS
'Business number that sends when a row names none and the contact has no conversation yet.';
COMMENT ON COLUMN wa_organizations.rate_limit_per_minute IS
'Messages that may be claimed in any sliding 60 seconds; NULL means no limit. Authentication templates and '
'free-form replies are not counted.';
COMMENT ON COLUMN wa_organizations.window_margin IS
'How long before its end the 24-hour window counts as closed for sending.';
COMMENT ON COLUMN wa_organizations.allow_manual_window IS
'Whether update_wa_conversation() may open a window by hand on numbers that are not test numbers.';
COMMENT ON COLUMN wa_organizations.on_refusal IS
'raise: a refused row rolls its statement back. record: it is stored as failed with its reason, as is one '
'whose template is unknown or does not fit its values. A bad phone, content or type raises in any case.';
COMMENT ON COLUMN wa_organizations.on_unknown IS
'What becomes of a message whose outcome stays unknown: fail, or retry (may arrive twice).';
COMMENT ON COLUMN wa_organizations.unknown_grace IS
'How long to wait for a status webhook that settles an unknown outcome while the number''s webhooks arrive.';
COMMENT ON COLUMN wa_organizations.unknown_grace_silent IS
'The same wait while no webhook of the number arrives at all.';
COMMENT ON COLUMN wa_organizations.order_mode IS
'accepted: the next message to a recipient goes once the previous was accepted. delivered: once it was '
'delivered, or after order_wait.';
COMMENT ON COLUMN wa_organizations.order_wait IS
'Longest time that order_mode = ''delivered'' waits for the previous message.';
COMMENT ON COLUMN wa_organizations.message_retention IS
'How long messages, their statuses, events and finished queue rows are kept, once jobs are scheduled, '
'without their texts from text_retention on; NULL keeps them for good.';
COMMENT ON COLUMN wa_organizations.text_retention IS
'How long what was said is kept: texts, values and raw webhooks go, kinds, states and times stay for '
'message_retention; NULL keeps it as long as the message.';
COMMENT ON COLUMN wa_organizations.media_retention IS
'How long files are kept; NULL keeps them as long as messages.';
COMMENT ON COLUMN wa_organizations.retention_previewed_at IS
'When the first run for texts and files only counted: it deletes from a day later on. NULL: the next run '
'counts.';
COMMENT ON COLUMN wa_organizations.audit_retention IS
'The same for audit_log and wa_account_events; NULL, the default, keeps them for good.';
COMMENT ON COLUMN wa_organizations.default_language IS
'Language of a template that is taken where the one asked for does not exist, for example en or pt_BR; NULL: '
'none is.';
COMMENT ON COLUMN wa_organizations.time_zone IS
'IANA name of the zone in which days are cut, for example Asia/Kathmandu.';
COMMENT ON COLUMN wa_organizations.event_delivery_retention IS
'How long wa_event_deliveries keeps what was pushed or given up, once jobs are scheduled; NULL keeps it for '
'good.';
COMMENT ON COLUMN wa_organizations.public_url IS
'Where customers and browsers reach `bin/wa serve`, for example https://chat.shop.example; links to files '
'begin with it. NULL: that of wa_installations.';
COMMENT ON COLUMN wa_organizations.archive_location IS
'A directory, or s3://BUCKET/PREFIX, in which bin/wa archive keeps messages, their statuses and queue rows: '
'retention then takes none of them before it is there. NULL: nothing is archived, and retention waits for '
'nothing.';
COMMENT ON COLUMN wa_organizations.media_store IS
'Where files are stored from now on: database, directory or s3; NULL: as wa_installations says.';
COMMENT ON COLUMN wa_organizations.media_location IS
'The directory, or s3://BUCKET/PREFIX, of media_store. Every process that reads or writes files has to '
'reach it.';
COMMENT ON COLUMN wa_organizations.media_quota IS
'How many bytes of files are kept; what comes in beyond them waits for fetch_wa_media(). NULL: any number.';
COMMENT ON COLUMN wa_organizations.media_contact_quota IS
'How many bytes are fetched of what one contact sends within 24 hours; NULL: any number, 0: nothing by '
'itself.';
COMMENT ON COLUMN wa_organizations.stop_scopes IS
'What STOP and its like opt out of: marketing, utility, authentication, or all.';
COMMENT ON COLUMN wa_organizations.confirms_opt_outs IS
'Whether a message confirms an opt-out by a word or a button: wa_consent_texts.';
COMMENT ON COLUMN wa_organizations.require_opt_in IS
'Categories whose templates go only to who has opted in to them: marketing, utility, authentication.';
COMMENT ON COLUMN wa_organizations.sms_fallback IS
'Whether a message with sms_fallback_text goes as SMS where WhatsApp failed to deliver it.';
COMMENT ON COLUMN wa_organizations.sms_authentication_after IS
'An authentication that was not delivered by then goes as SMS, too; it may arrive twice. NULL: never.';
COMMENT ON COLUMN wa_organizations.sms_requires_opt_in IS
'Whether SMS go only to who has opted in to them: opt_in_wa_contact() with scope sms.';
COMMENT ON COLUMN wa_organizations.sends_templates IS
'Whether templates are sent at all; those that are due are refused where not (template_unavailable).';
COMMENT ON TABLE wa_organization_roles IS
'Which database roles belong to which organization; row security goes by membership in these roles.';
COMMENT ON DOMAIN _wa_bound_role IS
'Internal: USAGE of it marks the roles that wa_organization_roles means.';
COMMENT ON TABLE wa_installations IS
'The one database that may send, by system identifier, database, timeline and the files it lives in; a copy '
'differs and sends nothing until adopt_wa_database().';
COMMENT ON COLUMN wa_installations.data_directory_mark IS
'Inode numbers of the data directory: a file copy has others, a disk snapshot has the same.';
COMMENT ON COLUMN wa_installations.is_sending_enabled IS
'The kill switch: false stops every claim of every organization.';
COMMENT ON COLUMN wa_installations.sending_note IS 'Who threw the kill switch and why.';
COMMENT ON COLUMN wa_installations.webhook_log_retention IS
'How long raw webhooks are kept, once jobs are scheduled, though never longer than any organization keeps '
'its messages; NULL sets no limit of its own.';
COMMENT ON COLUMN wa_installations.outside_networks IS
'Networks that are not of the internet (10.0.0.0/8, …) to which URLs that tenants set may lead all the same.';
COMMENT ON COLUMN wa_installations.outside_plain_http IS
'Whether URLs that tenants set may be http instead of https.';
COMMENT ON COLUMN wa_installations.public_url IS
'Where customers and browsers reach `bin/wa serve`, for organizations that have no public_url of their own.';
COMMENT ON COLUMN wa_installations.media_store IS
'Where files are stored from now on, for organizations that say nothing else: database, directory or s3.';
COMMENT ON COLUMN wa_installations.media_location IS
'The directory, or s3://BUCKET/PREFIX, of media_store.';
