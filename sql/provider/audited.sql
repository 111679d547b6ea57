-- What an operator changes of the rules stands in the audit log. After the files of the providers, so that
-- the rows that come with a release do not.

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_error_rules
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('provider code subcode');
