-- The errors that an application, a DBA or our own processes can meet, in groups: what each means and the way
-- out. docs/errors.md is made from it, Python's exceptions follow its groups.

CREATE OR REPLACE VIEW wa_sqlstates WITH (security_invoker = true) AS
SELECT e.sqlstate, e.error_group, e.cause, e.way_out
FROM (
    VALUES
    ('WA001', 'input', 'the recipient is neither a phone number nor a business-scoped user id',
        'Write + and the country code, or set wa_organizations.default_region for national forms.'),
    ('WA002', 'input', 'no such template, or not in this language',
        'SELECT name, language FROM wa_templates; bin/wa templates sync fetches what Meta has.'),
    ('WA003', 'input', 'too few values for the template',
        'Give one for each placeholder of wa_templates.body_placeholders.'),
    ('WA004', 'input', 'too many values for the template',
        'Give one for each placeholder of wa_templates.body_placeholders.'),
    ('WA005', 'input', 'values by names that the template does not declare',
        'Use the names in wa_templates.parameters, or a JSON array in the order of the placeholders.'),
    ('WA006', 'input', 'line breaks, tabs or more than four spaces in a template value',
        'Meta refuses them there; replace them before queueing.'),
    ('WA007', 'input', 'longer than the Cloud API allows', 'Shorten it; DETAIL names the limit.'),
    ('WA008', 'input', 'content that the Cloud API does not take',
        'Compare with the message type''s object in Meta''s reference.'),
    ('WA009', 'input', 'the message type is unknown or does not fit the columns',
        'Give text_body, or template_name, or type with content.'),
    ('WA010', 'input', 'no business number with that id',
        'SELECT phone_number_id FROM wa_phone_numbers; register_wa_phone_number() adds one.'),
    ('WA011', 'input', 'a queued message with times that nobody means',
        'scheduled_at and created_at are times, not infinity; expires_at lies after scheduled_at.'),
    ('WA020', 'input', 'a template whose structure is wrong',
        'The HINT shows the right form of the part that is named.'),
    ('WA021', 'input', 'a value of the template is not in the context',
        'Add it to the context, or point to it in wa_templates.variable_mapping.'),
    ('WA030', 'input', 'no broadcast list of that name', 'INSERT INTO wa_broadcast_lists (name) makes it.'),
    ('WA031', 'input', 'no such file, or its bytes are gone',
        'SELECT id, status, error FROM wa_media; expires_at says until when.'),
    ('WA032', 'input', 'a line of a rate card that is no rate',
        'DETAIL says what its columns must hold; nothing was loaded.'),
    ('22004', 'input', 'an argument that must have a value is NULL', 'Give it.'),
    ('22023', 'input', 'an argument makes no sense; from normalize_phone_e164(): not a phone number',
        'MESSAGE says which, HINT what it may be.'),
    ('23502', 'input', 'a column of a view that must have a value is NULL',
        'HINT lists the columns that are needed.'),
    ('23505', 'input', 'it is there already: a number of another organization, a second configuration',
        'HINT names the function that changes what is there.'),
    ('23514', 'input', 'a value that the column of a view does not take',
        'HINT lists those that are allowed.'),
    ('42704', 'input', 'no such database role', 'CREATE ROLE it first.'),
    ('42883', 'input', 'the function of a job is not there',
        'Install the pack that it belongs to, or disable the job.'),
    ('P0002', 'input', 'no queued message with that id', 'RETURNING id of the INSERT gives it.'),
    ('0A000', 'input', 'the provider is not supported by this release', 'HINT lists those that are.'),

    ('WA101', 'policy', 'more than 24 hours since the customer''s last message: only templates may be sent',
        'Use an approved template (template_name, template_params), or a fallback_template_name.'),
    ('WA102', 'policy', 'the contact asked not to be written to',
        'Leave the contact alone; opt_in_wa_contact() records a new consent.'),
    ('WA103', 'policy', 'the template is not approved, or paused',
        'SELECT name, language, status, blocked_reason FROM wa_templates; wait, or choose another one.'),

    ('WA201', 'state', 'the message is no longer pending',
        'Only pending ones can be changed; retry_wa_messages() queues ended ones again.'),
    ('WA202', 'state', 'this column of a queued row, or of a view, may not be changed',
        'Cancel the message and insert it anew; times, priority and status = ''cancelled'' may be changed.'),
    ('WA203', 'state', 'a state that a conversation may not take after the one it has',
        'HINT lists those that may follow.'),
    ('WA204', 'state', 'a business number whose messages wait or are being sent cannot be deleted',
        'Cancel what waits, let end what is being sent, then delete it.'),

    ('WA301', 'tenant', 'the role may work for several organizations and none is chosen',
        'SET wa.organization_id = ''<uuid>''; in a transaction SET LOCAL.'),
    ('WA302', 'tenant', 'not an organization of this role',
        'A wa_admin adds the role by add_wa_organization_role().'),
    ('WA303', 'tenant', 'wa.organization_id is not a UUID',
        'SET it to the id of an organization of yours, or RESET it.'),

    ('WA401', 'installation', 'this database is a copy or a standby of the one that sends',
        'bin/wa adopt, once the other one sends no more.'),
    ('WA402', 'installation', 'bin/wa and the schema are of different releases',
        'Install the same release of both; SELECT * FROM migrate_wa() upgrades the schema.'),
    ('25001', 'installation', 'a claim in another isolation level than read committed',
        'Leave default_transaction_isolation as it is for the dispatcher''s role.'),
    ('42710', 'installation', 'the schema has objects of the host with names that pg_whatsapp needs',
        'Rename or move them, or give the extension a schema of its own. Nothing was changed.'),
    ('55000', 'installation', 'schema, scripts and extension are of different versions',
        'HINT says which of ALTER EXTENSION pg_whatsapp UPDATE and migrate_wa() is missing.'),
    ('55P03', 'installation', 'another migrate_wa() is at work, or something holds a lock that it needs',
        'Call it again later; wa.lock_timeout says how long it waits.'),
    ('2BP01', 'installation', 'objects of the host depend on something that an upgrade changes',
        'Drop those that DETAIL names, call migrate_wa() again, make them again.'),

    ('WA501', 'rights', 'a window that may not be opened by hand',
        'Only on test numbers, or where wa_organizations.allow_manual_window is set.'),
    ('WA502', 'rights', 'a token that was not sealed by our key',
        'bin/wa secrets set takes it; the value is never an argument.'),
    ('WA503', 'rights', 'a webhook, in wa_webhook_errors: its signer may not speak for this number',
        'Store the secret of the number''s own app (bin/wa secrets set app_secret), or share_wa_app(); then '
        'replay_wa_webhooks().'),
    ('42501', 'rights', 'the role may not do this',
        'HINT names the group role, or the organization, that may.')
) AS e (sqlstate, error_group, cause, way_out);

COMMENT ON VIEW wa_sqlstates IS
'Every error that a function, trigger or view of ours raises by design, with its cause and the way out. '
'MESSAGE says what was wrong, DETAIL with which values, HINT what to do now.';
COMMENT ON COLUMN wa_sqlstates.error_group IS
'input: what was given. policy: WhatsApp''s rules forbid it. state: too late, or not in this state. tenant: '
'for whom. installation: which database, which release. rights: who may.';
