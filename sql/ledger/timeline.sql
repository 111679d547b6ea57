-- The timeline is written by plain INSERT.

GRANT SELECT, INSERT ON timeline_entries TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON timeline_entries TO wa_admin;
