-- What the database cannot say of itself in SQL: which files it lives in.

CREATE FUNCTION _wa_data_directory_mark() RETURNS text
LANGUAGE plpython3u STABLE PARALLEL SAFE
AS $plpython$
if "mark" in SD:
    return SD["mark"]()
@@include plpython/data_directory_mark.py@@
SD["mark"] = data_directory_mark
return data_directory_mark()
$plpython$;
COMMENT ON FUNCTION _wa_data_directory_mark() IS
'Internal: differs between a data directory and a copy of its files.';
