-- What an opt-out does to the queue.

-- In a trigger, so that a row written by hand has the same effect as the function.
CREATE OR REPLACE FUNCTION tg_wa_opt_outs__cancel_queued() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_cancel_due(o.organization_id, array_agg(o.contact_id), o.scope, 'the contact opted out')
    FROM added o
    WHERE o.revoked_at IS NULL
    GROUP BY o.organization_id, o.scope;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_outs__cancel_queued() IS
'Cancels what is queued to a contact and covered by the scope, in the transaction of the opt-out.';

CREATE OR REPLACE TRIGGER cancel_queued AFTER INSERT ON wa_opt_outs
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_outs__cancel_queued();
