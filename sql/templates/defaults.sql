-- Templates to begin with. They are drafts: `bin/wa templates submit` hands them to Meta's review. None has
-- the name of a template that the documents insert themselves (ORDER_CONFIRMATION): no two names differ in
-- case only.

CREATE OR REPLACE FUNCTION _wa_default_templates()
RETURNS TABLE (
    name text, category text, header_text text, body_text text, buttons jsonb, parameters text[],
    paths text[], examples text[]
)
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    VALUES
    (
        'job_scheduled', 'UTILITY', 'Appointment',
        'Hello {{1}}, your {{2}} is booked for {{3}} at {{4}}. Our technician will ring when on the way.',
        '[]'::jsonb,
        '{customer_name,job_type,job_date,job_time}'::text[],
        '{customer.name,job.type,job.date,job.time}'::text[],
        '{Ann,boiler inspection,12 March,10:30}'::text[]
    ),
    (
        'invoice_ready', 'UTILITY', 'Invoice',
        'Hello {{1}}, invoice {{2}} over {{3}} is ready. It is due on {{4}}; the button below opens it.',
        '[{"type": "URL", "text": "Open invoice", "url": "https://example.com/invoices/{{1}}"}]',
        '{customer_name,invoice_number,amount,due_date,invoice_path}',
        '{customer.name,invoice.number,invoice.amount,invoice.due_date,invoice.path}',
        '{Ann,A-1042,$120.00,31 March,a-1042}'
    ),
    (
        'payment_confirmed', 'UTILITY', NULL,
        'Thank you, {{1}}. We have received your payment of {{2}} for {{3}}. Please keep this message as '
        'your receipt.',
        '[]',
        '{customer_name,amount,payment_reference}',
        '{customer.name,payment.amount,payment.reference}',
        '{Ann,$120.00,invoice A-1042}'
    ),
    (
        'payment_reminder', 'UTILITY', 'Payment reminder',
        'Hello {{1}}, for your booking {{2}} a payment of {{3}} is still open. You can pay at {{4}} or with '
        'the button below.',
        '[{"type": "URL", "text": "Pay now", "url": "https://example.com/pay/{{1}}"}]',
        '{customer_name,booking_id,amount,payment_url,payment_path}',
        '{customer.name,booking.id,booking.amount_due,booking.payment_url,booking.payment_path}',
        '{Ann,B-77,$50.00,https://example.com/pay/b77,b77}'
    ),
    (
        'welcome', 'UTILITY', NULL,
        'Hello {{1}}, your account with {{2}} is ready. Write to us here whenever you need help.',
        '[]',
        '{customer_name,business_name}',
        '{customer.name,business.name}',
        '{Ann,Blue Garden}'
    ),
    (
        'order_confirmed', 'UTILITY', NULL,
        'Hello {{1}}, we have confirmed your order {{2}}. It contains: {{3}}. We will write again as soon as '
        'there is news.',
        '[]',
        '{customer_name,order_id,order_details}',
        '{customer.name,order.id,order.details}',
        '{Ann,A-1042,two cups}'
    ),
    (
        'event_reminder_24h', 'UTILITY', NULL,
        'Hello {{1}}, a reminder: {{2}} begins tomorrow at {{3}}. We look forward to seeing you.',
        '[]',
        '{attendee_name,event_name,event_time}',
        '{attendee.name,event.name,event.time}',
        '{Ann,the Spring Concert,19:00}'
    ),
    (
        'check_in_instructions', 'UTILITY', NULL,
        'Welcome to {{1}}. The QR code for your check-in is at {{2}} on this phone; please have it open when '
        'you reach the entrance.',
        '[]',
        '{event_name,qr_code_url}',
        '{event.name,attendee.qr_code_url}',
        '{the Spring Concert,https://example.com/qr/77}'
    ),
    (
        'event_update', 'UTILITY', NULL,
        'There is news about {{1}}, for which you have a ticket: {{2}}. Answer this message if you have '
        'questions.',
        '[]',
        '{event_name,update_message}',
        '{event.name,event.update_message}',
        '{the Spring Concert,it begins at 20:00}'
    ),
    -- Of the flows to begin with, flows/defaults.sql.
    (
        'payment_link', 'UTILITY', NULL,
        'Hello {{1}}, for {{2}} an amount of {{3}} is to be paid. You can pay at {{4}} whenever it suits '
        'you.',
        '[]',
        '{customer_name,description,amount,payment_url}',
        '{customer_name,description,amount_text,payment_link_url}',
        '{Ann,your reading,$50.00,https://example.com/pay/b77}'
    ),
    (
        'appointment_reminder', 'UTILITY', NULL,
        'Hello {{1}}, a reminder of your appointment: {{2}}, {{3}}. Please answer here if you cannot come.',
        '[]',
        '{customer_name,service,appointment_time}',
        '{customer_name,service,appointment_text}',
        '{Ann,boiler inspection,tomorrow at 10:30}'
    ),
    (
        'satisfaction_question', 'UTILITY', NULL,
        'Hello {{1}}, how satisfied were you with {{2}}? Please answer with a number from 1 (not at all) '
        'to 5 '
        '(very much).',
        '[]',
        '{customer_name,subject}',
        '{customer_name,subject}',
        '{Ann,order A-1042}'
    )
$$;

COMMENT ON FUNCTION _wa_default_templates() IS
'Internal: the texts that install_wa_default_templates() installs.';

-- Two calls at once: the unique key lets one of them insert, the other finds it there.
CREATE OR REPLACE FUNCTION install_wa_default_templates()
RETURNS TABLE (name text, language text, is_new boolean)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := current_wa_organization();
BEGIN
    RETURN QUERY
    WITH installed AS (
        INSERT INTO wa_templates AS t (
            organization_id, name, language, category, header_text, body_text, buttons, parameters,
            variable_mapping, created_by
        )
        SELECT v_org, d.name, 'en', d.category, d.header_text, d.body_text, d.buttons,
            (
                SELECT jsonb_agg(jsonb_build_object('name', p.name, 'type', 'text', 'example', p.example)
                    ORDER BY p.place)
                FROM unnest(d.parameters, d.examples) WITH ORDINALITY p (name, example, place)
            ),
            jsonb_object(d.parameters, d.paths), 'pg_whatsapp'
        FROM _wa_default_templates() d
        WHERE NOT EXISTS (
            SELECT FROM wa_templates o WHERE o.organization_id = v_org AND lower(o.name) = d.name
        )
        ON CONFLICT DO NOTHING
        RETURNING t.name
    )
    SELECT d.name, 'en', EXISTS (SELECT FROM installed i WHERE i.name = d.name)
    FROM _wa_default_templates() d;
END
$$;

COMMENT ON FUNCTION install_wa_default_templates() IS
'Adds the templates to begin with, as drafts in English: appointments, invoices, payments, welcome, orders, '
'events. One whose name you have already, in any language, is left as it is. Safe to repeat; a row for each, '
'is_new where it was added.';
