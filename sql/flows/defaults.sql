-- Flows to begin with, as data: each is what store_wa_flow() takes. They are drafts, with their templates
-- as drafts (templates/defaults.sql): whoever wants one has its templates approved and activates it.

CREATE OR REPLACE FUNCTION _wa_default_flows() RETURNS SETOF jsonb
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    VALUES
    ('{
        "name": "payment_link",
        "description": "A payment link, and reminders until it is paid.",
        "key": "order_id",
        "interrupts": {"payment": "thanks", "event:order_cancelled": "end"},
        "steps": [
            {"name": "link", "type": "send",
                "text_body": "Hello {{customer_name|there}}, for {{description|your order}} {{amount_text}} is to be paid. You can pay here: {{payment_link_url}}",
                "template_name": "payment_link",
                "template_params": ["{{customer_name|there}}", "{{description|your order}}", "{{amount_text}}", "{{payment_link_url}}"]},
            {"name": "link_sent", "type": "wait", "interval": "24 hours"},
            {"name": "reminder", "type": "send", "next": "reminded",
                "text_body": "Hello {{customer_name|there}}, a reminder: {{amount_text}} for {{description|your order}} is still open: {{payment_link_url}}",
                "template_name": "payment_link",
                "template_params": ["{{customer_name|there}}", "{{description|your order}}", "{{amount_text}}", "{{payment_link_url}}"]},
            {"name": "reminded", "type": "wait", "interval": "48 hours"},
            {"name": "last_reminder", "type": "send",
                "text_body": "Hello {{customer_name|there}}, the link for {{description|your order}} still waits for you: {{payment_link_url}}. Answer here if you have a question.",
                "template_name": "payment_link",
                "template_params": ["{{customer_name|there}}", "{{description|your order}}", "{{amount_text}}", "{{payment_link_url}}"]},
            {"name": "last_wait", "type": "wait", "interval": "72 hours"},
            {"name": "unpaid", "type": "end", "outcome": "unpaid"},
            {"name": "thanks", "type": "send", "next": "paid", "on_refused": "paid",
                "text_body": "Thank you, {{customer_name|and good day}}. We have received your payment of {{amount_text}} for {{description|your order}}.",
                "template_name": "payment_confirmed",
                "template_params": ["{{customer_name|there}}", "{{amount_text}}", "{{description|your order}}"]},
            {"name": "paid", "type": "end", "outcome": "paid"}
        ]
    }'::jsonb),
    ('{
        "name": "appointment_reminder",
        "description": "Reminds of an appointment a day and two hours before.",
        "key": "appointment_id",
        "interrupts": {"event:appointment_cancelled": "end"},
        "steps": [
            {"name": "day_before", "type": "wait", "until": "{{appointment_at}}", "offset": "-24 hours", "on_past": "two_hours_before"},
            {"name": "first", "type": "send",
                "template_name": "appointment_reminder", "expires_after": "20 hours", "on_refused": "two_hours_before",
                "template_params": ["{{customer_name|there}}", "{{service|your appointment}}", "{{appointment_text}}"]},
            {"name": "two_hours_before", "type": "wait", "until": "{{appointment_at}}", "offset": "-2 hours", "on_past": "end"},
            {"name": "second", "type": "send",
                "template_name": "appointment_reminder", "expires_after": "2 hours",
                "template_params": ["{{customer_name|there}}", "{{service|your appointment}}", "{{appointment_text}}"]}
        ]
    }'),
    ('{
        "name": "welcome",
        "description": "Greets whoever writes for the first time.",
        "trigger": {"message": "first"},
        "steps": [
            {"name": "greet", "type": "send", "on_refused": "end",
                "text_body": "Hello {{contact.name|and welcome}}, thank you for writing. We answer as soon as we can.",
                "template_name": "welcome", "template_params": ["{{contact.name|there}}", "{{business_name|us}}"]}
        ]
    }'),
    ('{
        "name": "re_engagement",
        "description": "Asks once more, an hour before the window closes, whoever has left our answer unanswered.",
        "category": "marketing",
        "trigger": {"message": "any"},
        "limits": {"visits": 500, "age": "30 days"},
        "steps": [
            {"name": "watch", "type": "wait", "until": "{{conversation.closes_at}}", "offset": "-1 hour", "on_past": "look", "next": "watch"},
            {"name": "look", "type": "branch", "else": "end", "cases": [
                {"when": {"all": [{"path": "conversation.is_open", "is": true}, {"path": "conversation.is_answered", "is": true}]}, "goto": "ask"}
            ]},
            {"name": "ask", "type": "send", "on_refused": "end",
                "text_body": "Hello {{contact.name|again}}, may we still help you with something? You can answer here at any time."}
        ]
    }'),
    ('{
        "name": "order_confirmation",
        "description": "Confirms an order.",
        "key": "order_id",
        "trigger": {"event": "order_placed"},
        "steps": [
            {"name": "confirm", "type": "send",
                "text_body": "Hello {{customer_name|there}}, we have confirmed your order {{order_id}}: {{order_details}}.",
                "template_name": "order_confirmed",
                "template_params": ["{{customer_name|there}}", "{{order_id}}", "{{order_details}}"]}
        ]
    }'),
    ('{
        "name": "satisfaction_question",
        "description": "Asks for a mark from 1 to 5, and answers it.",
        "steps": [
            {"name": "ask", "type": "send",
                "text_body": "Hello {{customer_name|there}}, how satisfied were you with {{subject|us}}? Please answer with a number from 1 (not at all) to 5 (very much).",
                "template_name": "satisfaction_question",
                "template_params": ["{{customer_name|there}}", "{{subject|us}}"]},
            {"name": "answer", "type": "wait", "for": "reply", "timeout": "48 hours", "on_timeout": "no_answer"},
            {"name": "mark", "type": "branch", "else": "other", "cases": [
                {"when": {"path": "reply.text", "at_least": 4}, "goto": "thanks"},
                {"when": {"path": "reply.text", "at_most": 3}, "goto": "sorry"}
            ]},
            {"name": "thanks", "type": "send", "text_body": "Thank you, we are glad to hear that.", "next": "satisfied"},
            {"name": "sorry", "type": "send", "text_body": "Thank you for being open. Please tell us what we can do better.", "next": "dissatisfied"},
            {"name": "satisfied", "type": "end", "outcome": "satisfied"},
            {"name": "dissatisfied", "type": "end", "outcome": "dissatisfied"},
            {"name": "other", "type": "end", "outcome": "other"},
            {"name": "no_answer", "type": "end", "outcome": "no answer"}
        ]
    }')
$$;

COMMENT ON FUNCTION _wa_default_flows() IS
'Internal: the definitions that install_wa_default_flows() installs.';

CREATE OR REPLACE FUNCTION install_wa_default_flows()
RETURNS TABLE (name text, version integer, state text, is_new boolean)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_flow jsonb;
    v_row wa_flow_definitions;
BEGIN
    PERFORM FROM install_wa_default_templates();
    FOR v_flow IN SELECT f FROM _wa_default_flows() f LOOP
        SELECT d.* INTO v_row FROM wa_flow_definitions d
        WHERE d.organization_id = current_wa_organization() AND d.name = v_flow ->> 'name'
        ORDER BY d.version DESC LIMIT 1;
        is_new := NOT FOUND;
        IF is_new THEN
            v_row := store_wa_flow(v_flow, false);
        END IF;
        name := v_row.name;
        version := v_row.version;
        state := v_row.state;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION install_wa_default_flows() IS
'Adds the flows to begin with, as drafts, and their templates, as drafts: payment link with reminders, '
'appointment reminder, welcome, re-engagement, order confirmation, satisfaction question. A name that you '
'have already is left as it is. activate_wa_flow() starts using one, once Meta has approved its templates.';
