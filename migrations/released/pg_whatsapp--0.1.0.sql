\echo Use "CREATE EXTENSION pg_whatsapp CASCADE" to load this file. \quit
-- pg_whatsapp 0.1.0, assembled by the build

-- sql/extension/roles.sql
-- The five group roles. Grants go to these, people and services become members. Roles belong to the whole
-- server: another database may have made them, so an existing one is left exactly as it is.
DO $roles$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['wa_admin', 'wa_app', 'wa_dispatcher', 'wa_receiver', 'wa_analyst'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION
                -- Two databases of one server may install at the same time.
                WHEN duplicate_object OR unique_violation THEN
                    NULL;
            END;
        END IF;
    END LOOP;
END;
$roles$;

-- sql/extension/migrate.sql
-- The schema runner. The build stores sql/schema, sql/api and migrations/ as rows of _wa_scripts; the
-- functions below turn them into ordinary tables, views and functions of whoever calls migrate_wa().

CREATE FUNCTION plan_wa_migration()
RETURNS TABLE (step text, action text, body text, checksum text, objects text [])
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
AS $plan$
#variable_conflict use_column
DECLARE
    v_schema  name := current_schema();
    v_target  text := (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_whatsapp');
    v_current text;
    v_next    text;
    v_changed text;
    v_taken   text;
    v_known   text [] := ARRAY[]::text [];
BEGIN
    IF to_regclass(format('%I.wa_migrations', v_schema)) IS NOT NULL THEN
        SELECT version INTO v_current
        FROM wa_migrations
        ORDER BY string_to_array(version, '.')::int [] DESC
        LIMIT 1;
        v_known := ARRAY(SELECT DISTINCT unnest(objects) FROM wa_migrations);
    END IF;

    IF string_to_array(v_current, '.')::int [] > string_to_array(v_target, '.')::int [] THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('schema version %s is newer than the extension''s %s', v_current, v_target),
            HINT = 'Install the newer files, then ALTER EXTENSION pg_whatsapp UPDATE.';
    END IF;

    -- CREATE OR REPLACE would silently take over an object of the host that has one of our names.
    SELECT string_agg(format('%s %s', o.kind, quote_ident(o.name)), ', ' ORDER BY o.kind DESC, o.name)
    INTO v_taken
    FROM (
        SELECT DISTINCT split_part(x.object, ' ', 1) AS kind, split_part(x.object, ' ', 2) AS name
        FROM _wa_scripts AS s
        CROSS JOIN LATERAL unnest(s.objects) AS x (object)
        WHERE s.kind IN ('schema', 'api') AND x.object <> ALL (v_known)
    ) AS o
    WHERE CASE o.kind
        WHEN 'relation' THEN to_regclass(format('%I.%I', v_schema, o.name)) IS NOT NULL
        WHEN 'type' THEN to_regtype(format('%I.%I', v_schema, o.name)) IS NOT NULL
        ELSE EXISTS (
            SELECT FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = quote_ident(v_schema)::regnamespace
                AND p.proname = o.name
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_depend AS d
                    INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
                    WHERE e.extname = 'pg_whatsapp'
                        AND d.classid = 'pg_catalog.pg_proc'::regclass
                        AND d.objid = p.oid
                        AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                        AND d.deptype = 'e'
                )
        )
    END;
    IF v_taken IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_object',
            MESSAGE = format('schema %I already has objects with names that pg_whatsapp needs', v_schema),
            DETAIL = format('Already there: %s.', v_taken),
            HINT = 'Rename or move them, or give the extension a schema of its own. Nothing was changed.';
    END IF;

    IF v_current IS NULL THEN
        RETURN QUERY
        SELECT s.name, 'create', s.body, s.checksum, s.objects
        FROM _wa_scripts AS s
        WHERE s.kind IN ('schema', 'api')
        ORDER BY s.position;
        RETURN;
    END IF;

    IF v_current = v_target THEN
        SELECT string_agg(coalesce(s.name, m.step), ', ')
        INTO v_changed
        FROM (SELECT * FROM _wa_scripts WHERE kind = 'schema') AS s
        FULL JOIN (SELECT * FROM wa_migrations WHERE version = v_target AND step LIKE 'schema/%') AS m
            ON m.step = s.name
        WHERE s.checksum IS DISTINCT FROM m.checksum;
        IF v_changed IS NOT NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('the tables of version %s were not made by this build''s scripts', v_target),
                DETAIL = format('Different: %s.', v_changed),
                HINT = 'Released schema scripts never change: raise the version, write migrations/A--B.sql. '
                    'While developing, start from an empty schema.';
        END IF;
        RETURN QUERY
        SELECT
            s.name, CASE WHEN s.kind = 'api' AND c.is_changed THEN 'replace' ELSE 'unchanged' END,
            s.body, s.checksum, s.objects
        FROM _wa_scripts AS s
        CROSS JOIN (
            SELECT EXISTS (
                SELECT
                FROM _wa_scripts AS a
                LEFT JOIN wa_migrations AS m ON m.version = v_target AND m.step = a.name
                WHERE a.kind = 'api' AND a.checksum IS DISTINCT FROM m.checksum
            ) AS is_changed
        ) AS c
        WHERE s.kind IN ('schema', 'api')
        ORDER BY s.position;
        RETURN;
    END IF;

    WHILE v_current <> v_target LOOP
        SELECT
            s.name, 'migrate', s.body, s.checksum, s.objects,
            split_part(split_part(s.name, '--', 2), '.sql', 1)
        INTO step, action, body, checksum, objects, v_next
        FROM _wa_scripts AS s
        WHERE s.kind = 'migration' AND s.name LIKE 'migrations/' || v_current || '--%';
        IF NOT FOUND THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('there is no migration from version %s to %s', v_current, v_target),
                HINT = 'Upgrade by way of a release that still has it.';
        END IF;
        RETURN NEXT;
        v_current := v_next;
    END LOOP;
    RETURN QUERY
    SELECT s.name, CASE s.kind WHEN 'api' THEN 'replace' ELSE 'covered' END, s.body, s.checksum, s.objects
    FROM _wa_scripts AS s
    WHERE s.kind IN ('schema', 'api')
    ORDER BY s.position;
END;
$plan$;
COMMENT ON FUNCTION plan_wa_migration() IS
'What migrate_wa() would do now: a row per step with its SQL. Refuses what migrate_wa() would refuse; changes
nothing.';


CREATE FUNCTION migrate_wa()
RETURNS TABLE (step text, action text)
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
SET client_min_messages = warning
SET lock_timeout = '5s'
AS $migrate$
#variable_conflict use_column
DECLARE
    v_schema name := current_schema();
    v_target text := (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_whatsapp');
    v_step   record;
    v_detail text;
BEGIN
    PERFORM set_config(
        'lock_timeout', coalesce(nullif(current_setting('wa.lock_timeout', true), ''), '5s'), true
    );
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended('pg_whatsapp migrate_wa', 0));
    EXCEPTION
        WHEN lock_not_available THEN
            RAISE EXCEPTION USING
                ERRCODE = 'lock_not_available',
                MESSAGE = 'another migrate_wa() is at work in this database',
                HINT = 'Call again when its transaction has ended; wa.lock_timeout says how long to wait.';
    END;

    FOR v_step IN SELECT * FROM plan_wa_migration() LOOP
        IF v_step.action IN ('create', 'migrate', 'replace') THEN
            BEGIN
                EXECUTE v_step.body;
            EXCEPTION
                -- Never CASCADE: what is not ours is named and left alone.
                WHEN dependent_objects_still_exist THEN
                    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
                    RAISE EXCEPTION USING
                        ERRCODE = 'dependent_objects_still_exist',
                        MESSAGE = format('%s changes something that other objects need', v_step.step),
                        DETAIL = v_detail,
                        HINT = 'Drop them, call migrate_wa() again, create them again. Nothing was changed.';
            END;
        END IF;
        step := v_step.step;
        action := v_step.action;
        RETURN NEXT;
        CONTINUE WHEN v_step.action = 'unchanged';

        IF to_regclass(format('%I.wa_migrations', v_schema)) IS NULL THEN
            CREATE TABLE wa_migrations (
                version text NOT NULL,
                step text NOT NULL,
                checksum text NOT NULL,
                objects text [] NOT NULL,
                applied_at timestamptz NOT NULL,
                applied_by name NOT NULL,
                CONSTRAINT wa_migrations_version_step_pkey PRIMARY KEY (version, step)
            );
            COMMENT ON TABLE wa_migrations IS 'What migrate_wa() did: a row per version and step.';
            COMMENT ON COLUMN wa_migrations.version IS 'Version of the extension that the step belongs to.';
            COMMENT ON COLUMN wa_migrations.step IS 'Path of the script in the sources.';
            COMMENT ON COLUMN wa_migrations.checksum IS 'SHA-256 of the script.';
            COMMENT ON COLUMN wa_migrations.objects IS 'What the script creates: kind and name.';
            COMMENT ON COLUMN wa_migrations.applied_at IS 'When the step was run last.';
            COMMENT ON COLUMN wa_migrations.applied_by IS 'The login that ran it.';
            GRANT SELECT ON wa_migrations TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;
        END IF;
        INSERT INTO wa_migrations AS m (version, step, checksum, objects, applied_at, applied_by)
        VALUES (
            CASE v_step.action
                WHEN 'migrate' THEN split_part(split_part(v_step.step, '--', 2), '.sql', 1) ELSE v_target
            END,
            v_step.step, v_step.checksum, v_step.objects, clock_timestamp(), session_user
        )
        ON CONFLICT (version, step) DO UPDATE
        SET checksum = excluded.checksum, objects = excluded.objects,
            applied_at = excluded.applied_at, applied_by = excluded.applied_by;
    END LOOP;

    -- The group roles must be able to look into the schema; only its owner can let them.
    IF EXISTS (
        SELECT
        FROM unnest(ARRAY['wa_admin', 'wa_app', 'wa_dispatcher', 'wa_receiver', 'wa_analyst']) AS r (name)
        WHERE NOT has_schema_privilege(r.name, v_schema, 'USAGE')
    ) THEN
        IF pg_has_role((SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = v_schema), 'USAGE') THEN
            EXECUTE format(
                'GRANT USAGE ON SCHEMA %I TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst',
                v_schema
            );
        ELSE
            RAISE WARNING USING
                MESSAGE = format('the wa_ roles have no USAGE on schema %I and you do not own it', v_schema),
                HINT = format(
                    'Its owner should run: GRANT USAGE ON SCHEMA %I TO wa_admin, wa_app, wa_dispatcher, '
                    'wa_receiver, wa_analyst;', v_schema
                );
        END IF;
    END IF;
END;
$migrate$;
COMMENT ON FUNCTION migrate_wa() IS
'Creates the tables, views and functions of pg_whatsapp in the extension''s schema, or brings them to the
version of the extension; answers with a row per step. All or nothing, one at a time, safe to repeat, never
CASCADE. Waits for locks up to wa.lock_timeout (5 s). The objects belong to the caller, who needs CREATE on
the schema.';


CREATE FUNCTION wa_version()
RETURNS TABLE (extension_version text, schema_version text)
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
AS $version$
#variable_conflict use_column
BEGIN
    SELECT extversion INTO extension_version FROM pg_catalog.pg_extension WHERE extname = 'pg_whatsapp';
    IF to_regclass(format('%I.wa_migrations', current_schema())) IS NOT NULL THEN
        SELECT version INTO schema_version
        FROM wa_migrations
        ORDER BY string_to_array(version, '.')::int [] DESC
        LIMIT 1;
    END IF;
    RETURN NEXT;
END;
$version$;
COMMENT ON FUNCTION wa_version() IS
'The version of the installed extension and that of the schema, which is NULL before migrate_wa().';
REVOKE ALL ON FUNCTION wa_version() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_version() TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- sql/extension/phone.sql
-- Telephone numbers: one function reads what people type, one key tells which spellings are one subscriber.

CREATE FUNCTION _wa_python_dir() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT config.setting || '/pg_whatsapp/python' FROM pg_config() AS config WHERE config.name = 'SHAREDIR';
END;
COMMENT ON FUNCTION _wa_python_dir() IS
'Directory on the server that holds the Python packages shipped with pg_whatsapp.';
REVOKE ALL ON FUNCTION _wa_python_dir() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_python_dir() TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- The definitions of the included file are made once a session; after that the first two lines are all that
-- runs. Not parallel safe: finding the directory runs a query, which PL/Python wraps in a subtransaction.
CREATE FUNCTION _wa_parse_phone(
    p_phone text, p_region text, p_area_code text, OUT e164 text, OUT problem text, OUT hint text
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
if "parse_phone" in SD:
    return SD["parse_phone"](p_phone, p_region, p_area_code)
"""Reads a telephone number as people write it and answers in E.164.

The rules, in the order in which they are tried:

* A number with "+" is international and stays what it is; only what is not part of E.164 goes: a trunk zero
  after the country code, Argentina's 15 after an area code, Mexico's retired 1 after +52.
* Without "+" and with a region: the region's international prefix, else its national form, unless that is
  doubtful and eleven digits or more are a valid international number. A national Argentine number is taken
  for a mobile (WhatsApp users are) and gets the 9, a national Brazilian mobile of eight digits its ninth.
* Else the digits are an international number whose "+" is missing, if they can hardly be anything else.

What the library's is_possible_number accepts is accepted, within E.164's length of 7 to 15 digits.
"""

import functools
import importlib
import re
import sys
import unicodedata
from collections.abc import Callable
from types import ModuleType

INTERNATIONAL_HINT = "Write it with + and the country code, for example +15551234567."
REGION_HINT = "Write it with + and the country code, or name the region it is written for, for example US."
PLUS_SIGNS = "+\uff0b\ufe62"
SEPARATORS = "\t./()[]\u2212\u00b7\u2044\u2215\uff0e\uff0f\uff08\uff09\uff3b\uff3d"
EXTENSION = re.compile(r"[;,#]|x|ext|anexo|interno|доб")
LONGEST_INPUT = 250


def import_phonenumbers(directory: str) -> ModuleType:
    """The phonenumbers package of `directory`, preferred to the interpreter's own. Raises ImportError."""
    sys.path.insert(0, directory)
    try:
        return importlib.import_module("phonenumbers")
    finally:
        sys.path.remove(directory)


class PhoneError(Exception):
    """Why a text is no telephone number: `problem`, and `hint` for what to do. Neither holds the number."""

    def __init__(self, problem: str, hint: str = INTERNATIONAL_HINT) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def read_digits(typed: str) -> tuple[bool, str]:
    """Whether `typed` begins with a plus sign, and its digits of any script as ASCII. Raises PhoneError."""
    text = typed.strip()
    if not text:
        raise PhoneError("it is empty")
    if len(text) > LONGEST_INPUT:
        raise PhoneError("it is too long")
    has_plus = False
    digits: list[str] = []
    for char in text:
        if char.isdecimal():
            digits.append(str(unicodedata.decimal(char)))
        elif char in PLUS_SIGNS:
            if has_plus or digits:
                raise PhoneError("a plus sign may stand only in front")
            has_plus = True
        elif char in SEPARATORS or unicodedata.category(char) in ("Zs", "Pd", "Cf"):
            continue
        elif digits and EXTENSION.search(text.lower()):
            raise PhoneError("it has an extension, which WhatsApp cannot reach", "Leave the extension out.")
        elif char.isalpha():
            raise PhoneError("it contains letters")
        else:
            raise PhoneError("it contains a character that is no part of a telephone number")
    if not digits:
        raise PhoneError("it has no digits")
    return has_plus, "".join(digits)


def make_phone_parser(
    library: ModuleType,
) -> Callable[[str | None, str | None, str | None], tuple[str | None, str | None, str | None]]:
    """A function (phone, region, area code) -> (E.164 or None, problem, hint) on the given library.

    It never raises. Region is an ISO 3166 code of two letters or None; the area code is assumed for local
    forms that have none ("11" in Argentina unless told otherwise).
    """
    possible = library.ValidationResult.IS_POSSIBLE
    local_only = library.ValidationResult.IS_POSSIBLE_LOCAL_ONLY
    too_short = library.ValidationResult.TOO_SHORT
    too_long = library.ValidationResult.TOO_LONG
    no_whatsapp = (
        library.PhoneNumberType.TOLL_FREE,
        library.PhoneNumberType.PREMIUM_RATE,
        library.PhoneNumberType.SHARED_COST,
        library.PhoneNumberType.UAN,
    )
    e164_format = library.PhoneNumberFormat.E164

    def e164(parsed: object) -> str:
        """E.164 of a parsed number. Raises PhoneError outside the lengths that E.164 and networks know."""
        number = str(library.format_number(parsed, e164_format))
        if len(number) < 8:
            raise PhoneError("it is too short")
        if len(number) > 16:
            raise PhoneError("it is too long")
        return number

    def refusal(reason: int, hint: str = INTERNATIONAL_HINT) -> PhoneError:
        """The PhoneError for a library verdict other than possible."""
        if reason == local_only:
            return PhoneError("the area code is missing", hint)
        if reason == too_short:
            return PhoneError("it is too short", hint)
        if reason == too_long:
            return PhoneError("it is too long", hint)
        return PhoneError("no number of that country has so many digits", hint)

    def parse_international(digits: str) -> object:
        """Digits that begin with a country code, parsed. Raises PhoneError."""
        # Mexico gave the 1 for mobiles up in 2019: with and without it the same subscriber answers.
        plain = "52" + digits[3:] if re.fullmatch(r"521\d{10}", digits) else digits
        try:
            return library.parse("+" + plain, None)
        except library.NumberParseException as error:
            if error.error_type == library.NumberParseException.INVALID_COUNTRY_CODE:
                raise PhoneError("no country has that calling code") from None
            raise PhoneError(
                "it is too short"
                if error.error_type != library.NumberParseException.TOO_LONG
                else "it is too long"
            ) from None

    def international(digits: str) -> str:
        """E.164 of a number that was written with its country code. Raises PhoneError."""
        parsed = parse_international(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if reason not in (possible, local_only):
            raise refusal(reason)
        number = e164(parsed)
        # The library takes one trunk prefix off at a time; what we give must read as itself.
        return international(number[1:]) if len(number) <= len(digits) else number

    def without_plus(digits: str) -> str:
        """E.164 of digits that are an international number without its +. Raises PhoneError.

        Ten digits are more often somebody's national number than a foreign one, so fewer than eleven count
        only if the library knows them as valid; an American area code never begins with 0 or 1.
        """
        if digits.startswith("00"):
            return international(digits[2:])
        if digits.startswith("0"):
            raise PhoneError("it is a national form and no region is known", REGION_HINT)
        parsed = parse_international(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if (
            reason != possible
            or (len(digits) < 11 and not library.is_valid_number(parsed))
            or re.match(r"1[01]", digits)
        ):
            raise PhoneError("it is a national form and no region is known", REGION_HINT)
        return e164(parsed)

    def with_national_rules(parsed: object) -> str | None:
        """E.164 of a number read as a national form; None where that country has no such number."""
        country, national = e164(parsed), str(library.national_significant_number(parsed))
        if country.startswith("+54"):
            if len(national) == 11 and not national.startswith("9"):
                return None
            if len(national) == 10 and library.number_type(parsed) not in no_whatsapp:
                return "+549" + national
        if country.startswith("+55") and re.fullmatch(r"[1-9][1-9][6-9]\d{7}", national):
            return "+55" + national[:2] + "9" + national[2:]
        return country

    def is_rather_foreign(parsed: object, digits: str) -> bool:
        """Whether digits that are doubtful as a national number are certain as an international one."""
        if len(digits) < 11 or digits.startswith("0") or library.is_valid_number(parsed):
            return False
        try:
            return bool(library.is_valid_number(library.parse("+" + digits, None)))
        except library.NumberParseException:
            return False

    def complete_local(digits: str, region: str, area_code: str | None) -> str:
        """A local form made complete (Argentina's mobiles, Mexico's old prefixes), else unchanged."""
        if region == "AR" and area_code:
            local = re.sub(r"^0?15", "", digits)
            if len(area_code) + len(local) == 10 and (local != digits or not digits.startswith("0")):
                return "9" + area_code + local
        if region == "MX":
            return re.sub(r"^(?:04[45]|01|1)(?=\d{10}$)", "", digits)
        return digits

    def national(typed_digits: str, region: str, area_code: str | None) -> str:
        """E.164 of digits without plus as dialled in `region`. Raises PhoneError."""
        digits = complete_local(typed_digits, region, area_code)
        try:
            parsed = library.parse(digits, region, keep_raw_input=True)
        except library.NumberParseException:
            return without_plus(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if reason == local_only and area_code:
            parsed = library.parse(area_code + digits, region, keep_raw_input=True)
            reason = library.is_possible_number_with_reason(parsed)
        if reason == possible:
            if parsed.country_code_source != library.CountryCodeSource.FROM_DEFAULT_COUNTRY:
                return e164(parsed)
            number = with_national_rules(parsed)
            if number is not None and not is_rather_foreign(parsed, digits):
                return number
        try:
            return without_plus(digits)
        except PhoneError:
            raise refusal(reason if reason != possible else too_long) from None

    def read(phone: str, region: str | None, area_code: str | None) -> str:
        """E.164 of `phone`. Raises PhoneError."""
        has_plus, digits = read_digits(phone)
        if has_plus:
            return international(digits)
        if not region or not region.strip():
            return international(without_plus(digits)[1:])
        iso = region.strip().upper()
        if iso not in library.SUPPORTED_REGIONS:
            raise PhoneError("the region is not known", "Give it as its ISO 3166 code, for example AR.")
        area = re.sub(r"\D", "", area_code or "").lstrip("0") or ("11" if iso == "AR" else None)
        return international(national(digits, iso, area)[1:])

    @functools.lru_cache(maxsize=4096)
    def parse_phone(
        phone: str | None, region: str | None, area_code: str | None
    ) -> tuple[str | None, str | None, str | None]:
        """(E.164, None, None), or (None, problem, hint); all None for None."""
        if phone is None:
            return None, None, None
        try:
            return read(phone, region, area_code), None, None
        except PhoneError as error:
            return None, error.problem, error.hint

    return parse_phone
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    SD["parse_phone"] = make_phone_parser(import_phonenumbers(directory))
except ImportError:
    plpy.error("the phonenumbers library is missing on the server", sqlstate="58P01",
               hint="Run make install of pg_whatsapp for this server.")
return SD["parse_phone"](p_phone, p_region, p_area_code)
$plpython$;
COMMENT ON FUNCTION _wa_parse_phone(text, text, text) IS
'Reads a telephone number with the phonenumbers library: E.164, or what is wrong and what to do about it.';
REVOKE ALL ON FUNCTION _wa_parse_phone(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_parse_phone(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION wa_phonenumbers_version() RETURNS text
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
"""Reads a telephone number as people write it and answers in E.164.

The rules, in the order in which they are tried:

* A number with "+" is international and stays what it is; only what is not part of E.164 goes: a trunk zero
  after the country code, Argentina's 15 after an area code, Mexico's retired 1 after +52.
* Without "+" and with a region: the region's international prefix, else its national form, unless that is
  doubtful and eleven digits or more are a valid international number. A national Argentine number is taken
  for a mobile (WhatsApp users are) and gets the 9, a national Brazilian mobile of eight digits its ninth.
* Else the digits are an international number whose "+" is missing, if they can hardly be anything else.

What the library's is_possible_number accepts is accepted, within E.164's length of 7 to 15 digits.
"""

import functools
import importlib
import re
import sys
import unicodedata
from collections.abc import Callable
from types import ModuleType

INTERNATIONAL_HINT = "Write it with + and the country code, for example +15551234567."
REGION_HINT = "Write it with + and the country code, or name the region it is written for, for example US."
PLUS_SIGNS = "+\uff0b\ufe62"
SEPARATORS = "\t./()[]\u2212\u00b7\u2044\u2215\uff0e\uff0f\uff08\uff09\uff3b\uff3d"
EXTENSION = re.compile(r"[;,#]|x|ext|anexo|interno|доб")
LONGEST_INPUT = 250


def import_phonenumbers(directory: str) -> ModuleType:
    """The phonenumbers package of `directory`, preferred to the interpreter's own. Raises ImportError."""
    sys.path.insert(0, directory)
    try:
        return importlib.import_module("phonenumbers")
    finally:
        sys.path.remove(directory)


class PhoneError(Exception):
    """Why a text is no telephone number: `problem`, and `hint` for what to do. Neither holds the number."""

    def __init__(self, problem: str, hint: str = INTERNATIONAL_HINT) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def read_digits(typed: str) -> tuple[bool, str]:
    """Whether `typed` begins with a plus sign, and its digits of any script as ASCII. Raises PhoneError."""
    text = typed.strip()
    if not text:
        raise PhoneError("it is empty")
    if len(text) > LONGEST_INPUT:
        raise PhoneError("it is too long")
    has_plus = False
    digits: list[str] = []
    for char in text:
        if char.isdecimal():
            digits.append(str(unicodedata.decimal(char)))
        elif char in PLUS_SIGNS:
            if has_plus or digits:
                raise PhoneError("a plus sign may stand only in front")
            has_plus = True
        elif char in SEPARATORS or unicodedata.category(char) in ("Zs", "Pd", "Cf"):
            continue
        elif digits and EXTENSION.search(text.lower()):
            raise PhoneError("it has an extension, which WhatsApp cannot reach", "Leave the extension out.")
        elif char.isalpha():
            raise PhoneError("it contains letters")
        else:
            raise PhoneError("it contains a character that is no part of a telephone number")
    if not digits:
        raise PhoneError("it has no digits")
    return has_plus, "".join(digits)


def make_phone_parser(
    library: ModuleType,
) -> Callable[[str | None, str | None, str | None], tuple[str | None, str | None, str | None]]:
    """A function (phone, region, area code) -> (E.164 or None, problem, hint) on the given library.

    It never raises. Region is an ISO 3166 code of two letters or None; the area code is assumed for local
    forms that have none ("11" in Argentina unless told otherwise).
    """
    possible = library.ValidationResult.IS_POSSIBLE
    local_only = library.ValidationResult.IS_POSSIBLE_LOCAL_ONLY
    too_short = library.ValidationResult.TOO_SHORT
    too_long = library.ValidationResult.TOO_LONG
    no_whatsapp = (
        library.PhoneNumberType.TOLL_FREE,
        library.PhoneNumberType.PREMIUM_RATE,
        library.PhoneNumberType.SHARED_COST,
        library.PhoneNumberType.UAN,
    )
    e164_format = library.PhoneNumberFormat.E164

    def e164(parsed: object) -> str:
        """E.164 of a parsed number. Raises PhoneError outside the lengths that E.164 and networks know."""
        number = str(library.format_number(parsed, e164_format))
        if len(number) < 8:
            raise PhoneError("it is too short")
        if len(number) > 16:
            raise PhoneError("it is too long")
        return number

    def refusal(reason: int, hint: str = INTERNATIONAL_HINT) -> PhoneError:
        """The PhoneError for a library verdict other than possible."""
        if reason == local_only:
            return PhoneError("the area code is missing", hint)
        if reason == too_short:
            return PhoneError("it is too short", hint)
        if reason == too_long:
            return PhoneError("it is too long", hint)
        return PhoneError("no number of that country has so many digits", hint)

    def parse_international(digits: str) -> object:
        """Digits that begin with a country code, parsed. Raises PhoneError."""
        # Mexico gave the 1 for mobiles up in 2019: with and without it the same subscriber answers.
        plain = "52" + digits[3:] if re.fullmatch(r"521\d{10}", digits) else digits
        try:
            return library.parse("+" + plain, None)
        except library.NumberParseException as error:
            if error.error_type == library.NumberParseException.INVALID_COUNTRY_CODE:
                raise PhoneError("no country has that calling code") from None
            raise PhoneError(
                "it is too short"
                if error.error_type != library.NumberParseException.TOO_LONG
                else "it is too long"
            ) from None

    def international(digits: str) -> str:
        """E.164 of a number that was written with its country code. Raises PhoneError."""
        parsed = parse_international(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if reason not in (possible, local_only):
            raise refusal(reason)
        number = e164(parsed)
        # The library takes one trunk prefix off at a time; what we give must read as itself.
        return international(number[1:]) if len(number) <= len(digits) else number

    def without_plus(digits: str) -> str:
        """E.164 of digits that are an international number without its +. Raises PhoneError.

        Ten digits are more often somebody's national number than a foreign one, so fewer than eleven count
        only if the library knows them as valid; an American area code never begins with 0 or 1.
        """
        if digits.startswith("00"):
            return international(digits[2:])
        if digits.startswith("0"):
            raise PhoneError("it is a national form and no region is known", REGION_HINT)
        parsed = parse_international(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if (
            reason != possible
            or (len(digits) < 11 and not library.is_valid_number(parsed))
            or re.match(r"1[01]", digits)
        ):
            raise PhoneError("it is a national form and no region is known", REGION_HINT)
        return e164(parsed)

    def with_national_rules(parsed: object) -> str | None:
        """E.164 of a number read as a national form; None where that country has no such number."""
        country, national = e164(parsed), str(library.national_significant_number(parsed))
        if country.startswith("+54"):
            if len(national) == 11 and not national.startswith("9"):
                return None
            if len(national) == 10 and library.number_type(parsed) not in no_whatsapp:
                return "+549" + national
        if country.startswith("+55") and re.fullmatch(r"[1-9][1-9][6-9]\d{7}", national):
            return "+55" + national[:2] + "9" + national[2:]
        return country

    def is_rather_foreign(parsed: object, digits: str) -> bool:
        """Whether digits that are doubtful as a national number are certain as an international one."""
        if len(digits) < 11 or digits.startswith("0") or library.is_valid_number(parsed):
            return False
        try:
            return bool(library.is_valid_number(library.parse("+" + digits, None)))
        except library.NumberParseException:
            return False

    def complete_local(digits: str, region: str, area_code: str | None) -> str:
        """A local form made complete (Argentina's mobiles, Mexico's old prefixes), else unchanged."""
        if region == "AR" and area_code:
            local = re.sub(r"^0?15", "", digits)
            if len(area_code) + len(local) == 10 and (local != digits or not digits.startswith("0")):
                return "9" + area_code + local
        if region == "MX":
            return re.sub(r"^(?:04[45]|01|1)(?=\d{10}$)", "", digits)
        return digits

    def national(typed_digits: str, region: str, area_code: str | None) -> str:
        """E.164 of digits without plus as dialled in `region`. Raises PhoneError."""
        digits = complete_local(typed_digits, region, area_code)
        try:
            parsed = library.parse(digits, region, keep_raw_input=True)
        except library.NumberParseException:
            return without_plus(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if reason == local_only and area_code:
            parsed = library.parse(area_code + digits, region, keep_raw_input=True)
            reason = library.is_possible_number_with_reason(parsed)
        if reason == possible:
            if parsed.country_code_source != library.CountryCodeSource.FROM_DEFAULT_COUNTRY:
                return e164(parsed)
            number = with_national_rules(parsed)
            if number is not None and not is_rather_foreign(parsed, digits):
                return number
        try:
            return without_plus(digits)
        except PhoneError:
            raise refusal(reason if reason != possible else too_long) from None

    def read(phone: str, region: str | None, area_code: str | None) -> str:
        """E.164 of `phone`. Raises PhoneError."""
        has_plus, digits = read_digits(phone)
        if has_plus:
            return international(digits)
        if not region or not region.strip():
            return international(without_plus(digits)[1:])
        iso = region.strip().upper()
        if iso not in library.SUPPORTED_REGIONS:
            raise PhoneError("the region is not known", "Give it as its ISO 3166 code, for example AR.")
        area = re.sub(r"\D", "", area_code or "").lstrip("0") or ("11" if iso == "AR" else None)
        return international(national(digits, iso, area)[1:])

    @functools.lru_cache(maxsize=4096)
    def parse_phone(
        phone: str | None, region: str | None, area_code: str | None
    ) -> tuple[str | None, str | None, str | None]:
        """(E.164, None, None), or (None, problem, hint); all None for None."""
        if phone is None:
            return None, None, None
        try:
            return read(phone, region, area_code), None, None
        except PhoneError as error:
            return None, error.problem, error.hint

    return parse_phone
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    return import_phonenumbers(directory).__version__
except ImportError:
    return None
$plpython$;
COMMENT ON FUNCTION wa_phonenumbers_version() IS
'Release of the phonenumbers library that this session uses, NULL where it is missing.';
REVOKE ALL ON FUNCTION wa_phonenumbers_version() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_phonenumbers_version()
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- Complete mobile numbers of common countries, by length and first digits, that the library returns as they
-- are. A test holds the list against the library; what is not listed is merely slower. No regular expression:
-- ten times the cost.
CREATE FUNCTION _wa_is_canonical_phone(p_phone text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(p_phone, '0123456789', '') = '+' AND CASE length(p_phone)
    WHEN 11 THEN
        left(p_phone, 4) IN (
            '+452', '+453', '+454', '+455', '+456', '+457', '+458', '+459', '+474', '+479', '+658', '+659'
        )
    WHEN 12 THEN
        left(p_phone, 3) IN (
            '+12', '+13', '+14', '+15', '+16', '+17', '+18', '+19', '+74', '+77', '+79'
        )
        OR left(p_phone, 4) IN (
            '+276', '+277', '+278', '+316', '+324', '+336', '+337', '+346', '+347', '+348', '+349', '+407',
            '+417', '+467', '+484', '+485', '+486', '+487', '+488', '+519', '+569', '+601', '+614', '+628',
            '+666', '+668', '+669', '+843', '+845', '+847', '+848', '+849', '+947'
        )
        OR left(p_phone, 5) IN (
            '+5023', '+5024', '+5025', '+5036', '+5037', '+5043', '+5048', '+5049', '+5066', '+5067', '+5068',
            '+5076', '+5916', '+5917', '+5989'
        )
    WHEN 13 THEN
        left(p_phone, 4) IN (
            '+201', '+393', '+442', '+447', '+491', '+522', '+523', '+524', '+525', '+526', '+527', '+528',
            '+529', '+573', '+584', '+601', '+628', '+639', '+817', '+818', '+819', '+821', '+905', '+916',
            '+917', '+918', '+919', '+923'
        )
        OR left(p_phone, 5) IN (
            '+2126', '+2127', '+2332', '+2335', '+2541', '+2547', '+2556', '+2557', '+2567', '+3519', '+5511',
            '+5512', '+5513', '+5514', '+5515', '+5516', '+5517', '+5518', '+5519', '+5521', '+5522', '+5524',
            '+5527', '+5528', '+5531', '+5532', '+5533', '+5534', '+5535', '+5537', '+5538', '+5541', '+5542',
            '+5543', '+5544', '+5545', '+5546', '+5547', '+5548', '+5549', '+5551', '+5553', '+5554', '+5555',
            '+5561', '+5562', '+5563', '+5564', '+5565', '+5566', '+5567', '+5568', '+5569', '+5571', '+5573',
            '+5574', '+5575', '+5577', '+5579', '+5581', '+5582', '+5583', '+5584', '+5585', '+5586', '+5587',
            '+5588', '+5589', '+5591', '+5592', '+5593', '+5594', '+5595', '+5596', '+5597', '+5598', '+5599',
            '+5939', '+5959', '+9665', '+9715', '+9725'
        )
    WHEN 14 THEN
        left(p_phone, 4) IN (
            '+491', '+549', '+628'
        )
        OR left(p_phone, 5) IN (
            '+2347', '+2348', '+2349', '+5511', '+5512', '+5513', '+5514', '+5515', '+5516', '+5517', '+5518',
            '+5519', '+5521', '+5522', '+5524', '+5527', '+5528', '+5531', '+5532', '+5533', '+5534', '+5535',
            '+5537', '+5538', '+5541', '+5542', '+5543', '+5544', '+5545', '+5546', '+5547', '+5548', '+5549',
            '+5551', '+5553', '+5554', '+5555', '+5561', '+5562', '+5563', '+5564', '+5565', '+5566', '+5567',
            '+5568', '+5569', '+5571', '+5573', '+5574', '+5575', '+5577', '+5579', '+5581', '+5582', '+5583',
            '+5584', '+5585', '+5586', '+5587', '+5588', '+5589', '+5591', '+5592', '+5593', '+5594', '+5595',
            '+5596', '+5597', '+5598', '+5599', '+8613', '+8615', '+8618', '+8619', '+8801'
        )
    ELSE FALSE
END;
COMMENT ON FUNCTION _wa_is_canonical_phone(text) IS
'Whether a text is a number that normalize_phone_e164 gives back unchanged, told without the library; false '
'decides nothing.';
REVOKE ALL ON FUNCTION _wa_is_canonical_phone(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_is_canonical_phone(text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_require_phone(p_phone text, p_region text, p_area_code text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_parsed record;
BEGIN
    SELECT * INTO v_parsed FROM _wa_parse_phone(p_phone, p_region, p_area_code);
    IF v_parsed.problem IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'invalid phone number: ' || v_parsed.problem,
            -- The value stands in DETAIL, which our processes never log.
            DETAIL = format('The value is "%s"%s.', left(p_phone, 60),
                CASE WHEN p_region IS NULL THEN '' ELSE format(', the region "%s"', left(p_region, 10)) END),
            HINT = v_parsed.hint;
    END IF;
    RETURN v_parsed.e164;
END;
$$;
COMMENT ON FUNCTION _wa_require_phone(text, text, text) IS
'The slow path of normalize_phone_e164: E.164, or error 22023 with the value in its detail.';
REVOKE ALL ON FUNCTION _wa_require_phone(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_require_phone(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION normalize_phone_e164(
    p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN CASE WHEN _wa_is_canonical_phone(p_phone) THEN p_phone
    ELSE _wa_require_phone(p_phone, p_region, p_area_code) END;
COMMENT ON FUNCTION normalize_phone_e164(text, text, text) IS
'A telephone number as people write it, in E.164 with +. Region (ISO 3166) reads national forms, area code '
'completes local ones (Argentina: 11). Error 22023 says what is wrong; NULL stays NULL.';
REVOKE ALL ON FUNCTION normalize_phone_e164(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION normalize_phone_e164(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION try_normalize_phone_e164(
    p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN CASE WHEN _wa_is_canonical_phone(p_phone) THEN p_phone
    ELSE (_wa_parse_phone(p_phone, p_region, p_area_code)).e164 END;
COMMENT ON FUNCTION try_normalize_phone_e164(text, text, text) IS
'As normalize_phone_e164, with NULL for what is no telephone number.';
REVOKE ALL ON FUNCTION try_normalize_phone_e164(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION try_normalize_phone_e164(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- Brazil: only mobiles from before the ninth digit (6 to 9 in front) exist in both spellings. A newer mobile
-- such as 9 5xxx-xxxx would collide with the landline 5xxx-xxxx, another subscriber. Runs for every row that
-- is inserted, hence no regular expression and nothing that would keep it from being inlined.
CREATE FUNCTION _wa_phone_key(p_e164 text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE left(p_e164, 3)
    WHEN '+55' THEN CASE WHEN length(p_e164) = 13 AND substr(p_e164, 6, 1) IN ('6', '7', '8', '9')
        THEN left(p_e164, 5) || '9' || substr(p_e164, 6) ELSE p_e164 END
    WHEN '+54' THEN CASE WHEN length(p_e164) = 13 AND substr(p_e164, 4, 1) <> '9'
        THEN '+549' || substr(p_e164, 4) ELSE p_e164 END
    WHEN '+52' THEN CASE WHEN length(p_e164) = 14 AND substr(p_e164, 4, 1) = '1'
        THEN '+52' || substr(p_e164, 5) ELSE p_e164 END
    ELSE p_e164
END;
COMMENT ON FUNCTION _wa_phone_key(text) IS
'One key for all spellings of a subscriber in E.164: Brazil with the ninth digit, Argentina with the 9, '
'Mexico without the 1.';
REVOKE ALL ON FUNCTION _wa_phone_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_phone_key(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_is_user_id(p_value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(p_value ~ '^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$', FALSE);
COMMENT ON FUNCTION _wa_is_user_id(text) IS
'Whether a text has the form of a business-scoped user id, such as US.13491208655302741918 or US.ENT.1181.';
REVOKE ALL ON FUNCTION _wa_is_user_id(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_is_user_id(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_mask_phone(p_phone text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(p_phone) > 4 THEN '******' || right(p_phone, 2)
    WHEN p_phone IS NOT NULL THEN '******' END;
COMMENT ON FUNCTION _wa_mask_phone(text) IS
'A telephone number or user id of which only the last two characters can be seen; its length cannot.';
REVOKE ALL ON FUNCTION _wa_mask_phone(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_mask_phone(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- sql/extension/webhook_bytes.sql
-- What happens to the bytes of a webhook before any table is touched: the signature check, and taking a body
-- apart. The definitions of an included file are made once a session; after that the first two lines are all
-- that runs.

CREATE FUNCTION verify_wa_signature(p_body bytea, p_header text, p_secrets text[]) RETURNS boolean
LANGUAGE plpython3u IMMUTABLE PARALLEL SAFE
AS $plpython$
if "verify" in SD:
    return SD["verify"](p_body, p_header, p_secrets)
"""Meta's X-Hub-Signature-256, checked over the bytes as received.

The database includes this file in a function; the receiver loads the very same file as a module.
"""

import hmac
import re
from collections.abc import Iterable


def hmac_sha256_hex(body: bytes, secret: str) -> str:
    """HMAC-SHA256 of `body` under `secret` (UTF-8), as 64 lower-case hexadecimal digits."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), body, "sha256").hex()


def verify_signature(body: bytes | None, header: str | None, secrets: Iterable[str | None] | None) -> bool:
    """Whether `header` ("sha256=" and hexadecimal digits) signs `body` with one of `secrets`. Never raises.

    An empty secret counts for nothing: anyone could sign with it. Rule: Meta, "Validating payloads".
    """
    if body is None or header is None or secrets is None:
        return False
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", header.strip())
    if found is None:
        return False
    given = found[1].lower()
    matches = False
    for secret in secrets:
        if secret and hmac.compare_digest(hmac_sha256_hex(body, secret), given):
            matches = True
    return matches
SD["verify"] = verify_signature
return verify_signature(p_body, p_header, p_secrets)
$plpython$;
COMMENT ON FUNCTION verify_wa_signature(bytea, text, text[]) IS
'Whether an X-Hub-Signature-256 header signs these raw bytes with one of the app secrets; compared in '
'constant time, false for anything malformed.';
REVOKE ALL ON FUNCTION verify_wa_signature(bytea, text, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION verify_wa_signature(bytea, text, text[]) TO wa_admin, wa_receiver;

CREATE FUNCTION _wa_hmac_sha256_hex(p_body bytea, p_secret text) RETURNS text
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE
AS $plpython$
if "sign" in SD:
    return SD["sign"](p_body, p_secret)
"""Meta's X-Hub-Signature-256, checked over the bytes as received.

The database includes this file in a function; the receiver loads the very same file as a module.
"""

import hmac
import re
from collections.abc import Iterable


def hmac_sha256_hex(body: bytes, secret: str) -> str:
    """HMAC-SHA256 of `body` under `secret` (UTF-8), as 64 lower-case hexadecimal digits."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), body, "sha256").hex()


def verify_signature(body: bytes | None, header: str | None, secrets: Iterable[str | None] | None) -> bool:
    """Whether `header` ("sha256=" and hexadecimal digits) signs `body` with one of `secrets`. Never raises.

    An empty secret counts for nothing: anyone could sign with it. Rule: Meta, "Validating payloads".
    """
    if body is None or header is None or secrets is None:
        return False
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", header.strip())
    if found is None:
        return False
    given = found[1].lower()
    matches = False
    for secret in secrets:
        if secret and hmac.compare_digest(hmac_sha256_hex(body, secret), given):
            matches = True
    return matches
SD["sign"] = hmac_sha256_hex
return hmac_sha256_hex(p_body, p_secret)
$plpython$;
COMMENT ON FUNCTION _wa_hmac_sha256_hex(bytea, text) IS
'HMAC-SHA256 of some bytes under a secret, in hexadecimal: what Meta sends behind sha256= in its signature '
'header.';
REVOKE ALL ON FUNCTION _wa_hmac_sha256_hex(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_hmac_sha256_hex(bytea, text) TO wa_admin;

CREATE FUNCTION _wa_split_webhook(p_body bytea) RETURNS TABLE (
    atom int,
    kind text,
    field text,
    waba_id text,
    phone_number_id text,
    display_phone text,
    entry_time timestamptz,
    payload jsonb,
    contact jsonb,
    dedupe_key text,
    note text,
    error text
)
LANGUAGE plpython3u IMMUTABLE PARALLEL SAFE
AS $plpython$
if "split" in SD:
    return SD["split"](p_body)
"""Takes one webhook POST apart into atoms: one message, one status, one event each.

Dispatch is by the shape of a value (which arrays it holds), with the field's name as a help: Meta's own
examples put names at the wrong depth. An atom that cannot be read becomes a row with its error and harms no
other. No error text holds any part of the body. Shapes: Meta's webhook reference for WhatsApp.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

# array in a value -> (kind of its elements, rank in processing order)
ARRAYS: dict[str, tuple[str, int]] = {
    "messages": ("message", 0),
    "message_echoes": ("echo", 1),
    "history": ("history", 1),
    "state_sync": ("state_sync", 1),
    "groups": ("group", 1),
    "user_preferences": ("user_preference", 1),
    "user_actions": ("user_action", 1),
    "calls": ("call", 1),
    "statuses": ("status", 2),
    "errors": ("errors", 3),
}
# These speak of a message that may stand elsewhere in the same body.
DEPENDENT_TYPES = ("edit", "revoke", "reaction")
# Where an atom names the customer: keys of the telephone number, keys of the user id.
PHONE_KEYS = ("recipient_participant_id", "recipient_id", "from", "wa_id")
USER_KEYS = ("recipient_participant_user_id", "recipient_user_id", "from_user_id", "user_id")
ECHO_PHONE_KEYS = ("to",)
ECHO_USER_KEYS = ("to_user_id",)
REPLACEMENT = "\ufffd"
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
EARLIEST, LATEST = 1230768000, 4102444800  # 2009-01-01 to 2100-01-01


class Atom(NamedTuple):
    """One row of _wa_split_webhook; payload and contact are JSON text."""

    atom: int
    kind: str
    field: str | None
    waba_id: str | None
    phone_number_id: str | None
    display_phone: str | None
    entry_time: str | None
    payload: str | None
    contact: str | None
    dedupe_key: str | None
    note: str | None
    error: str | None


class Origin(NamedTuple):
    """What an atom inherits from its entry, change and value."""

    field: str | None
    waba_id: str | None
    phone_number_id: str | None
    display_phone: str | None
    entry_time: str | None
    raw_time: object


def clean(value: Any) -> Any:
    """`value` with U+FFFD for every NUL and lone surrogate. Raises RecursionError when nested too deep."""
    if isinstance(value, str):
        return UNSTORABLE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return str(value)  # beyond a double: JSON has no infinity
    return value


def dump(value: Any) -> str:
    """Compact JSON of `value`, its characters as they are. Raises ValueError for an infinite number."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def storable(value: Any) -> tuple[Any, str, bool]:
    """(value, its JSON, whether something was replaced) such that the JSON can be stored as jsonb."""
    try:
        text = dump(value)
        if text.isascii() and "\\u0000" not in text:
            return value, text, False
        text.encode()
        if "\\u0000" not in text:
            return value, text, False
    except ValueError:
        pass  # a lone surrogate or an infinite number
    cleaned = clean(value)
    return cleaned, dump(cleaned), cleaned != value


def as_text(value: object) -> str | None:
    """An id as text, whether it came as a string or as a number; None for anything else."""
    if isinstance(value, str):
        return UNSTORABLE.sub(REPLACEMENT, value) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def as_time(value: object) -> str | None:
    """Unix seconds (number or string of digits) as an ISO 8601 timestamp in UTC; None where not plausible."""
    text = as_text(value)
    if text is None or not re.fullmatch(r"[0-9]{10}", text) or not EARLIEST <= int(text) <= LATEST:
        return None
    return datetime.fromtimestamp(int(text), UTC).isoformat()


def as_list(value: object) -> list[Any]:
    """A list as it is, anything else as the only member of one, nothing for None."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def digest(origin: Origin, content: object) -> str:
    """A key for atoms without an id of their own: the hash of where, what and when."""
    canonical = json.dumps(
        [origin.waba_id, origin.phone_number_id, origin.field, content, origin.raw_time],
        sort_keys=True,
        separators=(",", ":"),
    )
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def dedupe_key(kind: str, atom: dict[str, Any], origin: Origin) -> str:
    """The same text for the same event however often it is delivered, another text for another event."""
    own_id = as_text(atom.get("id"))
    if own_id is None or atom.get("type") == "payment":
        return digest(origin, atom)
    if kind in ("message", "echo"):
        return own_id
    if kind in ("status", "call_status"):
        member = as_text(atom.get("recipient_participant_id")) or as_text(
            atom.get("recipient_participant_user_id")
        )
        return "|".join(filter(None, (own_id, as_text(atom.get("status")) or "", member)))
    if kind == "call":
        return f"{own_id}|{as_text(atom.get('event')) or ''}"
    return digest(origin, atom)


def customer_ids(kind: str, atom: dict[str, Any]) -> tuple[str | None, str | None]:
    """(telephone number, user id) of the customer whom an atom names."""
    phone_keys, user_keys = (ECHO_PHONE_KEYS, ECHO_USER_KEYS) if kind == "echo" else (PHONE_KEYS, USER_KEYS)
    phone = next((as_text(atom[key]) for key in phone_keys if key in atom), None)
    user = next((as_text(atom[key]) for key in user_keys if key in atom), None)
    return phone, user


def find_contact(kind: str, atom: dict[str, Any], contacts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The contact of an atom: the one with its id, else the only one unless its ids say otherwise."""
    if not contacts:
        return None
    phone, user = customer_ids(kind, atom)
    for key, wanted in (("user_id", user), ("wa_id", phone)):
        if wanted is not None:
            for contact in contacts:
                if as_text(contact.get(key)) == wanted:
                    return contact
    if len(contacts) > 1:
        return None
    only = contacts[0]
    own_phone, own_user = as_text(only.get("wa_id")), as_text(only.get("user_id"))
    if (phone and own_phone and phone != own_phone) or (user and own_user and user != own_user):
        return None
    return only


def row(origin: Origin, kind: str, payload: object, error: str | None) -> Atom:
    """An atom that cannot be read, kept as far as it can be stored."""
    try:
        text: str | None = storable(payload)[1]
    except (ValueError, RecursionError):
        text = None
    key = digest(origin, text) if payload is not None else None
    return Atom(0, kind, *origin[:5], text, None, key, None, error)


def read_atom(kind: str, raw: object, origin: Origin, contacts: list[dict[str, Any]]) -> Atom:
    """The row of one array element (or whole value). Never raises."""
    if not isinstance(raw, dict):
        return row(origin, kind, raw, "the atom is not an object")
    try:
        contact = find_contact(kind, raw, contacts)
        payload, text, replaced = storable(raw)
        contact_text = None
        if contact is not None:
            _, contact_text, replaced_there = storable(contact)
            replaced = replaced or replaced_there
        note = "characters that cannot be stored were replaced by U+FFFD" if replaced else None
        return Atom(0, kind, *origin[:5], text, contact_text, dedupe_key(kind, payload, origin), note, None)
    except (ValueError, TypeError, RecursionError):
        return row(origin, kind, raw, "the atom cannot be read")


def split_value(value: dict[str, Any], origin: Origin) -> Iterator[tuple[int, Atom]]:
    """(rank, row) for every atom of one value."""
    contacts = [contact for contact in as_list(value.get("contacts")) if isinstance(contact, dict)]
    is_account = True
    for key, content in value.items():
        if key not in ARRAYS:
            continue
        kind, rank = ARRAYS[key]
        if not content and content != 0:
            continue
        is_account = False
        for raw in as_list(content):
            atom_type = raw.get("type") if isinstance(raw, dict) else None
            if kind == "status" and (atom_type == "call" or origin.field == "calls"):
                yield rank, read_atom("call_status", raw, origin, contacts)
            elif kind == "message" and atom_type in DEPENDENT_TYPES:
                yield 1, read_atom(kind, raw, origin, contacts)
            else:
                yield rank, read_atom(kind, raw, origin, contacts)
    if is_account:
        yield 3, read_atom("account", value, origin, [])
        return
    # An array of a name that is not known yet is events of some kind: kept beside the known ones.
    for key, content in value.items():
        if key not in ARRAYS and key != "contacts" and isinstance(content, list) and content:
            yield 3, read_atom("account", {key: content}, origin, [])


def split_change(change: object, entry: dict[str, Any], top: dict[str, Any]) -> Iterator[tuple[int, Atom]]:
    """(rank, row) for every atom of one change."""
    holder: dict[str, Any] = change if isinstance(change, dict) else {}
    field = next((as_text(part["field"]) for part in (holder, entry, top) if "field" in part), None)
    value = holder.get("value")
    known: dict[str, Any] = value if isinstance(value, dict) else {}
    declared = known.get("metadata")
    metadata: dict[str, Any] = declared if isinstance(declared, dict) else {}
    origin = Origin(
        field,
        as_text(entry.get("id")),
        as_text(metadata.get("phone_number_id")) or as_text(known.get("phone_number_id")),
        as_text(metadata.get("display_phone_number"))
        or as_text(known.get("display_phone_number"))
        or as_text(known.get("phone_number")),
        as_time(entry.get("time")),
        entry.get("time"),
    )
    if not isinstance(change, dict):
        yield 3, row(origin, "error", change, "the change is not an object")
    elif not isinstance(value, dict):
        yield 3, row(origin, "error", change, "the change has no value that is an object")
    else:
        yield from split_value(value, origin)


def split_entry(entry: object, top: dict[str, Any]) -> Iterator[tuple[int, Atom]]:
    """(rank, row) for every atom of one entry."""
    nowhere = Origin(None, None, None, None, None, None)
    if not isinstance(entry, dict):
        yield 3, row(nowhere, "error", entry, "the entry is not an object")
    elif "changes" in entry:
        for change in as_list(entry["changes"]):
            yield from split_change(change, entry, top)
    elif "value" in entry:
        yield from split_change(entry, entry, top)
    else:
        yield 3, row(nowhere, "error", entry, "the entry has no changes")


def parse_long_int(digits: str) -> int | str:
    """An integer, or its digits as text where it is longer than any id, amount or time can be."""
    return int(digits) if len(digits) <= 100 else digits


def refuse_constant(_name: str) -> None:
    """NaN and Infinity are no JSON. Raises ValueError."""
    raise ValueError


def failure(error: str) -> list[Atom]:
    """The only row of a body that cannot be taken apart."""
    return [Atom(1, "error", None, None, None, None, None, None, None, None, None, error)]


def split_webhook(body: bytes | None) -> list[Atom]:
    """The atoms of a body, in order: messages, what refers to them, statuses, others. Never raises."""
    if body is None:
        return failure("there is no body")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return failure("the body is not UTF-8")
    try:
        # Not strict: a raw control character spoils one text, not the whole body.
        top = json.loads(text, strict=False, parse_constant=refuse_constant)
    except RecursionError:
        return failure("the body is nested too deep")
    except ValueError:
        try:
            top = json.loads(text, strict=False, parse_constant=refuse_constant, parse_int=parse_long_int)
        except (ValueError, RecursionError):
            return failure("the body is not JSON")
    if not isinstance(top, dict):
        return failure("the body is not a JSON object")
    try:
        if "entry" in top:
            ranked = [pair for entry in as_list(top["entry"]) for pair in split_entry(entry, top)]
        elif "changes" in top or "value" in top:
            ranked = list(split_entry(top, top))
        elif any(key in top for key in ARRAYS):
            ranked = list(split_change({"field": top.get("field", "messages"), "value": top}, {}, top))
        else:
            return failure("the body has no entry")
    except (ValueError, TypeError, RecursionError):
        return failure("the body cannot be taken apart")
    ranked.sort(key=lambda pair: pair[0])
    return [atom._replace(atom=number) for number, (_, atom) in enumerate(ranked, 1)]
SD["split"] = split_webhook
return split_webhook(p_body)
$plpython$;
COMMENT ON FUNCTION _wa_split_webhook(bytea) IS
'The atoms (messages, statuses, events) of one webhook body in processing order. Never raises: what cannot '
'be read is a row with its error.';
REVOKE ALL ON FUNCTION _wa_split_webhook(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_split_webhook(bytea) TO wa_admin, wa_receiver;

CREATE FUNCTION _wa_split_webhooks(p_ids bigint[], p_bodies bytea[]) RETURNS TABLE (
    log_id bigint,
    atom int,
    kind text,
    field text,
    waba_id text,
    phone_number_id text,
    display_phone text,
    entry_time timestamptz,
    payload jsonb,
    contact jsonb,
    dedupe_key text,
    note text,
    error text
)
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE
AS $plpython$
if "split" in SD:
    return SD["split"](p_ids, p_bodies)
"""Takes one webhook POST apart into atoms: one message, one status, one event each.

Dispatch is by the shape of a value (which arrays it holds), with the field's name as a help: Meta's own
examples put names at the wrong depth. An atom that cannot be read becomes a row with its error and harms no
other. No error text holds any part of the body. Shapes: Meta's webhook reference for WhatsApp.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

# array in a value -> (kind of its elements, rank in processing order)
ARRAYS: dict[str, tuple[str, int]] = {
    "messages": ("message", 0),
    "message_echoes": ("echo", 1),
    "history": ("history", 1),
    "state_sync": ("state_sync", 1),
    "groups": ("group", 1),
    "user_preferences": ("user_preference", 1),
    "user_actions": ("user_action", 1),
    "calls": ("call", 1),
    "statuses": ("status", 2),
    "errors": ("errors", 3),
}
# These speak of a message that may stand elsewhere in the same body.
DEPENDENT_TYPES = ("edit", "revoke", "reaction")
# Where an atom names the customer: keys of the telephone number, keys of the user id.
PHONE_KEYS = ("recipient_participant_id", "recipient_id", "from", "wa_id")
USER_KEYS = ("recipient_participant_user_id", "recipient_user_id", "from_user_id", "user_id")
ECHO_PHONE_KEYS = ("to",)
ECHO_USER_KEYS = ("to_user_id",)
REPLACEMENT = "\ufffd"
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
EARLIEST, LATEST = 1230768000, 4102444800  # 2009-01-01 to 2100-01-01


class Atom(NamedTuple):
    """One row of _wa_split_webhook; payload and contact are JSON text."""

    atom: int
    kind: str
    field: str | None
    waba_id: str | None
    phone_number_id: str | None
    display_phone: str | None
    entry_time: str | None
    payload: str | None
    contact: str | None
    dedupe_key: str | None
    note: str | None
    error: str | None


class Origin(NamedTuple):
    """What an atom inherits from its entry, change and value."""

    field: str | None
    waba_id: str | None
    phone_number_id: str | None
    display_phone: str | None
    entry_time: str | None
    raw_time: object


def clean(value: Any) -> Any:
    """`value` with U+FFFD for every NUL and lone surrogate. Raises RecursionError when nested too deep."""
    if isinstance(value, str):
        return UNSTORABLE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return str(value)  # beyond a double: JSON has no infinity
    return value


def dump(value: Any) -> str:
    """Compact JSON of `value`, its characters as they are. Raises ValueError for an infinite number."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def storable(value: Any) -> tuple[Any, str, bool]:
    """(value, its JSON, whether something was replaced) such that the JSON can be stored as jsonb."""
    try:
        text = dump(value)
        if text.isascii() and "\\u0000" not in text:
            return value, text, False
        text.encode()
        if "\\u0000" not in text:
            return value, text, False
    except ValueError:
        pass  # a lone surrogate or an infinite number
    cleaned = clean(value)
    return cleaned, dump(cleaned), cleaned != value


def as_text(value: object) -> str | None:
    """An id as text, whether it came as a string or as a number; None for anything else."""
    if isinstance(value, str):
        return UNSTORABLE.sub(REPLACEMENT, value) or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def as_time(value: object) -> str | None:
    """Unix seconds (number or string of digits) as an ISO 8601 timestamp in UTC; None where not plausible."""
    text = as_text(value)
    if text is None or not re.fullmatch(r"[0-9]{10}", text) or not EARLIEST <= int(text) <= LATEST:
        return None
    return datetime.fromtimestamp(int(text), UTC).isoformat()


def as_list(value: object) -> list[Any]:
    """A list as it is, anything else as the only member of one, nothing for None."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def digest(origin: Origin, content: object) -> str:
    """A key for atoms without an id of their own: the hash of where, what and when."""
    canonical = json.dumps(
        [origin.waba_id, origin.phone_number_id, origin.field, content, origin.raw_time],
        sort_keys=True,
        separators=(",", ":"),
    )
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def dedupe_key(kind: str, atom: dict[str, Any], origin: Origin) -> str:
    """The same text for the same event however often it is delivered, another text for another event."""
    own_id = as_text(atom.get("id"))
    if own_id is None or atom.get("type") == "payment":
        return digest(origin, atom)
    if kind in ("message", "echo"):
        return own_id
    if kind in ("status", "call_status"):
        member = as_text(atom.get("recipient_participant_id")) or as_text(
            atom.get("recipient_participant_user_id")
        )
        return "|".join(filter(None, (own_id, as_text(atom.get("status")) or "", member)))
    if kind == "call":
        return f"{own_id}|{as_text(atom.get('event')) or ''}"
    return digest(origin, atom)


def customer_ids(kind: str, atom: dict[str, Any]) -> tuple[str | None, str | None]:
    """(telephone number, user id) of the customer whom an atom names."""
    phone_keys, user_keys = (ECHO_PHONE_KEYS, ECHO_USER_KEYS) if kind == "echo" else (PHONE_KEYS, USER_KEYS)
    phone = next((as_text(atom[key]) for key in phone_keys if key in atom), None)
    user = next((as_text(atom[key]) for key in user_keys if key in atom), None)
    return phone, user


def find_contact(kind: str, atom: dict[str, Any], contacts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The contact of an atom: the one with its id, else the only one unless its ids say otherwise."""
    if not contacts:
        return None
    phone, user = customer_ids(kind, atom)
    for key, wanted in (("user_id", user), ("wa_id", phone)):
        if wanted is not None:
            for contact in contacts:
                if as_text(contact.get(key)) == wanted:
                    return contact
    if len(contacts) > 1:
        return None
    only = contacts[0]
    own_phone, own_user = as_text(only.get("wa_id")), as_text(only.get("user_id"))
    if (phone and own_phone and phone != own_phone) or (user and own_user and user != own_user):
        return None
    return only


def row(origin: Origin, kind: str, payload: object, error: str | None) -> Atom:
    """An atom that cannot be read, kept as far as it can be stored."""
    try:
        text: str | None = storable(payload)[1]
    except (ValueError, RecursionError):
        text = None
    key = digest(origin, text) if payload is not None else None
    return Atom(0, kind, *origin[:5], text, None, key, None, error)


def read_atom(kind: str, raw: object, origin: Origin, contacts: list[dict[str, Any]]) -> Atom:
    """The row of one array element (or whole value). Never raises."""
    if not isinstance(raw, dict):
        return row(origin, kind, raw, "the atom is not an object")
    try:
        contact = find_contact(kind, raw, contacts)
        payload, text, replaced = storable(raw)
        contact_text = None
        if contact is not None:
            _, contact_text, replaced_there = storable(contact)
            replaced = replaced or replaced_there
        note = "characters that cannot be stored were replaced by U+FFFD" if replaced else None
        return Atom(0, kind, *origin[:5], text, contact_text, dedupe_key(kind, payload, origin), note, None)
    except (ValueError, TypeError, RecursionError):
        return row(origin, kind, raw, "the atom cannot be read")


def split_value(value: dict[str, Any], origin: Origin) -> Iterator[tuple[int, Atom]]:
    """(rank, row) for every atom of one value."""
    contacts = [contact for contact in as_list(value.get("contacts")) if isinstance(contact, dict)]
    is_account = True
    for key, content in value.items():
        if key not in ARRAYS:
            continue
        kind, rank = ARRAYS[key]
        if not content and content != 0:
            continue
        is_account = False
        for raw in as_list(content):
            atom_type = raw.get("type") if isinstance(raw, dict) else None
            if kind == "status" and (atom_type == "call" or origin.field == "calls"):
                yield rank, read_atom("call_status", raw, origin, contacts)
            elif kind == "message" and atom_type in DEPENDENT_TYPES:
                yield 1, read_atom(kind, raw, origin, contacts)
            else:
                yield rank, read_atom(kind, raw, origin, contacts)
    if is_account:
        yield 3, read_atom("account", value, origin, [])
        return
    # An array of a name that is not known yet is events of some kind: kept beside the known ones.
    for key, content in value.items():
        if key not in ARRAYS and key != "contacts" and isinstance(content, list) and content:
            yield 3, read_atom("account", {key: content}, origin, [])


def split_change(change: object, entry: dict[str, Any], top: dict[str, Any]) -> Iterator[tuple[int, Atom]]:
    """(rank, row) for every atom of one change."""
    holder: dict[str, Any] = change if isinstance(change, dict) else {}
    field = next((as_text(part["field"]) for part in (holder, entry, top) if "field" in part), None)
    value = holder.get("value")
    known: dict[str, Any] = value if isinstance(value, dict) else {}
    declared = known.get("metadata")
    metadata: dict[str, Any] = declared if isinstance(declared, dict) else {}
    origin = Origin(
        field,
        as_text(entry.get("id")),
        as_text(metadata.get("phone_number_id")) or as_text(known.get("phone_number_id")),
        as_text(metadata.get("display_phone_number"))
        or as_text(known.get("display_phone_number"))
        or as_text(known.get("phone_number")),
        as_time(entry.get("time")),
        entry.get("time"),
    )
    if not isinstance(change, dict):
        yield 3, row(origin, "error", change, "the change is not an object")
    elif not isinstance(value, dict):
        yield 3, row(origin, "error", change, "the change has no value that is an object")
    else:
        yield from split_value(value, origin)


def split_entry(entry: object, top: dict[str, Any]) -> Iterator[tuple[int, Atom]]:
    """(rank, row) for every atom of one entry."""
    nowhere = Origin(None, None, None, None, None, None)
    if not isinstance(entry, dict):
        yield 3, row(nowhere, "error", entry, "the entry is not an object")
    elif "changes" in entry:
        for change in as_list(entry["changes"]):
            yield from split_change(change, entry, top)
    elif "value" in entry:
        yield from split_change(entry, entry, top)
    else:
        yield 3, row(nowhere, "error", entry, "the entry has no changes")


def parse_long_int(digits: str) -> int | str:
    """An integer, or its digits as text where it is longer than any id, amount or time can be."""
    return int(digits) if len(digits) <= 100 else digits


def refuse_constant(_name: str) -> None:
    """NaN and Infinity are no JSON. Raises ValueError."""
    raise ValueError


def failure(error: str) -> list[Atom]:
    """The only row of a body that cannot be taken apart."""
    return [Atom(1, "error", None, None, None, None, None, None, None, None, None, error)]


def split_webhook(body: bytes | None) -> list[Atom]:
    """The atoms of a body, in order: messages, what refers to them, statuses, others. Never raises."""
    if body is None:
        return failure("there is no body")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return failure("the body is not UTF-8")
    try:
        # Not strict: a raw control character spoils one text, not the whole body.
        top = json.loads(text, strict=False, parse_constant=refuse_constant)
    except RecursionError:
        return failure("the body is nested too deep")
    except ValueError:
        try:
            top = json.loads(text, strict=False, parse_constant=refuse_constant, parse_int=parse_long_int)
        except (ValueError, RecursionError):
            return failure("the body is not JSON")
    if not isinstance(top, dict):
        return failure("the body is not a JSON object")
    try:
        if "entry" in top:
            ranked = [pair for entry in as_list(top["entry"]) for pair in split_entry(entry, top)]
        elif "changes" in top or "value" in top:
            ranked = list(split_entry(top, top))
        elif any(key in top for key in ARRAYS):
            ranked = list(split_change({"field": top.get("field", "messages"), "value": top}, {}, top))
        else:
            return failure("the body has no entry")
    except (ValueError, TypeError, RecursionError):
        return failure("the body cannot be taken apart")
    ranked.sort(key=lambda pair: pair[0])
    return [atom._replace(atom=number) for number, (_, atom) in enumerate(ranked, 1)]
def split_batch(ids, bodies):
    return [(log_id, *atom) for log_id, body in zip(ids, bodies, strict=True) for atom in split_webhook(body)]
SD["split"] = split_batch
return split_batch(p_ids, p_bodies)
$plpython$;
COMMENT ON FUNCTION _wa_split_webhooks(bigint[], bytea[]) IS
'As _wa_split_webhook for a batch: body n belongs to id n, which leads its rows.';
REVOKE ALL ON FUNCTION _wa_split_webhooks(bigint[], bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_split_webhooks(bigint[], bytea[]) TO wa_admin, wa_receiver;

-- sql/extension/data_directory.sql
-- What the database cannot say of itself in SQL: which files it lives in.

CREATE FUNCTION _wa_data_directory_mark() RETURNS text
LANGUAGE plpython3u STABLE PARALLEL SAFE
AS $plpython$
if "mark" in SD:
    return SD["mark"]()
"""What tells a copy of a data directory from its original."""

import os


def data_directory_mark() -> str:
    """Inode numbers of two files that a server writes in place and never replaces.

    Whatever copies files (pg_basebackup, a backup tool, cp -a, rsync) makes new ones, whereas restarts, chown
    and renaming the directory keep them. Not so a snapshot of the disk: it has the same ones. The directory
    is the server's working directory.
    """
    return "/".join(str(os.stat(name).st_ino) for name in ("PG_VERSION", "global/pg_control"))
SD["mark"] = data_directory_mark
return data_directory_mark()
$plpython$;
COMMENT ON FUNCTION _wa_data_directory_mark() IS
'Internal: differs between a data directory and a copy of its files.';
-- The owner of the schema calls it, who may be any role.
GRANT EXECUTE ON FUNCTION _wa_data_directory_mark() TO PUBLIC;

-- sql/extension/rules.sql
-- Rules of sending that need no table: windows, states, priorities, backoff, ids. What a message may contain
-- is in content.sql.

CREATE FUNCTION _wa_window_open(p_last_customer_at timestamptz, p_now timestamptz, p_margin interval)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(p_now < p_last_customer_at + interval '24 hours' - p_margin, FALSE);
COMMENT ON FUNCTION _wa_window_open(timestamptz, timestamptz, interval) IS
'Whether the 24-hour customer service window is open at p_now; it closes p_margin early and was never open '
'for NULL.';
REVOKE ALL ON FUNCTION _wa_window_open(timestamptz, timestamptz, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_window_open(timestamptz, timestamptz, interval)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_status_rank(p_state text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_state
    WHEN 'queued' THEN 1
    WHEN 'accepted' THEN 2
    WHEN 'held' THEN 2
    WHEN 'sent' THEN 3
    -- Another device of the customer may still get what failed on the first: a later delivery wins.
    WHEN 'failed' THEN 4
    WHEN 'delivered' THEN 5
    WHEN 'read' THEN 6
    WHEN 'played' THEN 7
END;
COMMENT ON FUNCTION _wa_status_rank(text) IS
'Order of delivery states: a state changes only to one of a higher rank. NULL for a state that is not '
'known.';
REVOKE ALL ON FUNCTION _wa_status_rank(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_status_rank(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_priority_rank(p_priority text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_priority WHEN 'high' THEN 0 WHEN 'normal' THEN 1 WHEN 'low' THEN 2 END;
COMMENT ON FUNCTION _wa_priority_rank(text) IS
'Order of priorities, the most urgent first: high 0, normal 1, low 2; NULL for any other text.';
REVOKE ALL ON FUNCTION _wa_priority_rank(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_priority_rank(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- Half of each delay is fixed, half by chance, so that what failed together does not come back together.
CREATE FUNCTION _wa_backoff(p_attempt int, p_random double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs =>
    least(900, 5 * 2 ^ least(greatest(p_attempt, 1), 10)) * (0.5 + least(greatest(p_random, 0), 1) / 2));
COMMENT ON FUNCTION _wa_backoff(int, double precision) IS
'Wait before the next try after failed try number p_attempt (from 1): 5 s to 10 s, doubling, never above 15 '
'min. p_random is a number from 0 to 1.';
REVOKE ALL ON FUNCTION _wa_backoff(int, double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_backoff(int, double precision)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- A list of characters rather than a class: classes depend on the database's locale.
CREATE FUNCTION _wa_bare_word(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(p_text) <= 40
    THEN upper(btrim(p_text, E' \t\r\n\u00a0.,;:!?¡¿"''`´«»“”‘’()[]{}<>*_~-–—…') COLLATE "C") END;
COMMENT ON FUNCTION _wa_bare_word(text) IS
'A short text in capitals without blanks and punctuation around it; NULL for a long one.';
REVOKE ALL ON FUNCTION _wa_bare_word(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_bare_word(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_is_opt_out_word(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(_wa_bare_word(p_text) IN ('STOP', 'UNSUBSCRIBE', 'CANCEL', 'END', 'QUIT'), FALSE);
COMMENT ON FUNCTION _wa_is_opt_out_word(text) IS
'Whether a whole typed text says no more messages: STOP, UNSUBSCRIBE, CANCEL, END or QUIT.';
REVOKE ALL ON FUNCTION _wa_is_opt_out_word(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_is_opt_out_word(text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_is_opt_in_word(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(_wa_bare_word(p_text) = 'START', FALSE);
COMMENT ON FUNCTION _wa_is_opt_in_word(text) IS
'Whether a whole typed text takes an opt-out back: START.';
REVOKE ALL ON FUNCTION _wa_is_opt_in_word(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_is_opt_in_word(text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- RFC 9562 section 6.2, method 3: the 12 bits behind the milliseconds hold the fraction of the millisecond.
-- p_at stands once only, so that a call with clock_timestamp() can be inlined.
CREATE FUNCTION _wa_uuid7(p_at timestamptz) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (overlay(lpad(to_hex((date_part('epoch', p_at) * 4096000)::bigint), 15, '0'), '7', 13, 0)
    || right(gen_random_uuid()::text, 17))::uuid;
COMMENT ON FUNCTION _wa_uuid7(timestamptz) IS
'A version 7 UUID for a time: sorts by that time to the microsecond, by chance within one.';
REVOKE ALL ON FUNCTION _wa_uuid7(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_uuid7(timestamptz) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_to_timestamp(p_value jsonb) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(p_value) IN ('string', 'number')
    AND p_value #>> '{}' ~ '^[0-9]{10}(\.[0-9]{1,6})?$'
    AND (p_value #>> '{}')::numeric BETWEEN 1230768000 AND 4102444800
    THEN to_timestamp((p_value #>> '{}')::double precision) END;
COMMENT ON FUNCTION _wa_to_timestamp(jsonb) IS
'A time that a webhook gives in Unix seconds, as string or number; NULL unless it lies between 2009 and '
'2100.';
REVOKE ALL ON FUNCTION _wa_to_timestamp(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_to_timestamp(jsonb) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- sql/extension/content.sql
-- What the Cloud API accepts as the content of a message. Lengths are counted in characters (Unicode code
-- points), as length() does. Every check answers NULL when all is well, else one sentence that names the key
-- and the limit.

CREATE FUNCTION _wa_check_string(p_value jsonb, p_key text, p_max int, p_required boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_value IS NULL OR jsonb_typeof(p_value) = 'null'
        THEN CASE WHEN p_required THEN p_key || ' is missing.' END
    WHEN jsonb_typeof(p_value) <> 'string' THEN p_key || ' must be a string.'
    WHEN p_required AND p_value #>> '{}' ~ '^\s*$' THEN p_key || ' must not be empty.'
    WHEN length(p_value #>> '{}') > p_max
        THEN format('%s has %s characters; at most %s are allowed.', p_key, length(p_value #>> '{}'), p_max)
END;
COMMENT ON FUNCTION _wa_check_string(jsonb, text, int, boolean) IS
'What is wrong with a string of at most p_max characters; NULL when fine. A required one must not be blank.';
REVOKE ALL ON FUNCTION _wa_check_string(jsonb, text, int, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_string(jsonb, text, int, boolean) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_text(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_content -> 'body', 'text.body', 4096, TRUE),
    CASE WHEN p_content ? 'preview_url' AND jsonb_typeof(p_content -> 'preview_url') <> 'boolean'
        THEN 'text.preview_url must be true or false.' END
);
COMMENT ON FUNCTION _wa_check_text(jsonb) IS
'What is wrong with the content of a text message; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_text(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_text(jsonb) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_link(p_value jsonb, p_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_value, p_key, 2000, TRUE),
    CASE WHEN p_value #>> '{}' !~* '^https?://[^\s/?#]+\S*$'
        THEN p_key || ' must be an http or https URL.' END
);
COMMENT ON FUNCTION _wa_check_link(jsonb, text) IS
'What is wrong with a URL that Meta or the customer shall open; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_link(jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_link(jsonb, text) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_media(p_type text, p_content jsonb, p_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(p_content) IS DISTINCT FROM 'object' THEN p_key || ' must be an object.'
    WHEN p_content ? 'id' AND p_content ? 'link' THEN p_key || ' must have id or link, not both.'
    WHEN NOT p_content ? 'id' AND NOT p_content ? 'link' THEN p_key || ' must have id or link.'
    WHEN p_content ? 'caption' AND p_type IN ('audio', 'sticker')
        THEN format('%s.caption is not allowed: a message of type %s has no caption.', p_key, p_type)
    WHEN p_content ? 'filename' AND p_type <> 'document' THEN p_key || '.filename is for documents only.'
    WHEN p_content ? 'voice' AND (p_type <> 'audio' OR jsonb_typeof(p_content -> 'voice') <> 'boolean')
        THEN p_key || '.voice is true or false, for audio only.'
    ELSE coalesce(
        CASE WHEN p_content ? 'id' THEN _wa_check_string(p_content -> 'id', p_key || '.id', 512, TRUE)
            ELSE _wa_check_link(p_content -> 'link', p_key || '.link') END,
        _wa_check_string(p_content -> 'caption', p_key || '.caption', 1024, FALSE),
        _wa_check_string(p_content -> 'filename', p_key || '.filename', 1024, FALSE)
    )
END;
COMMENT ON FUNCTION _wa_check_media(text, jsonb, text) IS
'What is wrong with an image, video, document, audio or sticker (by id or by link); NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_media(text, jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_media(text, jsonb, text) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_coordinate(p_value jsonb, p_key text, p_limit int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_value IS NULL OR jsonb_typeof(p_value) = 'null' THEN p_key || ' is missing.'
    WHEN jsonb_typeof(p_value) NOT IN ('number', 'string')
        OR p_value #>> '{}' !~ '^[+-]?[0-9]{1,3}(\.[0-9]{1,30})?$'
        THEN p_key || ' must be a number in degrees.'
    WHEN abs((p_value #>> '{}')::numeric) > p_limit
        THEN format('%s must lie between -%s and %2$s.', p_key, p_limit)
END;
COMMENT ON FUNCTION _wa_check_coordinate(jsonb, text, int) IS
'What is wrong with a latitude or longitude (number, or number in a string); NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_coordinate(jsonb, text, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_coordinate(jsonb, text, int) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_location(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_coordinate(p_content -> 'latitude', 'location.latitude', 90),
    _wa_check_coordinate(p_content -> 'longitude', 'location.longitude', 180),
    _wa_check_string(p_content -> 'name', 'location.name', 1000, FALSE),
    _wa_check_string(p_content -> 'address', 'location.address', 1000, FALSE)
);
COMMENT ON FUNCTION _wa_check_location(jsonb) IS
'What is wrong with the content of a location message; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_location(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_location(jsonb) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_reaction(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_content -> 'message_id', 'reaction.message_id', 512, TRUE),
    CASE WHEN jsonb_typeof(p_content -> 'emoji') IS DISTINCT FROM 'string'
        THEN 'reaction.emoji must be a string ("" takes the reaction back).' END,
    _wa_check_string(p_content -> 'emoji', 'reaction.emoji', 64, FALSE)
);
COMMENT ON FUNCTION _wa_check_reaction(jsonb) IS
'What is wrong with the content of a reaction; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_reaction(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_reaction(jsonb) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_contacts(p_content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact jsonb;
    v_list    text;
    v_number  int := 0;
    v_wrong   text;
BEGIN
    IF jsonb_typeof(p_content) IS DISTINCT FROM 'array' THEN
        RETURN 'contacts must be an array.';
    ELSIF jsonb_array_length(p_content) NOT BETWEEN 1 AND 257 THEN
        RETURN format('contacts has %s elements; 1 to 257 are allowed.', jsonb_array_length(p_content));
    END IF;
    FOR v_contact IN SELECT element FROM jsonb_array_elements(p_content) AS element LOOP
        IF jsonb_typeof(v_contact) <> 'object' THEN
            RETURN format('contacts[%s] must be an object.', v_number);
        END IF;
        v_wrong := _wa_check_string(v_contact #> '{name,formatted_name}',
            format('contacts[%s].name.formatted_name', v_number), 1024, TRUE);
        IF v_wrong IS NOT NULL THEN
            RETURN v_wrong;
        END IF;
        FOREACH v_list IN ARRAY ARRAY['phones', 'emails', 'urls', 'addresses'] LOOP
            IF v_contact ? v_list AND jsonb_typeof(v_contact -> v_list) <> 'array' THEN
                RETURN format('contacts[%s].%s must be an array.', v_number, v_list);
            END IF;
        END LOOP;
        IF v_contact ? 'birthday' AND v_contact ->> 'birthday' !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' THEN
            RETURN format('contacts[%s].birthday must be a date of the form YYYY-MM-DD.', v_number);
        END IF;
        v_number := v_number + 1;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION _wa_check_contacts(jsonb) IS
'What is wrong with the content of a contacts message; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_contacts(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_contacts(jsonb) TO wa_admin, wa_app, wa_dispatcher;

-- 1024 is the limit of a whole body; a single value cannot be longer.
CREATE FUNCTION _wa_check_template_text(p_value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_value IS NULL THEN 'a template parameter is missing.'
    WHEN p_value ~ '^\s*$' THEN 'a template parameter must not be empty.'
    WHEN p_value ~ '[\n\r\t\v\f]' THEN 'a template parameter must not contain a newline or a tab.'
    WHEN p_value LIKE '%     %' THEN 'a template parameter must not contain more than 4 spaces in a row.'
    WHEN length(p_value) > 1024
        THEN format('a template parameter has %s characters; at most 1024 are allowed.', length(p_value))
END;
COMMENT ON FUNCTION _wa_check_template_text(text) IS
'What is wrong with the text of a template parameter; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_template_text(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_template_text(text) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_template_placeholders(p_text text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(array_agg(found.name ORDER BY found.number, found.place), '{}')
    FROM (
        SELECT match.parts[1] AS name, min(match.place) AS place,
            CASE WHEN match.parts[1] ~ '^[0-9]{1,4}$' THEN match.parts[1]::int END AS number
        FROM regexp_matches(p_text, '\{\{\s*([A-Za-z0-9_]+)\s*\}\}', 'g')
            WITH ORDINALITY AS match (parts, place)
        GROUP BY match.parts[1]
    ) AS found;
END;
COMMENT ON FUNCTION _wa_template_placeholders(text) IS
'The distinct placeholders of a template text: numbers in their order, names in order of appearance; {} for '
'none.';
REVOKE ALL ON FUNCTION _wa_template_placeholders(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_template_placeholders(text) TO wa_admin, wa_app, wa_dispatcher;

-- sql/extension/interactive.sql
-- Interactive messages: buttons, lists, flows, products. Counting rules as in content.sql.

CREATE FUNCTION _wa_check_header(p_header jsonb, p_types text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_header IS NULL THEN NULL
    WHEN jsonb_typeof(p_header) <> 'object' THEN 'interactive.header must be an object.'
    WHEN p_header ->> 'type' IS NULL OR p_header ->> 'type' <> ALL (p_types)
        THEN format('interactive.header.type must be %s here.', array_to_string(p_types, ', '))
    WHEN p_header ->> 'type' = 'text'
        THEN _wa_check_string(p_header -> 'text', 'interactive.header.text', 60, TRUE)
    ELSE _wa_check_media(p_header ->> 'type', p_header -> (p_header ->> 'type'),
        'interactive.header.' || (p_header ->> 'type'))
END;
COMMENT ON FUNCTION _wa_check_header(jsonb, text[]) IS
'What is wrong with the header of an interactive message that may be of some types only; NULL when fine or '
'absent.';
REVOKE ALL ON FUNCTION _wa_check_header(jsonb, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_header(jsonb, text[]) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_buttons(p_buttons jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_button jsonb;
    v_key    text;
    v_number int := 0;
    v_wrong  text;
    v_ids    text[] := ARRAY[]::text[];
    v_titles text[] := ARRAY[]::text[];
BEGIN
    IF jsonb_typeof(p_buttons) IS DISTINCT FROM 'array' THEN
        RETURN 'interactive.action.buttons must be an array.';
    ELSIF jsonb_array_length(p_buttons) NOT BETWEEN 1 AND 3 THEN
        RETURN format('interactive.action.buttons has %s elements; 1 to 3 are allowed.',
            jsonb_array_length(p_buttons));
    END IF;
    FOR v_button IN SELECT element FROM jsonb_array_elements(p_buttons) AS element LOOP
        v_key := format('interactive.action.buttons[%s]', v_number);
        IF v_button ->> 'type' IS DISTINCT FROM 'reply' THEN
            RETURN v_key || '.type must be reply.';
        END IF;
        v_wrong := coalesce(
            _wa_check_string(v_button #> '{reply,id}', v_key || '.reply.id', 256, TRUE),
            _wa_check_string(v_button #> '{reply,title}', v_key || '.reply.title', 20, TRUE)
        );
        IF v_wrong IS NOT NULL THEN
            RETURN v_wrong;
        ELSIF v_button #>> '{reply,id}' = ANY (v_ids) THEN
            RETURN v_key || '.reply.id is used twice.';
        ELSIF v_button #>> '{reply,title}' = ANY (v_titles) THEN
            RETURN v_key || '.reply.title is used twice.';
        END IF;
        v_ids := v_ids || (v_button #>> '{reply,id}');
        v_titles := v_titles || (v_button #>> '{reply,title}');
        v_number := v_number + 1;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION _wa_check_buttons(jsonb) IS
'What is wrong with the reply buttons of an interactive message; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_buttons(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_buttons(jsonb) TO wa_admin, wa_app, wa_dispatcher;

-- Lists have sections of rows, product lists have sections of products: same frame, other elements.
CREATE FUNCTION _wa_check_sections(p_sections jsonb, p_element text, p_max_elements int) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_section  jsonb;
    v_element  jsonb;
    v_key      text;
    v_row_key  text;
    v_number   int := 0;
    v_place    int;
    v_elements int := 0;
    v_wrong    text;
    v_ids      text[] := ARRAY[]::text[];
BEGIN
    IF jsonb_typeof(p_sections) IS DISTINCT FROM 'array' THEN
        RETURN 'interactive.action.sections must be an array.';
    ELSIF jsonb_array_length(p_sections) NOT BETWEEN 1 AND 10 THEN
        RETURN format('interactive.action.sections has %s elements; 1 to 10 are allowed.',
            jsonb_array_length(p_sections));
    END IF;
    FOR v_section IN SELECT element FROM jsonb_array_elements(p_sections) AS element LOOP
        v_key := format('interactive.action.sections[%s]', v_number);
        v_wrong := _wa_check_string(
            v_section -> 'title', v_key || '.title', 24, jsonb_array_length(p_sections) > 1);
        IF v_wrong IS NOT NULL THEN
            RETURN v_wrong;
        ELSIF jsonb_typeof(v_section -> p_element) IS DISTINCT FROM 'array'
            OR v_section -> p_element = '[]' THEN
            RETURN format('%s.%s must be an array that is not empty.', v_key, p_element);
        END IF;
        v_place := 0;
        FOR v_element IN SELECT element FROM jsonb_array_elements(v_section -> p_element) AS element LOOP
            v_row_key := format('%s.%s[%s]', v_key, p_element, v_place);
            IF p_element = 'rows' THEN
                v_wrong := coalesce(
                    _wa_check_string(v_element -> 'id', v_row_key || '.id', 200, TRUE),
                    _wa_check_string(v_element -> 'title', v_row_key || '.title', 24, TRUE),
                    _wa_check_string(v_element -> 'description', v_row_key || '.description', 72, FALSE),
                    CASE WHEN v_element ->> 'id' = ANY (v_ids) THEN v_row_key || '.id is used twice.' END
                );
                v_ids := v_ids || (v_element ->> 'id');
            ELSE
                v_wrong := _wa_check_string(
                    v_element -> 'product_retailer_id', v_row_key || '.product_retailer_id', 512, TRUE);
            END IF;
            IF v_wrong IS NOT NULL THEN
                RETURN v_wrong;
            END IF;
            v_place := v_place + 1;
        END LOOP;
        v_elements := v_elements + v_place;
        v_number := v_number + 1;
    END LOOP;
    IF v_elements > p_max_elements THEN
        RETURN format('interactive.action.sections has %s %s in total; at most %s are allowed.',
            v_elements, p_element, p_max_elements);
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION _wa_check_sections(jsonb, text, int) IS
'What is wrong with the sections of a list (rows) or product list (product_items); NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_sections(jsonb, text, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_sections(jsonb, text, int) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_flow(p_parameters jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(p_parameters) IS DISTINCT FROM 'object'
        THEN 'interactive.action.parameters must be an object.'
    WHEN (p_parameters ? 'flow_id') = (p_parameters ? 'flow_name')
        THEN 'interactive.action.parameters must have either flow_id or flow_name.'
    WHEN p_parameters ->> 'flow_message_version' IS DISTINCT FROM '3'
        THEN 'interactive.action.parameters.flow_message_version must be "3".'
    WHEN p_parameters ->> 'mode' NOT IN ('draft', 'published')
        THEN 'interactive.action.parameters.mode must be draft or published.'
    WHEN p_parameters ->> 'flow_action' NOT IN ('navigate', 'data_exchange')
        THEN 'interactive.action.parameters.flow_action must be navigate or data_exchange.'
    ELSE _wa_check_string(p_parameters -> 'flow_cta', 'interactive.action.parameters.flow_cta', 30, TRUE)
END;
COMMENT ON FUNCTION _wa_check_flow(jsonb) IS
'What is wrong with the action parameters of a flow message; NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_flow(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_flow(jsonb) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_action(p_type text, p_action jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_type = 'button' THEN _wa_check_buttons(p_action -> 'buttons')
    WHEN p_type = 'list' THEN coalesce(
        _wa_check_string(p_action -> 'button', 'interactive.action.button', 20, TRUE),
        _wa_check_sections(p_action -> 'sections', 'rows', 10)
    )
    WHEN p_type = 'product_list' THEN coalesce(
        _wa_check_string(p_action -> 'catalog_id', 'interactive.action.catalog_id', 512, TRUE),
        _wa_check_sections(p_action -> 'sections', 'product_items', 30)
    )
    WHEN p_type = 'product' THEN coalesce(
        _wa_check_string(p_action -> 'catalog_id', 'interactive.action.catalog_id', 512, TRUE),
        _wa_check_string(
            p_action -> 'product_retailer_id', 'interactive.action.product_retailer_id', 512, TRUE)
    )
    WHEN p_type IN ('cta_url', 'flow', 'catalog_message', 'location_request_message')
        AND p_action ->> 'name' IS DISTINCT FROM
            CASE p_type WHEN 'location_request_message' THEN 'send_location' ELSE p_type END
        THEN format('interactive.action.name must be %s.',
            CASE p_type WHEN 'location_request_message' THEN 'send_location' ELSE p_type END)
    WHEN p_type = 'cta_url' THEN coalesce(
        _wa_check_string(
            p_action #> '{parameters,display_text}', 'interactive.action.parameters.display_text', 20, TRUE),
        _wa_check_link(p_action #> '{parameters,url}', 'interactive.action.parameters.url')
    )
    WHEN p_type = 'flow' THEN _wa_check_flow(p_action -> 'parameters')
END;
COMMENT ON FUNCTION _wa_check_action(text, jsonb) IS
'What is wrong with the action of an interactive message of a type; NULL when fine or the type is not '
'known.';
REVOKE ALL ON FUNCTION _wa_check_action(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_action(text, jsonb) TO wa_admin, wa_app, wa_dispatcher;

CREATE FUNCTION _wa_check_interactive(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_content -> 'type', 'interactive.type', 100, TRUE),
    CASE WHEN p_content ->> 'type' = 'product' AND p_content ? 'header'
        THEN 'interactive.header is not allowed: a product message has none.' END,
    CASE WHEN p_content ->> 'type' = 'product_list' AND NOT p_content ? 'header'
        THEN 'interactive.header is missing.' END,
    _wa_check_header(p_content -> 'header', CASE p_content ->> 'type'
        WHEN 'list' THEN ARRAY['text']
        WHEN 'product_list' THEN ARRAY['text']
        ELSE ARRAY['text', 'image', 'video', 'document'] END),
    -- Of the types without limits known here, only the frame is checked.
    CASE WHEN p_content ? 'body' OR p_content ->> 'type' IN (
        'button', 'list', 'cta_url', 'flow', 'location_request_message', 'product_list', 'catalog_message')
        THEN _wa_check_string(p_content #> '{body,text}', 'interactive.body.text',
            CASE WHEN p_content ->> 'type' = 'list' THEN 4096 ELSE 1024 END, TRUE) END,
    CASE WHEN p_content ? 'footer'
        THEN _wa_check_string(p_content #> '{footer,text}', 'interactive.footer.text', 60, TRUE) END,
    CASE WHEN jsonb_typeof(p_content -> 'action') IS DISTINCT FROM 'object'
        THEN 'interactive.action must be an object.' END,
    _wa_check_action(p_content ->> 'type', p_content -> 'action')
);
COMMENT ON FUNCTION _wa_check_interactive(jsonb) IS
'What is wrong with the content of an interactive message; NULL when fine. Types not known here pass with '
'body and action.';
REVOKE ALL ON FUNCTION _wa_check_interactive(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_interactive(jsonb) TO wa_admin, wa_app, wa_dispatcher;

-- PL/pgSQL, because an SQL function that cannot be inlined starts an executor at each call: four times the
-- cost.
CREATE FUNCTION _wa_check_content(p_type text, p_content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_type = 'contacts' THEN
        RETURN _wa_check_contacts(p_content);
    ELSIF jsonb_typeof(p_content) IS DISTINCT FROM 'object' THEN
        RETURN format('the content of a message of type %s must be an object.', coalesce(p_type, 'NULL'));
    ELSIF p_type = 'text' THEN
        -- What is fine is told by operators alone, the words are looked for only when something is wrong.
        RETURN CASE WHEN jsonb_typeof(p_content -> 'body') = 'string' AND length(p_content ->> 'body') <= 4096
            AND p_content ->> 'body' ~ '\S' AND NOT p_content ? 'preview_url'
            THEN NULL ELSE _wa_check_text(p_content) END;
    ELSIF p_type IN ('image', 'video', 'document', 'audio', 'sticker') THEN
        RETURN _wa_check_media(p_type, p_content, p_type);
    ELSIF p_type = 'location' THEN
        RETURN _wa_check_location(p_content);
    ELSIF p_type = 'reaction' THEN
        RETURN _wa_check_reaction(p_content);
    ELSIF p_type = 'interactive' THEN
        RETURN _wa_check_interactive(p_content);
    ELSIF p_type = 'template' THEN
        RETURN coalesce(
            _wa_check_string(p_content -> 'name', 'template.name', 512, TRUE),
            _wa_check_string(p_content #> '{language,code}', 'template.language.code', 20, TRUE),
            CASE WHEN p_content ? 'components' AND jsonb_typeof(p_content -> 'components') <> 'array'
                THEN 'template.components must be an array.' END
        );
    END IF;
    RETURN format('%s is no type of message that can be sent.', coalesce(quote_literal(p_type), 'NULL'));
END;
$$;
COMMENT ON FUNCTION _wa_check_content(text, jsonb) IS
'What is wrong with the content of a message of a type, the object that the Cloud API takes beside "type"; '
'NULL when fine.';
REVOKE ALL ON FUNCTION _wa_check_content(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_check_content(text, jsonb) TO wa_admin, wa_app, wa_dispatcher;

CREATE TABLE _wa_scripts (
    position integer NOT NULL CONSTRAINT _wa_scripts_position_pkey PRIMARY KEY,
    kind text NOT NULL CONSTRAINT _wa_scripts_kind_check CHECK (kind IN ('schema', 'api', 'migration')),
    name text NOT NULL CONSTRAINT _wa_scripts_name_key UNIQUE,
    body text NOT NULL,
    checksum text NOT NULL,
    objects text [] NOT NULL
);
COMMENT ON TABLE _wa_scripts IS 'The SQL that migrate_wa() runs, in order. Never dumped.';
GRANT SELECT ON _wa_scripts TO PUBLIC;

INSERT INTO _wa_scripts (position, kind, name, body, checksum, objects) VALUES
(1, 'schema', 'schema/organizations.sql', $wa_script$-- Tenants, who belongs to which, and the identity of the database that may send.

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
    CONSTRAINT wa_organizations_pkey PRIMARY KEY (id),
    CONSTRAINT wa_organizations_region_check CHECK (default_region ~ '^[A-Z]{2}$'),
    CONSTRAINT wa_organizations_rate_check CHECK (rate_limit_per_minute > 0),
    CONSTRAINT wa_organizations_margin_check CHECK (
        window_margin >= interval '0' AND window_margin < interval '24 hours'
    ),
    CONSTRAINT wa_organizations_refusal_check CHECK (on_refusal IN ('raise', 'record')),
    CONSTRAINT wa_organizations_unknown_check CHECK (on_unknown IN ('fail', 'retry')),
    CONSTRAINT wa_organizations_order_check CHECK (order_mode IN ('accepted', 'delivered'))
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
    CONSTRAINT wa_installations_pkey PRIMARY KEY (is_current),
    CONSTRAINT wa_installations_current_check CHECK (is_current)
);

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
'raise: a refused row rolls its statement back. record: it is stored as failed with its reason.';
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
COMMENT ON TABLE wa_organization_roles IS
'Which database roles belong to which organization; row security goes by membership in these roles.';
COMMENT ON TABLE wa_installations IS
'The one database that may send, by system identifier, database, timeline and the files it lives in; a copy '
'differs and sends nothing until adopt_wa_database().';
COMMENT ON COLUMN wa_installations.data_directory_mark IS
'Inode numbers of the data directory: a file copy has others, a disk snapshot has the same.';
COMMENT ON COLUMN wa_installations.is_sending_enabled IS
'The kill switch: false stops every claim of every organization.';
COMMENT ON COLUMN wa_installations.sending_note IS 'Who threw the kill switch and why.';
$wa_script$, 'b926cc9c1d72c82320ab0e4095c4baf4fd64b166e5ced31a05616875a20ca4dc', ARRAY['relation wa_organizations', 'relation wa_organization_roles', 'relation wa_installations']::text[]),
(2, 'api', 'api/organizations.sql', $wa_script$-- Which organization a role works for. Comes before the tables whose defaults and policies call it.

CREATE OR REPLACE FUNCTION _wa_sole_organization() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT min(id::text)::uuid FROM (SELECT id FROM wa_organizations LIMIT 2) o HAVING count(*) = 1
$$;

COMMENT ON FUNCTION _wa_sole_organization() IS
'The only organization, or NULL when there are several. Definer: it must look past row security.';

CREATE OR REPLACE FUNCTION _wa_choose_organization(p_role name, p_organizations uuid[]) RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_setting text := nullif(current_setting('wa.organization_id', true), '');
    v_is_admin boolean := pg_has_role(p_role, 'wa_admin', 'MEMBER');
    v_chosen uuid;
BEGIN
    IF v_setting IS NULL THEN
        IF cardinality(p_organizations) = 1 AND NOT v_is_admin THEN
            RETURN p_organizations[1];
        END IF;
        IF v_is_admin OR cardinality(p_organizations) = 0 THEN
            v_chosen := _wa_sole_organization();
        END IF;
        IF v_chosen IS NOT NULL THEN
            RETURN v_chosen;
        END IF;
        IF v_is_admin OR cardinality(p_organizations) > 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'WA301',
                MESSAGE = format('role "%s" may work for several organizations and none is chosen', p_role),
                HINT = 'SET wa.organization_id = ''<uuid>'' (in a transaction: SET LOCAL).';
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'WA302',
            MESSAGE = format('role "%s" belongs to no organization', p_role),
            HINT = 'Ask a wa_admin: SELECT add_wa_organization_role(organization_id, role_name).';
    END IF;
    BEGIN
        v_chosen := v_setting::uuid;
    EXCEPTION WHEN invalid_text_representation THEN
        RAISE EXCEPTION USING ERRCODE = 'WA303',
            MESSAGE = format('wa.organization_id is not a UUID: "%s"', v_setting),
            HINT = 'SET wa.organization_id to the id of one of your organizations, or RESET it.';
    END;
    IF v_is_admin OR v_chosen = ANY (p_organizations)
        OR (cardinality(p_organizations) = 0 AND v_chosen = _wa_sole_organization())
    THEN
        RETURN v_chosen;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'WA302',
        MESSAGE = format('role "%s" does not belong to organization %s', p_role, v_chosen),
        HINT = 'Choose one of your own organizations, or ask a wa_admin for add_wa_organization_role().';
END
$$;

COMMENT ON FUNCTION _wa_choose_organization(name, uuid[]) IS
'Internal: the organization that a role works for, of those that it belongs to. wa.organization_id only '
'chooses among them.';

-- By the role in force, so that it serves inside a host's own SECURITY DEFINER function too.
CREATE OR REPLACE FUNCTION current_wa_organization() RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN _wa_choose_organization(current_user, ARRAY(
        SELECT DISTINCT r.organization_id FROM wa_organization_roles r
        WHERE pg_has_role(to_regrole(quote_ident(r.role_name)), 'MEMBER')
    ));
END
$$;

COMMENT ON FUNCTION current_wa_organization() IS
'The organization that the current role works for. wa.organization_id only chooses among those that the '
'role belongs to; with several and none chosen it raises WA301, with a foreign one WA302.';

CREATE OR REPLACE FUNCTION _wa_caller() RETURNS name
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name;

COMMENT ON FUNCTION _wa_caller() IS
'Internal: who calls a SECURITY DEFINER function: the role that was set, else the session''s user.';

CREATE OR REPLACE FUNCTION _wa_caller_organization() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN _wa_choose_organization(_wa_caller(), ARRAY(
        SELECT DISTINCT r.organization_id FROM wa_organization_roles r
        WHERE pg_has_role(_wa_caller(), to_regrole(quote_ident(r.role_name)), 'MEMBER')
    ));
END
$$;

COMMENT ON FUNCTION _wa_caller_organization() IS
'Internal: current_wa_organization() for SECURITY DEFINER functions, in which current_user is the owner.';

CREATE OR REPLACE FUNCTION _wa_visible_organizations() RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF pg_has_role(_wa_caller(), 'wa_admin', 'MEMBER') THEN
        RETURN ARRAY(SELECT o.id FROM wa_organizations o);
    END IF;
    RETURN ARRAY[_wa_caller_organization()];
END
$$;

COMMENT ON FUNCTION _wa_visible_organizations() IS
'The organizations whose rows the current role may see: all for wa_admin, else the one it works for.';

CREATE OR REPLACE FUNCTION create_wa_organization(
    p_name text, p_id uuid DEFAULT gen_random_uuid(), p_default_region text DEFAULT NULL
) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_organizations (id, name, default_region) VALUES (p_id, p_name, upper(p_default_region))
    RETURNING id
$$;

COMMENT ON FUNCTION create_wa_organization(text, uuid, text) IS
'Makes a tenant, with the host''s own id if given. From the second one on, every role needs '
'add_wa_organization_role().';

CREATE OR REPLACE FUNCTION add_wa_organization_role(p_organization_id uuid, p_role_name name) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF to_regrole(quote_ident(p_role_name)) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '42704',
            MESSAGE = format('role "%s" does not exist', p_role_name),
            HINT = 'CREATE ROLE it first.';
    END IF;
    INSERT INTO wa_organization_roles (organization_id, role_name) VALUES (p_organization_id, p_role_name)
    ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION add_wa_organization_role(uuid, name) IS
'Lets a role, and every member of it, work for an organization. For wa_admin.';

REVOKE ALL ON FUNCTION _wa_sole_organization(), _wa_caller(), _wa_choose_organization(name, uuid[]),
current_wa_organization(), _wa_caller_organization(), _wa_visible_organizations(),
create_wa_organization(text, uuid, text), add_wa_organization_role(uuid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_sole_organization(), _wa_choose_organization(name, uuid[]),
current_wa_organization(), _wa_caller_organization(), _wa_visible_organizations()
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;
GRANT EXECUTE ON FUNCTION create_wa_organization(text, uuid, text), add_wa_organization_role(uuid, name)
TO wa_admin;
GRANT SELECT ON wa_organization_roles TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_organization_roles, wa_organizations TO wa_admin;
GRANT SELECT ON wa_organizations TO wa_app;

INSERT INTO wa_organizations (name, is_default, rate_limit_per_minute)
SELECT 'default', true, NULL
WHERE NOT EXISTS (SELECT FROM wa_organizations);
$wa_script$, '042263bd4f25a2b995c6caf16a2924e9c4c7838cdff657e7b3cf125ac72e4662', ARRAY['function _wa_sole_organization', 'function _wa_choose_organization', 'function current_wa_organization', 'function _wa_caller', 'function _wa_caller_organization', 'function _wa_visible_organizations', 'function create_wa_organization', 'function add_wa_organization_role']::text[]),
(3, 'schema', 'schema/numbers.sql', $wa_script$-- Business numbers, their portfolios, and the lane state that sending needs.

CREATE TABLE wa_portfolios (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    portfolio_id text NOT NULL,
    messaging_limit text,
    tier_limit integer,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_portfolios_pkey PRIMARY KEY (organization_id, portfolio_id),
    CONSTRAINT wa_portfolios_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_phone_numbers (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    phone_number_id text NOT NULL,
    display_phone text NOT NULL,
    phone_e164 text,
    waba_id text NOT NULL,
    portfolio_id text NOT NULL,
    provider text NOT NULL DEFAULT 'meta',
    throughput integer NOT NULL DEFAULT 80,
    is_test boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'CONNECTED',
    quality_rating text NOT NULL DEFAULT 'UNKNOWN',
    verified_name text,
    name_status text,
    username text,
    pause_scope text,
    pause_reason text,
    paused_at timestamptz,
    paused_until timestamptz,
    templates_blocked_until timestamptz,
    replies_blocked_until timestamptz,
    last_webhook_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_phone_numbers_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_phone_numbers_phone_number_id_key UNIQUE (organization_id, phone_number_id),
    CONSTRAINT wa_phone_numbers_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_phone_numbers_portfolio_fkey FOREIGN KEY (organization_id, portfolio_id)
    REFERENCES wa_portfolios (organization_id, portfolio_id),
    CONSTRAINT wa_phone_numbers_provider_check CHECK (provider IN ('meta', '360dialog', 'twilio')),
    CONSTRAINT wa_phone_numbers_throughput_check CHECK (throughput > 0),
    CONSTRAINT wa_phone_numbers_pause_check CHECK (pause_scope IN ('number', 'account', 'token'))
);

-- A webhook names only the provider's id, so the way from it to the tenant cannot start with a tenant.
CREATE TABLE wa_number_routes (
    phone_number_id text NOT NULL,
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    waba_id text NOT NULL,
    CONSTRAINT wa_number_routes_pkey PRIMARY KEY (phone_number_id),
    CONSTRAINT wa_number_routes_number_fkey FOREIGN KEY (organization_id, number_id)
    REFERENCES wa_phone_numbers (organization_id, id) ON DELETE CASCADE
);

CREATE INDEX wa_number_routes_waba_idx ON wa_number_routes (waba_id);

-- One row per lane, never updated: only locked, so that a lock costs no new row version.
CREATE TABLE wa_lanes (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    CONSTRAINT wa_lanes_pkey PRIMARY KEY (organization_id, number_id)
);

-- State is written as a new row of the next version and read from the newest end of the index: an updated row
-- would grow a chain of dead versions that every claim walks while an old snapshot is held elsewhere.
CREATE TABLE wa_lane_states (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    version bigint NOT NULL,
    cursor_due timestamptz[] NOT NULL,
    cursor_id uuid[] NOT NULL,
    shares double precision[] NOT NULL,
    share_clock double precision NOT NULL,
    taken_at timestamptz[] NOT NULL,
    taken integer[] NOT NULL,
    look_again_at timestamptz NOT NULL,
    served_at timestamptz NOT NULL,
    held_until timestamptz,
    hold_reason text,
    CONSTRAINT wa_lane_states_pkey PRIMARY KEY (organization_id, number_id, version)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE wa_rate_limits (
    organization_id uuid NOT NULL,
    scope text NOT NULL,
    scope_id text NOT NULL,
    version bigint NOT NULL,
    taken_at timestamptz[] NOT NULL DEFAULT '{}',
    taken integer[] NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_rate_limits_pkey PRIMARY KEY (organization_id, scope, scope_id, version),
    CONSTRAINT wa_rate_limits_scope_check CHECK (scope IN ('organization'))
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE wa_pair_rates (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    burst_started_at timestamptz NOT NULL,
    burst_count integer NOT NULL,
    clear_at timestamptz NOT NULL,
    wait_until timestamptz,
    CONSTRAINT wa_pair_rates_pkey PRIMARY KEY (organization_id, number_id, contact_id)
) WITH (fillfactor = 70);

CREATE TABLE wa_tier_usages (
    organization_id uuid NOT NULL,
    portfolio_id text NOT NULL,
    contact_id bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT wa_tier_usages_pkey PRIMARY KEY (organization_id, portfolio_id, contact_id)
);

CREATE INDEX wa_tier_usages_last_at_idx ON wa_tier_usages (last_at, portfolio_id);

COMMENT ON TABLE wa_portfolios IS
'Business portfolios: all numbers of one share its messaging limit (unique recipients outside the window in '
'a rolling 24 hours).';
COMMENT ON COLUMN wa_portfolios.messaging_limit IS 'The limit as Meta names it, for example TIER_2K.';
COMMENT ON COLUMN wa_portfolios.tier_limit IS
'The limit as a number of recipients; NULL means unlimited or not known.';
COMMENT ON TABLE wa_phone_numbers IS 'Business numbers that send and receive; each is one lane of the queue.';
COMMENT ON COLUMN wa_phone_numbers.phone_number_id IS
'The provider''s id of the number, as used in its URLs and webhooks.';
COMMENT ON COLUMN wa_phone_numbers.throughput IS 'Requests that may be claimed in any sliding second.';
COMMENT ON COLUMN wa_phone_numbers.is_test IS 'On a test number wa_admin may open a window by hand.';
COMMENT ON COLUMN wa_phone_numbers.status IS 'The provider''s state of the number; only CONNECTED sends.';
COMMENT ON COLUMN wa_phone_numbers.pause_scope IS
'Why sending is paused: this number, its whole account, or every number with the same token.';
COMMENT ON COLUMN wa_phone_numbers.paused_until IS
'End of the pause; NULL with pause_scope set means until resume_wa_number().';
COMMENT ON COLUMN wa_phone_numbers.templates_blocked_until IS
'Meta restricted business-initiated messages until then.';
COMMENT ON COLUMN wa_phone_numbers.replies_blocked_until IS 'Meta restricted replies until then.';
COMMENT ON COLUMN wa_phone_numbers.last_webhook_at IS
'When a webhook of this number was last processed, to ten seconds.';
COMMENT ON TABLE wa_number_routes IS 'Internal: finds the tenant of a webhook by the provider''s number id.';
COMMENT ON TABLE wa_lanes IS 'Internal: the lock of each lane.';
COMMENT ON TABLE wa_lane_states IS 'Internal: where each lane''s claim stands. The newest version counts.';
COMMENT ON TABLE wa_rate_limits IS
'Internal: what organizations have used of their limits. The newest version counts.';
COMMENT ON TABLE wa_pair_rates IS 'Internal: Meta''s pair rate of each business number and contact.';
COMMENT ON TABLE wa_tier_usages IS
'Internal: recipients written to outside their window, per portfolio, for the rolling messaging limit.';
$wa_script$, '068cd0f61bfb48fd199d3e97ee8a19cddcc8b11970d741cc4cce9c8a80e0b243', ARRAY['relation wa_portfolios', 'relation wa_phone_numbers', 'relation wa_number_routes', 'relation wa_lanes', 'relation wa_lane_states', 'relation wa_rate_limits', 'relation wa_pair_rates', 'relation wa_tier_usages']::text[]),
(4, 'schema', 'schema/contacts.sql', $wa_script$-- Customers, every identity they were known by, and the conversations with them.

CREATE TABLE wa_contacts (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    phone_e164 text,
    phone_key text,
    user_id text,
    parent_user_id text,
    wa_id text,
    profile_name text,
    username text,
    customer_id text,
    identity_hash text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_contacts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_contacts_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_contacts_phone_key_key UNIQUE (phone_key, organization_id),
    CONSTRAINT wa_contacts_user_id_key UNIQUE (user_id, organization_id),
    CONSTRAINT wa_contacts_phone_check CHECK ((phone_e164 IS NULL) = (phone_key IS NULL))
);

CREATE TABLE wa_contact_identities (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    kind text NOT NULL,
    value text NOT NULL,
    is_current boolean NOT NULL DEFAULT true,
    source text NOT NULL,
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    valid_to timestamptz,
    CONSTRAINT wa_contact_identities_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_contact_identities_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_contact_identities_kind_check CHECK (kind IN ('phone', 'user_id', 'parent_user_id'))
);

CREATE UNIQUE INDEX wa_contact_identities_current_key
ON wa_contact_identities (value, kind, organization_id) WHERE is_current;
CREATE INDEX wa_contact_identities_former_idx
ON wa_contact_identities (value, kind, organization_id) WHERE NOT is_current;
CREATE INDEX wa_contact_identities_contact_idx ON wa_contact_identities (contact_id);

CREATE TABLE wa_conversation_windows (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    number_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    last_customer_message_at timestamptz,
    last_business_message_at timestamptz,
    window_denied_at timestamptz,
    entry_point_opened_at timestamptz,
    entry_point_expires_at timestamptz,
    entry_point jsonb,
    unread_count integer NOT NULL DEFAULT 0,
    user_id text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_conversation_windows_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_conversation_windows_pair_key UNIQUE (contact_id, number_id, organization_id),
    CONSTRAINT wa_conversation_windows_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_conversation_windows_number_fkey FOREIGN KEY (organization_id, number_id)
    REFERENCES wa_phone_numbers (organization_id, id) ON DELETE CASCADE
) WITH (fillfactor = 80);

COMMENT ON TABLE wa_contacts IS
'Customers. Found by phone number or by business-scoped user id; either may be missing.';
COMMENT ON COLUMN wa_contacts.phone_e164 IS 'The number as it is dialled, with +.';
COMMENT ON COLUMN wa_contacts.phone_key IS
'The number with Brazil''s ninth digit, Argentina''s 9 and Mexico''s 1 taken out, so that all forms find '
'one contact.';
COMMENT ON COLUMN wa_contacts.user_id IS 'Meta''s business-scoped user id.';
COMMENT ON COLUMN wa_contacts.wa_id IS
'The id that the provider answers with; it may differ from the number dialled.';
COMMENT ON COLUMN wa_contacts.customer_id IS 'The host application''s own id of this customer.';
COMMENT ON COLUMN wa_contacts.identity_hash IS 'Last identity key hash that Meta reported.';
COMMENT ON TABLE wa_contact_identities IS
'Every phone number and user id that a contact was known by, with the time during which it held.';
COMMENT ON COLUMN wa_contact_identities.value IS
'The user id, or the number in the spelling of wa_contacts.phone_key, so that every spelling is found.';
COMMENT ON COLUMN wa_contact_identities.is_current IS
'Whether it finds this contact: a former number does not, it may be handed on; a former user id does, '
'they are never reused.';
COMMENT ON TABLE wa_conversation_windows IS
'What happened last between one business number and one contact; wa_conversations shows it with the live '
'window.';
COMMENT ON COLUMN wa_conversation_windows.last_customer_message_at IS
'Meta''s time of the last message or call that opens a window.';
COMMENT ON COLUMN wa_conversation_windows.window_denied_at IS
'When the provider last answered that the window is closed; a later customer message opens it again.';
COMMENT ON COLUMN wa_conversation_windows.entry_point_expires_at IS
'End of the 72 h free entry point: a matter of cost, it does not allow free-form messages.';
$wa_script$, 'dfe0e092341c974b2c9f00769246ea23907b60f10367514367d98cedff0fce47', ARRAY['relation wa_contacts', 'relation wa_contact_identities', 'relation wa_conversation_windows']::text[]),
(5, 'schema', 'schema/consent.sql', $wa_script$-- Who agreed to be written to, and who asked not to be.

CREATE TABLE wa_opt_ins (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL DEFAULT 'marketing',
    source text NOT NULL,
    proof jsonb NOT NULL DEFAULT '{}',
    opted_in_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_opt_ins_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_ins_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_opt_ins_scope_check CHECK (scope IN ('marketing', 'all'))
);

CREATE INDEX wa_opt_ins_contact_idx ON wa_opt_ins (contact_id);

CREATE TABLE wa_opt_outs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL DEFAULT 'marketing',
    phone_number text,
    reason text,
    source text NOT NULL DEFAULT 'admin',
    opt_out_date timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz,
    revoked_source text,
    CONSTRAINT wa_opt_outs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_outs_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_opt_outs_scope_check CHECK (scope IN ('marketing', 'all'))
);

CREATE UNIQUE INDEX wa_opt_outs_active_key
ON wa_opt_outs (contact_id, scope, organization_id) WHERE revoked_at IS NULL;

CREATE TABLE wa_panic_modes (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    number_id bigint,
    integration text NOT NULL DEFAULT 'whatsapp',
    reason text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    triggered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    triggered_by text NOT NULL DEFAULT session_user,
    resolved_at timestamptz,
    resolved_by text,
    auto_resolve_at timestamptz,
    CONSTRAINT wa_panic_modes_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_panic_modes_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_panic_modes_number_fkey FOREIGN KEY (organization_id, number_id)
    REFERENCES wa_phone_numbers (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_panic_modes_resolved_check CHECK (active OR resolved_at IS NOT NULL)
);

CREATE INDEX wa_panic_modes_active_idx ON wa_panic_modes (organization_id) WHERE active;

COMMENT ON TABLE wa_opt_ins IS 'Proofs of consent, never changed.';
COMMENT ON COLUMN wa_opt_ins.proof IS 'What shows the consent: form, text, language, message id.';
COMMENT ON TABLE wa_opt_outs IS
'Requests not to be written to. A row without revoked_at is in force; rows are kept for good.';
COMMENT ON COLUMN wa_opt_outs.scope IS 'marketing: MARKETING templates only. all: every message.';
COMMENT ON COLUMN wa_opt_outs.phone_number IS 'The number as it was given when the opt-out was recorded.';
COMMENT ON TABLE wa_panic_modes IS
'Emergency stops. While one is active for an organization or number, no message of it is claimed.';
COMMENT ON COLUMN wa_panic_modes.number_id IS
'The number that is stopped; NULL stops the whole organization.';
COMMENT ON COLUMN wa_panic_modes.auto_resolve_at IS 'When the stop ends by itself; NULL means never.';
$wa_script$, '1a46eea61dd100928c0d14a4c648b1162f685aee37ad2bcd6f3129c481f66a6d', ARRAY['relation wa_opt_ins', 'relation wa_opt_outs', 'relation wa_panic_modes']::text[]),
(6, 'schema', 'schema/templates.sql', $wa_script$-- Message templates as Meta reviewed them.

CREATE TABLE wa_templates (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    waba_id text,
    name text NOT NULL,
    language text NOT NULL DEFAULT 'en',
    category text NOT NULL,
    previous_category text,
    correct_category text,
    approval_status text NOT NULL DEFAULT 'pending',
    status text NOT NULL DEFAULT 'PENDING',
    rejected_reason text,
    quality_score text,
    provider_template_id text,
    meta_template_id text GENERATED ALWAYS AS (provider_template_id) STORED,
    parameter_format text NOT NULL DEFAULT 'POSITIONAL',
    header_text text,
    header_format text,
    body_text text NOT NULL,
    footer_text text,
    buttons jsonb NOT NULL DEFAULT '[]',
    components jsonb NOT NULL DEFAULT '[]',
    parameters jsonb NOT NULL DEFAULT '[]',
    variable_mapping jsonb NOT NULL DEFAULT '{}',
    body_placeholders text[] NOT NULL DEFAULT '{}',
    header_placeholders text[] NOT NULL DEFAULT '{}',
    button_parameters jsonb NOT NULL DEFAULT '[]',
    is_enabled boolean NOT NULL DEFAULT true,
    blocked_reason text,
    blocked_at timestamptz,
    blocked_until timestamptz,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    synced_at timestamptz,
    CONSTRAINT wa_templates_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_templates_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_templates_category_check CHECK (category IN ('MARKETING', 'UTILITY', 'AUTHENTICATION')),
    CONSTRAINT wa_templates_approval_check CHECK (approval_status IN ('pending', 'approved', 'rejected')),
    CONSTRAINT wa_templates_format_check CHECK (parameter_format IN ('POSITIONAL', 'NAMED')),
    CONSTRAINT wa_templates_parameters_check CHECK (jsonb_typeof(parameters) = 'array'),
    CONSTRAINT wa_templates_buttons_check CHECK (jsonb_typeof(buttons) = 'array'),
    CONSTRAINT wa_templates_components_check CHECK (jsonb_typeof(components) = 'array')
);

CREATE UNIQUE INDEX wa_templates_name_key
ON wa_templates (organization_id, lower(name), language, waba_id) NULLS NOT DISTINCT;
CREATE INDEX wa_templates_provider_idx ON wa_templates (organization_id, provider_template_id);

COMMENT ON TABLE wa_templates IS
'Message templates, one row per name, language and account. Only approved ones are sent.';
COMMENT ON COLUMN wa_templates.waba_id IS
'WhatsApp Business Account that owns it; NULL serves every account.';
COMMENT ON COLUMN wa_templates.approval_status IS 'Meta''s review: pending, approved or rejected.';
COMMENT ON COLUMN wa_templates.status IS 'Meta''s exact state, for example APPROVED, PAUSED, DISABLED.';
COMMENT ON COLUMN wa_templates.provider_template_id IS 'Meta''s id of the template.';
COMMENT ON COLUMN wa_templates.parameters IS
'Declared parameters in order, [{"name": "customer_name", "type": "text"}, ...]; an object of values '
'binds by these names.';
COMMENT ON COLUMN wa_templates.variable_mapping IS
'Where each parameter''s value is found in a context document.';
COMMENT ON COLUMN wa_templates.components IS 'The components as Meta stores them, when synced.';
COMMENT ON COLUMN wa_templates.body_placeholders IS 'Derived: the placeholders of the body in order.';
COMMENT ON COLUMN wa_templates.button_parameters IS
'Derived: the buttons that need a value, [{"index": 0, "sub_type": "url"}, ...].';
COMMENT ON COLUMN wa_templates.is_enabled IS 'Whether automation may use it.';
COMMENT ON COLUMN wa_templates.blocked_reason IS
'Why sending with it was stopped after an answer of the provider; an approval lifts it.';
$wa_script$, 'f41db41c7b51e867241b47c4f6ce0eb28a49b028fec0e4490edb921e92305920', ARRAY['relation wa_templates']::text[]),
(7, 'schema', 'schema/messages.sql', $wa_script$-- The ledger: every message in either direction, and every status that was reported of it.

CREATE TABLE wa_messages (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    queue_id uuid,
    number_id bigint,
    phone_number_id text,
    contact_id bigint,
    customer_id text,
    phone_e164 text,
    user_id text,
    group_id text,
    wa_message_id text,
    direction text NOT NULL,
    message_type text NOT NULL,
    type text GENERATED ALWAYS AS (message_type) STORED,
    content jsonb NOT NULL DEFAULT '{}',
    content_text text,
    template_name text,
    template_language text,
    template_category text,
    status text NOT NULL,
    state text NOT NULL,
    state_history jsonb NOT NULL DEFAULT '[]',
    is_within_24h_at_claim boolean,
    is_echo boolean NOT NULL DEFAULT false,
    reply_to text,
    referral jsonb,
    pricing jsonb,
    error_code integer,
    error_title text,
    error_message text,
    reference text,
    metadata jsonb NOT NULL DEFAULT '{}',
    queued_at timestamptz,
    claimed_at timestamptz,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    played_at timestamptz,
    failed_at timestamptz,
    edited_at timestamptz,
    deleted_at timestamptz,
    provider_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_messages_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_messages_wa_message_id_key UNIQUE (wa_message_id, organization_id),
    CONSTRAINT wa_messages_direction_check CHECK (direction IN ('inbound', 'outbound')),
    CONSTRAINT wa_messages_status_check CHECK (status IN ('pending', 'sent', 'failed', 'received')),
    CONSTRAINT wa_messages_state_check CHECK (
        state IN ('queued', 'accepted', 'held', 'sent', 'failed', 'delivered', 'read', 'played', 'received')
    )
) WITH (fillfactor = 85);

CREATE UNIQUE INDEX wa_messages_queue_key
ON wa_messages (queue_id, organization_id) WHERE queue_id IS NOT NULL;
CREATE INDEX wa_messages_contact_idx ON wa_messages (contact_id, id);
CREATE INDEX wa_messages_created_at_idx ON wa_messages USING brin (created_at);
CREATE INDEX wa_messages_reply_to_idx
ON wa_messages (reply_to, organization_id) WHERE message_type IN ('edit', 'revoke');

CREATE TABLE wa_message_statuses (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    message_id bigint,
    queue_id uuid,
    wa_message_id text NOT NULL,
    status text NOT NULL,
    participant text NOT NULL DEFAULT '',
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recipient_id text,
    recipient_user_id text,
    error_code integer,
    error_title text,
    error_message text,
    pricing jsonb,
    conversation jsonb,
    payload jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT wa_message_statuses_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_message_statuses_status_key UNIQUE (wa_message_id, status, participant, organization_id)
);

CREATE INDEX wa_message_statuses_orphan_idx ON wa_message_statuses (received_at) WHERE message_id IS NULL;

CREATE TABLE wa_events (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    position bigint,
    kind text NOT NULL,
    message_id bigint,
    status text,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_events_kind_check CHECK (kind IN ('message', 'status'))
);

CREATE UNIQUE INDEX wa_events_position_key ON wa_events (organization_id,
position) WHERE position IS NOT NULL;
CREATE INDEX wa_events_unplaced_idx ON wa_events (organization_id, id) WHERE position IS NULL;

CREATE TABLE wa_event_consumers (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    consumer text NOT NULL,
    acked_position bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    acked_at timestamptz,
    CONSTRAINT wa_event_consumers_pkey PRIMARY KEY (organization_id, consumer)
);

COMMENT ON TABLE wa_messages IS
'Every message sent or received, with the outcome of sending and the delivery state.';
COMMENT ON COLUMN wa_messages.queue_id IS 'Row of wa_outbound_queue that it came from.';
COMMENT ON COLUMN wa_messages.wa_message_id IS 'The provider''s message id (wamid).';
COMMENT ON COLUMN wa_messages.status IS
'Outcome of sending: pending, sent, failed; received for inbound messages.';
COMMENT ON COLUMN wa_messages.state IS
'Delivery state; only moves forward: queued, accepted, held, sent, failed, delivered, read, played.';
COMMENT ON COLUMN wa_messages.state_history IS
'Every state reported, [{"state", "at", "error_code"}], in order of arrival.';
COMMENT ON COLUMN wa_messages.is_within_24h_at_claim IS
'Whether the window was open when the message was claimed.';
COMMENT ON COLUMN wa_messages.is_echo IS 'Sent from the WhatsApp Business app, not from the queue.';
COMMENT ON COLUMN wa_messages.provider_at IS 'The provider''s own time of an inbound message.';
COMMENT ON COLUMN wa_messages.pricing IS 'The pricing object of the status webhooks.';
COMMENT ON TABLE wa_message_statuses IS
'Every status reported of a message, once each; kept also when the message is not known yet.';
COMMENT ON COLUMN wa_message_statuses.participant IS
'Member of a group that the status is about; empty otherwise.';
COMMENT ON TABLE wa_events IS
'Inbound messages and status changes in the order in which read_wa_events() hands them out.';
COMMENT ON COLUMN wa_events.position IS
'Given to committed rows only, by the reader, so that a late commit leaves no gap behind a reader.';
COMMENT ON TABLE wa_event_consumers IS 'How far each consumer of read_wa_events() has acknowledged.';
$wa_script$, 'dbce2581fd4e0220e4b1d12381fe98953339f08ca4efb7a79a7aa4c8a3ece7b1', ARRAY['relation wa_messages', 'relation wa_message_statuses', 'relation wa_events', 'relation wa_event_consumers']::text[]),
(8, 'schema', 'schema/queue.sql', $wa_script$-- The outbound queue: what applications insert into, and the narrow tables that sending works on.

CREATE TABLE wa_outbound_queue (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL,
    phone text NOT NULL,
    type text NOT NULL,
    text_body text,
    template_name text,
    template_language text,
    template_params jsonb,
    content jsonb,
    reply_to text,
    priority text NOT NULL DEFAULT 'normal',
    status text NOT NULL DEFAULT 'pending',
    scheduled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    phone_number_id text,
    idempotency_key text,
    reference text,
    metadata jsonb NOT NULL DEFAULT '{}',
    on_refusal text,
    on_unknown text,
    fallback_template_name text,
    fallback_template_language text,
    fallback_template_params jsonb,
    customer_id text,
    contact_id bigint,
    retry_count integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    last_error text,
    error_code text,
    wa_message_id text,
    claimed_at timestamptz,
    processed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    change_no integer NOT NULL DEFAULT 0,
    CONSTRAINT wa_outbound_queue_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_outbound_queue_idempotency_key_key UNIQUE (idempotency_key, organization_id),
    CONSTRAINT wa_outbound_queue_priority_check CHECK (priority IN ('high', 'normal', 'low')),
    CONSTRAINT wa_outbound_queue_status_check CHECK (
        status IN ('pending', 'sending', 'sent', 'failed', 'cancelled')
    ),
    CONSTRAINT wa_outbound_queue_refusal_check CHECK (on_refusal IN ('raise', 'record')),
    CONSTRAINT wa_outbound_queue_unknown_check CHECK (on_unknown IN ('fail', 'retry'))
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX wa_outbound_queue_reference_idx
ON wa_outbound_queue (reference, organization_id) WHERE reference IS NOT NULL;

-- class = 2 * priority rank (0 high, 1 normal, 2 low) + 1, + 1 when the organization's rate limit counts it.
CREATE TABLE wa_queue_due (
    organization_id uuid NOT NULL,
    number_id bigint,
    class smallint NOT NULL,
    due_at timestamptz NOT NULL,
    queue_id uuid NOT NULL,
    contact_id bigint NOT NULL,
    template_id uuid,
    hold_reason text,
    CONSTRAINT wa_queue_due_pkey PRIMARY KEY (organization_id, queue_id),
    CONSTRAINT wa_queue_due_class_check CHECK (class BETWEEN 1 AND 6)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX wa_queue_due_order_idx ON wa_queue_due (number_id, class, due_at, queue_id);
CREATE INDEX wa_queue_due_contact_idx ON wa_queue_due (contact_id);

CREATE TABLE wa_queue_inflight (
    organization_id uuid NOT NULL,
    queue_id uuid NOT NULL,
    attempt integer NOT NULL,
    number_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    class smallint NOT NULL,
    dispatcher_id uuid NOT NULL,
    claimed_at timestamptz NOT NULL,
    is_unknown boolean NOT NULL DEFAULT false,
    is_within_24h boolean NOT NULL,
    template_id uuid,
    deadline_at timestamptz NOT NULL,
    CONSTRAINT wa_queue_inflight_pkey PRIMARY KEY (organization_id, queue_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX wa_queue_inflight_contact_idx ON wa_queue_inflight (contact_id);
CREATE INDEX wa_queue_inflight_deadline_idx ON wa_queue_inflight (deadline_at);

CREATE TABLE wa_dispatchers (
    id uuid NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    stopped_at timestamptz,
    CONSTRAINT wa_dispatchers_pkey PRIMARY KEY (id)
);

CREATE TABLE wa_error_rules (
    code integer NOT NULL,
    http_status integer,
    title text NOT NULL,
    action text NOT NULL,
    max_retries integer,
    wait interval,
    CONSTRAINT wa_error_rules_pkey PRIMARY KEY (code),
    CONSTRAINT wa_error_rules_action_check CHECK (action IN (
        'retry', 'wait_number', 'wait_account', 'wait_recipient', 'fail', 'fail_recipient', 'opt_out',
        'need_template', 'stop_template', 'pause_number', 'pause_account', 'pause_token', 'unknown'
    ))
);

COMMENT ON TABLE wa_outbound_queue IS
'Messages to send. Insert (phone, text_body) or (phone, template_name, template_params); a running '
'dispatcher sends.';
COMMENT ON COLUMN wa_outbound_queue.phone IS
'Recipient: a phone number in any usual form, stored in E.164, or a business-scoped user id.';
COMMENT ON COLUMN wa_outbound_queue.type IS
'text, template, image, document, audio, video, sticker, interactive, location, contacts or reaction; '
'follows from the columns.';
COMMENT ON COLUMN wa_outbound_queue.template_params IS
'JSON array: body values in order. JSON object: values by the template''s declared names. '
'{"header": ..., "body": ..., "buttons": ...} gives the other components too.';
COMMENT ON COLUMN wa_outbound_queue.content IS
'The message object of the Cloud API for every type but text and template.';
COMMENT ON COLUMN wa_outbound_queue.reply_to IS 'wamid of the message that this one quotes.';
COMMENT ON COLUMN wa_outbound_queue.status IS 'pending, sending, sent, failed or cancelled.';
COMMENT ON COLUMN wa_outbound_queue.scheduled_at IS 'Not sent before.';
COMMENT ON COLUMN wa_outbound_queue.expires_at IS
'Not sent after. By default: authentication 10 minutes, free-form the end of the window, others 24 hours '
'after due; infinity means never.';
COMMENT ON COLUMN wa_outbound_queue.phone_number_id IS
'Business number to send from; NULL takes that of the newest conversation, else the default.';
COMMENT ON COLUMN wa_outbound_queue.idempotency_key IS
'A second row with the same key is refused, or skipped with ON CONFLICT DO NOTHING.';
COMMENT ON COLUMN wa_outbound_queue.reference IS
'The application''s own name for it; cancel, retry and reschedule find rows by it.';
COMMENT ON COLUMN wa_outbound_queue.on_refusal IS 'raise or record; NULL takes the organization''s setting.';
COMMENT ON COLUMN wa_outbound_queue.on_unknown IS 'fail or retry; NULL takes the organization''s setting.';
COMMENT ON COLUMN wa_outbound_queue.fallback_template_name IS
'Template to send instead when the window has closed meanwhile.';
COMMENT ON COLUMN wa_outbound_queue.customer_id IS 'The host application''s own id of the customer.';
COMMENT ON COLUMN wa_outbound_queue.attempt IS
'How often it was claimed; part of the callback data of each request.';
COMMENT ON COLUMN wa_outbound_queue.error_code IS
'Meta''s error code, or a word of ours such as outcome_unknown, window_closed, opted_out.';
COMMENT ON COLUMN wa_outbound_queue.change_no IS 'Internal: tells our own updates from yours.';
COMMENT ON TABLE wa_queue_due IS 'Internal: the rows that wait to be sent, in the order of sending.';
COMMENT ON COLUMN wa_queue_due.template_id IS
'The template chosen when the row was queued; NULL for free-form messages.';
COMMENT ON COLUMN wa_queue_due.hold_reason IS
'Why due_at was moved on: recipient_rate, in_order, messaging_limit, retry.';
COMMENT ON TABLE wa_queue_inflight IS
'Internal: rows handed to a dispatcher, or whose outcome is not known yet.';
COMMENT ON COLUMN wa_queue_inflight.template_id IS
'The template that was sent: the row''s own, or its fall-back.';
COMMENT ON COLUMN wa_queue_inflight.deadline_at IS
'When to look at it again: end of the lease, or of the wait for a webhook.';
COMMENT ON TABLE wa_dispatchers IS 'Dispatcher processes and when they were last seen.';
COMMENT ON TABLE wa_error_rules IS
'What to do about each error code of the provider; change a row to change the behaviour.';
COMMENT ON COLUMN wa_error_rules.action IS
'retry, wait_number, wait_account, wait_recipient, fail, fail_recipient, opt_out, need_template, '
'stop_template, pause_number, pause_account, pause_token or unknown.';
COMMENT ON COLUMN wa_error_rules.max_retries IS 'Retries before it fails; NULL means until the row expires.';
COMMENT ON COLUMN wa_error_rules.wait IS
'How long to wait or pause; NULL means backoff, or until resumed by hand.';
$wa_script$, '2670e7606c5e734730330aa055e362407ebc9bb8329feb682f7090642c8df5f2', ARRAY['relation wa_outbound_queue', 'relation wa_queue_due', 'relation wa_queue_inflight', 'relation wa_dispatchers', 'relation wa_error_rules']::text[]),
(9, 'schema', 'schema/webhooks.sql', $wa_script$-- What came in: raw webhook bodies, what could not be processed of them, account events; and the audit log.

CREATE TABLE wa_webhook_logs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    provider text NOT NULL DEFAULT 'meta',
    source text,
    body bytea NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    atoms integer,
    failed_atoms integer,
    error text,
    processed_at timestamptz,
    CONSTRAINT wa_webhook_logs_pkey PRIMARY KEY (id),
    CONSTRAINT wa_webhook_logs_status_check CHECK (status IN ('pending', 'processed', 'partial', 'failed'))
) WITH (fillfactor = 80);

CREATE INDEX wa_webhook_logs_pending_idx ON wa_webhook_logs (id) WHERE status = 'pending';

CREATE TABLE wa_webhook_errors (
    log_id bigint NOT NULL,
    atom integer NOT NULL,
    kind text NOT NULL,
    sqlstate text,
    error text NOT NULL,
    payload jsonb,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    CONSTRAINT wa_webhook_errors_pkey PRIMARY KEY (log_id, atom),
    CONSTRAINT wa_webhook_errors_log_fkey FOREIGN KEY (log_id)
    REFERENCES wa_webhook_logs (id) ON DELETE CASCADE
);

CREATE TABLE wa_account_events (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    waba_id text,
    phone_number_id text,
    field text NOT NULL,
    event text,
    payload jsonb NOT NULL DEFAULT '{}',
    dedupe_key text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_account_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_account_events_dedupe_key UNIQUE (organization_id, dedupe_key),
    CONSTRAINT wa_account_events_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX wa_account_events_received_idx ON wa_account_events (organization_id, received_at);
CREATE INDEX wa_account_events_field_idx ON wa_account_events (organization_id, field, occurred_at);

CREATE TABLE audit_log (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    actor text NOT NULL DEFAULT session_user,
    event text NOT NULL,
    entity text,
    entity_id text,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_log_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT audit_log_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX audit_log_created_idx ON audit_log (organization_id, created_at);

-- Forged webhook requests are counted, one row per source and minute: a flood must not fill the log.
CREATE UNIQUE INDEX audit_log_rejection_key
ON audit_log (organization_id, entity_id) WHERE event = 'webhook_rejected';

CREATE TABLE wa_secrets (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    phone_number_id text,
    ciphertext bytea NOT NULL,
    key_id text NOT NULL,
    fingerprint text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_secrets_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_secrets_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_secrets_name_check CHECK (name IN ('access_token', 'app_secret', 'verify_token'))
);

CREATE INDEX wa_secrets_name_idx ON wa_secrets (organization_id, name, phone_number_id) WHERE is_active;

CREATE TABLE wa_template_syncs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    waba_id text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    after_cursor text,
    finished_at timestamptz,
    templates integer NOT NULL DEFAULT 0,
    CONSTRAINT wa_template_syncs_pkey PRIMARY KEY (organization_id, waba_id),
    CONSTRAINT wa_template_syncs_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

COMMENT ON TABLE wa_webhook_logs IS
'Webhook bodies byte for byte as they arrived; stored before the sender gets its 200.';
COMMENT ON COLUMN wa_webhook_logs.status IS
'pending, processed, partial (some parts failed, see wa_webhook_errors) or failed.';
COMMENT ON TABLE wa_webhook_errors IS
'Parts of webhooks that could not be processed; replay_wa_webhooks() tries them again.';
COMMENT ON TABLE wa_account_events IS 'Template, quality, security and account events, as they came.';
COMMENT ON TABLE audit_log IS
'Who did what: manual windows, panic, secrets, policy incidents. Rows may be added by hand.';
COMMENT ON TABLE wa_secrets IS 'Tokens and secrets, encrypted with a key that is not in the database.';
COMMENT ON COLUMN wa_secrets.phone_number_id IS
'The number that it belongs to; NULL means every number of the organization.';
COMMENT ON COLUMN wa_secrets.ciphertext IS
'Nonce and AES-GCM ciphertext; the organization and the name are bound in.';
COMMENT ON COLUMN wa_secrets.fingerprint IS
'Keyed hash of the value: tells equal secrets from different ones, gives nothing away.';
COMMENT ON TABLE wa_template_syncs IS
'How far each account''s template sync came, so that it resumes after a crash.';
$wa_script$, 'e7abb354df63705e6881a05f1591ba119194e71bfb8b6855b5c7860be1bd864f', ARRAY['relation wa_webhook_logs', 'relation wa_webhook_errors', 'relation wa_account_events', 'relation audit_log', 'relation wa_secrets', 'relation wa_template_syncs']::text[]),
(10, 'schema', 'schema/row_security.sql', $wa_script$-- A role sees and writes the rows of its own organization only; wa_admin sees all. Which organization that is
-- comes from role membership (current_wa_organization()), never from a setting alone. Policies hold no
-- subquery, so that tables can be distributed by tenant; for wa_admin the planner drops the first one (x OR
-- true).

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'wa_portfolios', 'wa_phone_numbers', 'wa_number_routes', 'wa_lanes', 'wa_lane_states',
        'wa_rate_limits',
        'wa_pair_rates', 'wa_tier_usages', 'wa_contacts', 'wa_contact_identities', 'wa_conversation_windows',
        'wa_opt_ins', 'wa_opt_outs', 'wa_panic_modes', 'wa_templates', 'wa_messages', 'wa_message_statuses',
        'wa_events', 'wa_event_consumers', 'wa_outbound_queue', 'wa_queue_due', 'wa_queue_inflight',
        'wa_account_events', 'audit_log', 'wa_secrets', 'wa_template_syncs'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (organization_id = current_wa_organization())'
            ' WITH CHECK (organization_id = current_wa_organization())', v_table
        );
        EXECUTE format('CREATE POLICY admin ON %I TO wa_admin USING (true) WITH CHECK (true)', v_table);
    END LOOP;
END
$$;

ALTER TABLE wa_organizations ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON wa_organizations USING (id = current_wa_organization())
WITH CHECK (id = current_wa_organization());
CREATE POLICY admin ON wa_organizations TO wa_admin USING (true) WITH CHECK (true);

-- A role sees its own memberships.
ALTER TABLE wa_organization_roles ENABLE ROW LEVEL SECURITY;
CREATE POLICY member ON wa_organization_roles FOR SELECT
USING (pg_has_role(to_regrole(quote_ident(role_name)), 'MEMBER'));
CREATE POLICY admin ON wa_organization_roles TO wa_admin USING (true) WITH CHECK (true);
$wa_script$, '3f1254c2d4429dc2f799daa195dc1f0d60f47f385b549c4c9bc14aa8101a01dd', ARRAY[]::text[]),
(11, 'api', 'api/installation.sql', $wa_script$-- Which database may send: a restored copy, a clone or a promoted standby has another identity, and does not.

CREATE OR REPLACE FUNCTION _wa_database_identity(
    OUT system_identifier text, OUT database_oid oid, OUT timeline_id integer, OUT data_directory_mark text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT
        (SELECT s.system_identifier::text FROM pg_control_system() s),
        (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
        -- From the write position, not from the control file: that lags behind a promotion.
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
        _wa_data_directory_mark()
$$;

COMMENT ON FUNCTION _wa_database_identity() IS
'Internal: system identifier, database, timeline and data directory of this database.';

CREATE OR REPLACE FUNCTION _wa_require_installation() RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_here record;
    v_known wa_installations;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION USING ERRCODE = 'WA401',
            MESSAGE = 'this server is a standby: nothing is sent from it',
            HINT = 'Connect to the primary. Once this server has taken over and the original sends no more: '
                'bin/wa adopt.';
    END IF;
    SELECT * INTO v_here FROM _wa_database_identity();
    SELECT * INTO v_known FROM wa_installations;
    IF v_known.system_identifier = v_here.system_identifier
        AND v_known.database_oid = v_here.database_oid
        AND v_known.timeline_id = v_here.timeline_id
        AND v_known.data_directory_mark = v_here.data_directory_mark
    THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'WA401',
        MESSAGE = 'this database is not the one that was sending: nothing is sent from it',
        DETAIL = format(
            'recorded: system %s, database %s, timeline %s, directory %s; '
            'found: system %s, database %s, timeline %s, directory %s',
            v_known.system_identifier, v_known.database_oid, v_known.timeline_id, v_known.data_directory_mark,
            v_here.system_identifier, v_here.database_oid, v_here.timeline_id, v_here.data_directory_mark),
        HINT = 'If it is a copy, leave it. If it takes over and the original sends no more: bin/wa adopt.';
END
$$;

COMMENT ON FUNCTION _wa_require_installation() IS
'Internal: raises WA401 unless this database is the one recorded in wa_installations.';

CREATE OR REPLACE FUNCTION adopt_wa_database(p_pending text DEFAULT 'fail')
RETURNS TABLE (action text, messages bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_here record;
    v_known wa_installations;
BEGIN
    IF p_pending NOT IN ('fail', 'keep') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('p_pending must be fail or keep, not "%s"', p_pending),
            HINT = 'keep is right only when the original stopped sending before this copy was taken.';
    END IF;
    SELECT * INTO v_here FROM _wa_database_identity();
    SELECT * INTO v_known FROM wa_installations FOR UPDATE;
    IF FOUND AND v_known.system_identifier = v_here.system_identifier
        AND v_known.database_oid = v_here.database_oid
        AND v_known.timeline_id = v_here.timeline_id
        AND v_known.data_directory_mark = v_here.data_directory_mark
    THEN
        action := 'nothing to do: this database is the one that sends';
        messages := 0;
        RETURN NEXT;
        RETURN;
    END IF;
    INSERT INTO wa_installations (system_identifier, database_oid, timeline_id, data_directory_mark)
    VALUES (v_here.system_identifier, v_here.database_oid, v_here.timeline_id, v_here.data_directory_mark)
    ON CONFLICT (is_current) DO UPDATE SET
        system_identifier = excluded.system_identifier,
        database_oid = excluded.database_oid,
        timeline_id = excluded.timeline_id,
        data_directory_mark = excluded.data_directory_mark,
        adopted_at = excluded.adopted_at,
        adopted_by = excluded.adopted_by;

    -- Those of the original: here none of them lives.
    UPDATE wa_dispatchers SET stopped_at = clock_timestamp() WHERE stopped_at IS NULL;

    -- What was being sent: an echo may still settle it here; without one it fails as outcome_unknown.
    UPDATE wa_queue_inflight i
    SET is_unknown = true,
        deadline_at = clock_timestamp()
        + (SELECT o.unknown_grace FROM wa_organizations o WHERE o.id = i.organization_id);
    GET DIAGNOSTICS messages = ROW_COUNT;
    action := 'in flight when copied: outcome unknown';
    RETURN NEXT;

    -- What was waiting may have been sent by the original since: sending it again is for a person to decide.
    IF p_pending = 'fail' THEN
        PERFORM _wa_fail_messages(
            d.organization_id, array_agg(d.queue_id), 'in_doubt',
            'queued before this database took over; the original may have sent it'
        )
        FROM wa_queue_due d WHERE d.due_at <= clock_timestamp() OR d.hold_reason IS NOT NULL
        GROUP BY d.organization_id;
        SELECT count(*) INTO messages FROM wa_outbound_queue q
        WHERE q.error_code = 'in_doubt' AND q.processed_at >= now();
        action := 'due when adopted: failed as in_doubt, retry_wa_messages() sends them';
        RETURN NEXT;
    END IF;
END
$$;

COMMENT ON FUNCTION adopt_wa_database(text) IS
'Makes this database the one that sends, after a restore, clone or promotion, and marks what the original '
'may have sent: rows in flight become outcome unknown, rows that are due fail as in_doubt (or stay pending '
'with ''keep'').';

CREATE OR REPLACE FUNCTION set_wa_sending(p_enabled boolean, p_note text DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_installations SET is_sending_enabled = p_enabled,
        sending_note = coalesce(p_note, CASE WHEN p_enabled THEN NULL ELSE 'stopped' END)
        || ' (' || session_user || ')'
$$;

COMMENT ON FUNCTION set_wa_sending(boolean, text) IS
'The kill switch: false stops every claim of every organization, true resumes. Nothing is lost.';

CREATE OR REPLACE FUNCTION _wa_require_version(p_version text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_schema text := (SELECT v.schema_version FROM wa_version() v);
BEGIN
    -- The third part of a version changes nothing between program and schema.
    IF (string_to_array(p_version, '.'))[1:2] = (string_to_array(v_schema, '.'))[1:2] THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'WA402',
        MESSAGE = format('bin/wa is release %s, the schema is release %s: they do not work together',
            p_version, v_schema),
        HINT = CASE WHEN p_version ~ '^\d+\.\d+\.'
            AND (string_to_array(split_part(p_version, '+', 1), '.'))[1:2]::int []
                < (string_to_array(v_schema, '.'))[1:2]::int []
            THEN 'Start the newer bin/wa.'
            ELSE 'Install that release on the server, then bin/wa migrate.' END;
END
$$;

COMMENT ON FUNCTION _wa_require_version(text) IS
'Internal: raises WA402 unless a program of that release works with this schema: same first two numbers.';

CREATE OR REPLACE FUNCTION start_wa_dispatcher(
    p_dispatcher_id uuid, p_host text, p_pid integer, p_version text
)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_version(p_version);
    PERFORM _wa_require_installation();
    INSERT INTO wa_dispatchers (id, host, pid, version) VALUES (p_dispatcher_id, p_host, p_pid, p_version)
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), stopped_at = NULL;
    DELETE FROM wa_dispatchers WHERE seen_at < clock_timestamp() - interval '7 days';
    RETURN jsonb_build_object(
        'poll_ms', 1000, 'start_within_ms', 800, 'request_timeout_s', 30, 'wake_channel', 'wa_queue'
    );
END
$$;

COMMENT ON FUNCTION start_wa_dispatcher(uuid, text, integer, text) IS
'Registers a dispatcher process and tells it its settings; raises WA401 in a database that may not send, '
'WA402 for a program of another release than the schema.';

CREATE OR REPLACE FUNCTION stop_wa_dispatcher(p_dispatcher_id uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_dispatchers SET stopped_at = clock_timestamp() WHERE id = p_dispatcher_id
$$;

COMMENT ON FUNCTION stop_wa_dispatcher(uuid) IS 'Records that a dispatcher ended in order.';

-- The gate. Awake dispatchers share the lock; one that sleeps needs it alone, and gets it only when nobody is
-- awake and no producer is between its INSERT and its COMMIT. Producers try to share it until commit and
-- NOTIFY only when refused: no wake-up is lost, and NOTIFY serialises no commits while anyone is awake.
CREATE OR REPLACE FUNCTION _wa_gate() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 8247316640137322855::bigint;

COMMENT ON FUNCTION _wa_gate() IS
'Internal: key of the advisory lock that says whether a dispatcher is awake.';

CREATE OR REPLACE FUNCTION wake_wa_dispatcher() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_unlock_all();
    PERFORM pg_advisory_lock_shared(_wa_gate());
END
$$;

COMMENT ON FUNCTION wake_wa_dispatcher() IS
'Declares the session''s dispatcher awake: producers need not notify. Gives up the session''s other advisory '
'locks.';

CREATE OR REPLACE FUNCTION sleep_wa_dispatcher() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_unlock_all();
    RETURN pg_try_advisory_lock(_wa_gate());
END
$$;

COMMENT ON FUNCTION sleep_wa_dispatcher() IS
'True: producers will NOTIFY wa_queue from now on; look once more, then wait. False: poll.';

REVOKE ALL ON FUNCTION _wa_database_identity(), _wa_require_installation(), adopt_wa_database(text),
set_wa_sending(boolean, text), _wa_require_version(text),
start_wa_dispatcher(uuid, text, integer, text), stop_wa_dispatcher(uuid),
_wa_gate(), wake_wa_dispatcher(), sleep_wa_dispatcher() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION adopt_wa_database(text), set_wa_sending(boolean, text), _wa_require_installation()
TO wa_admin;
GRANT EXECUTE ON FUNCTION start_wa_dispatcher(uuid, text, integer, text), stop_wa_dispatcher(uuid),
_wa_gate(), wake_wa_dispatcher(), sleep_wa_dispatcher() TO wa_dispatcher, wa_admin;
GRANT SELECT, UPDATE ON wa_installations TO wa_admin;
GRANT SELECT ON wa_dispatchers TO wa_admin;

INSERT INTO wa_installations (system_identifier, database_oid, timeline_id, data_directory_mark)
SELECT i.system_identifier, i.database_oid, i.timeline_id, i.data_directory_mark
FROM _wa_database_identity() i
ON CONFLICT DO NOTHING;
$wa_script$, 'be67d70843e817197011f31d4bdb0dde80fde00b2b43753cc0fc5f714dfa18b3', ARRAY['function _wa_database_identity', 'function _wa_require_installation', 'function adopt_wa_database', 'function set_wa_sending', 'function _wa_require_version', 'function start_wa_dispatcher', 'function stop_wa_dispatcher', 'function _wa_gate', 'function wake_wa_dispatcher', 'function sleep_wa_dispatcher']::text[]),
(12, 'api', 'api/numbers.sql', $wa_script$-- Business numbers: registering, pausing, resuming.

CREATE OR REPLACE FUNCTION register_wa_phone_number(
    phone_number_id text, display_phone text, waba_id text, provider text DEFAULT 'meta',
    throughput integer DEFAULT 80, is_test boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    RETURN _wa_register_number(_wa_caller_organization(), $1, $2, $3, $4, $5, $6);
END
$$;

COMMENT ON FUNCTION register_wa_phone_number(text, text, text, text, integer, boolean) IS
'Registers a business number for the current organization, or changes it; returns its id. The first one '
'becomes the organization''s default. Rows that waited for a number get it.';

CREATE OR REPLACE FUNCTION _wa_register_number(
    p_org uuid, p_phone_number_id text, p_display_phone text, p_waba_id text, p_provider text,
    p_throughput integer, p_is_test boolean
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint;
BEGIN
    IF coalesce(p_phone_number_id, '') = '' OR coalesce(p_waba_id, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'phone_number_id and waba_id must not be empty',
            HINT = 'Both are shown in the WhatsApp manager under API setup.';
    END IF;
    IF p_provider NOT IN ('meta', '360dialog') THEN
        RAISE EXCEPTION USING ERRCODE = '0A000',
            MESSAGE = format('provider "%s" is not supported by this release', p_provider),
            HINT = 'Supported: meta, 360dialog.';
    END IF;
    INSERT INTO wa_portfolios (organization_id, portfolio_id) VALUES (p_org, p_waba_id)
    ON CONFLICT DO NOTHING;
    INSERT INTO wa_phone_numbers (
        organization_id, phone_number_id, display_phone, phone_e164, waba_id, portfolio_id, provider,
        throughput, is_test
    )
    VALUES (
        p_org, p_phone_number_id, p_display_phone,
        try_normalize_phone_e164('+' || ltrim(p_display_phone, '+')),
        p_waba_id, p_waba_id, p_provider, p_throughput, p_is_test
    )
    ON CONFLICT (organization_id, phone_number_id) DO UPDATE SET
        display_phone = excluded.display_phone, phone_e164 = excluded.phone_e164, waba_id = excluded.waba_id,
        provider = excluded.provider, throughput = excluded.throughput, is_test = excluded.is_test,
        updated_at = clock_timestamp()
    RETURNING id INTO v_id;
    -- The routes' primary key makes it impossible that two organizations own one number.
    INSERT INTO wa_number_routes (phone_number_id, organization_id, number_id, waba_id)
    VALUES (p_phone_number_id, p_org, v_id, p_waba_id)
    ON CONFLICT (phone_number_id) DO UPDATE SET waba_id = excluded.waba_id
    WHERE wa_number_routes.organization_id = p_org;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '23505',
            MESSAGE = format('phone number id %s is registered by another organization', p_phone_number_id),
            HINT = 'A business number belongs to one organization; remove it there first.';
    END IF;
    INSERT INTO wa_lanes (organization_id, number_id) VALUES (p_org, v_id) ON CONFLICT DO NOTHING;
    UPDATE wa_organizations SET default_number_id = v_id WHERE id = p_org AND default_number_id IS NULL;
    PERFORM _wa_assign_numbers(p_org);
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_register_number(uuid, text, text, text, text, integer, boolean) IS
'Internal: register_wa_phone_number() for a given organization.';

CREATE OR REPLACE FUNCTION _wa_assign_numbers(p_org uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_queue_due d SET number_id = o.default_number_id
    FROM wa_organizations o
    WHERE o.id = p_org AND d.organization_id = p_org AND d.number_id IS NULL
        AND o.default_number_id IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_assign_numbers(uuid) IS
'Internal: gives the default number to rows that were queued before there was one.';

CREATE OR REPLACE FUNCTION _wa_token_fingerprint(p_org uuid, p_phone_number_id text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT s.fingerprint FROM wa_secrets s
    WHERE s.organization_id = p_org AND s.name = 'access_token' AND s.is_active
        AND (s.phone_number_id = p_phone_number_id OR s.phone_number_id IS NULL)
    ORDER BY s.phone_number_id NULLS LAST, s.created_at DESC
    LIMIT 1
$$;

CREATE OR REPLACE FUNCTION _wa_pause_number(
    p_org uuid, p_number_id bigint, p_scope text, p_reason text, p_until timestamptz
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers n
    SET pause_scope = p_scope, pause_reason = p_reason, paused_at = clock_timestamp(), paused_until = p_until,
        updated_at = clock_timestamp()
    FROM wa_phone_numbers me
    WHERE me.organization_id = p_org AND me.id = p_number_id AND n.organization_id = p_org
        AND CASE p_scope
            WHEN 'number' THEN n.id = me.id
            WHEN 'account' THEN n.waba_id = me.waba_id
            ELSE _wa_token_fingerprint(p_org, n.phone_number_id)
                IS NOT DISTINCT FROM _wa_token_fingerprint(p_org, me.phone_number_id)
        END
        AND (n.pause_scope IS NULL OR n.paused_until < coalesce(p_until, 'infinity'))
$$;

COMMENT ON FUNCTION _wa_token_fingerprint(uuid, text) IS
'Internal: tells which stored token a number sends with; NULL means the token of the dispatcher''s '
'environment.';
COMMENT ON FUNCTION _wa_pause_number(uuid, bigint, text, text, timestamptz) IS
'Internal: pauses a number, its account, or every number with its token, until a time or (NULL) until '
'resumed.';

CREATE OR REPLACE FUNCTION resume_wa_number(p_phone_number_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_phone_numbers
    SET pause_scope = NULL, pause_reason = NULL, paused_at = NULL, paused_until = NULL,
        updated_at = clock_timestamp()
    WHERE phone_number_id = p_phone_number_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('no business number with the id "%s"', p_phone_number_id),
            HINT = 'SELECT phone_number_id, pause_scope, pause_reason FROM wa_phone_numbers;';
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION resume_wa_number(text) IS
'Ends the pause of a business number, for example after a new token or a settled payment.';

REVOKE ALL ON FUNCTION register_wa_phone_number(text, text, text, text, integer, boolean),
_wa_register_number(uuid, text, text, text, text, integer, boolean), _wa_assign_numbers(uuid),
_wa_token_fingerprint(uuid, text),
_wa_pause_number(uuid, bigint, text, text, timestamptz), resume_wa_number(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION register_wa_phone_number(text, text, text, text, integer, boolean),
resume_wa_number(text)
TO wa_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_phone_numbers, wa_portfolios TO wa_admin;
GRANT SELECT ON wa_phone_numbers, wa_portfolios TO wa_app;
$wa_script$, '29ac8eed2c3b602509b14aa60eb843618521018872344f58885bd355fa85ba4d', ARRAY['function register_wa_phone_number', 'function _wa_register_number', 'function _wa_assign_numbers', 'function _wa_token_fingerprint', 'function _wa_pause_number', 'function resume_wa_number']::text[]),
(13, 'api', 'api/errors.sql', $wa_script$-- What to do about each error of the provider. Meta's error-codes page names the codes; the actions are our
-- judgement. Existing rows are left alone: they may have been changed by an operator.

INSERT INTO wa_error_rules (code, http_status, title, action, max_retries, wait) VALUES
(0, 401, 'App user cannot be authenticated', 'pause_token', NULL, NULL),
(1, 400, 'Invalid request or server error', 'retry', 3, NULL),
(2, 503, 'Temporary downtime or overload', 'retry', NULL, NULL),
(3, 500, 'Capability or permission problem', 'pause_token', NULL, NULL),
(4, 400, 'App call rate limit', 'wait_account', NULL, '5 minutes'),
(10, 403, 'Permission missing or removed', 'pause_token', NULL, NULL),
(33, 400, 'Business phone number deleted or unknown', 'pause_number', NULL, NULL),
(100, 400, 'Invalid parameter', 'fail', NULL, NULL),
(190, 401, 'Access token expired or revoked', 'pause_token', NULL, NULL),
(368, 403, 'Account restricted for a policy violation', 'pause_account', NULL, NULL),
(80007, 400, 'Account rate limit', 'wait_account', NULL, '5 minutes'),
(130403, NULL, 'Business blocked this user', 'fail_recipient', NULL, NULL),
(130429, 400, 'Throughput of the number reached', 'wait_number', NULL, '1 second'),
(130472, 400, 'User is part of a marketing experiment', 'fail', NULL, NULL),
(130497, 403, 'Account may not message this country', 'fail_recipient', NULL, NULL),
(131000, 500, 'Unknown error', 'retry', NULL, NULL),
(131005, 403, 'Access denied', 'pause_token', NULL, NULL),
(131008, 400, 'Required parameter missing', 'fail', NULL, NULL),
(131009, 400, 'Parameter value invalid', 'fail', NULL, NULL),
(131016, 500, 'Service unavailable', 'retry', NULL, NULL),
(131020, NULL, 'Group has a single member', 'fail', NULL, NULL),
(131021, 400, 'Recipient is the sender', 'fail', NULL, NULL),
(131026, 400, 'Message undeliverable', 'fail_recipient', NULL, NULL),
(131030, 400, 'Recipient not in the test list', 'fail', NULL, NULL),
(131031, 403, 'Account locked', 'pause_account', NULL, NULL),
(131037, 400, 'Display name not approved', 'pause_number', NULL, NULL),
(131041, NULL, 'Group unknown', 'fail', NULL, NULL),
(131042, 400, 'Payment problem', 'pause_account', NULL, NULL),
(131043, NULL, 'Message expired', 'fail', NULL, NULL),
(131045, 500, 'Number registration problem', 'pause_number', NULL, NULL),
(131047, 400, 'More than 24 hours since the customer''s last message', 'need_template', NULL, NULL),
(131048, 400, 'Spam rate limit', 'pause_number', NULL, '6 hours'),
(131049, 400, 'Not delivered to keep the ecosystem healthy', 'fail', NULL, NULL),
(131050, 400, 'User stopped marketing messages', 'opt_out', NULL, NULL),
(131051, 400, 'Unsupported message type', 'fail', NULL, NULL),
(131052, 400, 'Media could not be downloaded', 'fail', NULL, NULL),
(131053, 400, 'Media could not be uploaded', 'retry', 1, NULL),
(131055, 400, 'Method not allowed', 'fail', NULL, NULL),
(131056, 400, 'Pair rate limit', 'wait_recipient', NULL, NULL),
(131057, 500, 'Account in maintenance', 'wait_number', NULL, '60 seconds'),
(131059, 400, 'Bad paging cursor', 'fail', NULL, NULL),
(131060, NULL, 'Message unavailable', 'fail', NULL, NULL),
(131062, 400, 'User id not accepted as recipient', 'fail', NULL, NULL),
(131063, 400, 'Marketing is disabled on Cloud API', 'stop_template', NULL, NULL),
(131064, 400, 'Limit because of misclassified templates', 'pause_number', NULL, '6 hours'),
(132000, 400, 'Parameter count does not match', 'fail', NULL, NULL),
(132001, 404, 'Template does not exist in this language', 'stop_template', NULL, NULL),
(132005, 400, 'Translated text too long', 'fail', NULL, NULL),
(132007, 400, 'Template violates content policy', 'stop_template', NULL, NULL),
(132008, 400, 'Parameter value invalid', 'fail', NULL, NULL),
(132012, 400, 'Parameter format does not match', 'fail', NULL, NULL),
(132015, 400, 'Template paused', 'stop_template', NULL, '3 hours'),
(132016, 400, 'Template disabled', 'stop_template', NULL, NULL),
(132018, 400, 'Template parameters invalid', 'fail', NULL, NULL),
(132068, 400, 'Flow blocked', 'stop_template', NULL, NULL),
(132069, 400, 'Flow throttled', 'stop_template', NULL, '1 hour'),
(133000, 500, 'Incomplete deregistration', 'pause_number', NULL, NULL),
(133004, 503, 'Server temporarily unavailable', 'retry', NULL, NULL),
(133005, 400, 'PIN does not match', 'fail', NULL, NULL),
(133006, 400, 'Number needs verification', 'pause_number', NULL, NULL),
(133008, 400, 'Too many PIN guesses', 'fail', NULL, NULL),
(133009, 400, 'PIN guessed too fast', 'fail', NULL, NULL),
(133010, 400, 'Number not registered', 'pause_number', NULL, NULL),
(133015, 400, 'Number deleted too recently', 'pause_number', NULL, '5 minutes'),
(133016, 400, 'Registration limit', 'pause_number', NULL, NULL),
(134011, 400, 'Payments terms not accepted', 'fail', NULL, NULL),
(134100, 400, 'Not a marketing template', 'fail', NULL, NULL),
(134101, 400, 'Template still syncing', 'retry', NULL, '10 minutes'),
(134102, 500, 'Template unavailable', 'stop_template', NULL, '1 hour'),
(135000, 400, 'Generic user error', 'retry', 1, NULL),
(137000, NULL, 'Identity hash does not match', 'fail', NULL, NULL),
(139200, NULL, 'Direct Send blocked', 'fail', NULL, NULL)
ON CONFLICT (code) DO NOTHING;

CREATE OR REPLACE FUNCTION classify_wa_error(p_code integer, p_http_status integer)
RETURNS wa_error_rules
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT r.code, r.http_status, r.title, r.action, r.max_retries, r.wait FROM (
        SELECT e.*, 1 AS preference FROM wa_error_rules e WHERE e.code = p_code
        UNION ALL
        SELECT
            p_code, p_http_status,
            coalesce('Error ' || p_code, 'HTTP status ' || p_http_status, 'Unknown error'),
            CASE
                WHEN p_code BETWEEN 200 AND 299 THEN 'pause_token'
                WHEN p_code IS NULL AND p_http_status BETWEEN 200 AND 399 THEN 'unknown'
                WHEN p_http_status IN (401, 403) THEN 'pause_token'
                WHEN p_http_status = 429 THEN 'wait_number'
                WHEN p_http_status = 408 THEN 'unknown'
                WHEN p_http_status >= 500 AND p_code IS NULL THEN 'unknown'
                WHEN p_http_status >= 500 THEN 'retry'
                ELSE 'fail'
            END,
            NULL, NULL, 2
    ) r (code, http_status, title, action, max_retries, wait, preference)
    ORDER BY r.preference
    LIMIT 1
$$;

COMMENT ON FUNCTION classify_wa_error(integer, integer) IS
'The rule for an error code of the provider: that of wa_error_rules, else one by HTTP status. '
'A 5xx answer without an error code leaves the outcome unknown.';

REVOKE ALL ON FUNCTION classify_wa_error(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION classify_wa_error(integer, integer) TO wa_admin, wa_app;
GRANT SELECT ON wa_error_rules TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_error_rules TO wa_admin;
$wa_script$, '28ac44669395ebd8ff1a21e9f656bda357b2e7ca590435f01a15e9e74f4b8e9e', ARRAY['function classify_wa_error']::text[]),
(14, 'api', 'api/contacts.sql', $wa_script$-- Customers: found by telephone number or by business-scoped user id. wa_contact_identities is the one way
-- in; it holds telephone numbers as keys (see _wa_phone_key), so that every spelling finds the same contact.

CREATE OR REPLACE FUNCTION _wa_inbound_phone(p_id text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN p_id ~ '^\+?[0-9]{1,20}$' THEN '+' || ltrim(p_id, '+') END;

COMMENT ON FUNCTION _wa_inbound_phone(text) IS
'Internal: a provider''s wa_id as a number with +. Never refused by a numbering plan; NULL for what is no '
'number.';

CREATE OR REPLACE FUNCTION _wa_inbound_user_id(p_user_id text, p_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(nullif(p_user_id, ''), CASE WHEN _wa_inbound_phone(p_id) IS NULL THEN nullif(p_id, '') END);

COMMENT ON FUNCTION _wa_inbound_user_id(text, text) IS
'Internal: the user id of a webhook. A sender id that is no number is taken as one, rather than lost.';

-- A telephone number may be handed on to somebody else: its former holder still owns what was sent before
-- that. A user id never changes hands, so that it always finds its contact.
CREATE OR REPLACE FUNCTION _wa_look_up_contacts(
    p_org uuid, p_keys text[], p_user_ids text[], p_ats timestamptz[], OUT by_phone bigint[],
    OUT by_user bigint[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    SELECT array_agg(i.contact_id ORDER BY k.n) INTO by_phone
    FROM unnest(p_keys) WITH ORDINALITY k (key, n)
    LEFT JOIN LATERAL (
        SELECT i.contact_id FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.value = k.key AND i.is_current LIMIT 1
    ) i ON true;
    IF num_nulls(VARIADIC p_user_ids) = cardinality(p_user_ids) THEN
        by_user := array_fill(NULL::bigint, ARRAY[cardinality(p_keys)]);
    ELSE
        SELECT array_agg(i.contact_id ORDER BY k.n) INTO by_user
        FROM unnest(p_user_ids) WITH ORDINALITY k (user_id, n)
        LEFT JOIN LATERAL (
            SELECT i.contact_id FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.kind = 'user_id' AND i.value = k.user_id AND i.is_current
                LIMIT 1
        ) i ON true;
    END IF;
    IF p_ats IS NOT NULL AND EXISTS (
        SELECT FROM unnest(p_keys) k (key)
        JOIN wa_contact_identities i
            ON i.organization_id = p_org AND i.kind = 'phone' AND i.value = k.key AND NOT i.is_current
    ) THEN
        SELECT array_agg(coalesce(f.contact_id, by_phone[k.n]) ORDER BY k.n) INTO by_phone
        FROM unnest(p_keys, p_ats) WITH ORDINALITY k (key, at, n)
        LEFT JOIN LATERAL (
            SELECT i.contact_id FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.value = k.key AND NOT i.is_current
                AND i.valid_to >= k.at
            ORDER BY i.valid_to
            LIMIT 1
        ) f ON true;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_look_up_contacts(uuid, text[], text[], timestamptz[]) IS
'Internal: the contacts that number keys and user ids find, in the order given. With times, a number finds '
'who had it then.';

CREATE OR REPLACE FUNCTION _wa_resolve_contacts(
    p_org uuid, p_phones text[], p_user_ids text[], p_source text, p_ats timestamptz[] DEFAULT NULL
) RETURNS TABLE (n integer, contact_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_keys text[] := ARRAY(
        SELECT _wa_phone_key(p.phone) FROM unnest(p_phones) WITH ORDINALITY p (phone, n) ORDER BY p.n
    );
    v_user_ids text[] := coalesce(p_user_ids, array_fill(NULL::text, ARRAY[cardinality(p_phones)]));
    v_has_user_ids boolean := num_nonnulls(VARIADIC p_user_ids) > 0;
    v_found record;
    v_pair record;
BEGIN
    IF cardinality(p_phones) = 0 THEN
        RETURN;
    END IF;
    v_found := _wa_look_up_contacts(p_org, v_keys, v_user_ids, p_ats);
    IF EXISTS (
        SELECT FROM unnest(v_found.by_phone, v_found.by_user, v_keys, v_user_ids) f (by_phone, by_user, key,
            user_id)
        WHERE f.by_phone IS NULL AND f.by_user IS NULL AND num_nonnulls(f.key, f.user_id) > 0
    ) THEN
        -- Sorted, so that two statements that create the same contacts wait for each other in one direction
        -- only.
        INSERT INTO wa_contacts (organization_id, phone_e164, phone_key, user_id)
        SELECT p_org, min(f.phone), f.key, f.user_id
        FROM unnest(v_found.by_phone, v_found.by_user, p_phones, v_keys, v_user_ids)
            f (by_phone, by_user, phone, key, user_id)
        WHERE f.by_phone IS NULL AND f.by_user IS NULL AND num_nonnulls(f.key, f.user_id) > 0
        GROUP BY f.key, f.user_id
        ORDER BY num_nulls(f.key, f.user_id), f.key, f.user_id
        ON CONFLICT DO NOTHING;

        -- Read back rather than RETURNING: another transaction may have been first.
        INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
        SELECT p_org, c.id, 'phone', f.key, p_source, coalesce(min(f.at), clock_timestamp())
        FROM unnest(v_found.by_phone, v_keys, p_ats) f (by_phone, key, at)
        CROSS JOIN LATERAL (
            SELECT c.id FROM wa_contacts c WHERE c.organization_id = p_org AND c.phone_key = f.key LIMIT 1
        ) c
        WHERE f.by_phone IS NULL
        GROUP BY c.id, f.key
        ORDER BY f.key
        ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;

        IF v_has_user_ids THEN
            INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
            SELECT p_org, c.id, 'user_id', f.user_id, p_source, coalesce(min(f.at), clock_timestamp())
            FROM unnest(v_found.by_user, v_user_ids, p_ats) f (by_user, user_id, at)
            CROSS JOIN LATERAL (
                SELECT c.id FROM wa_contacts c WHERE c.organization_id = p_org AND c.user_id = f.user_id
                    LIMIT 1
            ) c
            WHERE f.by_user IS NULL
            GROUP BY c.id, f.user_id
            ORDER BY f.user_id
            ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
        END IF;
        v_found := _wa_look_up_contacts(p_org, v_keys, v_user_ids, p_ats);
    END IF;

    IF v_has_user_ids THEN
        FOR v_pair IN
            SELECT f.phone, f.user_id, max(f.at) AS at
            FROM unnest(v_found.by_phone, v_found.by_user, p_phones, v_user_ids, p_ats)
                f (by_phone, by_user, phone, user_id, at)
            WHERE f.phone IS NOT NULL AND f.user_id IS NOT NULL AND f.by_phone IS DISTINCT FROM f.by_user
            GROUP BY f.phone, f.user_id
            ORDER BY max(f.at), f.phone, f.user_id
        LOOP
            PERFORM _wa_join_contact(p_org, v_pair.phone, v_pair.user_id, p_source, v_pair.at);
        END LOOP;
        IF FOUND THEN
            v_found := _wa_look_up_contacts(p_org, v_keys, v_user_ids, p_ats);
        END IF;
    END IF;

    RETURN QUERY
    SELECT f.n::integer, coalesce(f.by_user, f.by_phone)
    FROM unnest(v_found.by_phone, v_found.by_user) WITH ORDINALITY f (by_phone, by_user, n);
END
$$;

COMMENT ON FUNCTION _wa_resolve_contacts(uuid, text[], text[], text, timestamptz[]) IS
'Internal: the contact of each pair of number (E.164) and user id, either of which may be NULL; creates '
'what is missing and joins two contacts that turn out to be one. With times, a number finds who had it then.';

CREATE OR REPLACE FUNCTION _wa_find_contact(p_org uuid, p_recipient text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint;
    v_phone text := p_recipient;
BEGIN
    IF _wa_is_user_id(p_recipient) THEN
        SELECT i.contact_id INTO v_id FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'user_id' AND i.value = p_recipient AND i.is_current;
        RETURN v_id;
    END IF;
    -- What is stored is found as it stands; only what people type has to be read first.
    FOR v_try IN 1..2 LOOP
        SELECT i.contact_id INTO v_id FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.value = _wa_phone_key(v_phone)
            AND i.is_current;
        EXIT WHEN v_id IS NOT NULL OR v_try = 2;
        SELECT try_normalize_phone_e164(p_recipient, o.default_region, o.default_area_code) INTO v_phone
        FROM wa_organizations o WHERE o.id = p_org;
        EXIT WHEN v_phone IS NOT DISTINCT FROM p_recipient;
    END LOOP;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_find_contact(uuid, text) IS
'Internal: the contact with a telephone number, in any form that people type, or with a user id; NULL when '
'there is none.';

-- A set of at most one, so that it is inlined into a join: the queue's insert finds a contact for every row
-- with it.
CREATE OR REPLACE FUNCTION _wa_contact_of(p_org uuid, p_recipient text) RETURNS TABLE (contact_id bigint)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT i.contact_id FROM wa_contact_identities i
    WHERE i.organization_id = p_org AND i.is_current
        AND i.kind = CASE WHEN left(p_recipient, 1) = '+' THEN 'phone' ELSE 'user_id' END
        AND i.value = CASE WHEN left(p_recipient, 1) = '+' THEN _wa_phone_key(p_recipient)
            ELSE p_recipient END
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_contact_of(uuid, text) IS
'Internal: the contact of a number in E.164 or a user id; no row when there is none.';
REVOKE ALL ON FUNCTION _wa_contact_of(uuid, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION _wa_learn_wa_id(p_org uuid, p_contact_ids bigint[], p_wa_ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_alias record;
BEGIN
    -- The provider's answer is proof that both numbers are one subscriber, hence the merge.
    FOR v_alias IN
        SELECT DISTINCT c.id, _wa_phone_key(_wa_inbound_phone(l.wa_id)) AS key, i.contact_id AS other_id
        FROM unnest(p_contact_ids, p_wa_ids) l (contact_id, wa_id)
        JOIN wa_contacts c ON c.organization_id = p_org AND c.id = l.contact_id
        LEFT JOIN wa_contact_identities i ON i.organization_id = p_org AND i.kind = 'phone' AND i.is_current
            AND i.value = _wa_phone_key(_wa_inbound_phone(l.wa_id))
        WHERE _wa_inbound_phone(l.wa_id) IS NOT NULL AND i.contact_id IS DISTINCT FROM c.id
        ORDER BY 1
    LOOP
        IF v_alias.other_id IS NOT NULL THEN
            PERFORM _wa_merge_contacts(p_org, v_alias.other_id, v_alias.id);
        ELSE
            INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source)
            VALUES (p_org, v_alias.id, 'phone', v_alias.key, 'provider')
            ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
        END IF;
    END LOOP;
    UPDATE wa_contacts c SET wa_id = l.wa_id, updated_at = clock_timestamp()
    FROM (
        SELECT DISTINCT ON (u.contact_id) u.contact_id, u.wa_id
        FROM unnest(p_contact_ids, p_wa_ids) WITH ORDINALITY u (contact_id, wa_id, n)
        WHERE u.wa_id IS NOT NULL
        ORDER BY u.contact_id, u.n DESC
    ) l
    WHERE c.organization_id = p_org AND c.id = l.contact_id AND c.wa_id IS DISTINCT FROM l.wa_id;
END
$$;

COMMENT ON FUNCTION _wa_learn_wa_id(uuid, bigint[], text[]) IS
'Internal: records the ids that the provider answered for contacts; each finds its contact from then on.';

REVOKE ALL ON FUNCTION _wa_inbound_phone(text), _wa_inbound_user_id(text, text),
_wa_look_up_contacts(uuid, text[], text[], timestamptz[]),
_wa_resolve_contacts(uuid, text[], text[], text, timestamptz[]), _wa_find_contact(uuid, text),
_wa_learn_wa_id(uuid, bigint[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_find_contact(uuid, text) TO wa_admin, wa_app;
GRANT SELECT ON wa_contacts, wa_contact_identities TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_contacts, wa_contact_identities TO wa_admin;
$wa_script$, '51b6cfd5c85de33ccc691b4e496174de9f433b6b05e3fb2d0f669fdd79285dc6', ARRAY['function _wa_inbound_phone', 'function _wa_inbound_user_id', 'function _wa_look_up_contacts', 'function _wa_resolve_contacts', 'function _wa_find_contact', 'function _wa_contact_of', 'function _wa_learn_wa_id']::text[]),
(15, 'api', 'api/contact_joins.sql', $wa_script$-- Two contacts that turn out to be one person, and people who change their number or user id.

-- Evidence decides who is who: a user id seen with a number belongs to that number's contact. Only where both
-- contacts have a number and a user id of their own are they two people, and the number has changed hands.
CREATE OR REPLACE FUNCTION _wa_join_contact(
    p_org uuid, p_phone text, p_user_id text, p_source text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_at timestamptz := coalesce(p_at, clock_timestamp());
    v_found record := _wa_look_up_contacts(p_org, ARRAY[_wa_phone_key(p_phone)], ARRAY[p_user_id],
        ARRAY[p_at]);
    v_by_phone wa_contacts;
    v_by_user wa_contacts;
BEGIN
    PERFORM FROM wa_contacts
    WHERE organization_id = p_org AND id IN (v_found.by_phone[1], v_found.by_user[1])
    ORDER BY id FOR UPDATE;
    SELECT * INTO v_by_phone FROM wa_contacts WHERE organization_id = p_org AND id = v_found.by_phone[1];
    SELECT * INTO v_by_user FROM wa_contacts WHERE organization_id = p_org AND id = v_found.by_user[1];
    IF v_by_phone.id = v_by_user.id THEN
        RETURN v_by_phone.id;
    ELSIF v_by_user.id IS NULL THEN
        PERFORM _wa_add_user_id(p_org, v_by_phone.id, p_user_id, p_source, v_at);
        RETURN v_by_phone.id;
    ELSIF v_by_phone.id IS NULL THEN
        PERFORM _wa_set_contact_phone(p_org, v_by_user.id, p_phone, p_source, v_at);
        RETURN v_by_user.id;
    ELSIF v_by_user.phone_key IS NULL THEN
        PERFORM _wa_merge_contacts(p_org, v_by_user.id, v_by_phone.id);
        RETURN v_by_phone.id;
    ELSIF v_by_phone.user_id IS NULL THEN
        PERFORM _wa_merge_contacts(p_org, v_by_phone.id, v_by_user.id);
    END IF;
    PERFORM _wa_set_contact_phone(p_org, v_by_user.id, p_phone, p_source, v_at);
    RETURN v_by_user.id;
END
$$;

COMMENT ON FUNCTION _wa_join_contact(uuid, text, text, text, timestamptz) IS
'Internal: makes one contact of a number and a user id that were seen together at p_at; returns it.';

CREATE OR REPLACE FUNCTION _wa_add_user_id(
    p_org uuid, p_contact_id bigint, p_user_id text, p_source text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_current text;
    v_since timestamptz;
BEGIN
    SELECT c.user_id, i.valid_from INTO v_current, v_since
    FROM wa_contacts c
    LEFT JOIN wa_contact_identities i ON i.organization_id = p_org AND i.kind = 'user_id'
        AND i.value = c.user_id
        AND i.is_current
    WHERE c.organization_id = p_org AND c.id = p_contact_id;
    -- Both stay findable: a person has another user id in each business portfolio.
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from, valid_to)
    VALUES (p_org, p_contact_id, 'user_id', p_user_id, p_source, p_at, CASE WHEN p_at < v_since
        THEN v_since END)
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    IF v_current IS NULL OR p_at >= v_since THEN
        UPDATE wa_contact_identities SET valid_to = p_at
        WHERE organization_id = p_org AND contact_id = p_contact_id AND kind = 'user_id' AND value = v_current
            AND is_current AND v_current <> p_user_id;
        UPDATE wa_contact_identities SET valid_to = NULL
        WHERE organization_id = p_org AND contact_id = p_contact_id AND kind = 'user_id' AND value = p_user_id
            AND is_current AND valid_to IS NOT NULL;
        UPDATE wa_contacts SET user_id = p_user_id, updated_at = clock_timestamp()
        WHERE organization_id = p_org AND id = p_contact_id AND user_id IS DISTINCT FROM p_user_id;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_add_user_id(uuid, bigint, text, text, timestamptz) IS
'Internal: gives a contact one more user id; the one seen last is the one written to.';

CREATE OR REPLACE FUNCTION _wa_set_contact_phone(
    p_org uuid, p_contact_id bigint, p_phone text, p_source text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_key text := _wa_phone_key(p_phone);
BEGIN
    -- Whoever had the number before, and what this contact had before, become history.
    UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
    WHERE organization_id = p_org AND kind = 'phone' AND is_current
        AND ((value = v_key AND contact_id <> p_contact_id)
            OR (value <> v_key AND contact_id = p_contact_id));
    UPDATE wa_contacts SET phone_e164 = NULL, phone_key = NULL, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND phone_key = v_key AND id <> p_contact_id;
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
    VALUES (p_org, p_contact_id, 'phone', v_key, p_source, p_at)
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    UPDATE wa_contacts SET phone_e164 = p_phone, phone_key = v_key, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_contact_id AND phone_key IS DISTINCT FROM v_key;
END
$$;

COMMENT ON FUNCTION _wa_set_contact_phone(uuid, bigint, text, text, timestamptz) IS
'Internal: gives a contact its number from p_at on; the former one no longer finds it for what comes later.';

CREATE OR REPLACE FUNCTION _wa_change_number(
    p_org uuid, p_old_phone text, p_old_user_id text, p_new_phone text, p_new_user_id text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found record := _wa_look_up_contacts(
        p_org, ARRAY[_wa_phone_key(p_old_phone), _wa_phone_key(p_new_phone)], ARRAY[p_old_user_id,
        p_new_user_id],
        ARRAY[p_at, p_at]
    );
    v_old bigint := coalesce(v_found.by_user[1], v_found.by_phone[1]);
    v_new bigint := coalesce(v_found.by_user[2], v_found.by_phone[2]);
BEGIN
    IF v_old IS NULL AND v_new IS NULL THEN
        SELECT r.contact_id INTO v_new
        FROM _wa_resolve_contacts(p_org, ARRAY[p_new_phone], ARRAY[p_new_user_id], 'webhook', ARRAY[p_at]) r;
    ELSIF v_new IS NULL THEN
        v_new := v_old;
    ELSIF v_old <> v_new THEN
        PERFORM _wa_merge_contacts(p_org, v_old, v_new);
    END IF;
    IF p_new_phone IS NOT NULL AND _wa_phone_key(p_new_phone) IS DISTINCT FROM _wa_phone_key(p_old_phone) THEN
        UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
        WHERE organization_id = p_org AND contact_id = v_new AND kind = 'phone'
            AND value = _wa_phone_key(p_old_phone)
            AND is_current;
        -- Webhooks that are still on their way from the old number must find the contact, too.
        IF NOT FOUND THEN
            INSERT INTO wa_contact_identities (
                organization_id, contact_id, kind, value, is_current, source, valid_from, valid_to
            )
            SELECT p_org, v_new, 'phone', _wa_phone_key(p_old_phone), false, 'webhook', p_at, p_at
            WHERE p_old_phone IS NOT NULL AND NOT EXISTS (
                SELECT FROM wa_contact_identities i
                WHERE i.organization_id = p_org AND i.contact_id = v_new AND i.kind = 'phone'
                    AND i.value = _wa_phone_key(p_old_phone) AND i.valid_to >= p_at
            );
        END IF;
        -- A later change may have been reported first: then the new number is history as well.
        IF NOT EXISTS (
            SELECT FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.contact_id = v_new AND i.kind = 'phone'
                AND i.value = _wa_phone_key(p_new_phone) AND NOT i.is_current AND i.valid_to >= p_at
        ) THEN
            PERFORM _wa_set_contact_phone(p_org, v_new, p_new_phone, 'webhook', p_at);
        END IF;
    END IF;
    IF p_old_user_id IS NOT NULL AND p_old_user_id IS DISTINCT FROM p_new_user_id THEN
        INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from,
            valid_to)
        VALUES (p_org, v_new, 'user_id', p_old_user_id, 'webhook', p_at - interval '1 second', p_at)
        ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    END IF;
    IF p_new_user_id IS NOT NULL THEN
        PERFORM _wa_add_user_id(p_org, v_new, p_new_user_id, 'webhook', p_at);
    END IF;
    RETURN v_new;
END
$$;

COMMENT ON FUNCTION _wa_change_number(uuid, text, text, text, text, timestamptz) IS
'Internal: a customer changed number or user id at p_at. Old and new become one contact, whichever was seen '
'first.';

CREATE OR REPLACE FUNCTION _wa_merge_contacts(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_from wa_contacts;
    v_from_is_newer boolean;
BEGIN
    IF p_from = p_into THEN
        RETURN;
    END IF;
    PERFORM FROM wa_contacts WHERE organization_id = p_org AND id IN (p_from, p_into) ORDER BY id FOR UPDATE;
    SELECT * INTO v_from FROM wa_contacts WHERE organization_id = p_org AND id = p_from;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT coalesce(
        max(m.provider_at) FILTER (WHERE m.contact_id = p_from)
        > coalesce(max(m.provider_at) FILTER (WHERE m.contact_id = p_into), '-infinity'),
        false
    )
    INTO v_from_is_newer
    FROM wa_messages m
    WHERE m.organization_id = p_org AND m.contact_id IN (p_from, p_into) AND m.direction = 'inbound'
        AND m.message_type <> 'system';

    UPDATE wa_contact_identities SET contact_id = p_into WHERE organization_id = p_org
        AND contact_id = p_from;

    UPDATE wa_conversation_windows w SET
        last_customer_message_at = greatest(w.last_customer_message_at, f.last_customer_message_at),
        last_business_message_at = greatest(w.last_business_message_at, f.last_business_message_at),
        window_denied_at = greatest(w.window_denied_at, f.window_denied_at),
        entry_point = CASE
            WHEN w.entry_point_opened_at >= f.entry_point_opened_at OR f.entry_point_opened_at IS NULL
                THEN w.entry_point
            ELSE f.entry_point
        END,
        entry_point_opened_at = greatest(w.entry_point_opened_at, f.entry_point_opened_at),
        entry_point_expires_at = greatest(w.entry_point_expires_at, f.entry_point_expires_at),
        unread_count = w.unread_count + f.unread_count,
        user_id = coalesce(w.user_id, f.user_id),
        created_at = least(w.created_at, f.created_at),
        updated_at = clock_timestamp()
    FROM wa_conversation_windows f
    WHERE w.organization_id = p_org AND w.contact_id = p_into
        AND f.organization_id = p_org AND f.contact_id = p_from AND f.number_id = w.number_id;
    DELETE FROM wa_conversation_windows f
    USING wa_conversation_windows w
    WHERE f.organization_id = p_org AND f.contact_id = p_from
        AND w.organization_id = p_org AND w.contact_id = p_into AND w.number_id = f.number_id;
    UPDATE wa_conversation_windows SET contact_id = p_into WHERE organization_id = p_org
        AND contact_id = p_from;

    -- One request in force per scope is enough; the other stays as history.
    UPDATE wa_opt_outs f SET revoked_at = clock_timestamp(), revoked_source = 'merged'
    FROM wa_opt_outs i
    WHERE f.organization_id = p_org AND f.contact_id = p_from AND f.revoked_at IS NULL
        AND i.organization_id = p_org AND i.contact_id = p_into AND i.revoked_at IS NULL
            AND i.scope = f.scope;
    UPDATE wa_opt_outs SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_opt_ins SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;

    UPDATE wa_outbound_queue q SET contact_id = p_into, change_no = q.change_no + 1
    WHERE q.organization_id = p_org AND q.contact_id = p_from AND q.id IN (
        SELECT m.queue_id FROM wa_messages m WHERE m.organization_id = p_org AND m.contact_id = p_from
        UNION ALL
        SELECT d.queue_id FROM wa_queue_due d WHERE d.organization_id = p_org AND d.contact_id = p_from
        UNION ALL
        SELECT f.queue_id FROM wa_queue_inflight f WHERE f.organization_id = p_org AND f.contact_id = p_from
    );
    UPDATE wa_messages SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_queue_due SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_queue_inflight SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;

    INSERT INTO wa_pair_rates AS r (
        organization_id, number_id, contact_id, burst_started_at, burst_count, clear_at, wait_until
    )
    SELECT p_org, f.number_id, p_into, f.burst_started_at, f.burst_count, f.clear_at, f.wait_until
    FROM wa_pair_rates f WHERE f.organization_id = p_org AND f.contact_id = p_from
    ON CONFLICT (organization_id, number_id, contact_id) DO UPDATE SET
        burst_count = r.burst_count + excluded.burst_count,
        clear_at = greatest(r.clear_at, excluded.clear_at),
        wait_until = greatest(r.wait_until, excluded.wait_until);
    DELETE FROM wa_pair_rates WHERE organization_id = p_org AND contact_id = p_from;
    INSERT INTO wa_tier_usages AS u (organization_id, portfolio_id, contact_id, last_at)
    SELECT p_org, f.portfolio_id, p_into, f.last_at
    FROM wa_tier_usages f WHERE f.organization_id = p_org AND f.contact_id = p_from
    ON CONFLICT (organization_id, portfolio_id, contact_id) DO UPDATE SET
        last_at = greatest(u.last_at, excluded.last_at);
    DELETE FROM wa_tier_usages WHERE organization_id = p_org AND contact_id = p_from;

    DELETE FROM wa_contacts WHERE organization_id = p_org AND id = p_from;
    UPDATE wa_contacts SET
        phone_e164 = coalesce(phone_e164, v_from.phone_e164),
        phone_key = coalesce(phone_key, v_from.phone_key),
        user_id = coalesce(user_id, v_from.user_id),
        parent_user_id = coalesce(parent_user_id, v_from.parent_user_id),
        wa_id = coalesce(wa_id, v_from.wa_id),
        profile_name = CASE WHEN v_from_is_newer THEN coalesce(v_from.profile_name, profile_name)
            ELSE coalesce(profile_name, v_from.profile_name) END,
        username = CASE WHEN v_from_is_newer THEN coalesce(v_from.username, username)
            ELSE coalesce(username, v_from.username) END,
        customer_id = coalesce(customer_id, v_from.customer_id),
        identity_hash = coalesce(identity_hash, v_from.identity_hash),
        created_at = least(created_at, v_from.created_at),
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_into;
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (p_org, 'contact_merged', 'wa_contacts', p_into, jsonb_build_object('from', p_from));
END
$$;

COMMENT ON FUNCTION _wa_merge_contacts(uuid, bigint, bigint) IS
'Internal: makes one contact of two; messages, windows, consent, queued rows and limits move, the id that '
'goes is audited.';

REVOKE ALL ON FUNCTION _wa_join_contact(uuid, text, text, text, timestamptz),
_wa_add_user_id(uuid, bigint, text, text, timestamptz),
_wa_set_contact_phone(uuid, bigint, text, text, timestamptz),
_wa_change_number(uuid, text, text, text, text, timestamptz), _wa_merge_contacts(uuid, bigint, bigint)
FROM PUBLIC;
$wa_script$, '113c845484e2768c15379ffd72e617282c20ad8467e966af347d503a83da7e83', ARRAY['function _wa_join_contact', 'function _wa_add_user_id', 'function _wa_set_contact_phone', 'function _wa_change_number', 'function _wa_merge_contacts']::text[]),
(16, 'api', 'api/conversations.sql', $wa_script$-- Conversations: what happened last between a business number and a customer, and what that allows now.

CREATE OR REPLACE VIEW wa_conversations WITH (security_invoker = true) AS
SELECT
    w.organization_id, w.id, w.number_id, n.phone_number_id, w.contact_id, c.phone_e164,
    coalesce(w.user_id, c.user_id) AS user_id, c.profile_name AS customer_name,
    w.last_customer_message_at, w.last_business_message_at,
    _wa_window_open(w.last_customer_message_at, clock_timestamp(), interval '0') AS is_within_24h,
    w.last_customer_message_at + interval '24 hours' AS window_expires_at,
    _wa_window_open(w.last_customer_message_at, clock_timestamp(), o.window_margin)
    AND (w.window_denied_at IS NULL OR w.window_denied_at < w.last_customer_message_at) AS is_sendable,
    w.entry_point_expires_at,
    coalesce(w.entry_point_expires_at > clock_timestamp(), false) AS is_free_entry_point,
    w.unread_count, w.created_at, w.updated_at
FROM wa_conversation_windows w
JOIN wa_contacts c ON c.organization_id = w.organization_id AND c.id = w.contact_id
JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
JOIN wa_organizations o ON o.id = w.organization_id;

COMMENT ON VIEW wa_conversations IS
'One row per business number and customer. is_within_24h, is_sendable and is_free_entry_point are worked '
'out when read.';
COMMENT ON COLUMN wa_conversations.is_within_24h IS
'Whether the customer wrote or called in the last 24 hours, to the second.';
COMMENT ON COLUMN wa_conversations.is_sendable IS
'Whether the window allows free-form messages now: it closes window_margin early, and when the provider '
'said so.';
COMMENT ON COLUMN wa_conversations.is_free_entry_point IS
'Whether messages are free of charge after a click on an advertisement.';
COMMENT ON COLUMN wa_conversations.unread_count IS 'Messages of the customer since the business last wrote.';

-- Meta does not document the rest as opening the window; an unsupported message is still one that the
-- customer wrote.
CREATE OR REPLACE FUNCTION _wa_opens_window(p_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_type NOT IN ('reaction', 'system', 'edit', 'revoke', 'request_welcome');

COMMENT ON FUNCTION _wa_opens_window(text) IS
'Internal: whether an inbound message of this type opens the 24-hour window.';

CREATE OR REPLACE FUNCTION _wa_record_customer_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_conversation_windows AS w (
        organization_id, number_id, contact_id, last_customer_message_at, unread_count, user_id, entry_point,
        entry_point_opened_at
    )
    SELECT
        p_org, m.number_id, m.contact_id, max(m.provider_at),
        count(*) FILTER (WHERE m.provider_at > coalesce(o.last_business_message_at, '-infinity')),
        (array_agg(m.user_id ORDER BY m.provider_at DESC) FILTER (WHERE m.user_id IS NOT NULL))[1],
        (array_agg(m.referral ORDER BY m.provider_at DESC) FILTER (WHERE m.referral IS NOT NULL))[1],
        max(m.provider_at) FILTER (WHERE m.referral IS NOT NULL)
    FROM wa_messages m
    LEFT JOIN LATERAL (
        SELECT k.last_business_message_at FROM wa_conversation_windows k
        WHERE k.organization_id = p_org AND k.contact_id = m.contact_id AND k.number_id = m.number_id LIMIT 1
    ) o ON true
    WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.direction = 'inbound'
        AND m.contact_id IS NOT NULL AND m.number_id IS NOT NULL AND m.group_id IS NULL
        AND _wa_opens_window(m.message_type)
    GROUP BY m.number_id, m.contact_id
    ORDER BY m.contact_id, m.number_id
    ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
        last_customer_message_at = greatest(w.last_customer_message_at, excluded.last_customer_message_at),
        unread_count = w.unread_count + excluded.unread_count,
        user_id = CASE
            WHEN excluded.last_customer_message_at >= coalesce(w.last_customer_message_at, '-infinity')
                THEN coalesce(excluded.user_id, w.user_id)
            ELSE coalesce(w.user_id, excluded.user_id)
        END,
        entry_point = CASE
            WHEN excluded.entry_point_opened_at >= coalesce(w.entry_point_opened_at, '-infinity')
                THEN excluded.entry_point
            ELSE w.entry_point
        END,
        -- A new click starts over: the free time runs from the answer to it.
        entry_point_expires_at = CASE
            WHEN excluded.entry_point_opened_at > coalesce(w.entry_point_opened_at, '-infinity') THEN NULL
            ELSE w.entry_point_expires_at
        END,
        entry_point_opened_at = greatest(w.entry_point_opened_at, excluded.entry_point_opened_at),
        updated_at = clock_timestamp();
    PERFORM _wa_refresh_entry_points(p_org, p_message_ids);
END
$$;

COMMENT ON FUNCTION _wa_record_customer_messages(uuid, bigint[]) IS
'Internal: takes new inbound messages into their conversations; the latest of Meta''s times counts.';

CREATE OR REPLACE FUNCTION _wa_record_business_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_conversation_windows AS w (organization_id, number_id, contact_id,
        last_business_message_at)
    SELECT p_org, m.number_id, m.contact_id, max(coalesce(m.provider_at, m.sent_at))
    FROM wa_messages m
    WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.direction = 'outbound'
        AND m.contact_id IS NOT NULL AND m.number_id IS NOT NULL AND m.group_id IS NULL
        AND m.message_type NOT IN ('reaction', 'edit', 'revoke')
    GROUP BY m.number_id, m.contact_id
    ORDER BY m.contact_id, m.number_id
    ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
        last_business_message_at = greatest(w.last_business_message_at, excluded.last_business_message_at),
        unread_count = CASE
            WHEN w.unread_count = 0 THEN 0
            ELSE (
                SELECT count(*) FROM wa_messages c
                WHERE c.organization_id = w.organization_id AND c.contact_id = w.contact_id
                    AND c.number_id = w.number_id AND c.direction = 'inbound' AND c.group_id IS NULL
                    AND _wa_opens_window(c.message_type)
                        AND (c.message_type <> 'call' OR c.content ? 'connect')
                    AND c.provider_at > greatest(w.last_business_message_at,
                        excluded.last_business_message_at)
            )
        END,
        updated_at = clock_timestamp();
    PERFORM _wa_refresh_entry_points(p_org, p_message_ids);
END
$$;

COMMENT ON FUNCTION _wa_record_business_messages(uuid, bigint[]) IS
'Internal: takes messages that the business sent outside the queue into their conversations.';

CREATE OR REPLACE FUNCTION _wa_refresh_entry_points(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_window record;
BEGIN
    FOR v_window IN
        SELECT DISTINCT w.id, w.contact_id, w.number_id, w.entry_point_opened_at
        FROM wa_messages m
        CROSS JOIN LATERAL (
            SELECT k.* FROM wa_conversation_windows k
            WHERE k.organization_id = p_org AND k.contact_id = m.contact_id AND k.number_id = m.number_id
                LIMIT 1
        ) w
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND w.entry_point_opened_at IS NOT NULL
    LOOP
        UPDATE wa_conversation_windows w SET entry_point_expires_at = (
            SELECT min(coalesce(m.provider_at, m.sent_at)) + interval '72 hours' FROM wa_messages m
            WHERE m.organization_id = p_org AND m.contact_id = v_window.contact_id
                AND m.number_id = v_window.number_id AND m.direction = 'outbound' AND m.group_id IS NULL
                AND m.status = 'sent' AND coalesce(m.provider_at, m.sent_at) >= v_window.entry_point_opened_at
                AND coalesce(m.provider_at, m.sent_at) < v_window.entry_point_opened_at + interval '24 hours'
        )
        WHERE w.organization_id = p_org AND w.id = v_window.id;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_refresh_entry_points(uuid, bigint[]) IS
'Internal: the free entry point ends 72 h after the first answer that came within 24 h of the click.';

CREATE OR REPLACE FUNCTION _wa_number_for(p_org uuid, p_contact_id bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(
        (
            SELECT w.number_id FROM wa_conversation_windows w
            WHERE w.organization_id = p_org AND w.contact_id = p_contact_id
            ORDER BY greatest(w.last_customer_message_at, w.last_business_message_at) DESC NULLS LAST,
            w.id DESC
            LIMIT 1
        ),
        (SELECT o.default_number_id FROM wa_organizations o WHERE o.id = p_org)
    )
$$;

COMMENT ON FUNCTION _wa_number_for(uuid, bigint) IS
'Internal: the business number that writes to a contact when none is named: that of the newest '
'conversation, else the default.';

CREATE OR REPLACE FUNCTION _wa_can_send_freeform(
    p_org uuid, p_contact_id bigint, p_number_id bigint, p_now timestamptz
) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_conversation_windows w
        JOIN wa_organizations o ON o.id = w.organization_id
        WHERE w.organization_id = p_org AND w.contact_id = p_contact_id AND w.number_id = p_number_id
            AND _wa_window_open(w.last_customer_message_at, p_now, o.window_margin)
            AND (w.window_denied_at IS NULL OR w.window_denied_at < w.last_customer_message_at)
    ) AND NOT EXISTS (
        SELECT FROM wa_opt_outs x
        WHERE x.organization_id = p_org AND x.contact_id = p_contact_id AND x.scope = 'all'
            AND x.revoked_at IS NULL
    )
$$;

COMMENT ON FUNCTION _wa_can_send_freeform(uuid, bigint, bigint, timestamptz) IS
'Internal: whether a free-form message may go from a number to a contact at a given time.';

CREATE OR REPLACE FUNCTION can_send_freeform_wa(p_phone text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_contact_id bigint := _wa_find_contact(v_org, p_phone);
BEGIN
    RETURN v_contact_id IS NOT NULL
        AND _wa_can_send_freeform(v_org, v_contact_id, _wa_number_for(v_org, v_contact_id),
            clock_timestamp());
END
$$;

COMMENT ON FUNCTION can_send_freeform_wa(text) IS
'Whether a free-form message may be sent to a phone number (any usual form) or user id now, from the number '
'that a queued row would take.';

CREATE OR REPLACE FUNCTION can_send_freeform_wa(p_phone text, p_phone_number_id text, p_now timestamptz)
RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_number_id bigint;
BEGIN
    SELECT n.id INTO v_number_id FROM wa_phone_numbers n
    WHERE n.organization_id = v_org AND n.phone_number_id = p_phone_number_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
        MESSAGE = format('no business number with the id "%s"', p_phone_number_id),
        HINT = 'SELECT phone_number_id, display_phone FROM wa_phone_numbers;';
    END IF;
    RETURN _wa_can_send_freeform(v_org, _wa_find_contact(v_org, p_phone), v_number_id, p_now);
END
$$;

COMMENT ON FUNCTION can_send_freeform_wa(text, text, timestamptz) IS
'As can_send_freeform_wa(phone, phone_number_id), at a given time.';

CREATE OR REPLACE FUNCTION can_send_freeform_wa(p_phone text, p_phone_number_id text) RETURNS boolean
LANGUAGE sql STABLE
RETURN can_send_freeform_wa(p_phone, p_phone_number_id, clock_timestamp());

COMMENT ON FUNCTION can_send_freeform_wa(text, text) IS
'Whether a free-form message may be sent to a phone number or user id now, from the given business number.';

CREATE OR REPLACE FUNCTION update_wa_conversation(p_phone text, p_user text, p_from_customer boolean)
    RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_phone text;
    v_contact_id bigint;
    v_number wa_phone_numbers;
    v_now timestamptz := clock_timestamp();
    v_id bigint;
BEGIN
    SELECT * INTO v_org FROM wa_organizations WHERE id = _wa_caller_organization();
    IF p_from_customer AND NOT pg_has_role(
        coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, 'wa_admin', 'MEMBER'
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '42501',
        MESSAGE = 'only wa_admin may open a window by hand',
        HINT = 'A message of the customer opens it; to try things out, let the simulator write as one.';
    END IF;
    v_contact_id := _wa_find_contact(v_org.id, p_phone);
    IF v_contact_id IS NULL THEN
        v_phone := CASE WHEN NOT _wa_is_user_id(p_phone)
            THEN normalize_phone_e164(p_phone, v_org.default_region, v_org.default_area_code) END;
        SELECT r.contact_id INTO v_contact_id FROM _wa_resolve_contacts(
            v_org.id, ARRAY[v_phone], ARRAY[CASE WHEN v_phone IS NULL THEN p_phone END], 'manual'
        ) r;
    END IF;
    SELECT n.* INTO v_number FROM wa_phone_numbers n
    WHERE n.organization_id = v_org.id AND n.id = _wa_number_for(v_org.id, v_contact_id);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
        MESSAGE = 'the organization has no business number',
        HINT = 'SELECT register_wa_phone_number(phone_number_id, display_phone, waba_id);';
    END IF;
    IF p_from_customer AND NOT v_number.is_test THEN
        IF NOT v_org.allow_manual_window THEN
            RAISE EXCEPTION USING ERRCODE = 'WA501',
            MESSAGE = format('a window of number %s may not be opened by hand', v_number.phone_number_id),
            DETAIL = 'Meta does not know of it and would refuse free-form messages.',
            HINT = 'Use a number registered with is_test, or set the organization''s allow_manual_window.';
        END IF;
        RAISE WARNING USING MESSAGE = format('window of number %s opened by hand', v_number.phone_number_id),
        DETAIL = 'Meta does not know of it and refuses free-form messages unless the customer did write.';
    END IF;
    INSERT INTO wa_conversation_windows AS w (
        organization_id, number_id, contact_id, last_customer_message_at, last_business_message_at
    )
    VALUES (
        v_org.id, v_number.id, v_contact_id,
        CASE WHEN p_from_customer THEN v_now END, CASE WHEN NOT p_from_customer THEN v_now END
    )
    ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
        last_customer_message_at = greatest(w.last_customer_message_at, excluded.last_customer_message_at),
        last_business_message_at = greatest(w.last_business_message_at, excluded.last_business_message_at),
        unread_count = CASE WHEN p_from_customer THEN w.unread_count ELSE 0 END,
        updated_at = v_now
    RETURNING w.id INTO v_id;
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (
        v_org.id, CASE WHEN p_from_customer THEN 'window_opened_by_hand' ELSE 'conversation_updated' END,
        'wa_conversations', v_id,
        jsonb_build_object('user', p_user, 'contact_id', v_contact_id, 'phone_number_id',
            v_number.phone_number_id)
    );
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION update_wa_conversation(text, text, boolean) IS
'Records by hand that the customer (true: opens the 24-hour window; wa_admin only, on test numbers unless '
'the organization allows it) or the business (false) has just written. p_user names who asked; audited. '
'Returns the conversation''s id.';

REVOKE ALL ON wa_conversations FROM PUBLIC;
REVOKE ALL ON FUNCTION _wa_opens_window(text), _wa_record_customer_messages(uuid, bigint[]),
_wa_record_business_messages(uuid, bigint[]), _wa_refresh_entry_points(uuid, bigint[]),
_wa_number_for(uuid, bigint),
_wa_can_send_freeform(uuid, bigint, bigint, timestamptz), can_send_freeform_wa(text),
can_send_freeform_wa(text, text, timestamptz), can_send_freeform_wa(text, text),
update_wa_conversation(text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_number_for(uuid, bigint),
_wa_can_send_freeform(uuid, bigint, bigint, timestamptz),
can_send_freeform_wa(text), can_send_freeform_wa(text, text, timestamptz), can_send_freeform_wa(text, text),
update_wa_conversation(text, text, boolean) TO wa_admin, wa_app;
GRANT SELECT ON wa_conversations, wa_conversation_windows TO wa_app, wa_admin;
GRANT SELECT ON wa_opt_outs TO wa_app;
GRANT INSERT, UPDATE, DELETE ON wa_conversation_windows TO wa_admin;
$wa_script$, '51b50175749d52d87a3cc2b5f6a8b6a08c57d406f27e120521d7e58ba08a4f7e', ARRAY['relation wa_conversations', 'function _wa_opens_window', 'function _wa_record_customer_messages', 'function _wa_record_business_messages', 'function _wa_refresh_entry_points', 'function _wa_number_for', 'function _wa_can_send_freeform', 'function can_send_freeform_wa', 'function update_wa_conversation']::text[]),
(17, 'api', 'api/consent.sql', $wa_script$-- Consent: who asked not to be written to, who agreed, and what that stops.

CREATE OR REPLACE FUNCTION _wa_consent_contact(p_org uuid, p_phone text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_user_id boolean := _wa_is_user_id(p_phone);
    v_contact_id bigint := _wa_find_contact(p_org, p_phone);
BEGIN
    IF v_contact_id IS NULL THEN
        SELECT r.contact_id INTO v_contact_id
        FROM wa_organizations o
        CROSS JOIN LATERAL _wa_resolve_contacts(
            p_org,
            ARRAY[CASE WHEN NOT v_is_user_id
                THEN normalize_phone_e164(p_phone, o.default_region, o.default_area_code) END],
            ARRAY[CASE WHEN v_is_user_id THEN p_phone END],
            'consent'
        ) r
        WHERE o.id = p_org;
    END IF;
    RETURN v_contact_id;
END
$$;

COMMENT ON FUNCTION _wa_consent_contact(uuid, text) IS
'Internal: the contact of a phone number or user id; made when there is none, so that consent can come '
'before contact.';

CREATE OR REPLACE FUNCTION _wa_require_scope(p_scope text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_scope IS NULL OR p_scope NOT IN ('marketing', 'all') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('scope must be marketing or all, not "%s"', p_scope),
            HINT = 'marketing covers MARKETING templates, all covers every message.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_scope(text) IS 'Internal: raises 22023 unless it is a scope of consent.';

CREATE OR REPLACE FUNCTION _wa_opt_out_contacts(
    p_org uuid, p_contact_ids bigint[], p_scope text, p_reason text, p_source text
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH added AS (
        INSERT INTO wa_opt_outs (organization_id, contact_id, scope, phone_number, reason, source)
        SELECT c.organization_id, c.id, p_scope, c.phone_e164, p_reason, p_source
        FROM wa_contacts c
        WHERE c.organization_id = p_org AND c.id = ANY (p_contact_ids)
        ON CONFLICT (organization_id, contact_id, scope) WHERE revoked_at IS NULL DO NOTHING
        RETURNING 1
    )
    SELECT count(*)::integer FROM added
$$;

COMMENT ON FUNCTION _wa_opt_out_contacts(uuid, bigint[], text, text, text) IS
'Internal: records that contacts asked not to be written to; returns how many had not asked before.';

CREATE OR REPLACE FUNCTION _wa_opt_in_contacts(
    p_org uuid, p_contact_ids bigint[], p_scope text, p_source text, p_proof jsonb DEFAULT '{}'
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_opt_ins (organization_id, contact_id, scope, source, proof)
    SELECT c.organization_id, c.id, p_scope, p_source, coalesce(p_proof, '{}')
    FROM wa_contacts c
    WHERE c.organization_id = p_org AND c.id = ANY (p_contact_ids);

    WITH lifted AS (
        UPDATE wa_opt_outs SET revoked_at = clock_timestamp(), revoked_source = p_source
        WHERE organization_id = p_org AND contact_id = ANY (p_contact_ids) AND revoked_at IS NULL
            AND (p_scope = 'all' OR scope = p_scope)
        RETURNING 1
    )
    SELECT count(*)::integer FROM lifted
$$;

COMMENT ON FUNCTION _wa_opt_in_contacts(uuid, bigint[], text, text, jsonb) IS
'Internal: records consent and lifts the opt-outs that it covers (all lifts every one, marketing only that '
'scope); returns how many were lifted.';

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

CREATE OR REPLACE TRIGGER wa_opt_outs__cancel_queued AFTER INSERT ON wa_opt_outs
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_outs__cancel_queued();

CREATE OR REPLACE FUNCTION opt_out_wa_contact(
    p_phone text, p_scope text DEFAULT 'marketing', p_reason text DEFAULT NULL, p_source text DEFAULT 'admin'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
    v_is_new boolean;
BEGIN
    PERFORM _wa_require_scope(p_scope);
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    v_is_new := _wa_opt_out_contacts(v_org, ARRAY[v_contact_id], p_scope, p_reason, p_source) > 0;
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (v_org, 'contact_opted_out', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('scope', p_scope, 'source', p_source, 'is_new', v_is_new));
    RETURN v_is_new;
END
$$;

COMMENT ON FUNCTION opt_out_wa_contact(text, text, text, text) IS
'Stops marketing (or, with scope all, every message) to a phone number or user id and cancels what is '
'queued. True when it was not stopped before. The contact need not exist yet.';

CREATE OR REPLACE FUNCTION opt_in_wa_contact(
    p_phone text, p_scope text DEFAULT 'marketing', p_source text DEFAULT 'admin', p_proof jsonb DEFAULT '{}'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
    v_lifted integer;
BEGIN
    PERFORM _wa_require_scope(p_scope);
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    v_lifted := _wa_opt_in_contacts(v_org, ARRAY[v_contact_id], p_scope, p_source, p_proof);
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (v_org, 'contact_opted_in', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('scope', p_scope, 'source', p_source, 'opt_outs_lifted', v_lifted));
    RETURN v_lifted > 0;
END
$$;

COMMENT ON FUNCTION opt_in_wa_contact(text, text, text, jsonb) IS
'Records consent with its proof and lifts the opt-outs that it covers: all lifts every one, marketing '
'leaves an opt-out of all in force. True when one was lifted.';

CREATE OR REPLACE FUNCTION _wa_is_opted_out(p_org uuid, p_contact_id bigint, p_scope text) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_opt_outs o
        WHERE o.organization_id = p_org AND o.contact_id = p_contact_id AND o.revoked_at IS NULL
            AND (o.scope = 'all' OR o.scope = p_scope)
    )
$$;

COMMENT ON FUNCTION _wa_is_opted_out(uuid, bigint, text) IS
'Internal: whether a contact opted out of a scope; an opt-out of all covers every scope.';

CREATE OR REPLACE FUNCTION is_wa_opted_out(p_phone text, p_scope text DEFAULT 'marketing') RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    PERFORM _wa_require_scope(p_scope);
    RETURN _wa_is_opted_out(v_org, _wa_find_contact(v_org, p_phone), p_scope);
END
$$;

COMMENT ON FUNCTION is_wa_opted_out(text, text) IS
'Whether a phone number or user id may not get marketing; with scope all: whether it may get nothing at all.';

REVOKE ALL ON FUNCTION _wa_consent_contact(uuid, text), _wa_require_scope(text),
_wa_opt_out_contacts(uuid, bigint[], text, text, text),
_wa_opt_in_contacts(uuid, bigint[], text, text, jsonb), tg_wa_opt_outs__cancel_queued(),
opt_out_wa_contact(text, text, text, text), opt_in_wa_contact(text, text, text, jsonb),
_wa_is_opted_out(uuid, bigint, text), is_wa_opted_out(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION opt_out_wa_contact(text, text, text, text),
opt_in_wa_contact(text, text, text, jsonb), is_wa_opted_out(text, text) TO wa_app, wa_admin;
GRANT SELECT ON wa_opt_ins, wa_opt_outs TO wa_app;
GRANT SELECT, INSERT, UPDATE ON wa_opt_ins, wa_opt_outs TO wa_admin;
$wa_script$, 'f6c4fc75bfa05327298e289bfa03cdd8af4e6c2870335baa7ad266c40cbf4c9d', ARRAY['function _wa_consent_contact', 'function _wa_require_scope', 'function _wa_opt_out_contacts', 'function _wa_opt_in_contacts', 'function tg_wa_opt_outs__cancel_queued', 'function opt_out_wa_contact', 'function opt_in_wa_contact', 'function _wa_is_opted_out', 'function is_wa_opted_out']::text[]),
(18, 'api', 'api/panic.sql', $wa_script$-- Emergency stops: panic per organization or number, and the record of the kill switch.

CREATE OR REPLACE FUNCTION trigger_wa_panic(
    p_reason text, p_organization_id uuid DEFAULT NULL, p_phone_number_id text DEFAULT NULL,
    p_auto_resolve interval DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_visible uuid[] := _wa_panic_organizations(p_organization_id);
    v_stops integer;
BEGIN
    IF coalesce(btrim(p_reason), '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a panic needs a reason',
            HINT = 'Say what happened, for whoever has to decide when to resume.';
    END IF;
    IF p_phone_number_id IS NULL THEN
        INSERT INTO wa_panic_modes (organization_id, reason, auto_resolve_at)
        SELECT v.id, p_reason, clock_timestamp() + p_auto_resolve FROM unnest(v_visible) v (id);
    ELSE
        INSERT INTO wa_panic_modes (organization_id, number_id, reason, auto_resolve_at)
        SELECT n.organization_id, n.id, p_reason, clock_timestamp() + p_auto_resolve
        FROM wa_phone_numbers n
        WHERE n.organization_id = ANY (v_visible) AND n.phone_number_id = p_phone_number_id;
    END IF;
    GET DIAGNOSTICS v_stops = ROW_COUNT;
    IF v_stops = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('nothing was stopped: no business number with the id "%s"', p_phone_number_id),
            HINT = 'Without p_phone_number_id every number of the organization is stopped.';
    END IF;
    RETURN v_stops;
END
$$;

COMMENT ON FUNCTION trigger_wa_panic(text, uuid, text, interval) IS
'Stops all sending of what the role may see: every organization for wa_admin, its own for others; or only '
'of one organization or number. Nothing is lost; resolve_wa_panic() or the end of p_auto_resolve resumes. '
'Returns the number of stops.';

CREATE OR REPLACE FUNCTION _wa_panic_organizations(p_organization_id uuid) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_visible uuid[] := _wa_visible_organizations();
BEGIN
    IF p_organization_id IS NULL THEN
        RETURN v_visible;
    END IF;
    IF p_organization_id <> ALL (v_visible) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA302',
            MESSAGE = format('role "%s" does not belong to organization %s', current_user, p_organization_id),
            HINT = 'Name one of your own organizations, or none for all of them.';
    END IF;
    RETURN ARRAY[p_organization_id];
END
$$;

COMMENT ON FUNCTION _wa_panic_organizations(uuid) IS
'Internal: the organizations that an emergency call is about: the one named, else all that the role may see.';

CREATE OR REPLACE FUNCTION resolve_wa_panic(
    p_organization_id uuid DEFAULT NULL, p_phone_number_id text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_resolved integer;
BEGIN
    UPDATE wa_panic_modes p
    SET active = false, resolved_at = clock_timestamp(), resolved_by = session_user
    WHERE p.organization_id = ANY (_wa_panic_organizations(p_organization_id)) AND p.active
        AND (p_phone_number_id IS NULL OR p.number_id = (
            SELECT n.id FROM wa_phone_numbers n
            WHERE n.organization_id = p.organization_id AND n.phone_number_id = p_phone_number_id
        ));
    GET DIAGNOSTICS v_resolved = ROW_COUNT;
    RETURN v_resolved;
END
$$;

COMMENT ON FUNCTION resolve_wa_panic(uuid, text) IS
'Ends the stops of what the role may see, of one organization with all its numbers, or of one number only. '
'Returns how many it ended.';

CREATE OR REPLACE FUNCTION _wa_expire_panics(p_now timestamptz) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH ended AS (
        UPDATE wa_panic_modes SET active = false, resolved_at = auto_resolve_at, resolved_by = 'auto_resolve'
        WHERE active AND auto_resolve_at <= p_now
        RETURNING 1
    )
    SELECT count(*)::integer FROM ended
$$;

COMMENT ON FUNCTION _wa_expire_panics(timestamptz) IS
'Internal: records the end of the stops whose time is over; returns how many.';

-- In triggers, so that a row written by hand leaves the same trace as the functions.
CREATE OR REPLACE FUNCTION tg_wa_panic_modes__audit() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (
        NEW.organization_id, CASE WHEN NEW.active THEN 'panic_triggered' ELSE 'panic_resolved' END,
        'wa_panic_modes', NEW.id::text,
        jsonb_build_object(
            'reason', NEW.reason, 'number_id', NEW.number_id, 'auto_resolve_at', NEW.auto_resolve_at,
            'resolved_by', NEW.resolved_by
        )
    );
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_panic_modes__audit() IS 'Leaves an audit row for every stop and every end of one.';

CREATE OR REPLACE TRIGGER wa_panic_modes__audit_insert AFTER INSERT ON wa_panic_modes
FOR EACH ROW EXECUTE FUNCTION tg_wa_panic_modes__audit();
CREATE OR REPLACE TRIGGER wa_panic_modes__audit_update AFTER UPDATE ON wa_panic_modes
FOR EACH ROW WHEN (OLD.active IS DISTINCT FROM NEW.active) EXECUTE FUNCTION tg_wa_panic_modes__audit();

CREATE OR REPLACE FUNCTION tg_wa_installations__audit() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO audit_log (organization_id, event, entity, meta)
    SELECT o.id, CASE WHEN NEW.is_sending_enabled THEN 'sending_enabled' ELSE 'sending_disabled' END,
        'wa_installations', jsonb_build_object('note', NEW.sending_note)
    FROM wa_organizations o;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_installations__audit() IS
'Leaves an audit row with every organization when the kill switch is thrown: it stops them all.';

CREATE OR REPLACE TRIGGER wa_installations__audit AFTER UPDATE ON wa_installations
FOR EACH ROW WHEN (OLD.is_sending_enabled IS DISTINCT FROM NEW.is_sending_enabled)
EXECUTE FUNCTION tg_wa_installations__audit();

REVOKE ALL ON FUNCTION trigger_wa_panic(text, uuid, text, interval), _wa_panic_organizations(uuid),
resolve_wa_panic(uuid, text), _wa_expire_panics(timestamptz), tg_wa_panic_modes__audit(),
tg_wa_installations__audit() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION trigger_wa_panic(text, uuid, text, interval), _wa_panic_organizations(uuid),
resolve_wa_panic(uuid, text) TO wa_app, wa_admin;
GRANT SELECT, INSERT (organization_id, number_id, reason, metadata, auto_resolve_at),
UPDATE (active, resolved_at, resolved_by) ON wa_panic_modes TO wa_app, wa_admin;
$wa_script$, '191a35b6b125706a7c1fb8aa62854d486ae26cab55713de4ce0d0e9ad7d5d104', ARRAY['function trigger_wa_panic', 'function _wa_panic_organizations', 'function resolve_wa_panic', 'function _wa_expire_panics', 'function tg_wa_panic_modes__audit', 'function tg_wa_installations__audit']::text[]),
(19, 'api', 'api/templates.sql', $wa_script$-- Templates: what follows from their text, which one a name means, and whether it may be sent.

-- Only what Meta approved counts as approved, so that a paused template is not offered as ready for use.
CREATE OR REPLACE FUNCTION _wa_template_approval(p_status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_status = 'APPROVED' THEN 'approved'
    WHEN p_status IN ('REJECTED', 'DISABLED', 'DELETED', 'PENDING_DELETION', 'MISSING') THEN 'rejected'
    ELSE 'pending'
END;

COMMENT ON FUNCTION _wa_template_approval(text) IS
'Internal: the approval_status that goes with a state of Meta; only APPROVED counts as approved.';

CREATE OR REPLACE FUNCTION _wa_template_component(p_components jsonb, p_type text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT c.value
    FROM jsonb_array_elements(p_components) WITH ORDINALITY c (value, position)
    WHERE upper(c.value ->> 'type') = p_type
    ORDER BY c.position
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_template_component(jsonb, text) IS 'Internal: the component of a type, or NULL.';

-- Parts that have no column of their own (carousel, limited-time offer) are kept as they are.
CREATE OR REPLACE FUNCTION _wa_template_components_of(
    p_header_format text, p_header_text text, p_body_text text, p_footer_text text, p_buttons jsonb,
    p_old jsonb
) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(c.value) ORDER BY c.place, c.position), '[]')
    FROM (
        SELECT 1 AS place, 0 AS position,
            jsonb_build_object('type', 'HEADER', 'format', p_header_format, 'text', p_header_text) AS value
        WHERE p_header_format IS NOT NULL
        UNION ALL
        SELECT 2, 0, jsonb_build_object('type', 'BODY', 'text', p_body_text)
        UNION ALL
        SELECT 3, 0, jsonb_build_object('type', 'FOOTER', 'text', p_footer_text)
        WHERE p_footer_text IS NOT NULL
        UNION ALL
        SELECT 4, 0, jsonb_build_object('type', 'BUTTONS', 'buttons', p_buttons) WHERE p_buttons <> '[]'
        UNION ALL
        SELECT 5, o.position, o.value
        FROM jsonb_array_elements(p_old) WITH ORDINALITY o (value, position)
        WHERE upper(o.value ->> 'type') NOT IN ('HEADER', 'BODY', 'FOOTER', 'BUTTONS')
    ) c;
END;

COMMENT ON FUNCTION _wa_template_components_of(text, text, text, text, jsonb, jsonb) IS
'Internal: the components as Meta writes them, from the columns; parts without a column are taken from the '
'old ones.';

CREATE OR REPLACE FUNCTION _wa_template_button_parameters(p_buttons jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(
        jsonb_agg(jsonb_build_object('index', b.index, 'sub_type', b.sub_type) ORDER BY b.index), '[]'
    )
    FROM (
        SELECT e.position - 1 AS index,
            CASE upper(e.value ->> 'type')
                WHEN 'URL' THEN CASE WHEN e.value ->> 'url' LIKE '%{{%}}%' THEN 'url' END
                WHEN 'OTP' THEN 'url'
                WHEN 'COPY_CODE' THEN 'copy_code'
                WHEN 'MPM' THEN 'mpm'
            END AS sub_type
        FROM jsonb_array_elements(p_buttons) WITH ORDINALITY e (value, position)
    ) b
    WHERE b.sub_type IS NOT NULL;
END;

COMMENT ON FUNCTION _wa_template_button_parameters(jsonb) IS
'Internal: the buttons that cannot be sent without a value, [{"index": 0, "sub_type": "url"}, ...].';

CREATE OR REPLACE FUNCTION tg_wa_templates__derive() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_header jsonb;
BEGIN
    NEW.category := upper(NEW.category);
    NEW.status := upper(NEW.status);
    -- Meta writes en_US; people, and one of Meta's own examples, write en-US.
    NEW.language := replace(NEW.language, '-', '_');

    IF TG_OP = 'INSERT' AND NEW.status = 'PENDING' OR TG_OP = 'UPDATE' AND NEW.status = OLD.status THEN
        IF NEW.approval_status <> _wa_template_approval(NEW.status) THEN
            NEW.status := upper(NEW.approval_status);
        END IF;
    ELSE
        NEW.approval_status := _wa_template_approval(NEW.status);
    END IF;

    IF TG_OP = 'UPDATE' THEN
        NEW.updated_at := clock_timestamp();
        IF NEW.status = 'APPROVED' AND OLD.status <> 'APPROVED'
            AND NEW.blocked_at IS NOT DISTINCT FROM OLD.blocked_at
        THEN
            NEW.blocked_at := NULL;
            NEW.blocked_until := NULL;
            NEW.blocked_reason := NULL;
        END IF;
    END IF;

    IF TG_OP = 'INSERT' AND NEW.components <> '[]'
        OR TG_OP = 'UPDATE' AND NEW.components <> OLD.components
    THEN
        v_header := _wa_template_component(NEW.components, 'HEADER');
        NEW.header_format := upper(coalesce(
            v_header ->> 'format', CASE WHEN v_header ? 'text' THEN 'TEXT' END
        ));
        NEW.header_text := v_header ->> 'text';
        -- An authentication template may come without its text: Meta writes that one.
        NEW.body_text := coalesce(
            _wa_template_component(NEW.components, 'BODY') ->> 'text', NEW.body_text, ''
        );
        NEW.footer_text := _wa_template_component(NEW.components, 'FOOTER') ->> 'text';
        NEW.buttons := coalesce(_wa_template_component(NEW.components, 'BUTTONS') -> 'buttons', '[]');
    ELSIF TG_OP = 'INSERT'
        OR (NEW.header_format, NEW.header_text, NEW.body_text, NEW.footer_text, NEW.buttons)
        IS DISTINCT FROM (OLD.header_format, OLD.header_text, OLD.body_text, OLD.footer_text, OLD.buttons)
    THEN
        NEW.header_format := upper(coalesce(
            NEW.header_format, CASE WHEN NEW.header_text IS NOT NULL THEN 'TEXT' END
        ));
        NEW.components := _wa_template_components_of(
            NEW.header_format, NEW.header_text, NEW.body_text, NEW.footer_text, NEW.buttons, NEW.components
        );
    END IF;

    NEW.body_placeholders := _wa_sorted_placeholders(NEW.body_text);
    NEW.header_placeholders := CASE
        WHEN NEW.header_format = 'TEXT' THEN _wa_sorted_placeholders(NEW.header_text) ELSE '{}'
    END;
    NEW.button_parameters := _wa_template_button_parameters(NEW.buttons);
    IF NEW.category = 'AUTHENTICATION' AND NEW.body_placeholders = '{}' THEN
        NEW.body_placeholders := '{1}';
    END IF;
    NEW.parameter_format := CASE
        WHEN concat_ws(',', NEW.body_placeholders, NEW.header_placeholders) ~ '[a-z]' THEN 'NAMED'
        ELSE 'POSITIONAL'
    END;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_templates__derive() IS
'Keeps status with approval_status and the text columns with components, whichever of them is written; '
'derives the placeholders and the buttons that need a value; lifts a block when the template becomes '
'approved.';

-- {{2}} may stand before {{1}} in a translation: positional values go by number, named ones by first
-- appearance.
CREATE OR REPLACE FUNCTION _wa_sorted_placeholders(p_text text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found text[] := coalesce(_wa_template_placeholders(coalesce(p_text, '')), '{}');
BEGIN
    IF array_to_string(v_found, '') ~ '^[0-9]+$' THEN
        RETURN ARRAY(SELECT f FROM unnest(v_found) f ORDER BY f::numeric);
    END IF;
    RETURN v_found;
END
$$;

COMMENT ON FUNCTION _wa_sorted_placeholders(text) IS
'Internal: the distinct placeholders of a text in the order in which values are given.';

CREATE OR REPLACE TRIGGER wa_templates__derive BEFORE INSERT OR UPDATE ON wa_templates
FOR EACH ROW EXECUTE FUNCTION tg_wa_templates__derive();

-- In PL/pgSQL for its cached plan: as an SQL function it is planned anew for each row that is looked at
-- closely.
CREATE OR REPLACE FUNCTION _wa_pick_template(p_org uuid, p_name text, p_language text, p_waba_id text)
RETURNS SETOF wa_templates
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT t.*
    FROM wa_templates t
    JOIN (
        SELECT c.id,
            lower(c.language) = lower(replace(p_language, '-', '_')) AS is_exact,
            split_part(lower(c.language), '_', 1)
            = split_part(lower(replace(p_language, '-', '_')), '_', 1) AS is_same_base,
            min(c.language) OVER () = max(c.language) OVER () AS is_only
        FROM wa_templates c
        WHERE c.organization_id = p_org AND lower(c.name) = lower(p_name)
            AND (p_waba_id IS NULL OR c.waba_id IS NULL OR c.waba_id = p_waba_id)
    ) f ON f.id = t.id
    WHERE t.organization_id = p_org AND (p_language IS NULL OR f.is_exact OR f.is_same_base OR f.is_only)
    ORDER BY f.is_exact DESC,
        CASE WHEN f.is_exact THEN t.waba_id IS NULL END,
        f.is_same_base DESC,
        t.status = 'APPROVED' DESC,
        t.language = 'en' DESC, t.language LIKE 'en\_%' DESC,
        t.waba_id IS NULL, t.created_at, t.id
    LIMIT 1;
END
$$;

COMMENT ON FUNCTION _wa_pick_template(uuid, text, text, text) IS
'Internal: which template a name and language mean. The exact language, else the same base language, else '
'the only one; without a language an approved one, en first. A row of the account goes before one of every '
'account. No row: unknown.';

CREATE OR REPLACE FUNCTION _wa_template_problem(p_template wa_templates, p_now timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN (p_template).status <> 'APPROVED' THEN format(
        'template "%s" (%s) is %s, not APPROVED',
        (p_template).name, (p_template).language, (p_template).status
    )
    WHEN (p_template).blocked_at IS NOT NULL AND ((p_template).blocked_until > p_now) IS NOT FALSE
        THEN format(
        'template "%s" (%s) is stopped%s: %s', (p_template).name, (p_template).language,
        coalesce(
            to_char((p_template).blocked_until AT TIME ZONE 'UTC', '" until "YYYY-MM-DD HH24:MI" UTC"'), ''
        ),
        coalesce((p_template).blocked_reason, 'no reason recorded')
    )
END;

COMMENT ON FUNCTION _wa_template_problem(wa_templates, timestamptz) IS
'Internal: why a template may not be sent at a time, in one sentence; NULL when it may.';

REVOKE ALL ON FUNCTION _wa_template_approval(text), _wa_template_component(jsonb, text),
_wa_template_components_of(text, text, text, text, jsonb, jsonb), _wa_template_button_parameters(jsonb),
_wa_sorted_placeholders(text), tg_wa_templates__derive(), _wa_pick_template(uuid, text, text, text),
_wa_template_problem(wa_templates, timestamptz) FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_templates TO wa_app, wa_admin;
$wa_script$, 'daba90bf4f84dd0bb4ff8efa9d76fc0469a124ee4f2ca387a697558a81d26e9e', ARRAY['function _wa_template_approval', 'function _wa_template_component', 'function _wa_template_components_of', 'function _wa_template_button_parameters', 'function tg_wa_templates__derive', 'function _wa_sorted_placeholders', 'function _wa_pick_template', 'function _wa_template_problem']::text[]),
(20, 'api', 'api/template_buttons.sql', $wa_script$-- The parts of a template that take other things than text: files and places in the header, and buttons.

CREATE OR REPLACE FUNCTION _wa_template_header_parameter(
    p_format text, p_given jsonb, OUT parameter jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_kind text := lower(p_format);
    v_given jsonb := CASE WHEN jsonb_typeof(p_given) = 'array' AND jsonb_array_length(p_given) = 1
        THEN p_given -> 0 ELSE p_given END;
    v_object jsonb := CASE
        WHEN v_given ->> 'type' = v_kind THEN v_given -> v_kind
        WHEN jsonb_typeof(v_given) = 'string' AND v_given #>> '{}' ~* '^https?://'
            THEN jsonb_build_object('link', v_given)
        WHEN jsonb_typeof(v_given) = 'string' THEN jsonb_build_object('id', v_given)
        ELSE v_given
    END;
BEGIN
    IF coalesce(jsonb_typeof(v_given), 'null') = 'null' THEN
        problem := ARRAY['WA003', format('the header needs its %s', v_kind), CASE v_kind
            WHEN 'location'
                THEN 'Give {"header": {"latitude": -34.6, "longitude": -58.4, "name": "...", "address": '
                '"..."}, "body": [...]}.'
            ELSE 'Give {"header": {"link": "https://..."}, "body": [...]}, or {"id": "<media id>"}.'
        END];
    ELSIF jsonb_typeof(v_object) <> 'object' OR (
        v_kind = 'location' AND NOT v_object ?& ARRAY['latitude', 'longitude']
        OR v_kind <> 'location' AND (
            (v_object ? 'id') = (v_object ? 'link') OR v_object ->> 'link' !~* '^https?://'
        )
    ) THEN
        problem := ARRAY['WA008', format('the header''s %s is not complete', v_kind), CASE v_kind
            WHEN 'location' THEN 'It needs latitude, longitude, name and address.'
            ELSE 'It needs either the id of an uploaded file or a link with http(s).'
        END];
    ELSE
        parameter := jsonb_build_object('type', v_kind, v_kind, v_object);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_template_header_parameter(text, jsonb) IS
'Internal: the parameter of a header that is a file or a place. A string is a link or a media id.';

CREATE OR REPLACE FUNCTION _wa_template_button(
    p_type text, p_index integer, p_value jsonb, OUT component jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_what text := format('the value of button %s', p_index);
    v_sub_type text := CASE p_type WHEN 'OTP' THEN 'url' ELSE lower(p_type) END;
    v_text text := CASE WHEN jsonb_typeof(p_value) = 'object'
        THEN coalesce(p_value ->> 'text', p_value ->> 'payload', p_value ->> 'coupon_code')
        ELSE p_value #>> '{}' END;
    v_action jsonb;
    v_parameters jsonb;
BEGIN
    IF p_value ? 'parameters' THEN
        v_parameters := p_value -> 'parameters';
    ELSIF v_sub_type IN ('flow', 'catalog', 'mpm') THEN
        v_action := CASE
            WHEN jsonb_typeof(p_value) = 'object'
                THEN coalesce(p_value -> 'action', p_value - 'index' - 'sub_type')
            WHEN v_sub_type = 'flow' THEN jsonb_build_object('flow_token', v_text)
            WHEN v_sub_type = 'catalog' THEN jsonb_build_object('thumbnail_product_retailer_id', v_text)
        END;
        IF v_action IS NULL THEN
            problem := ARRAY['WA008', v_what || ' must be an action object',
                'Give the action of the Cloud API.'];
            RETURN;
        END IF;
        v_parameters := jsonb_build_array(jsonb_build_object('type', 'action', 'action', v_action));
    ELSE
        problem := _wa_template_value_problem(to_jsonb(v_text), v_what);
        IF v_text IS NULL THEN
            problem := ARRAY['WA003', v_what || ' is missing', 'Give a string.'];
        ELSIF v_sub_type = 'copy_code' AND char_length(v_text) > 20 THEN
            problem := ARRAY['WA007', v_what || ' is longer than 20 characters', 'Shorten the code.'];
        END IF;
        IF problem IS NOT NULL THEN
            RETURN;
        END IF;
        v_parameters := jsonb_build_array(CASE v_sub_type
            WHEN 'quick_reply' THEN jsonb_build_object('type', 'payload', 'payload', v_text)
            WHEN 'copy_code' THEN jsonb_build_object('type', 'coupon_code', 'coupon_code', v_text)
            ELSE jsonb_build_object('type', 'text', 'text', v_text)
        END);
    END IF;
    component := jsonb_build_object(
        'type', 'button', 'sub_type', v_sub_type, 'index', p_index::text, 'parameters', v_parameters
    );
END
$$;

COMMENT ON FUNCTION _wa_template_button(text, integer, jsonb) IS
'Internal: the component that gives one button its value.';

CREATE OR REPLACE FUNCTION _wa_template_buttons(
    p_template wa_templates, p_given jsonb, OUT list jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_given jsonb := coalesce(nullif(p_given, 'null'), '[]');
    v_seen integer[] := '{}';
    v_place integer := 0;
    v_button record;
    v_component jsonb;
BEGIN
    list := '[]';
    FOR v_button IN
        SELECT k.key AS index, k.value
        FROM jsonb_each(CASE jsonb_typeof(v_given) WHEN 'object' THEN v_given END) k
        UNION ALL
        SELECT e.value ->> 'index', e.value
        FROM jsonb_array_elements(CASE jsonb_typeof(v_given) WHEN 'array' THEN v_given END) e
    LOOP
        IF v_button.index IS NULL THEN
            v_button.index := p_template.button_parameters -> v_place ->> 'index';
            v_place := v_place + 1;
        END IF;
        IF v_button.index IS NULL OR v_button.index !~ '^[0-9]$'
            OR p_template.buttons -> v_button.index::integer IS NULL
        THEN
            problem := ARRAY['WA004', 'a value is given for a button that takes none or does not exist',
                format('The template has %s buttons; %s need a value.',
                    jsonb_array_length(p_template.buttons),
                    jsonb_array_length(p_template.button_parameters))];
            RETURN;
        END IF;
        SELECT b.component, b.problem INTO v_component, problem
        FROM _wa_template_button(
            upper(p_template.buttons -> v_button.index::integer ->> 'type'), v_button.index::integer,
            v_button.value
        ) b;
        IF problem IS NOT NULL THEN
            RETURN;
        END IF;
        v_seen := v_seen || v_button.index::integer;
        list := list || v_component;
    END LOOP;
    SELECT ARRAY['WA003', format('button %s needs a value', r.value ->> 'index'),
        'Give {"body": [...], "buttons": ["..."]}, one value for each button that needs one, in order.']
    INTO problem
    FROM jsonb_array_elements(p_template.button_parameters) r
    WHERE (r.value ->> 'index')::integer <> ALL (v_seen)
    LIMIT 1;
END
$$;

COMMENT ON FUNCTION _wa_template_buttons(wa_templates, jsonb) IS
'Internal: the components of the buttons. An array fills the buttons that need a value, in order, unless an '
'element names its index; an object goes by index.';

REVOKE ALL ON FUNCTION _wa_template_header_parameter(text, jsonb), _wa_template_button(text, integer, jsonb),
_wa_template_buttons(wa_templates, jsonb) FROM PUBLIC;
$wa_script$, 'f08f0784de05c23b384de20ca68764f7c7a77627299fb0af3ffeb3aee1a86f6d', ARRAY['function _wa_template_header_parameter', 'function _wa_template_button', 'function _wa_template_buttons']::text[]),
(21, 'api', 'api/template_params.sql', $wa_script$-- The values of a template message: which placeholder each is for, whether they fit, and the request's
-- components. A problem is handed up as ARRAY[sqlstate, message, hint]. Messages name places, never values.

CREATE OR REPLACE FUNCTION _wa_template_value_problem(p_value jsonb, p_what text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_type text := p_value ->> 'type';
    v_text text := p_value #>> '{}';
    v_problem text;
BEGIN
    CASE jsonb_typeof(p_value)
        WHEN 'null' THEN
            RETURN ARRAY['WA003', p_what || ' is null', 'Every placeholder needs a string or a number.'];
        WHEN 'array' THEN
            RETURN ARRAY['WA008', p_what || ' is an array', 'Every placeholder needs a string or a number.'];
        WHEN 'object' THEN
            IF v_type IN ('currency', 'date_time') THEN
                IF p_value #>> ARRAY[v_type, 'fallback_value'] IS NULL THEN
                    RETURN ARRAY['WA008',
                        format('%s: a %s parameter needs %s.fallback_value', p_what, v_type, v_type),
                        'For example {"type": "currency", "currency": {"fallback_value": "$10.99", '
                        '"code": "USD", "amount_1000": 10990}}.'];
                END IF;
                RETURN NULL;
            END IF;
            v_text := p_value ->> 'text';
            IF v_type IS DISTINCT FROM 'text' OR v_text IS NULL THEN
                RETURN ARRAY['WA008', p_what || ': an object must be a text, currency or date_time parameter',
                    'Give a string, a number, or a parameter object of the Cloud API.'];
            END IF;
        ELSE
            NULL;
    END CASE;
    v_problem := _wa_check_template_text(v_text);
    RETURN CASE WHEN v_problem IS NOT NULL THEN ARRAY[
        CASE
            WHEN v_text ~ '[\n\r\t]|     ' THEN 'WA006'
            WHEN char_length(v_text) > 1024 THEN 'WA007'
            ELSE 'WA008'
        END,
        format('%s: %s', p_what, v_problem),
        'Meta refuses line breaks, tabs, more than four spaces in a row, empty and over-long values.'
    ] END;
END
$$;

COMMENT ON FUNCTION _wa_template_value_problem(jsonb, text) IS
'Internal: what is wrong with one value of a template; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_template_values(
    p_given jsonb, p_count integer, p_names text[], p_part text, OUT list jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_missing text;
    v_unknown text;
BEGIN
    list := CASE jsonb_typeof(p_given)
        WHEN 'array' THEN p_given
        WHEN 'object' THEN p_given
        WHEN 'string' THEN jsonb_build_array(p_given)
        WHEN 'number' THEN jsonb_build_array(p_given)
        WHEN 'boolean' THEN jsonb_build_array(p_given)
        ELSE '[]'
    END;
    IF jsonb_typeof(list) = 'object' AND NOT list ? 'type' THEN
        IF cardinality(p_names) = 0 AND list <> '{}' THEN
            problem := ARRAY['WA005',
                format('the %s values are given by name, but the template declares no names', p_part),
                'Give a JSON array in the order of the placeholders, or declare the names: '
                'UPDATE wa_templates SET parameters = ''[{"name": "customer_name", "type": "text"}]''.'];
            RETURN;
        END IF;
        IF NOT list ?& p_names[:p_count] OR list - p_names <> '{}' THEN
            SELECT string_agg(k, ', ' ORDER BY k) INTO v_unknown FROM jsonb_object_keys(list - p_names) k;
            SELECT string_agg(n.name, ', ' ORDER BY n.place) INTO v_missing
            FROM unnest(p_names[:p_count]) WITH ORDINALITY n (name, place)
            WHERE NOT list ? n.name;
            problem := ARRAY[CASE WHEN v_unknown IS NOT NULL THEN 'WA005' ELSE 'WA003' END,
                format('%s values: %s', p_part,
                    concat_ws('; ', 'not declared: ' || v_unknown, 'missing: ' || v_missing)),
                format('The template declares: %s.', array_to_string(p_names, ', '))];
            RETURN;
        END IF;
        SELECT coalesce(jsonb_agg(list -> n.name ORDER BY n.place), '[]') INTO list
        FROM unnest(p_names[:p_count]) WITH ORDINALITY n (name, place);
    ELSIF jsonb_typeof(list) = 'object' THEN
        list := jsonb_build_array(list);
    END IF;
    IF jsonb_array_length(list) <> p_count THEN
        problem := ARRAY[CASE WHEN jsonb_array_length(list) < p_count THEN 'WA003' ELSE 'WA004' END,
            format('the %s takes %s, %s given', p_part,
                CASE p_count WHEN 0 THEN 'no value' WHEN 1 THEN 'one value' ELSE p_count || ' values' END,
                jsonb_array_length(list)),
            'Give one value for each placeholder of the template.'];
        RETURN;
    END IF;
    IF _wa_are_plain_params(list, p_count) THEN
        RETURN;
    END IF;
    FOR v_no IN 0 .. p_count - 1 LOOP
        problem := _wa_template_value_problem(list -> v_no, format('%s value %s', p_part, v_no + 1));
        EXIT WHEN problem IS NOT NULL;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_template_values(jsonb, integer, text[], text) IS
'Internal: the values of one part as a list in the order of its placeholders. An array is taken by place, '
'an object by the declared names, a scalar or a single parameter object as the only value.';

CREATE OR REPLACE FUNCTION _wa_template_text_parameters(p_list jsonb, p_names text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT jsonb_agg(
        CASE jsonb_typeof(v.value)
            WHEN 'object' THEN v.value
            ELSE jsonb_build_object('type', 'text', 'text', v.value #>> '{}')
        END
        || CASE WHEN p_names IS NULL THEN '{}' ELSE jsonb_build_object('parameter_name', p_names[v.place]) END
        ORDER BY v.place
    )
    FROM jsonb_array_elements(p_list) WITH ORDINALITY v (value, place);
END;

COMMENT ON FUNCTION _wa_template_text_parameters(jsonb, text[]) IS
'Internal: values as parameter objects; with names for a template whose placeholders are named. NULL for no '
'value.';

-- The usual case, an array of plain strings and numbers, is decided by one look at its text.
CREATE OR REPLACE FUNCTION _wa_are_plain_params(p_params jsonb, p_count integer) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_text text := p_params::text;
BEGIN
    RETURN jsonb_typeof(p_params) = 'array' AND jsonb_array_length(p_params) = p_count
        AND length(v_text) <= 1024
        AND v_text ~ '^\[(("[^\s"\\][^"\\]*"|-?[0-9.]+)(, |\]$))*$' AND position('     ' IN v_text) = 0;
END
$$;

COMMENT ON FUNCTION _wa_are_plain_params(jsonb, integer) IS
'Internal: whether it is an array of so many strings and numbers in which nothing needs a closer look.';

CREATE OR REPLACE FUNCTION _wa_build_template(
    p_template wa_templates, p_params jsonb, OUT components jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_named boolean := p_template.parameter_format = 'NAMED';
    v_count integer := cardinality(p_template.body_placeholders);
    v_params jsonb := coalesce(nullif(p_params, 'null'), '[]');
    v_names text[];
    v_header jsonb;
    v_body jsonb;
    v_buttons jsonb;
    v_part jsonb;
    v_code text;
BEGIN
    components := '[]';
    IF NOT v_is_named AND p_template.button_parameters = '[]' AND p_template.header_placeholders = '{}'
        AND coalesce(p_template.header_format, 'TEXT') = 'TEXT' AND p_template.category <> 'AUTHENTICATION'
        AND (v_count = 0 AND v_params IN ('[]', '{}') OR _wa_are_plain_params(v_params, v_count))
    THEN
        IF v_count > 0 THEN
            components := jsonb_build_array(jsonb_build_object(
                'type', 'body', 'parameters', _wa_template_text_parameters(v_params, NULL)
            ));
        END IF;
        RETURN;
    END IF;

    v_names := CASE WHEN v_is_named THEN p_template.body_placeholders ELSE ARRAY(
        SELECT coalesce(d.value ->> 'name', d.value #>> '{}')
        FROM jsonb_array_elements(p_template.parameters) WITH ORDINALITY d (value, place)
        ORDER BY d.place
    ) END;
    IF jsonb_typeof(v_params) NOT IN ('array', 'object') THEN
        problem := ARRAY['WA005', 'template_params is neither a JSON array nor an object',
            'Give an array of the body''s values in order, or an object by the declared names.'];
        RETURN;
    ELSIF _wa_are_template_components(v_params) THEN
        components := v_params;
        SELECT v.problem INTO problem FROM _wa_template_values(
            coalesce(_wa_template_component(v_params, 'BODY') -> 'parameters', '[]'), v_count, v_names, 'body'
        ) v;
        RETURN;
    ELSIF jsonb_typeof(v_params) = 'object' AND v_params - '{header,body,buttons}'::text[] = '{}'
        AND (jsonb_typeof(v_params -> 'body') IN ('array', 'object')
            OR NOT v_names && ARRAY['header', 'body', 'buttons'])
    THEN
        v_header := v_params -> 'header';
        v_body := v_params -> 'body';
        v_buttons := v_params -> 'buttons';
    ELSIF v_is_named AND jsonb_typeof(v_params) = 'object' THEN
        -- Names are unique in the whole template, so one object can serve the header too.
        v_header := (
            SELECT jsonb_object_agg(k.key, k.value) FROM jsonb_each(v_params) k
            WHERE k.key = ANY (p_template.header_placeholders)
        );
        v_body := v_params - ARRAY(
            SELECT n FROM unnest(p_template.header_placeholders) n
            WHERE n <> ALL (p_template.body_placeholders)
        );
    ELSE
        v_body := v_params;
    END IF;

    IF coalesce(p_template.header_format, 'TEXT') = 'TEXT' AND p_template.header_placeholders = '{}'
        AND v_header IS NULL
    THEN
        v_part := NULL;
    ELSIF coalesce(p_template.header_format, 'TEXT') = 'TEXT' THEN
        SELECT v.list, v.problem INTO v_part, problem FROM _wa_template_values(
            v_header, cardinality(p_template.header_placeholders),
            CASE WHEN v_is_named THEN p_template.header_placeholders ELSE '{}' END, 'header'
        ) v;
        v_part := _wa_template_text_parameters(
            v_part, CASE WHEN v_is_named THEN p_template.header_placeholders END
        );
    ELSE
        SELECT jsonb_build_array(h.parameter), h.problem INTO v_part, problem
        FROM _wa_template_header_parameter(p_template.header_format, v_header) h;
    END IF;
    IF problem IS NOT NULL THEN
        RETURN;
    END IF;
    IF v_part IS NOT NULL THEN
        components := components || jsonb_build_object('type', 'header', 'parameters', v_part);
    END IF;

    SELECT v.list, v.problem INTO v_part, problem
    FROM _wa_template_values(v_body, v_count, v_names, 'body') v;
    IF problem IS NOT NULL THEN
        RETURN;
    END IF;
    IF v_count > 0 THEN
        components := components || jsonb_build_object('type', 'body', 'parameters',
            _wa_template_text_parameters(
            v_part, CASE WHEN v_is_named THEN p_template.body_placeholders END
        ));
    END IF;

    IF p_template.category = 'AUTHENTICATION' AND v_buttons IS NULL THEN
        -- The code goes into the button too; a template that was never synced does not show its button.
        v_code := coalesce(v_part -> 0 ->> 'text', v_part ->> 0);
        IF char_length(v_code) > 15 THEN
            problem := ARRAY['WA007', 'the code is longer than 15 characters',
                'Meta takes codes of up to 15 characters.'];
            RETURN;
        END IF;
        SELECT components || b.component, b.problem INTO components, problem
        FROM _wa_template_button(
            'OTP', coalesce((p_template.button_parameters -> 0 ->> 'index')::integer, 0), to_jsonb(v_code)
        ) b;
        RETURN;
    END IF;
    IF v_buttons IS NOT NULL OR p_template.button_parameters <> '[]' THEN
        SELECT components || b.list, b.problem INTO components, problem
        FROM _wa_template_buttons(p_template, v_buttons) b;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_build_template(wa_templates, jsonb) IS
'Internal: the components array of the request, or what is wrong with the values.';

CREATE OR REPLACE FUNCTION _wa_are_template_components(p_params jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(bool_and((lower(e.value ->> 'type') IN (
        'header', 'body', 'button', 'carousel', 'limited_time_offer'
    )) IS TRUE), false)
    FROM jsonb_array_elements(CASE jsonb_typeof(p_params) WHEN 'array' THEN p_params END) e;
END;

COMMENT ON FUNCTION _wa_are_template_components(jsonb) IS
'Internal: whether the values are given as the ready components array of the Cloud API.';

CREATE OR REPLACE FUNCTION _wa_template_components(p_template wa_templates, p_params jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_components jsonb;
    v_problem text[];
BEGIN
    SELECT b.components, b.problem INTO v_components, v_problem
    FROM _wa_build_template(p_template, p_params) b;
    RETURN CASE WHEN v_problem IS NULL THEN v_components END;
END
$$;

COMMENT ON FUNCTION _wa_template_components(wa_templates, jsonb) IS
'Internal: the components array of a template request, [] when it needs none; NULL when the values do not '
'fit (any more).';

CREATE OR REPLACE FUNCTION _wa_check_template_params(
    p_org uuid, p_name text, p_language text, p_waba_id text, p_params jsonb,
    OUT template_id uuid, OUT sqlstate text, OUT problem text, OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_template wa_templates;
    v_problem text[];
BEGIN
    SELECT * INTO v_template FROM _wa_pick_template(p_org, p_name, p_language, p_waba_id);
    IF NOT FOUND THEN
        sqlstate := 'WA002';
        SELECT
            format('template "%s" is not known%s', p_name,
                CASE WHEN count(*) > 0 THEN format(' in language "%s"', p_language) ELSE '' END),
            coalesce('It exists in: ' || string_agg(DISTINCT t.language, ', ' ORDER BY t.language) || '.',
                'bin/wa templates sync fetches those of the account; a local one can be inserted into '
                'wa_templates.')
        INTO problem, hint
        FROM wa_templates t
        WHERE t.organization_id = p_org AND lower(t.name) = lower(p_name)
            AND (p_waba_id IS NULL OR t.waba_id IS NULL OR t.waba_id = p_waba_id);
        RETURN;
    END IF;
    template_id := v_template.id;
    SELECT b.problem INTO v_problem FROM _wa_build_template(v_template, p_params) b;
    IF v_problem IS NOT NULL THEN
        sqlstate := v_problem[1];
        problem := format('template "%s" (%s): %s', v_template.name, v_template.language, v_problem[2]);
        hint := v_problem[3];
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_check_template_params(uuid, text, text, text, jsonb) IS
'Internal: the template that a row means and what is wrong with its values (WA002 to WA008); sqlstate NULL '
'when nothing is.';

REVOKE ALL ON FUNCTION _wa_template_value_problem(jsonb, text),
_wa_template_values(jsonb, integer, text[], text), _wa_template_text_parameters(jsonb, text[]),
_wa_are_plain_params(jsonb, integer),
_wa_build_template(wa_templates, jsonb), _wa_are_template_components(jsonb),
_wa_template_components(wa_templates, jsonb),
_wa_check_template_params(uuid, text, text, text, jsonb) FROM PUBLIC;
$wa_script$, '2bc24382abb23ca3856c404c35c6fe705366ab0b7f45b5744a089639f42598a6', ARRAY['function _wa_template_value_problem', 'function _wa_template_values', 'function _wa_template_text_parameters', 'function _wa_are_plain_params', 'function _wa_build_template', 'function _wa_are_template_components', 'function _wa_template_components', 'function _wa_check_template_params']::text[]),
(22, 'api', 'api/template_sync.sql', $wa_script$-- Templates as the provider has them: pages of its API, and the webhooks that change them.

CREATE OR REPLACE FUNCTION _wa_sync_organizations(p_waba_id text) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_organizations uuid[] := ARRAY(
        SELECT DISTINCT n.organization_id FROM wa_phone_numbers n WHERE n.waba_id = p_waba_id ORDER BY 1
    );
BEGIN
    IF v_organizations = '{}' THEN
        RETURN ARRAY[current_wa_organization()];
    END IF;
    RETURN v_organizations;
END
$$;

COMMENT ON FUNCTION _wa_sync_organizations(text) IS
'Internal: the visible organizations with a number of the account; the current one while no number is '
'registered.';

CREATE OR REPLACE FUNCTION _wa_template_category(p_category text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN upper(p_category) IN ('MARKETING', 'UTILITY', 'AUTHENTICATION') THEN upper(p_category)
    WHEN upper(p_category) = 'OTP' THEN 'AUTHENTICATION'
    WHEN p_category IS NOT NULL THEN 'MARKETING'
END;

COMMENT ON FUNCTION _wa_template_category(text) IS
'Internal: a category of the provider as one of ours; an unknown one counts as MARKETING, which opt-outs '
'stop.';

CREATE OR REPLACE FUNCTION begin_wa_template_sync(p_waba_id text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_cursor text;
BEGIN
    INSERT INTO wa_template_syncs AS s (organization_id, waba_id)
    SELECT o.id, p_waba_id FROM unnest(_wa_sync_organizations(p_waba_id)) o (id)
    ON CONFLICT (organization_id, waba_id) DO UPDATE SET
        started_at = clock_timestamp(), after_cursor = NULL, finished_at = NULL, templates = 0
    -- A cursor of the provider does not keep for long.
    WHERE s.finished_at IS NOT NULL OR s.started_at < clock_timestamp() - interval '1 hour';
    SELECT s.after_cursor INTO v_cursor
    FROM wa_template_syncs s
    WHERE s.waba_id = p_waba_id AND s.organization_id = ANY (_wa_sync_organizations(p_waba_id))
    ORDER BY s.started_at DESC
    LIMIT 1;
    RETURN v_cursor;
END
$$;

COMMENT ON FUNCTION begin_wa_template_sync(text) IS
'Starts fetching the templates of an account, or goes on with a fetch that broke off less than an hour ago; '
'returns the cursor to go on after, NULL for the first page.';

CREATE OR REPLACE FUNCTION advance_wa_template_sync(p_waba_id text, p_cursor text, p_templates integer)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_template_syncs SET after_cursor = p_cursor, templates = templates + p_templates
    WHERE waba_id = p_waba_id AND organization_id = ANY (_wa_sync_organizations(p_waba_id))
        AND finished_at IS NULL
$$;

COMMENT ON FUNCTION advance_wa_template_sync(text, text, integer) IS
'Records that the page up to a cursor is stored; to be called in the transaction that stored it.';

CREATE OR REPLACE FUNCTION finish_wa_template_sync(p_waba_id text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_missing integer;
BEGIN
    UPDATE wa_templates t SET status = 'MISSING'
    FROM wa_template_syncs s
    WHERE s.waba_id = p_waba_id AND s.organization_id = ANY (_wa_sync_organizations(p_waba_id))
        AND s.finished_at IS NULL AND t.organization_id = s.organization_id AND t.waba_id = p_waba_id
        AND t.status <> 'MISSING' AND (t.synced_at IS NULL OR t.synced_at < s.started_at)
        AND t.created_at < s.started_at;
    GET DIAGNOSTICS v_missing = ROW_COUNT;
    UPDATE wa_template_syncs SET finished_at = clock_timestamp(), after_cursor = NULL
    WHERE waba_id = p_waba_id AND organization_id = ANY (_wa_sync_organizations(p_waba_id))
        AND finished_at IS NULL;
    RETURN v_missing;
END
$$;

COMMENT ON FUNCTION finish_wa_template_sync(text) IS
'Ends a fetch that saw every page: templates of the account that were not seen become MISSING and are not '
'sent any more. Returns how many.';

CREATE OR REPLACE FUNCTION upsert_wa_templates(p_waba_id text, p_templates jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid;
    v_row record;
    v_stored integer := 0;
BEGIN
    -- Two fetches at once would both find a template missing and both insert it.
    PERFORM pg_advisory_xact_lock(hashtextextended('upsert_wa_templates ' || p_waba_id, 0));
    FOREACH v_org IN ARRAY _wa_sync_organizations(p_waba_id) LOOP
        FOR v_row IN
            SELECT e.value ->> 'id' AS provider_id, e.value ->> 'name' AS name,
                replace(e.value ->> 'language', '-', '_') AS language, upper(e.value ->> 'status') AS status,
                _wa_template_category(e.value ->> 'category') AS category,
                CASE WHEN jsonb_typeof(e.value -> 'components') = 'array' THEN e.value -> 'components' END
                AS components,
                nullif(e.value ->> 'rejected_reason', 'NONE') AS rejected_reason,
                coalesce(e.value #>> '{quality_score,score}', e.value ->> 'quality_score') AS quality,
                e.value ->> 'previous_category' AS previous_category,
                e.value ->> 'correct_category' AS correct_category
            FROM jsonb_array_elements(p_templates) e
            WHERE e.value ?& ARRAY['name', 'language', 'status', 'category']
        LOOP
            v_stored := v_stored + 1;
            UPDATE wa_templates t SET
                waba_id = p_waba_id, provider_template_id = v_row.provider_id, language = v_row.language,
                status = v_row.status, category = v_row.category,
                components = coalesce(v_row.components, t.components),
                rejected_reason = v_row.rejected_reason, quality_score = v_row.quality,
                previous_category = v_row.previous_category, correct_category = v_row.correct_category,
                -- What the provider calls approved after it had refused it may be tried again.
                blocked_at = CASE WHEN v_row.status <> 'APPROVED' THEN t.blocked_at END,
                blocked_until = CASE WHEN v_row.status <> 'APPROVED' THEN t.blocked_until END,
                blocked_reason = CASE WHEN v_row.status <> 'APPROVED' THEN t.blocked_reason END,
                synced_at = clock_timestamp()
            WHERE t.organization_id = v_org
                AND t.id = _wa_find_provider_template(v_org, p_waba_id, v_row.provider_id, v_row.name,
                    v_row.language);
            CONTINUE WHEN FOUND;
            INSERT INTO wa_templates (
                organization_id, waba_id, provider_template_id, name, language, status, category, body_text,
                components,
                rejected_reason, quality_score, previous_category, correct_category, created_by, synced_at
            )
            VALUES (
                v_org, p_waba_id, v_row.provider_id, v_row.name, v_row.language, v_row.status, v_row.category,
                '', coalesce(v_row.components, '[]'), v_row.rejected_reason, v_row.quality,
                v_row.previous_category, v_row.correct_category, 'sync', clock_timestamp()
            );
        END LOOP;
    END LOOP;
    RETURN v_stored;
END
$$;

COMMENT ON FUNCTION upsert_wa_templates(text, jsonb) IS
'Stores a page of the provider''s template list (the data array). A template made here before its approval '
'is recognised by name and language and keeps its name and declared parameters. Returns how many were '
'stored.';

CREATE OR REPLACE FUNCTION _wa_find_provider_template(
    p_org uuid, p_waba_id text, p_provider_id text, p_name text, p_language text
) RETURNS uuid
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT t.id
    FROM wa_templates t
    WHERE t.organization_id = p_org AND (t.waba_id = p_waba_id OR t.waba_id IS NULL)
        AND (t.provider_template_id = p_provider_id
            OR lower(t.name) = lower(p_name) AND t.language = replace(p_language, '-', '_'))
    ORDER BY (t.provider_template_id = p_provider_id) IS TRUE DESC, t.waba_id IS NULL
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_find_provider_template(uuid, text, text, text, text) IS
'Internal: our row of a template that the provider names; NULL when there is none.';

-- Told by shape: one of Meta's own pages shows a quality event under the field of status events.
CREATE OR REPLACE FUNCTION _wa_template_event_kind(p_value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT p_value ?| ARRAY['message_template_id', 'message_template_name'] THEN NULL
    WHEN p_value ? 'new_quality_score' THEN 'quality'
    WHEN p_value ? 'new_category' THEN 'category'
    WHEN p_value ? 'message_template_element' THEN 'components'
    WHEN p_value ? 'event' THEN 'status'
END;

COMMENT ON FUNCTION _wa_template_event_kind(jsonb) IS
'Internal: what a webhook says about a template: quality, category, components or status; NULL when nothing.';

CREATE OR REPLACE FUNCTION _wa_template_event_buttons(p_buttons jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'type', upper(b.value ->> 'message_template_button_type'),
        'text', b.value ->> 'message_template_button_text',
        'url', b.value ->> 'message_template_button_url',
        'phone_number', b.value ->> 'message_template_button_phone_number'
    )) ORDER BY b.place), '[]')
    FROM jsonb_array_elements(CASE jsonb_typeof(p_buttons) WHEN 'array' THEN p_buttons END)
    WITH ORDINALITY b (value, place);
END;

COMMENT ON FUNCTION _wa_template_event_buttons(jsonb) IS
'Internal: the buttons of a components webhook as the template list writes them.';

CREATE OR REPLACE FUNCTION _wa_apply_template_events(
    p_org uuid, p_waba_id text, p_occurred_at timestamptz[], p_values jsonb[]
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event record;
    v_template wa_templates;
    v_changed integer := 0;
BEGIN
    FOR v_event IN
        SELECT e.occurred_at, e.value, _wa_template_event_kind(e.value) AS kind
        FROM unnest(p_occurred_at, p_values) e (occurred_at, value)
        WHERE _wa_template_event_kind(e.value) IS NOT NULL
        ORDER BY e.occurred_at
    LOOP
        SELECT t.* INTO v_template FROM wa_templates t
        WHERE t.organization_id = p_org AND t.id = _wa_find_provider_template(
            p_org, p_waba_id, v_event.value ->> 'message_template_id',
            v_event.value ->> 'message_template_name',
            v_event.value ->> 'message_template_language'
        );
        -- Unknown ones come with the next sync; events from before a sync or before a later event are
        -- history.
        CONTINUE WHEN NOT FOUND OR v_event.occurred_at < date_trunc('second', v_template.synced_at)
            OR EXISTS (
            SELECT FROM wa_account_events a
            WHERE a.organization_id = p_org AND a.occurred_at > v_event.occurred_at
                AND a.payload ->> 'message_template_id' = v_event.value ->> 'message_template_id'
                AND _wa_template_event_kind(a.payload) = v_event.kind
        );
        v_changed := v_changed + 1;
        PERFORM _wa_apply_template_event(v_template, v_event.kind, v_event.value);
    END LOOP;
    RETURN v_changed;
END
$$;

COMMENT ON FUNCTION _wa_apply_template_events(uuid, text, timestamptz[], jsonb[]) IS
'Internal: lets webhook values about templates of an account change their rows. Call it after the events '
'are in wa_account_events: one that is older than another of its kind there changes nothing, whatever the '
'order of arrival.';

CREATE OR REPLACE FUNCTION _wa_apply_template_event(p_template wa_templates, p_kind text, p_value jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event text := upper(p_value ->> 'event');
BEGIN
    UPDATE wa_templates t SET
        provider_template_id = coalesce(t.provider_template_id, p_value ->> 'message_template_id'),
        status = CASE
            WHEN p_kind <> 'status' THEN t.status
            WHEN v_event IN ('REINSTATED', 'UNARCHIVED') THEN 'APPROVED'
            ELSE v_event
        END,
        rejected_reason = CASE
            WHEN p_kind = 'status' THEN nullif(p_value ->> 'reason', 'NONE') ELSE t.rejected_reason
        END,
        quality_score = CASE WHEN p_kind = 'quality' THEN p_value ->> 'new_quality_score'
            ELSE t.quality_score END,
        category = coalesce(CASE p_kind
            WHEN 'category' THEN _wa_template_category(p_value ->> 'new_category')
            WHEN 'status' THEN _wa_template_category(p_value ->> 'message_template_category')
        END, t.category),
        previous_category = CASE
            WHEN p_kind = 'category' THEN coalesce(p_value ->> 'previous_category', t.previous_category)
            ELSE t.previous_category
        END,
        -- An announced category is named as the correct one; once it is done, nothing is announced any more.
        correct_category = CASE WHEN p_kind = 'category' THEN p_value ->> 'correct_category'
            ELSE t.correct_category END,
        header_text = CASE
            WHEN p_kind = 'components' AND coalesce(t.header_format, 'TEXT') = 'TEXT'
                THEN p_value ->> 'message_template_title'
            ELSE t.header_text
        END,
        header_format = CASE
            WHEN p_kind = 'components' AND t.header_format = 'TEXT'
                AND p_value ->> 'message_template_title' IS NULL
                THEN NULL
            ELSE t.header_format
        END,
        body_text = CASE
            WHEN p_kind = 'components' THEN coalesce(p_value ->> 'message_template_element', t.body_text)
            ELSE t.body_text
        END,
        footer_text = CASE
            WHEN p_kind = 'components' THEN p_value ->> 'message_template_footer' ELSE t.footer_text
        END,
        buttons = CASE
            WHEN p_kind = 'components' THEN _wa_template_event_buttons(p_value -> 'message_template_buttons')
            ELSE t.buttons
        END
    WHERE t.organization_id = p_template.organization_id AND t.id = p_template.id;
END
$$;

COMMENT ON FUNCTION _wa_apply_template_event(wa_templates, text, jsonb) IS
'Internal: writes what one webhook value of a known kind says about a template.';

REVOKE ALL ON FUNCTION _wa_sync_organizations(text), _wa_template_category(text),
begin_wa_template_sync(text), advance_wa_template_sync(text, text, integer), finish_wa_template_sync(text),
upsert_wa_templates(text, jsonb), _wa_find_provider_template(uuid, text, text, text, text),
_wa_template_event_kind(jsonb), _wa_template_event_buttons(jsonb),
_wa_apply_template_events(uuid, text, timestamptz[], jsonb[]),
_wa_apply_template_event(wa_templates, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_sync_organizations(text), _wa_template_category(text),
begin_wa_template_sync(text), advance_wa_template_sync(text, text, integer), finish_wa_template_sync(text),
upsert_wa_templates(text, jsonb),
_wa_find_provider_template(uuid, text, text, text, text) TO wa_app, wa_admin;
GRANT SELECT, INSERT, UPDATE ON wa_template_syncs TO wa_app, wa_admin;
$wa_script$, '7a6a0111f56192ef9419ac205c5a4c4bac401b423419446a0f07b7c6e592f170', ARRAY['function _wa_sync_organizations', 'function _wa_template_category', 'function begin_wa_template_sync', 'function advance_wa_template_sync', 'function finish_wa_template_sync', 'function upsert_wa_templates', 'function _wa_find_provider_template', 'function _wa_template_event_kind', 'function _wa_template_event_buttons', 'function _wa_apply_template_events', 'function _wa_apply_template_event']::text[]),
(23, 'api', 'api/policy.sql', $wa_script$-- Who may be written to, with what, now: the one place that judges a queued row. The insert trigger, the
-- claim, a reschedule and explain_wa_message() all ask it.

CREATE OR REPLACE FUNCTION _wa_judge(
    p_org uuid, p_queue_ids uuid[], p_number_ids bigint[], p_contact_ids bigint[], p_template_ids uuid[],
    p_margin interval, p_now timestamptz
)
RETURNS TABLE (
    queue_id uuid, place bigint, number_id bigint, contact_id bigint, template_id uuid,
    is_within_24h boolean, refusal text, hold_until timestamptz, hold_reason text
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT
        d.queue_id, d.place, d.number_id, d.contact_id, d.template_id,
        coalesce(
            _wa_window_open(w.last_customer_message_at, p_now, p_margin)
            AND (w.window_denied_at IS NULL OR w.window_denied_at < w.last_customer_message_at),
            false
        ),
        CASE
            WHEN EXISTS (
                SELECT FROM wa_opt_outs o
                WHERE o.organization_id = p_org AND o.contact_id = d.contact_id AND o.revoked_at IS NULL
                    AND (o.scope = 'all' OR t.category = 'MARKETING')
            ) THEN 'opted_out'
            WHEN d.template_id IS NULL AND NOT coalesce(
                _wa_window_open(w.last_customer_message_at, p_now, p_margin)
                AND (w.window_denied_at IS NULL OR w.window_denied_at < w.last_customer_message_at),
                false
            ) THEN 'window_closed'
            WHEN d.template_id IS NOT NULL AND NOT coalesce(t.is_sendable, false) THEN 'template_unavailable'
        END,
        CASE
            WHEN d.template_id IS NULL AND n.replies_blocked_until > p_now THEN n.replies_blocked_until
            WHEN d.template_id IS NOT NULL AND n.templates_blocked_until > p_now
                THEN n.templates_blocked_until
        END,
        CASE
            WHEN d.template_id IS NULL AND n.replies_blocked_until > p_now THEN 'restricted'
            WHEN d.template_id IS NOT NULL AND n.templates_blocked_until > p_now THEN 'restricted'
        END
    -- LIMIT keeps each look-up a look-up by key, also in a plan that was made while the tables were empty.
    FROM unnest(p_queue_ids, p_number_ids, p_contact_ids, p_template_ids)
        WITH ORDINALITY d (queue_id, number_id, contact_id, template_id, place)
    LEFT JOIN LATERAL (
        SELECT x.last_customer_message_at, x.window_denied_at FROM wa_conversation_windows x
        WHERE x.organization_id = p_org AND x.contact_id = d.contact_id AND x.number_id = d.number_id LIMIT 1
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT x.id, x.category, _wa_template_problem(x, p_now) IS NULL AS is_sendable FROM wa_templates x
        WHERE x.organization_id = p_org AND x.id = d.template_id LIMIT 1
    ) t ON true
    LEFT JOIN LATERAL (
        SELECT x.replies_blocked_until, x.templates_blocked_until FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.id = d.number_id LIMIT 1
    ) n ON true;
END;

COMMENT ON FUNCTION _wa_judge(uuid, uuid[], bigint[], bigint[], uuid[], interval, timestamptz) IS
'Internal: for each queued row at a given time whether its window is open, why it is refused (opted_out, '
'window_closed, template_unavailable; NULL when it may go) and until when a restriction of Meta holds it.';

CREATE OR REPLACE FUNCTION _wa_refusal_text(p_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_code
    WHEN 'opted_out' THEN 'the contact asked not to be written to'
    WHEN 'window_closed'
        THEN 'more than 24 hours since the customer''s last message: only templates may be sent'
    WHEN 'template_unavailable' THEN 'the template is not approved, or paused'
    WHEN 'expired' THEN 'not sent before it expired'
    ELSE p_code
END;

COMMENT ON FUNCTION _wa_refusal_text(text) IS 'Internal: a refusal in words.';

CREATE OR REPLACE FUNCTION _wa_refusal_sqlstate(p_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_code WHEN 'window_closed' THEN 'WA101' WHEN 'opted_out' THEN 'WA102' ELSE 'WA103' END;

COMMENT ON FUNCTION _wa_refusal_sqlstate(text) IS 'Internal: the SQLSTATE that a refusal raises.';

CREATE OR REPLACE FUNCTION _wa_refusal_hint(p_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_code
    WHEN 'opted_out' THEN 'Leave the contact alone; opt_in_wa_contact() records a new consent.'
    WHEN 'window_closed'
        THEN 'Use an approved template (template_name, template_params), or a fallback_template_name.'
    ELSE 'SELECT name, language, status, blocked_reason FROM wa_templates; wait, or choose another one.'
END;

COMMENT ON FUNCTION _wa_refusal_hint(text) IS 'Internal: the way out of a refusal.';

REVOKE ALL ON FUNCTION _wa_judge(uuid, uuid[], bigint[], bigint[], uuid[], interval, timestamptz),
_wa_refusal_text(text), _wa_refusal_sqlstate(text), _wa_refusal_hint(text) FROM PUBLIC;
$wa_script$, 'b6745c3281d5e7385bbcef399a4fde34c652f2dd72f7bdc5e9e130a7b2da2a33', ARRAY['function _wa_judge', 'function _wa_refusal_text', 'function _wa_refusal_sqlstate', 'function _wa_refusal_hint']::text[]),
(24, 'api', 'api/settle.sql', $wa_script$-- How a queued message ends: the one place that writes an outcome to the queue and to the ledger.

CREATE OR REPLACE FUNCTION _wa_finish_messages(
    p_org uuid, p_ids uuid[], p_wamids text[], p_states text[], p_codes text[], p_errors text[]
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_messages bigint[];
BEGIN
    WITH outcome AS MATERIALIZED (
        SELECT u.*, q.tid, coalesce(f.number_id, w.number_id) AS number_id,
            coalesce(f.contact_id, w.contact_id) AS known_contact_id,
            coalesce(f.template_id, w.template_id) AS template_id,
            f.is_within_24h
        FROM unnest(p_ids, p_wamids, p_states, p_codes, p_errors) u (id, wamid, state, code, error)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS tid FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
        ) q
        LEFT JOIN LATERAL (
            SELECT x.number_id, x.contact_id, x.template_id, x.is_within_24h FROM wa_queue_inflight x
            WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1
        ) f ON true
        LEFT JOIN LATERAL (
            SELECT x.number_id, x.contact_id, x.template_id FROM wa_queue_due x
            WHERE f.contact_id IS NULL AND x.organization_id = p_org AND x.queue_id = u.id LIMIT 1
        ) w ON true
    ),
    landed AS (
        DELETE FROM wa_queue_inflight i WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids)
    ),
    dropped AS (
        DELETE FROM wa_queue_due d WHERE d.organization_id = p_org AND d.queue_id = ANY (p_ids)
    ),
    finished AS (
        UPDATE wa_outbound_queue q
        SET status = CASE WHEN o.wamid IS NULL THEN 'failed' ELSE 'sent' END,
            wa_message_id = o.wamid, error_code = o.code, last_error = o.error,
            contact_id = coalesce(o.known_contact_id, q.contact_id),
            processed_at = v_now, change_no = q.change_no + 1
        FROM outcome o
        WHERE q.ctid = o.tid
        RETURNING q.*, o.state, o.number_id, o.template_id, o.is_within_24h
    ),
    recorded AS (
        INSERT INTO wa_messages (
            organization_id, queue_id, number_id, phone_number_id, contact_id, customer_id, phone_e164,
            user_id, wa_message_id, direction, message_type, content, content_text, template_name,
            template_language,
            template_category, status, state, is_within_24h_at_claim, reply_to, error_code, error_title,
            error_message, reference, metadata, queued_at, claimed_at, sent_at, failed_at
        )
        SELECT
            p_org, q.id, q.number_id, n.phone_number_id, q.contact_id, q.customer_id,
            CASE WHEN left(q.phone, 1) = '+' THEN q.phone END,
            CASE WHEN left(q.phone, 1) <> '+' THEN q.phone END,
            q.wa_message_id, 'outbound', CASE WHEN t.id IS NULL THEN q.type ELSE 'template' END,
            CASE
                WHEN t.id IS NOT NULL THEN jsonb_build_object('params', CASE WHEN q.type = 'template'
                    THEN coalesce(q.template_params, q.content) ELSE q.fallback_template_params END)
                ELSE coalesce(q.content, '{}')
            END,
            CASE WHEN t.id IS NULL
                THEN coalesce(q.text_body, q.content ->> 'caption', q.content #>> '{body,text}') END,
            t.name, t.language, t.category,
            q.status, q.state, q.is_within_24h, q.reply_to,
            CASE WHEN q.error_code ~ '^\d+$' THEN q.error_code::integer END,
            CASE WHEN q.status = 'failed' THEN q.error_code END,
            q.last_error, q.reference, q.metadata, q.created_at, q.claimed_at,
            CASE WHEN q.status = 'sent' THEN v_now END, CASE WHEN q.status = 'failed' THEN v_now END
        FROM finished q
        LEFT JOIN LATERAL (
            SELECT x.id, x.name, x.language, x.category FROM wa_templates x
            WHERE x.organization_id = p_org AND x.id = q.template_id LIMIT 1
        ) t ON true
        LEFT JOIN LATERAL (
            SELECT x.phone_number_id FROM wa_phone_numbers x
            WHERE x.organization_id = p_org AND x.id = q.number_id LIMIT 1
        ) n ON true
        -- A row that was retried, or settled late, has its entry already.
        ON CONFLICT (organization_id, queue_id) WHERE queue_id IS NOT NULL DO UPDATE SET
            wa_message_id = excluded.wa_message_id, status = excluded.status, state = excluded.state,
            error_code = excluded.error_code, error_title = excluded.error_title,
            error_message = excluded.error_message, claimed_at = excluded.claimed_at,
            sent_at = excluded.sent_at, failed_at = excluded.failed_at,
            is_within_24h_at_claim = coalesce(
                excluded.is_within_24h_at_claim, wa_messages.is_within_24h_at_claim
            ),
            updated_at = v_now
        RETURNING id, contact_id, number_id, status, state
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'status', m.id, m.state, v_now FROM recorded m
    ),
    conversed AS (
        INSERT INTO wa_conversation_windows AS w (
            organization_id, contact_id, number_id, last_business_message_at
        )
        SELECT DISTINCT p_org, m.contact_id, m.number_id, v_now FROM recorded m
        WHERE m.status = 'sent' AND m.contact_id IS NOT NULL AND m.number_id IS NOT NULL
        ORDER BY m.contact_id, m.number_id
        ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
            last_business_message_at = greatest(w.last_business_message_at,
                excluded.last_business_message_at),
            -- The free entry point runs from our answer to the advertisement's click.
            entry_point_expires_at = CASE
                WHEN w.entry_point_expires_at IS NULL
                    AND w.entry_point_opened_at > v_now - interval '24 hours'
                    THEN v_now + interval '72 hours'
                ELSE w.entry_point_expires_at
            END,
            unread_count = 0, updated_at = v_now
    )
    SELECT array_agg(m.id) INTO v_messages FROM recorded m;
    RETURN coalesce(v_messages, '{}');
END
$$;

COMMENT ON FUNCTION _wa_finish_messages(uuid, uuid[], text[], text[], text[], text[]) IS
'Internal: ends queued messages of one organization (sent where a wamid is given, else failed): takes them '
'out of sending, updates the queue, writes the ledger, its event and the conversation. Returns the ids in '
'wa_messages.';

CREATE OR REPLACE FUNCTION _wa_fail_messages(p_org uuid, p_ids uuid[], p_code text, p_error text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF cardinality(p_ids) > 0 THEN
        PERFORM _wa_finish_messages(
            p_org, p_ids, array_fill(NULL::text, ARRAY[cardinality(p_ids)]),
            array_fill('failed'::text, ARRAY[cardinality(p_ids)]),
            array_fill(p_code, ARRAY[cardinality(p_ids)]),
            array_fill(p_error, ARRAY[cardinality(p_ids)])
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_fail_messages(uuid, uuid[], text, text) IS
'Internal: ends queued messages as failed, all with one code and reason.';

-- A status webhook that echoes our callback data proves that the provider accepted the message, whatever
-- became of the answer.
CREATE OR REPLACE FUNCTION _wa_settle_from_echo(
    p_org uuid, p_queue_ids uuid[], p_attempts integer[], p_wamids text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids uuid[];
    v_wamids text[];
BEGIN
    -- The row lock decides against complete_wa_messages(), which locks the same row before it records an
    -- answer.
    SELECT array_agg(x.id), array_agg(x.wamid) INTO v_ids, v_wamids
    FROM (
        SELECT q.id, e.wamid
        FROM (
            SELECT DISTINCT ON (u.id) u.id, u.attempt, u.wamid
            FROM unnest(p_queue_ids, p_attempts, p_wamids) u (id, attempt, wamid)
            ORDER BY u.id, u.attempt DESC
        ) e
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = e.id
        WHERE q.wa_message_id IS NULL AND e.attempt <= q.attempt
            AND (q.status IN ('sending', 'pending') OR q.error_code IN ('outcome_unknown', 'in_doubt'))
        ORDER BY q.id
        FOR NO KEY UPDATE OF q
    ) x;
    IF v_ids IS NOT NULL THEN
        PERFORM _wa_finish_messages(
            p_org, v_ids, v_wamids, array_fill('accepted'::text, ARRAY[cardinality(v_ids)]),
            array_fill(NULL::text, ARRAY[cardinality(v_ids)]),
            array_fill(NULL::text, ARRAY[cardinality(v_ids)])
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_settle_from_echo(uuid, uuid[], integer[], text[]) IS
'Internal: settles rows in flight, or of unknown outcome, whose callback data a status webhook brought back.';

REVOKE ALL ON FUNCTION _wa_finish_messages(uuid, uuid[], text[], text[], text[], text[]),
_wa_fail_messages(uuid, uuid[], text, text), _wa_settle_from_echo(uuid, uuid[], integer[], text[])
FROM PUBLIC;
$wa_script$, 'f06fd8f4ea738a909bc4403dfa6055208427343b12ca09b6dabeb4564cafbed2', ARRAY['function _wa_finish_messages', 'function _wa_fail_messages', 'function _wa_settle_from_echo']::text[]),
(25, 'api', 'api/queue.sql', $wa_script$-- What happens when an application inserts, updates or deletes rows of the queue.

-- Per row and quiet: fills in what RETURNING shows. What is malformed is only marked here (error_code), so
-- that the statement trigger can refuse all bad rows of a statement in one error.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__prepare() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_phone text;
    v_region text;
    v_area_code text;
BEGIN
    IF NEW.id IS NULL THEN
        NEW.id := _wa_uuid7(clock_timestamp());
    END IF;
    NEW.status := 'pending';
    NEW.attempt := 0;
    NEW.retry_count := 0;
    NEW.error_code := NULL;
    NEW.wa_message_id := NULL;
    NEW.claimed_at := NULL;
    NEW.processed_at := NULL;
    NEW.change_no := 0;
    NEW.scheduled_at := coalesce(NEW.scheduled_at, clock_timestamp());
    NEW.priority := lower(coalesce(NEW.priority, 'normal'));
    NEW.metadata := coalesce(NEW.metadata, '{}');
    IF NEW.type IS NULL THEN
        NEW.type := CASE
            WHEN NEW.template_name IS NOT NULL THEN 'template'
            WHEN NEW.text_body IS NOT NULL THEN 'text'
            ELSE coalesce(NEW.content ->> 'type', '')
        END;
    ELSE
        NEW.type := lower(NEW.type);
    END IF;
    IF NEW.type = 'text' AND NEW.text_body IS NULL THEN
        NEW.text_body := NEW.content ->> 'body';
    ELSIF NEW.type = 'template' THEN
        IF NEW.template_name IS NULL THEN
            NEW.template_name := NEW.content ->> 'name';
            NEW.template_language := coalesce(NEW.template_language, NEW.content #>> '{language,code}');
        END IF;
        IF NEW.expires_at IS NULL THEN
            NEW.expires_at := NEW.scheduled_at + CASE WHEN EXISTS (
                SELECT FROM wa_templates t
                WHERE t.organization_id = NEW.organization_id AND lower(t.name) = lower(NEW.template_name)
                    AND t.category = 'AUTHENTICATION'
            ) THEN interval '10 minutes' ELSE interval '24 hours' END;
        END IF;
    END IF;
    NEW.phone := coalesce(NEW.phone, '');
    IF NOT _wa_is_user_id(NEW.phone) THEN
        IF left(NEW.phone, 1) = '+' THEN
            v_phone := try_normalize_phone_e164(NEW.phone);
        ELSE
            SELECT o.default_region, o.default_area_code INTO v_region, v_area_code
            FROM wa_organizations o WHERE o.id = NEW.organization_id;
            v_phone := try_normalize_phone_e164(NEW.phone, v_region, v_area_code);
        END IF;
        IF v_phone IS NULL THEN
            NEW.error_code := 'WA001';
        ELSE
            NEW.phone := v_phone;
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__prepare() IS
'Gives a new row its id, normalised phone, type and expiry; forces what only sending may set.';

-- The plans are made once a session, for one row or for a million, whatever the tables held then: every
-- look-up is by key.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__enqueue() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    v_org wa_organizations;
    v_sum record;
BEGIN
    FOR v_org IN
        SELECT o.* FROM wa_organizations o WHERE o.id IN (SELECT n.organization_id FROM new_rows n)
    LOOP
        PERFORM FROM (
            SELECT array_agg(CASE WHEN NOT _wa_is_user_id(n.phone) THEN n.phone END) AS phones,
                array_agg(CASE WHEN _wa_is_user_id(n.phone) THEN n.phone END) AS user_ids
            FROM new_rows n
            WHERE n.organization_id = v_org.id AND n.error_code IS NULL
                AND NOT EXISTS (SELECT FROM _wa_contact_of(v_org.id, n.phone))
        ) a
        CROSS JOIN LATERAL _wa_resolve_contacts(v_org.id, a.phones, a.user_ids, 'queue') r
        WHERE a.phones IS NOT NULL;

        WITH routed AS (
            SELECT n.*, c.contact_id AS recipient_id, p.id AS named_number_id,
                a.number_id, a.waba_id
            FROM new_rows n
            LEFT JOIN LATERAL _wa_contact_of(v_org.id, n.phone) c ON n.error_code IS NULL
            LEFT JOIN LATERAL (
                SELECT p.id FROM wa_phone_numbers p
                WHERE p.organization_id = v_org.id AND p.phone_number_id = n.phone_number_id LIMIT 1
            ) p ON true
            LEFT JOIN LATERAL (
                SELECT w.number_id FROM wa_conversation_windows w
                WHERE n.phone_number_id IS NULL AND w.organization_id = v_org.id
                    AND w.contact_id = c.contact_id
                ORDER BY greatest(w.last_customer_message_at, w.last_business_message_at) DESC NULLS LAST
                LIMIT 1
            ) w ON true
            LEFT JOIN LATERAL (
                SELECT x.id AS number_id, x.waba_id FROM wa_phone_numbers x
                WHERE x.organization_id = v_org.id
                    AND x.id = coalesce(p.id, w.number_id, v_org.default_number_id)
                LIMIT 1
            ) a ON true
            WHERE n.organization_id = v_org.id
        ),
        template AS (
            SELECT k.name, k.language, k.waba_id, t.id, t.category, t.body_placeholders,
                t.header_placeholders = '{}' AND t.button_parameters = '[]' AND t.category <> 'AUTHENTICATION'
                AND coalesce(t.header_format, 'TEXT') = 'TEXT' AS is_plain
            FROM (
                SELECT DISTINCT r.template_name, r.template_language, r.waba_id FROM routed r
                WHERE r.type = 'template' AND r.template_name IS NOT NULL
            ) k (name, language, waba_id)
            CROSS JOIN LATERAL _wa_pick_template(v_org.id, k.name, k.language, k.waba_id) t
        ),
        checked AS (
            SELECT r.*, t.id AS template_id, t.category,
                CASE
                    -- The usual text and the usual template need no function call.
                    WHEN r.error_code IS NULL AND (r.phone_number_id IS NULL OR r.named_number_id IS NOT NULL)
                        AND r.content IS NULL AND r.fallback_template_name IS NULL
                        AND CASE r.type
                            WHEN 'text' THEN r.text_body ~ '\S' AND char_length(r.text_body) <= 4096
                            WHEN 'template' THEN t.is_plain
                                AND _wa_are_plain_params(r.template_params, cardinality(t.body_placeholders))
                        END
                        THEN NULL
                    ELSE coalesce(
                        _wa_check_queue_row(
                            v_org.id, r.error_code, r.phone_number_id, r.named_number_id, r.type, r.text_body,
                            r.content, r.template_name, r.template_language, r.waba_id, r.template_params, t.id
                        ),
                        _wa_check_fallback(
                            v_org.id, r.fallback_template_name, r.fallback_template_language, r.waba_id,
                            r.fallback_template_params
                        )
                    )
                END AS bad
            FROM routed r
            LEFT JOIN template t ON r.type = 'template' AND t.name = r.template_name
                AND t.language IS NOT DISTINCT FROM r.template_language
                AND t.waba_id IS NOT DISTINCT FROM r.waba_id
        ),
        queued AS (
            INSERT INTO wa_queue_due (
                organization_id, number_id, class, due_at, queue_id, contact_id, template_id
            )
            SELECT v_org.id, c.number_id,
                _wa_queue_class(c.priority, _wa_is_metered(c.template_id, c.category)),
                greatest(c.scheduled_at, clock_timestamp()), c.id, c.recipient_id, c.template_id
            FROM checked c WHERE c.bad IS NULL
        )
        SELECT
            count(*) FILTER (WHERE c.bad IS NOT NULL) AS bad,
            count(*) AS row_count,
            count(*) FILTER (WHERE _wa_is_metered(c.template_id, c.category)) AS metered,
            (array_agg(format('%s: %s', quote_ident(c.phone), c.bad[2]) ORDER BY c.id)
                FILTER (WHERE c.bad IS NOT NULL))[1:10] AS details,
            (array_agg(to_jsonb(c.bad) ORDER BY c.id) FILTER (WHERE c.bad IS NOT NULL))[1] AS first
        INTO v_sum
        FROM checked c;
        IF v_sum.bad > 0 THEN
            PERFORM _wa_raise_bad_rows(
                v_sum.bad, v_sum.row_count, v_sum.details, v_sum.first ->> 0, v_sum.first ->> 1,
                v_sum.first ->> 2
            );
        END IF;
        PERFORM _wa_refuse_rows(v_org, array_agg(n.id)) FROM new_rows n WHERE n.organization_id = v_org.id;
        PERFORM _wa_warn_of_wait(v_org, v_sum.metered);
    END LOOP;
    PERFORM _wa_notify_dispatchers();
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__enqueue() IS
'Checks all rows of a statement at once, finds contacts, numbers and templates, refuses or queues.';

CREATE OR REPLACE FUNCTION _wa_is_metered(p_template_id uuid, p_category text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_template_id IS NOT NULL AND p_category IS DISTINCT FROM 'AUTHENTICATION';

COMMENT ON FUNCTION _wa_is_metered(uuid, text) IS
'Internal: whether the organization''s rate limit counts a message: templates other than authentication. '
'Free-form messages are replies inside a window by rule.';

CREATE OR REPLACE FUNCTION _wa_queue_class(p_priority text, p_is_metered boolean) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (CASE p_priority WHEN 'high' THEN 1 WHEN 'normal' THEN 3 ELSE 5 END + p_is_metered::integer)::smallint;

COMMENT ON FUNCTION _wa_queue_class(text, boolean) IS
'Internal: the class of a due row: 1, 3, 5 for high, normal, low; one more when the organization''s rate '
'counts it.';

CREATE OR REPLACE FUNCTION _wa_check_queue_row(
    p_org uuid, p_mark text, p_phone_number_id text, p_number_id bigint, p_type text, p_text_body text,
    p_content jsonb, p_template_name text, p_template_language text, p_waba_id text, p_template_params jsonb,
    p_template_id uuid
) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_types CONSTANT text[] := ARRAY[
        'text', 'template', 'image', 'document', 'audio', 'video', 'sticker', 'interactive', 'location',
        'contacts', 'reaction'
    ];
    v_sqlstate text;
    v_problem text;
    v_hint text;
BEGIN
    IF p_mark IS NOT NULL THEN
        v_sqlstate := p_mark;
        v_problem := 'not a phone number or business-scoped user id';
        v_hint := 'Give + and the country code, or set wa_organizations.default_region for national forms.';
    ELSIF p_phone_number_id IS NOT NULL AND p_number_id IS NULL THEN
        v_sqlstate := 'WA010';
        v_problem := format('no business number with the id "%s"', p_phone_number_id);
        v_hint := 'SELECT phone_number_id FROM wa_phone_numbers; register_wa_phone_number() adds one.';
    ELSIF NOT p_type = ANY (v_types) THEN
        v_sqlstate := 'WA009';
        v_problem := CASE WHEN p_type = '' THEN 'no text_body, template_name or type with content given'
            ELSE format('unknown message type "%s"', p_type) END;
        v_hint := format('Known types: %s.', array_to_string(v_types, ', '));
    ELSIF p_type = 'template' THEN
        IF p_template_name IS NULL THEN
            v_sqlstate := 'WA009';
            v_problem := 'a template message needs template_name';
            v_hint := 'SELECT name, language FROM wa_templates;';
        ELSIF p_template_id IS NULL OR NOT coalesce(p_content ? 'components', false) THEN
            SELECT c.sqlstate, c.problem, c.hint INTO v_sqlstate, v_problem, v_hint
            FROM _wa_check_template_params(
                p_org, p_template_name, p_template_language, p_waba_id, p_template_params
            ) c;
        END IF;
    ELSIF p_type = 'text' AND (p_text_body IS NULL OR p_text_body !~ '\S') THEN
        v_sqlstate := 'WA008';
        v_problem := 'text_body is empty';
        v_hint := 'Give the text of the message.';
    ELSE
        v_problem := _wa_check_content(
            p_type, CASE p_type
                WHEN 'text' THEN coalesce(p_content, '{}') || jsonb_build_object('body', p_text_body)
                ELSE p_content
            END
        );
        v_sqlstate := CASE
            WHEN v_problem IS NULL THEN NULL
            WHEN v_problem ~ 'longer than|characters' THEN 'WA007'
            ELSE 'WA008'
        END;
        v_hint := 'The limits are those of the Cloud API''s message types; see the reference.';
    END IF;
    RETURN CASE WHEN v_sqlstate IS NOT NULL THEN ARRAY[v_sqlstate, v_problem, v_hint] END;
END
$$;

COMMENT ON FUNCTION _wa_check_queue_row(
    uuid, text, text, bigint, text, text, jsonb, text, text, text, jsonb, uuid
) IS 'Internal: what is malformed about a row: SQLSTATE, sentence and hint; NULL when it is fine.';

CREATE OR REPLACE FUNCTION _wa_check_fallback(
    p_org uuid, p_name text, p_language text, p_waba_id text, p_params jsonb
) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT ARRAY[c.sqlstate, 'fall-back: ' || c.problem, c.hint]
    FROM _wa_check_template_params(p_org, p_name, p_language, p_waba_id, p_params) c
    WHERE p_name IS NOT NULL AND c.sqlstate IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_check_fallback(uuid, text, text, text, jsonb) IS
'Internal: what is malformed about a fall-back template: SQLSTATE, sentence and hint; NULL when it is fine.';

CREATE OR REPLACE FUNCTION _wa_raise_bad_rows(
    p_bad bigint, p_row_count bigint, p_details text[], p_sqlstate text, p_problem text, p_hint text
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = p_sqlstate,
        MESSAGE = CASE WHEN p_row_count = 1 THEN p_problem
            ELSE format('%s of %s messages refused; the first: %s', p_bad, p_row_count, p_problem) END,
        DETAIL = array_to_string(p_details, E'\n'),
        HINT = p_hint,
        TABLE = 'wa_outbound_queue';
END
$$;

COMMENT ON FUNCTION _wa_raise_bad_rows(bigint, bigint, text[], text, text, text) IS
'Internal: raises one error for all bad rows of a statement. Values stand in the DETAIL only, the first ten.';

-- Insert and reschedule share it. A row due now must be allowed now; opt-outs and templates always count.
CREATE OR REPLACE FUNCTION _wa_refuse_rows(p_org wa_organizations, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_record record;
BEGIN
    FOR v_record IN
        SELECT j.refusal, array_agg(j.queue_id) AS ids,
            array_agg(format('%s: %s', quote_ident(q.phone), _wa_refusal_text(j.refusal))
                ORDER BY q.id) AS details,
            coalesce(q.on_refusal, (p_org).on_refusal) AS on_refusal, count(*) AS refused
        FROM (
            SELECT array_agg(d.queue_id) AS ids, array_agg(d.number_id) AS number_ids,
                array_agg(d.contact_id) AS contact_ids, array_agg(d.template_id) AS template_ids
            FROM wa_queue_due d WHERE d.organization_id = (p_org).id AND d.queue_id = ANY (p_ids)
        ) a
        CROSS JOIN LATERAL _wa_judge(
            (p_org).id, a.ids, a.number_ids, a.contact_ids, a.template_ids, (p_org).window_margin, v_now
        ) j
        CROSS JOIN LATERAL (
            SELECT x.id, x.phone, x.on_refusal, x.scheduled_at, x.fallback_template_name
            FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = j.queue_id LIMIT 1
        ) q
        WHERE j.refusal IS NOT NULL
            AND NOT (j.refusal = 'window_closed'
                AND (q.scheduled_at > v_now OR q.fallback_template_name IS NOT NULL
                OR j.number_id IS NULL))
        GROUP BY j.refusal, coalesce(q.on_refusal, (p_org).on_refusal)
        ORDER BY 4
    LOOP
        IF v_record.on_refusal = 'raise' THEN
            PERFORM _wa_raise_bad_rows(
                v_record.refused, cardinality(p_ids), v_record.details[1:10],
                _wa_refusal_sqlstate(v_record.refusal), _wa_refusal_text(v_record.refusal),
                _wa_refusal_hint(v_record.refusal)
            );
        END IF;
        PERFORM _wa_fail_messages((p_org).id, v_record.ids, v_record.refusal,
            _wa_refusal_text(v_record.refusal));
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_refuse_rows(wa_organizations, uuid[]) IS
'Internal: raises for, or records as failed, those of the given rows that may not be sent.';

CREATE OR REPLACE FUNCTION _wa_warn_of_wait(p_org wa_organizations, p_queued bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_queued > (p_org).rate_limit_per_minute::bigint * 10 THEN
        RAISE WARNING USING
            MESSAGE = format('%s messages queued: at %s a minute they take about %s', p_queued,
                (p_org).rate_limit_per_minute,
                justify_hours(make_interval(
                    mins => ceil(p_queued::numeric / (p_org).rate_limit_per_minute)::integer))),
            HINT = 'wa_organizations.rate_limit_per_minute sets the limit; NULL switches it off.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_warn_of_wait(wa_organizations, bigint) IS
'Internal: warns when a statement queues more than ten minutes'' worth of the organization''s rate limit.';

CREATE OR REPLACE FUNCTION _wa_notify_dispatchers() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(_wa_gate()) THEN
        PERFORM pg_notify('wa_queue', '');
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_notify_dispatchers() IS
'Internal: wakes the dispatchers if all of them sleep; see _wa_gate().';

-- WHEN keeps our own updates (which advance change_no) from ever calling it.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_fixed text;
BEGIN
    SELECT string_agg(o.key, ', ' ORDER BY o.key) INTO v_fixed
    FROM jsonb_each(to_jsonb(OLD)) o
    JOIN jsonb_each(to_jsonb(NEW)) n USING (key)
    WHERE o.value IS DISTINCT FROM n.value AND o.key <> ALL (ARRAY[
        'scheduled_at', 'expires_at', 'priority', 'status', 'reference', 'metadata', 'customer_id',
        'on_refusal', 'on_unknown'
    ]);
    IF v_fixed IS NOT NULL OR NEW.status NOT IN (OLD.status, 'cancelled') THEN
        RAISE EXCEPTION USING ERRCODE = 'WA202',
            MESSAGE = format('cannot change %s of a queued message',
                coalesce(v_fixed, format('status to "%s"', NEW.status))),
            HINT = 'Times, priority and status = ''cancelled'' may be changed; else cancel it, insert anew.';
    END IF;
    IF (OLD.status, OLD.scheduled_at, OLD.expires_at, OLD.priority, OLD.on_unknown)
        IS NOT DISTINCT FROM (NEW.status, NEW.scheduled_at, NEW.expires_at, NEW.priority, NEW.on_unknown)
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status <> 'pending' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201',
            MESSAGE = format('message %s is %s: only pending ones can be changed', OLD.id, OLD.status),
            HINT = CASE WHEN OLD.status IN ('failed', 'cancelled') THEN 'retry_wa_messages() queues it again.'
                ELSE 'It is with the provider already.' END;
    END IF;
    IF NEW.status = 'cancelled' THEN
        NEW.processed_at := clock_timestamp();
        DELETE FROM wa_queue_due WHERE organization_id = OLD.organization_id AND queue_id = OLD.id;
        RETURN NEW;
    END IF;
    UPDATE wa_queue_due
    SET due_at = greatest(NEW.scheduled_at, clock_timestamp()), hold_reason = NULL,
        class = _wa_queue_class(NEW.priority, class % 2 = 0)
    WHERE organization_id = OLD.organization_id AND queue_id = OLD.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__change() IS
'Lets an application reschedule, reprioritise or cancel a pending row; refuses everything else (WA201, '
'WA202).';

CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__recheck() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = NEW.organization_id;
    PERFORM _wa_refuse_rows(v_org, ARRAY[NEW.id]);
    PERFORM _wa_notify_dispatchers();
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__recheck() IS 'Judges a rescheduled row again.';

CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__delete() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF OLD.status = 'sending' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201',
            MESSAGE = format('message %s is being sent and cannot be deleted', OLD.id),
            HINT = 'Wait until its outcome is known.';
    END IF;
    DELETE FROM wa_queue_due WHERE organization_id = OLD.organization_id AND queue_id = OLD.id;
    RETURN OLD;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__delete() IS
'Takes a deleted row out of sending; refuses rows that are being sent.';

CREATE OR REPLACE TRIGGER prepare BEFORE INSERT ON wa_outbound_queue
FOR EACH ROW EXECUTE FUNCTION tg_wa_outbound_queue__prepare();

CREATE OR REPLACE TRIGGER enqueue AFTER INSERT ON wa_outbound_queue
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_outbound_queue__enqueue();

CREATE OR REPLACE TRIGGER change BEFORE UPDATE ON wa_outbound_queue
FOR EACH ROW WHEN (OLD.change_no = NEW.change_no) EXECUTE FUNCTION tg_wa_outbound_queue__change();

CREATE OR REPLACE TRIGGER recheck AFTER UPDATE OF scheduled_at, priority ON wa_outbound_queue
FOR EACH ROW WHEN (OLD.change_no = NEW.change_no AND NEW.status = 'pending')
EXECUTE FUNCTION tg_wa_outbound_queue__recheck();

CREATE OR REPLACE TRIGGER remove BEFORE DELETE ON wa_outbound_queue
FOR EACH ROW EXECUTE FUNCTION tg_wa_outbound_queue__delete();

REVOKE ALL ON FUNCTION tg_wa_outbound_queue__prepare(), tg_wa_outbound_queue__enqueue(),
tg_wa_outbound_queue__change(), tg_wa_outbound_queue__recheck(), tg_wa_outbound_queue__delete(),
_wa_queue_class(text, boolean), _wa_is_metered(uuid, text),
_wa_check_queue_row(uuid, text, text, bigint, text, text, jsonb, text, text, text, jsonb, uuid),
_wa_check_fallback(uuid, text, text, text, jsonb),
_wa_raise_bad_rows(bigint, bigint, text[], text, text, text), _wa_refuse_rows(wa_organizations, uuid[]),
_wa_warn_of_wait(wa_organizations, bigint), _wa_notify_dispatchers() FROM PUBLIC;
GRANT SELECT, INSERT ON wa_outbound_queue TO wa_app;
GRANT UPDATE (scheduled_at, expires_at, priority, status, reference, metadata, customer_id, on_refusal,
on_unknown)
ON wa_outbound_queue TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_outbound_queue TO wa_admin;
GRANT SELECT ON wa_queue_due, wa_queue_inflight TO wa_admin;
$wa_script$, '8d0a47372c3a90fec058b944db459c3de07a5d9bfbc77c715be4626886d39a11', ARRAY['function tg_wa_outbound_queue__prepare', 'function tg_wa_outbound_queue__enqueue', 'function _wa_is_metered', 'function _wa_queue_class', 'function _wa_check_queue_row', 'function _wa_check_fallback', 'function _wa_raise_bad_rows', 'function _wa_refuse_rows', 'function _wa_warn_of_wait', 'function _wa_notify_dispatchers', 'function tg_wa_outbound_queue__change', 'function tg_wa_outbound_queue__recheck', 'function tg_wa_outbound_queue__delete']::text[]),
(26, 'api', 'api/queue_control.sql', $wa_script$-- Cancelling, rescheduling and retrying what is queued, by id, reference or phone.

CREATE OR REPLACE FUNCTION _wa_select_queued(
    p_org uuid, p_ids uuid[], p_reference text, p_phone text, p_statuses text[]
) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF num_nonnulls(p_ids, p_reference, p_phone) <> 1 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'give either ids, a reference or a phone',
            HINT = 'For example: cancel_wa_messages(reference => ''order-42'').';
    END IF;
    IF p_ids IS NOT NULL THEN
        RETURN ARRAY(
            SELECT q.id FROM wa_outbound_queue q
            WHERE q.organization_id = p_org AND q.id = ANY (p_ids) AND q.status = ANY (p_statuses)
        );
    ELSIF p_reference IS NOT NULL THEN
        RETURN ARRAY(
            SELECT q.id FROM wa_outbound_queue q
            WHERE q.organization_id = p_org AND q.reference = p_reference AND q.status = ANY (p_statuses)
        );
    END IF;
    -- Waiting rows are found by their contact, ended ones by their entry in the ledger.
    RETURN ARRAY(
        SELECT d.queue_id FROM wa_queue_due d
        WHERE d.organization_id = p_org AND d.contact_id = _wa_find_contact(p_org, p_phone)
            AND 'pending' = ANY (p_statuses)
        UNION
        SELECT q.id FROM wa_messages m
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = m.queue_id
        WHERE m.organization_id = p_org AND m.contact_id = _wa_find_contact(p_org, p_phone)
            AND m.status = 'failed' AND q.status = ANY (p_statuses) AND q.status = 'failed'
    );
END
$$;

COMMENT ON FUNCTION _wa_select_queued(uuid, uuid[], text, text, text[]) IS
'Internal: ids of queued rows by id, reference or phone (exactly one of them given) that have one of the '
'statuses.';

CREATE OR REPLACE FUNCTION cancel_wa_messages(
    ids uuid[] DEFAULT NULL, reference text DEFAULT NULL, phone text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_ids uuid[] := _wa_select_queued(v_org, $1, $2, $3, ARRAY['pending']);
    v_cancelled integer;
BEGIN
    UPDATE wa_outbound_queue q SET status = 'cancelled'
    WHERE q.organization_id = v_org AND q.id = ANY (v_ids) AND q.status = 'pending';
    GET DIAGNOSTICS v_cancelled = ROW_COUNT;
    RETURN v_cancelled;
END
$$;

COMMENT ON FUNCTION cancel_wa_messages(uuid[], text, text) IS
'Cancels pending messages by ids, by reference or by phone; returns how many. What is being sent already is '
'not touched.';

CREATE OR REPLACE FUNCTION reschedule_wa_messages(
    scheduled_at timestamptz, ids uuid[] DEFAULT NULL, reference text DEFAULT NULL, phone text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_ids uuid[] := _wa_select_queued(v_org, $2, $3, $4, ARRAY['pending']);
    v_moved integer;
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'scheduled_at must not be NULL',
            HINT = 'Give the time, for example now() + interval ''1 hour''.';
    END IF;
    -- An expiry that was reckoned from the old time moves along.
    UPDATE wa_outbound_queue q
    SET scheduled_at = $1,
        expires_at = CASE WHEN q.expires_at = 'infinity' THEN q.expires_at
            ELSE q.expires_at + ($1 - q.scheduled_at) END
    WHERE q.organization_id = v_org AND q.id = ANY (v_ids) AND q.status = 'pending';
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    RETURN v_moved;
END
$$;

COMMENT ON FUNCTION reschedule_wa_messages(timestamptz, uuid[], text, text) IS
'Moves pending messages, by ids, reference or phone, to another time, and their expiry with it; returns how '
'many.';

CREATE OR REPLACE FUNCTION retry_wa_messages(
    ids uuid[] DEFAULT NULL, reference text DEFAULT NULL, phone text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org wa_organizations;
    v_ids uuid[];
    v_doubtful integer;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = _wa_caller_organization();
    v_ids := _wa_select_queued(v_org.id, $1, $2, $3, ARRAY['failed', 'cancelled']);
    SELECT count(*) INTO v_doubtful FROM wa_outbound_queue q
    WHERE q.organization_id = v_org.id AND q.id = ANY (v_ids)
        AND q.error_code IN ('outcome_unknown', 'in_doubt');
    IF v_doubtful > 0 THEN
        RAISE WARNING USING MESSAGE = format('%s of these messages may have been sent before', v_doubtful),
            HINT = 'Their outcome was never reported; the recipient may get them twice.';
    END IF;
    -- The row lock: two retries of one row queue it once.
    WITH revived AS (
        UPDATE wa_outbound_queue q
        SET status = 'pending', retry_count = 0, last_error = NULL, error_code = NULL, processed_at = NULL,
            wa_message_id = NULL, claimed_at = NULL,
            expires_at = CASE WHEN q.expires_at <= clock_timestamp()
                THEN clock_timestamp() + (q.expires_at - q.scheduled_at) ELSE q.expires_at END,
            scheduled_at = greatest(q.scheduled_at, clock_timestamp()), change_no = q.change_no + 1
        WHERE q.organization_id = v_org.id AND q.id = ANY (v_ids) AND q.status IN ('failed', 'cancelled')
        RETURNING q.*
    ),
    queued AS (
        INSERT INTO wa_queue_due (
            organization_id, number_id, class, due_at, queue_id, contact_id, template_id
        )
        SELECT v_org.id, n.id, _wa_queue_class(r.priority, _wa_is_metered(t.id, t.category)), r.scheduled_at,
            r.id, c.contact_id, t.id
        FROM revived r
        CROSS JOIN LATERAL _wa_contact_of(v_org.id, r.phone) c
        LEFT JOIN wa_phone_numbers n ON n.organization_id = v_org.id AND n.id = coalesce(
            (SELECT p.id FROM wa_phone_numbers p
                WHERE p.organization_id = v_org.id AND p.phone_number_id = r.phone_number_id),
            _wa_number_for(v_org.id, c.contact_id)
        )
        LEFT JOIN LATERAL _wa_pick_template(v_org.id, r.template_name, r.template_language, n.waba_id) t
            ON r.type = 'template'
        RETURNING queue_id
    )
    SELECT array_agg(k.queue_id) INTO v_ids FROM queued k;
    IF v_ids IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM _wa_refuse_rows(v_org, v_ids);
    PERFORM _wa_notify_dispatchers();
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION retry_wa_messages(uuid[], text, text) IS
'Queues failed or cancelled messages again, by ids, reference or phone; returns how many. They are judged '
'anew; those whose outcome was unknown are named in a WARNING.';

CREATE OR REPLACE FUNCTION _wa_cancel_due(p_org uuid, p_contact_ids bigint[], p_scope text, p_reason text)
RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH unwanted AS (
        -- Queue row first, then its due row, as everywhere: one that is being claimed is waited for and gone.
        SELECT q.id FROM wa_queue_due d
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = d.queue_id AND q.status = 'pending'
        LEFT JOIN wa_templates t ON t.organization_id = p_org AND t.id = d.template_id
        WHERE d.organization_id = p_org AND d.contact_id = ANY (p_contact_ids)
            AND (p_scope = 'all' OR t.category = 'MARKETING')
        ORDER BY q.id
        FOR NO KEY UPDATE OF q
    ),
    dropped AS (
        DELETE FROM wa_queue_due d USING unwanted u
        WHERE d.organization_id = p_org AND d.queue_id = u.id
    ),
    cancelled AS (
        UPDATE wa_outbound_queue q
        SET status = 'cancelled', error_code = 'opted_out', last_error = p_reason,
            processed_at = clock_timestamp(), change_no = q.change_no + 1
        FROM unwanted u
        WHERE q.organization_id = p_org AND q.id = u.id
        RETURNING 1
    )
    SELECT count(*)::integer FROM cancelled
$$;

COMMENT ON FUNCTION _wa_cancel_due(uuid, bigint[], text, text) IS
'Internal: cancels what waits for contacts that opted out, by scope; returns how many.';

REVOKE ALL ON FUNCTION _wa_select_queued(uuid, uuid[], text, text, text[]),
cancel_wa_messages(uuid[], text, text), reschedule_wa_messages(timestamptz, uuid[], text, text),
retry_wa_messages(uuid[], text, text), _wa_cancel_due(uuid, bigint[], text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cancel_wa_messages(uuid[], text, text),
reschedule_wa_messages(timestamptz, uuid[], text, text), retry_wa_messages(uuid[], text, text) TO wa_app,
wa_admin;
$wa_script$, 'e930c77f2dbb00402ac4e496fe7551269da1560600ca98a0256fa5eca9a76496', ARRAY['function _wa_select_queued', 'function cancel_wa_messages', 'function reschedule_wa_messages', 'function retry_wa_messages', 'function _wa_cancel_due']::text[]),
(27, 'api', 'api/enqueue.sql', $wa_script$-- Queueing by function: the same insert, with named arguments or from JSON.

CREATE OR REPLACE FUNCTION enqueue_wa_message(
    phone text, text_body text DEFAULT NULL, template_name text DEFAULT NULL,
    template_params jsonb DEFAULT NULL, template_language text DEFAULT NULL, type text DEFAULT NULL,
    content jsonb DEFAULT NULL,
    priority text DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    phone_number_id text DEFAULT NULL, idempotency_key text DEFAULT NULL, reference text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, reply_to text DEFAULT NULL, on_refusal text DEFAULT NULL,
    on_unknown text DEFAULT NULL,
    fallback_template_name text DEFAULT NULL, fallback_template_params jsonb DEFAULT NULL,
    fallback_template_language text DEFAULT NULL, customer_id text DEFAULT NULL
) RETURNS wa_outbound_queue
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_row wa_outbound_queue;
BEGIN
    -- With a key that exists the row that is there comes back, so that a caller may simply repeat its call.
    INSERT INTO wa_outbound_queue AS q (
        phone, text_body, template_name, template_params, template_language, type, content, priority,
        scheduled_at, expires_at, phone_number_id, idempotency_key, reference, metadata, reply_to, on_refusal,
        on_unknown,
        fallback_template_name, fallback_template_params, fallback_template_language, customer_id
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
    ON CONFLICT (organization_id, idempotency_key) DO NOTHING
    RETURNING q.id, q.organization_id INTO v_row.id, v_row.organization_id;
    IF v_row.id IS NULL THEN
        SELECT q.* INTO v_row FROM wa_outbound_queue q
        WHERE q.organization_id = current_wa_organization() AND q.idempotency_key = $12;
    ELSE
        -- Read back: a refusal that was recorded has changed it since.
        SELECT q.* INTO v_row FROM wa_outbound_queue q
        WHERE q.organization_id = v_row.organization_id AND q.id = v_row.id;
    END IF;
    RETURN v_row;
END
$$;

COMMENT ON FUNCTION enqueue_wa_message(
    text, text, text, jsonb, text, text, jsonb, text, timestamptz, timestamptz, text, text, text, jsonb, text,
    text, text, text, jsonb, text, text
) IS 'Queues one message and returns its row; with an idempotency_key that exists, the row that is there.';

CREATE OR REPLACE FUNCTION enqueue_wa_messages(messages jsonb)
RETURNS TABLE (n integer, id uuid, status text, error_sqlstate text, error text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_message jsonb;
    v_row wa_outbound_queue;
BEGIN
    IF jsonb_typeof($1) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('messages must be a JSON array, not %s', coalesce(jsonb_typeof($1), 'NULL')),
            HINT = 'For example: [{"phone": "+15551234567", "text_body": "Hello"}].';
    END IF;
    -- A savepoint a row, so that a bad one does not take the good ones with it; plain INSERT is the fast way.
    FOR n, v_message IN
        SELECT m.n::integer, m.message FROM jsonb_array_elements($1) WITH ORDINALITY m (message, n)
    LOOP
        id := NULL;
        status := 'refused';
        error_sqlstate := NULL;
        error := NULL;
        hint := NULL;
        BEGIN
            v_row := jsonb_populate_record(NULL::wa_outbound_queue, v_message);
            SELECT e.* INTO v_row FROM enqueue_wa_message(
                v_row.phone, v_row.text_body, v_row.template_name, v_row.template_params,
                v_row.template_language, v_row.type, v_row.content, v_row.priority, v_row.scheduled_at,
                v_row.expires_at,
                v_row.phone_number_id, v_row.idempotency_key, v_row.reference, v_row.metadata, v_row.reply_to,
                v_row.on_refusal, v_row.on_unknown, v_row.fallback_template_name,
                v_row.fallback_template_params, v_row.fallback_template_language, v_row.customer_id
            ) e;
            id := v_row.id;
            status := v_row.status;
            error := v_row.last_error;
        EXCEPTION
            -- Every error is one row's own; it is handed to the caller, not swallowed.
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS error_sqlstate = RETURNED_SQLSTATE, error = MESSAGE_TEXT,
                    hint = PG_EXCEPTION_HINT;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION enqueue_wa_messages(jsonb) IS
'Queues an array of messages given as objects with the columns of wa_outbound_queue. A verdict per element: '
'its id and status, or refused with SQLSTATE, error and hint; bad ones do not stop good ones.';

REVOKE ALL ON FUNCTION enqueue_wa_message(
    text, text, text, jsonb, text, text, jsonb, text, timestamptz, timestamptz, text, text, text, jsonb, text,
    text, text, text, jsonb, text, text
), enqueue_wa_messages(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enqueue_wa_message(
    text, text, text, jsonb, text, text, jsonb, text, timestamptz, timestamptz, text, text, text, jsonb, text,
    text, text, text, jsonb, text, text
), enqueue_wa_messages(jsonb) TO wa_app, wa_admin;
$wa_script$, '41d01eec6112dbb880b996fd906fbcfb4802080a6178d886ac87f3069b2f6fae', ARRAY['function enqueue_wa_message', 'function enqueue_wa_messages']::text[]),
(28, 'api', 'api/claim.sql', $wa_script$-- Handing due rows to a dispatcher. Plans are made once a session and hold whatever the tables held then:
-- look-ups by key, the queue in the order of its index. Locks are taken lane (skipping), then organization,
-- then portfolio (waiting); every counter is read in a statement after its lock, so that limits are exact for
-- any number of dispatchers.

CREATE OR REPLACE FUNCTION claim_wa_messages(p_dispatcher_id uuid, p_limit integer)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    v_lane record;
    v_left integer := p_limit;
    v_rows bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = '25001',
            MESSAGE = format('claims need read committed, not %s', current_setting('transaction_isolation')),
            HINT = 'Counters are read after their lock, in a new snapshot.';
    END IF;
    PERFORM _wa_require_installation();
    -- What was granted must be known after a crash, or it would be granted again.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
    IF NOT (SELECT i.is_sending_enabled FROM wa_installations i) THEN
        RETURN;
    END IF;
    FOR v_lane IN
        SELECT l.*, count(*) OVER () AS lanes
        FROM _wa_busy_lanes(clock_timestamp()) l
        WHERE l.held_until IS NULL
        ORDER BY l.served_at
    LOOP
        EXIT WHEN v_left <= 0;
        PERFORM FROM wa_lanes l
        WHERE l.organization_id = v_lane.organization_id AND l.number_id = v_lane.number_id
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY SELECT * FROM _wa_claim_lane(
            v_lane.organization_id, v_lane.number_id, p_dispatcher_id,
            least(v_left, greatest(ceil(p_limit::numeric / v_lane.lanes)::integer, 10))
        );
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_left := v_left - v_rows;
    END LOOP;
END
$$;

COMMENT ON FUNCTION claim_wa_messages(uuid, integer) IS
'Hands up to so many due messages to a dispatcher, as requests ready to send. Every rule is checked and '
'every limit charged here; commit before sending. Rows with one order_key go one after the other.';

CREATE OR REPLACE FUNCTION _wa_lane_state(p_org uuid, p_number_id bigint) RETURNS SETOF wa_lane_states
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.organization_id, s.number_id, s.version, s.cursor_due, s.cursor_id, s.shares, s.share_clock,
        s.taken_at, s.taken, s.look_again_at, s.served_at, s.held_until, s.hold_reason
    FROM wa_lane_states s
    WHERE s.organization_id = p_org AND s.number_id = p_number_id
    ORDER BY s.version DESC
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_lane_state(uuid, bigint) IS
'Internal: the newest state of a lane; no row before its first claim.';

CREATE OR REPLACE FUNCTION _wa_busy_lanes(p_now timestamptz)
RETURNS TABLE (
    organization_id uuid, number_id bigint, due_at timestamptz, held_until timestamptz, hold_reason text,
    served_at timestamptz
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT l.organization_id, l.number_id, f.due_at,
        CASE WHEN s.held_until > p_now AND (s.hold_reason <> 'organization_rate' OR f.is_metered)
            THEN s.held_until END,
        s.hold_reason, coalesce(s.served_at, '-infinity')
    FROM wa_lanes l
    LEFT JOIN LATERAL _wa_lane_state(l.organization_id, l.number_id) s ON true
    CROSS JOIN LATERAL (
        SELECT min(d.due_at) AS due_at,
            bool_and(c.class % 2 = 0) FILTER (WHERE d.due_at <= p_now) AS is_metered
        FROM generate_series(1, 6) c (class)
        CROSS JOIN LATERAL (
            SELECT d.due_at FROM wa_queue_due d
            WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id AND d.class = c.class
                AND (d.due_at, d.queue_id) > (
                    CASE WHEN s.look_again_at > p_now THEN s.cursor_due[c.class] ELSE '-infinity' END,
                    CASE WHEN s.look_again_at > p_now THEN s.cursor_id[c.class]
                        ELSE '00000000-0000-0000-0000-000000000000' END
                )
            ORDER BY d.due_at, d.queue_id
            LIMIT 1
        ) d
    ) f
    WHERE f.due_at <= p_now;
END;

COMMENT ON FUNCTION _wa_busy_lanes(timestamptz) IS
'Internal: lanes with a due row past their cursor (or anywhere, when it is time to look again) and until '
'when they are held.';

CREATE OR REPLACE FUNCTION _wa_window_used(
    p_taken_at timestamptz[], p_taken integer[], p_now timestamptz, p_window interval
) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(sum(u.n), 0)::integer FROM unnest(p_taken_at, p_taken) u (t, n)
    WHERE u.t >= p_now - p_window
$$;

COMMENT ON FUNCTION _wa_window_used(timestamptz[], integer[], timestamptz, interval) IS
'Internal: how much was taken inside a sliding window.';

CREATE OR REPLACE FUNCTION _wa_window_free_at(p_taken_at timestamptz[], p_now timestamptz, p_window interval)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    SELECT min(t) + p_window + interval '1 millisecond' FROM unnest(p_taken_at) t WHERE t >= p_now - p_window
$$;

COMMENT ON FUNCTION _wa_window_free_at(timestamptz[], timestamptz, interval) IS
'Internal: when the oldest taking leaves a sliding window.';

-- Neighbours closer than a hundredth of the window are kept as one, at the later time: the log stays short
-- and errs on the side of the limit.
CREATE OR REPLACE FUNCTION _wa_window_add(
    INOUT p_taken_at timestamptz[], INOUT p_taken integer[], p_now timestamptz, p_window interval, p_n integer
)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_n <= 0 THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(u.t ORDER BY u.t), '{}'), coalesce(array_agg(u.n ORDER BY u.t), '{}')
    INTO p_taken_at, p_taken
    FROM unnest(p_taken_at, p_taken) u (t, n) WHERE u.t >= p_now - p_window;
    IF p_taken_at[cardinality(p_taken_at)] > p_now - p_window / 100 THEN
        p_taken[cardinality(p_taken)] := p_taken[cardinality(p_taken)] + p_n;
        p_taken_at[cardinality(p_taken_at)] := p_now;
    ELSE
        p_taken := p_taken || p_n;
        p_taken_at := p_taken_at || p_now;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_window_add(timestamptz[], integer[], timestamptz, interval, integer) IS
'Internal: the log of a sliding window with one more taking, without what has left the window.';

REVOKE ALL ON FUNCTION claim_wa_messages(uuid, integer), _wa_lane_state(uuid, bigint),
_wa_busy_lanes(timestamptz), _wa_window_used(timestamptz[], integer[], timestamptz, interval),
_wa_window_free_at(timestamptz[], timestamptz, interval),
_wa_window_add(timestamptz[], integer[], timestamptz, interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION claim_wa_messages(uuid, integer) TO wa_dispatcher;
$wa_script$, 'f5b1d55cd4d51a1c8afb67fb1131bfe540d4e08eb8297b3feab1162db987021a', ARRAY['function claim_wa_messages', 'function _wa_lane_state', 'function _wa_busy_lanes', 'function _wa_window_used', 'function _wa_window_free_at', 'function _wa_window_add']::text[]),
(29, 'api', 'api/claim_lane.sql', $wa_script$-- One lane's claim: chooses rows by share and order, judges them, charges the limits, hands out requests.

CREATE OR REPLACE FUNCTION _wa_lane_block(
    p_org uuid, p_number_id bigint, p_now timestamptz, OUT hold_reason text, OUT held_until timestamptz
)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT b.reason, coalesce(b.until, p_now + interval '1 second')
    FROM (
        SELECT 'panic' AS reason, p.auto_resolve_at AS until, 1 AS severity
        FROM wa_panic_modes p
        WHERE p.organization_id = p_org AND p.active AND (p.number_id IS NULL OR p.number_id = p_number_id)
            AND coalesce(p.auto_resolve_at, 'infinity') > p_now
        UNION ALL
        SELECT 'paused', n.paused_until, 2 FROM wa_phone_numbers n
        WHERE n.organization_id = p_org AND n.id = p_number_id AND n.pause_scope IS NOT NULL
            AND coalesce(n.paused_until, 'infinity') > p_now
        UNION ALL
        SELECT 'number_state', NULL, 3 FROM wa_phone_numbers n
        WHERE n.organization_id = p_org AND n.id = p_number_id AND n.status <> 'CONNECTED'
    ) b
    ORDER BY b.severity
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_lane_block(uuid, bigint, timestamptz) IS
'Internal: why a whole lane is stopped (panic, paused, number_state) and until when to look again; NULLs '
'when it is not. Never longer than a second for what may be lifted by hand.';

-- Rows of each class that are due past the cursor, shared out 7 : 2 : 1 among high, normal and low by virtual
-- time, so that a priority gets its share also when rows are granted one by one, and all of it while the
-- others are idle.
CREATE OR REPLACE FUNCTION _wa_pick_due(
    p_org uuid, p_number_id bigint, p_now timestamptz, p_cursor_due timestamptz[], p_cursor_id uuid[],
    p_shares double precision[], p_share_clock double precision, p_limit integer, p_metered_limit integer,
    OUT ids uuid[], OUT contact_ids bigint[], OUT template_ids uuid[], OUT classes smallint[],
    OUT cursor_due timestamptz[], OUT cursor_id uuid[], OUT shares double precision[],
    OUT share_clock double precision, OUT has_more boolean[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_sort = off
AS $$
BEGIN
    WITH candidate AS MATERIALIZED (
        SELECT c.class, d.due_at, d.queue_id, d.contact_id, d.template_id, d.n,
            greatest(p_shares[(c.class + 1) / 2], p_share_clock) AS start,
            (ARRAY[7.0, 2.0, 1.0])[(c.class + 1) / 2]::double precision AS weight
        FROM generate_series(1, 6) c (class)
        CROSS JOIN LATERAL (
            SELECT x.*, row_number() OVER (ORDER BY x.due_at, x.queue_id) AS n
            FROM (
                SELECT d.due_at, d.queue_id, d.contact_id, d.template_id FROM wa_queue_due d
                WHERE d.organization_id = p_org AND d.number_id = p_number_id AND d.class = c.class
                    AND d.due_at <= p_now
                    AND (d.due_at, d.queue_id) > (p_cursor_due[c.class], p_cursor_id[c.class])
                ORDER BY d.due_at, d.queue_id
                LIMIT CASE WHEN c.class % 2 = 0 THEN least(p_limit, p_metered_limit) ELSE p_limit END
            ) x
        ) d
    ),
    -- Within a priority, unmetered and metered rows run side by side; across priorities the tags decide.
    tagged AS (
        SELECT k.*, k.start + (
            row_number() OVER (PARTITION BY (k.class + 1) / 2 ORDER BY k.due_at, k.queue_id) - 1
        ) / k.weight AS tag
        FROM candidate k
    ),
    capped AS (
        SELECT t.*, count(*) FILTER (WHERE t.class % 2 = 0)
            OVER (ORDER BY t.tag, t.class, t.due_at, t.queue_id) AS metered
        FROM tagged t
    ),
    chosen AS (
        SELECT k.* FROM capped k
        WHERE k.class % 2 = 1 OR k.metered <= p_metered_limit
        ORDER BY k.tag, k.class, k.due_at, k.queue_id
        LIMIT p_limit
    ),
    advanced AS (
        SELECT DISTINCT ON (k.class) k.class, k.due_at, k.queue_id FROM chosen k
        ORDER BY k.class, k.due_at DESC, k.queue_id DESC
    ),
    moved AS (
        SELECT array_agg(coalesce(a.due_at, p_cursor_due[c.class]) ORDER BY c.class) AS cursor_due,
            array_agg(coalesce(a.queue_id, p_cursor_id[c.class]) ORDER BY c.class) AS cursor_id,
            array_agg(
                (SELECT count(*) FROM candidate k WHERE k.class = c.class)
                > (SELECT count(*) FROM chosen k WHERE k.class = c.class)
                OR (SELECT count(*) FROM candidate k WHERE k.class = c.class) >= p_limit
                OR (c.class % 2 = 0 AND p_metered_limit < p_limit) ORDER BY c.class
            ) AS has_more
        FROM generate_series(1, 6) c (class)
        LEFT JOIN advanced a ON a.class = c.class
    ),
    served AS (
        SELECT array_agg(coalesce(s.finish, p_shares[p.priority]) ORDER BY p.priority) AS shares,
            coalesce(max(s.last_start), p_share_clock) AS share_clock
        FROM generate_series(1, 3) p (priority)
        LEFT JOIN LATERAL (
            SELECT max(k.tag + 1 / k.weight) AS finish, max(k.tag) AS last_start
            FROM chosen k WHERE (k.class + 1) / 2 = p.priority
        ) s ON true
    )
    SELECT
        k.ids, k.contact_ids, k.template_ids, k.classes, m.cursor_due, m.cursor_id, s.shares, s.share_clock,
        m.has_more
    INTO ids, contact_ids, template_ids, classes, cursor_due, cursor_id, shares, share_clock, has_more
    FROM moved m
    CROSS JOIN served s
    CROSS JOIN (
        SELECT array_agg(k.queue_id ORDER BY k.place) AS ids,
            array_agg(k.contact_id ORDER BY k.place) AS contact_ids,
            array_agg(k.template_id ORDER BY k.place) AS template_ids,
            array_agg(k.class::smallint ORDER BY k.place) AS classes
        FROM (
            -- Of the places that a recipient has, the first is for the message that was queued first: one
            -- that waited for an earlier message became due again after those behind it.
            SELECT o.queue_id, o.contact_id, o.template_id, o.class,
                (array_agg(o.place) OVER (
                    PARTITION BY o.contact_id, (o.class + 1) / 2 ORDER BY o.place
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
                ))[row_number() OVER (PARTITION BY o.contact_id, (o.class + 1) / 2
                    ORDER BY o.queue_id)] AS place
            FROM (
                SELECT c.*, row_number() OVER (ORDER BY c.tag, c.class, c.due_at, c.queue_id) AS place
                FROM chosen c
            ) o
        ) k
    ) k;
END
$$;

COMMENT ON FUNCTION _wa_pick_due(
    uuid, bigint, timestamptz, timestamptz[], uuid[], double precision[], double precision, integer, integer
) IS
'Internal: the next rows of a lane in order of sending, and where its cursors and shares stand after them.';

CREATE OR REPLACE FUNCTION _wa_claim_lane(
    p_org uuid, p_number_id bigint, p_dispatcher_id uuid, p_limit integer
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    c_no_id CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_org wa_organizations;
    v_number wa_phone_numbers;
    v_old wa_lane_states;
    v_new wa_lane_states;
    v_rate wa_rate_limits;
    v_block record;
    v_pick record;
    v_verdict record;
    v_now timestamptz;
    v_room integer;
    v_metered_room integer := p_limit;
    v_looks_again boolean;
    v_picked_from timestamptz;
    v_pick_time interval;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = p_org;
    IF v_org.rate_limit_per_minute IS NOT NULL THEN
        PERFORM FROM wa_organizations o WHERE o.id = p_org FOR NO KEY UPDATE;
    END IF;
    SELECT n.* INTO v_number FROM wa_phone_numbers n WHERE n.organization_id = p_org AND n.id = p_number_id;
    SELECT s.* INTO v_old FROM _wa_lane_state(p_org, p_number_id) s;
    v_now := clock_timestamp();
    IF v_old.version IS NULL THEN
        v_old := ROW(
            p_org, p_number_id, 0, array_fill('-infinity'::timestamptz, ARRAY[6]),
            array_fill(c_no_id, ARRAY[6]), array_fill(0::double precision, ARRAY[3]), 0, '{}', '{}',
            '-infinity', '-infinity', NULL, NULL
        )::wa_lane_states;
    END IF;
    v_new := v_old;
    v_new.held_until := NULL;
    v_new.hold_reason := NULL;
    v_looks_again := v_old.look_again_at <= v_now;
    IF v_looks_again THEN
        v_new.cursor_due := array_fill('-infinity'::timestamptz, ARRAY[6]);
        v_new.cursor_id := array_fill(c_no_id, ARRAY[6]);
    END IF;

    SELECT * INTO v_block FROM _wa_lane_block(p_org, p_number_id, v_now);
    v_room := least(
        p_limit, v_number.throughput - _wa_window_used(v_old.taken_at, v_old.taken, v_now, '1 second')
    );
    IF v_block.hold_reason IS NOT NULL OR v_room <= 0 THEN
        v_new.hold_reason := coalesce(v_block.hold_reason, 'throughput');
        v_new.held_until := least(
            coalesce(v_block.held_until, _wa_window_free_at(v_old.taken_at, v_now, '1 second')),
            v_now + interval '1 second'
        );
        v_new.look_again_at := v_old.look_again_at;
        v_new.cursor_due := v_old.cursor_due;
        v_new.cursor_id := v_old.cursor_id;
        PERFORM _wa_write_lane_state(v_old, v_new);
        RETURN;
    END IF;

    IF v_org.rate_limit_per_minute IS NOT NULL THEN
        SELECT r.* INTO v_rate FROM wa_rate_limits r
        WHERE r.organization_id = p_org AND r.scope = 'organization' AND r.scope_id = ''
        ORDER BY r.version DESC LIMIT 1;
        v_metered_room := greatest(0, v_org.rate_limit_per_minute - coalesce(
            _wa_window_used(v_rate.taken_at, v_rate.taken, v_now, '60 seconds'), 0));
    END IF;

    v_picked_from := clock_timestamp();
    v_pick_time := clock_timestamp() - v_picked_from;
    SELECT * INTO v_pick FROM _wa_pick_due(
        p_org, p_number_id, v_now, v_new.cursor_due, v_new.cursor_id, v_old.shares, v_old.share_clock, v_room,
        v_metered_room
    );
    IF v_metered_room = 0 THEN
        -- Unmetered rows go on; metered ones are looked at again when the window lets go of its oldest.
        v_new.hold_reason := 'organization_rate';
        v_new.held_until := _wa_window_free_at(v_rate.taken_at, v_now, '60 seconds');
    END IF;
    v_new.shares := v_pick.shares;
    v_new.share_clock := v_pick.share_clock;
    -- Where a class was read to its end, its cursor need not fall behind the one it had before this look.
    SELECT
        array_agg(CASE WHEN k.keeps THEN v_old.cursor_due[k.c] ELSE v_pick.cursor_due[k.c] END ORDER BY k.c),
        array_agg(CASE WHEN k.keeps THEN v_old.cursor_id[k.c] ELSE v_pick.cursor_id[k.c] END ORDER BY k.c)
    INTO v_new.cursor_due, v_new.cursor_id
    FROM (
        SELECT c, NOT v_pick.has_more[c] AND (v_old.cursor_due[c], v_old.cursor_id[c])
            > (v_pick.cursor_due[c], v_pick.cursor_id[c]) AS keeps
        FROM generate_series(1, 6) c
    ) k;

    IF v_pick.ids IS NOT NULL THEN
        SELECT * INTO v_verdict FROM _wa_weigh_due(
            v_org, v_number, p_dispatcher_id, v_pick.ids, v_pick.contact_ids, v_pick.template_ids,
            v_pick.classes, v_now
        );
        PERFORM _wa_set_aside(
            v_org, v_number, v_verdict.failed, v_verdict.fail_codes, v_verdict.held, v_verdict.held_until,
            v_verdict.hold_reasons, v_verdict.converted
        );
        IF v_verdict.granted IS NOT NULL THEN
            SELECT * INTO v_new.taken_at, v_new.taken FROM _wa_window_add(
                v_old.taken_at, v_old.taken, v_now, '1 second', cardinality(v_verdict.granted));
            IF v_org.rate_limit_per_minute IS NOT NULL AND v_verdict.metered > 0 THEN
                PERFORM _wa_charge_organization(v_rate, p_org, v_now, v_verdict.metered);
            END IF;
            RETURN QUERY SELECT * FROM _wa_grant(
                v_org, v_number, p_dispatcher_id, v_verdict.granted, v_verdict.granted_contacts,
                v_verdict.granted_templates, v_verdict.granted_classes, v_verdict.granted_open, v_now);
        END IF;
        v_new.served_at := v_now;
    END IF;
    IF v_looks_again THEN
        -- A look from the start walks what is dead there: it may take a twentieth of the time, at most
        -- once a second.
        v_new.look_again_at := v_now + least(
            greatest(interval '1 second', v_pick_time * 20), interval '10 seconds'
        );
    END IF;
    PERFORM _wa_write_lane_state(v_old, v_new);
END
$$;

COMMENT ON FUNCTION _wa_claim_lane(uuid, bigint, uuid, integer) IS
'Internal: claims up to so many rows of one lane, whose lock the caller holds.';

CREATE OR REPLACE FUNCTION _wa_write_lane_state(p_old wa_lane_states, p_new wa_lane_states) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- An idle or a held lane that was looked at again is no news.
    IF p_new IS NOT DISTINCT FROM p_old THEN
        RETURN;
    END IF;
    p_new.version := p_old.version + 1;
    INSERT INTO wa_lane_states SELECT p_new.*;
    DELETE FROM wa_lane_states s
    WHERE s.organization_id = p_old.organization_id AND s.number_id = p_old.number_id
        AND s.version = p_old.version;
END
$$;

COMMENT ON FUNCTION _wa_write_lane_state(wa_lane_states, wa_lane_states) IS
'Internal: writes the next version of a lane''s state and removes the last.';

CREATE OR REPLACE FUNCTION _wa_charge_organization(
    p_rate wa_rate_limits, p_org uuid, p_now timestamptz, p_n integer
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rate_limits (organization_id, scope, scope_id, version, taken_at, taken)
    SELECT p_org, 'organization', '', coalesce((p_rate).version, 0) + 1, w.p_taken_at, w.p_taken
    FROM _wa_window_add(
        coalesce((p_rate).taken_at, '{}'), coalesce((p_rate).taken, '{}'), p_now, '60 seconds', p_n
    ) w;
    DELETE FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = 'organization' AND r.scope_id = ''
        AND r.version = (p_rate).version;
END
$$;

COMMENT ON FUNCTION _wa_charge_organization(wa_rate_limits, uuid, timestamptz, integer) IS
'Internal: charges an organization''s rate limit; the caller holds its lock.';

CREATE OR REPLACE FUNCTION _wa_set_aside(
    p_org wa_organizations, p_number wa_phone_numbers, p_failed uuid[], p_fail_codes text[], p_held uuid[],
    p_held_until timestamptz[], p_hold_reasons text[], p_converted uuid[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_lost uuid[];
BEGIN
    IF p_failed IS NOT NULL THEN
        PERFORM _wa_fail_messages((p_org).id, array_agg(f.id), f.code, _wa_refusal_text(f.code))
        FROM unnest(p_failed, p_fail_codes) f (id, code) GROUP BY f.code;
    END IF;
    IF p_held IS NOT NULL THEN
        UPDATE wa_queue_due d SET due_at = h.until, hold_reason = h.reason
        FROM (
            SELECT x.tid, u.until, u.reason
            FROM unnest(p_held, p_held_until, p_hold_reasons) u (id, until, reason)
            CROSS JOIN LATERAL (
                SELECT e.ctid AS tid FROM wa_queue_due e
                WHERE e.organization_id = (p_org).id AND e.queue_id = u.id LIMIT 1 FOR NO KEY UPDATE
            ) x
        ) h
        WHERE d.ctid = h.tid;
    END IF;
    IF p_converted IS NOT NULL THEN
        -- The window has closed: from now on the row is its fall-back template, and is judged as one.
        WITH converted AS (
            UPDATE wa_queue_due d
            SET template_id = c.template_id, due_at = clock_timestamp(),
                class = _wa_queue_class(c.priority, _wa_is_metered(c.template_id, c.category))
            FROM (
                SELECT u.id, q.priority, t.id AS template_id, t.category
                FROM unnest(p_converted) u (id)
                JOIN wa_outbound_queue q ON q.organization_id = (p_org).id AND q.id = u.id
                CROSS JOIN LATERAL _wa_pick_template(
                    (p_org).id, q.fallback_template_name, q.fallback_template_language, (p_number).waba_id
                ) t
            ) c
            WHERE d.organization_id = (p_org).id AND d.queue_id = c.id
            RETURNING d.queue_id
        )
        SELECT array_agg(u.id) INTO v_lost
        FROM unnest(p_converted) u (id)
        WHERE u.id NOT IN (SELECT c.queue_id FROM converted c);
        -- Its fall-back template was deleted meanwhile.
        PERFORM _wa_fail_messages((p_org).id, v_lost, 'window_closed', _wa_refusal_text('window_closed'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_set_aside(
    wa_organizations, wa_phone_numbers, uuid[], text[], uuid[], timestamptz[], text[], uuid[]
) IS
'Internal: fails, holds or turns into their fall-back template the picked rows that are not granted.';

REVOKE ALL ON FUNCTION _wa_lane_block(uuid, bigint, timestamptz),
_wa_pick_due(
    uuid, bigint, timestamptz, timestamptz[], uuid[], double precision[], double precision, integer, integer
),
_wa_claim_lane(uuid, bigint, uuid, integer), _wa_write_lane_state(wa_lane_states, wa_lane_states),
_wa_charge_organization(wa_rate_limits, uuid, timestamptz, integer),
_wa_set_aside(
    wa_organizations, wa_phone_numbers, uuid[], text[], uuid[], timestamptz[], text[], uuid[]
) FROM PUBLIC;
$wa_script$, 'd9e87aad9d403e10f734748796bce80e657ac485b7452d017280e5fe5529c482', ARRAY['function _wa_lane_block', 'function _wa_pick_due', 'function _wa_claim_lane', 'function _wa_write_lane_state', 'function _wa_charge_organization', 'function _wa_set_aside']::text[]),
(30, 'api', 'api/claim_grant.sql', $wa_script$-- The verdict on each picked row, and the granting of those that may go.

-- Meta's pair rate (About the platform): one message in 6 seconds to a recipient; up to 45 at once are
-- borrowed from the time after, which has to pass before the next. A burst is given 5 seconds, and a debt a
-- quarter of a second more, so that what arrives late at the provider is still inside.
CREATE OR REPLACE FUNCTION _wa_weigh_due(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_ids uuid[],
    p_contact_ids bigint[], p_template_ids uuid[], p_classes smallint[], p_now timestamptz,
    OUT granted uuid[], OUT granted_contacts bigint[], OUT granted_templates uuid[],
    OUT granted_classes smallint[], OUT granted_open boolean[], OUT metered integer, OUT failed uuid[],
    OUT fail_codes text[],
    OUT held uuid[], OUT held_until timestamptz[], OUT hold_reasons text[], OUT converted uuid[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_tier_limit integer;
    v_tier_room integer;
    v_tier_free_at timestamptz;
BEGIN
    SELECT f.tier_limit INTO v_tier_limit FROM wa_portfolios f
    WHERE f.organization_id = (p_org).id AND f.portfolio_id = (p_number).portfolio_id;
    IF v_tier_limit IS NOT NULL THEN
        PERFORM FROM wa_portfolios f
        WHERE f.organization_id = (p_org).id AND f.portfolio_id = (p_number).portfolio_id FOR NO KEY UPDATE;
        SELECT v_tier_limit - count(*), min(u.last_at) + interval '24 hours' INTO v_tier_room, v_tier_free_at
        FROM wa_tier_usages u
        WHERE u.organization_id = (p_org).id AND u.portfolio_id = (p_number).portfolio_id
            AND u.last_at > p_now - interval '24 hours';
    END IF;
    WITH judged AS MATERIALIZED (
        -- A row that its owner changes at this moment is skipped, never waited for; so is one moved since it
        -- was picked.
        SELECT j.*, p_classes[j.place] AS class, q.expires_at <= p_now AS is_expired,
            q.fallback_template_name IS NOT NULL AS has_fallback
        FROM _wa_judge(
            (p_org).id, p_ids, array_fill((p_number).id, ARRAY[cardinality(p_ids)]), p_contact_ids,
            p_template_ids, (p_org).window_margin, p_now
        ) j
        CROSS JOIN LATERAL (
            SELECT x.expires_at, x.fallback_template_name FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = j.queue_id AND x.status = 'pending'
                AND x.scheduled_at <= p_now
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) q
    ),
    sorted AS (
        SELECT j.*,
            CASE
                WHEN j.is_expired THEN 'fail'
                WHEN j.refusal = 'window_closed' AND j.has_fallback THEN 'convert'
                WHEN j.refusal IS NOT NULL THEN 'fail'
                WHEN j.hold_until IS NOT NULL THEN 'hold'
                ELSE 'go'
            END AS first_verdict
        FROM judged j
    ),
    paired AS (
        SELECT s.*, r.clear_at, f.is_awaited, b.is_behind, r.wait_until,
            row_number() OVER (PARTITION BY s.contact_id, s.first_verdict ORDER BY s.place) AS k,
            least(
                CASE
                    WHEN r.contact_id IS NULL OR r.clear_at + interval '250 milliseconds' <= p_now THEN 45
                    WHEN p_now < r.burst_started_at + interval '5 seconds' THEN 45 - r.burst_count
                    ELSE 0
                END,
                CASE WHEN (p_org).order_mode = 'delivered' THEN 1 END
            ) AS allowed
        FROM sorted s
        LEFT JOIN LATERAL (
            SELECT x.contact_id, x.clear_at, x.burst_started_at, x.burst_count, x.wait_until
            FROM wa_pair_rates x
            WHERE x.organization_id = (p_org).id AND x.number_id = (p_number).id
                AND x.contact_id = s.contact_id LIMIT 1
        ) r ON true
        -- Another dispatcher, or ours since a while, has an earlier message to this recipient in flight.
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM wa_queue_inflight i
                WHERE i.contact_id = s.contact_id AND i.number_id = (p_number).id
                    AND i.organization_id = (p_org).id AND (i.class + 1) / 2 = (s.class + 1) / 2
                    AND NOT i.is_unknown AND (
                        i.dispatcher_id <> p_dispatcher_id
                        OR i.claimed_at < p_now - interval '500 milliseconds'
                    )
            ) AS is_awaited
        ) f
        -- An earlier one is due but was not picked: it was handed back, committed late, or waits itself for
        -- one before it. One that waits for the organization's minute holds up only its like.
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM (
                    -- OFFSET keeps the other conditions outside, so that only the contact's index can serve.
                    SELECT x.organization_id, x.number_id, x.class, x.queue_id, x.due_at, x.hold_reason
                    FROM wa_queue_due x
                    WHERE x.contact_id = s.contact_id
                    OFFSET 0
                ) e
                WHERE e.organization_id = (p_org).id AND e.number_id = (p_number).id
                    AND (e.class + 1) / 2 = (s.class + 1) / 2 AND e.queue_id < s.queue_id
                    AND (e.due_at <= p_now OR e.hold_reason = 'in_order')
                    AND (e.class <= s.class OR (p_org).rate_limit_per_minute IS NULL)
                    AND NOT e.queue_id = ANY (p_ids)
            ) AS is_behind
        ) b
    ),
    timed AS (
        SELECT p.*,
            CASE
                WHEN p.first_verdict <> 'go' THEN p.first_verdict
                WHEN p.is_awaited OR p.is_behind OR p.wait_until > p_now OR p.k > p.allowed
                    THEN 'hold'
                ELSE 'go'
            END AS second_verdict,
            CASE
                WHEN p.first_verdict = 'hold' THEN p.hold_until
                -- Its completion lets go of this one; the second is for one that was being recorded
                -- meanwhile.
                WHEN p.is_awaited OR p.is_behind THEN p_now + interval '1 second'
                WHEN p.wait_until > p_now THEN p.wait_until
                WHEN (p_org).order_mode = 'delivered' AND p.allowed > 0 THEN p_now + (p_org).order_wait
                ELSE greatest(p.clear_at, p_now) + interval '250 milliseconds'
                    + interval '6 seconds' * (p.allowed + (p.k - p.allowed - 1))
            END AS wait_to,
            CASE
                WHEN p.first_verdict = 'hold' THEN p.hold_reason
                WHEN p.is_awaited OR p.is_behind OR p.wait_until > p_now THEN 'in_order'
                WHEN (p_org).order_mode = 'delivered' AND p.allowed > 0 THEN 'in_order'
                ELSE 'recipient_rate'
            END AS wait_reason
        FROM paired p
    ),
    tiered AS (
        SELECT t.*, n.slot
        FROM timed t
        LEFT JOIN (
            SELECT x.contact_id, row_number() OVER (ORDER BY min(x.place)) AS slot
            FROM timed x
            WHERE x.second_verdict = 'go' AND x.template_id IS NOT NULL AND NOT x.is_within_24h
                AND v_tier_limit IS NOT NULL
                AND NOT EXISTS (
                    SELECT FROM (
                        SELECT k.last_at FROM wa_tier_usages k
                        WHERE k.organization_id = (p_org).id AND k.portfolio_id = (p_number).portfolio_id
                            AND k.contact_id = x.contact_id
                        OFFSET 0
                    ) u
                    WHERE u.last_at > p_now - interval '24 hours'
                )
            GROUP BY x.contact_id
        ) n ON n.contact_id = t.contact_id AND t.second_verdict = 'go' AND t.template_id IS NOT NULL
            AND NOT t.is_within_24h
    ),
    final AS (
        SELECT t.queue_id, t.place, t.contact_id, t.template_id, t.class, t.is_within_24h, t.refusal,
            t.is_expired,
            CASE WHEN t.slot > v_tier_room THEN 'hold' ELSE t.second_verdict END AS verdict,
            CASE WHEN t.slot > v_tier_room THEN greatest(v_tier_free_at, p_now + interval '1 minute')
                ELSE t.wait_to END AS wait_to,
            CASE WHEN t.slot > v_tier_room THEN 'messaging_limit' ELSE t.wait_reason END AS wait_reason
        FROM tiered t
    )
    SELECT
        array_agg(f.queue_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.contact_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.template_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.class ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.is_within_24h ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        count(*) FILTER (WHERE f.verdict = 'go' AND f.class % 2 = 0),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'fail'),
        array_agg(CASE WHEN f.is_expired THEN 'expired' ELSE f.refusal END) FILTER (WHERE f.verdict = 'fail'),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.wait_to) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.wait_reason) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'convert')
    INTO granted, granted_contacts, granted_templates, granted_classes, granted_open, metered, failed,
        fail_codes, held, held_until, hold_reasons, converted
    FROM final f;
END
$$;

COMMENT ON FUNCTION _wa_weigh_due(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], timestamptz
) IS
'Internal: divides picked rows into granted, failed (expired or refused), held (with reason and time) and '
'those to be turned into their fall-back template. Locks the queue rows.';

CREATE OR REPLACE FUNCTION _wa_grant(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_ids uuid[],
    p_contact_ids bigint[], p_template_ids uuid[], p_classes smallint[], p_open boolean[], p_now timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    -- Contacts in one order everywhere: lanes of one portfolio can charge the same recipients, no deadlock.
    INSERT INTO wa_pair_rates AS r (
        organization_id, number_id, contact_id, burst_started_at, burst_count, clear_at
    )
    SELECT (p_org).id, (p_number).id, u.contact_id, p_now, count(*), p_now + interval '6 seconds' * count(*)
    FROM unnest(p_contact_ids) u (contact_id)
    GROUP BY u.contact_id
    ORDER BY u.contact_id
    ON CONFLICT (organization_id, number_id, contact_id) DO UPDATE SET
        burst_started_at = CASE WHEN r.clear_at <= p_now THEN p_now ELSE r.burst_started_at END,
        burst_count = CASE WHEN r.clear_at <= p_now THEN 0 ELSE r.burst_count END + excluded.burst_count,
        clear_at = greatest(r.clear_at, p_now) + interval '6 seconds' * excluded.burst_count,
        wait_until = NULL;

    INSERT INTO wa_tier_usages (organization_id, portfolio_id, contact_id, last_at)
    SELECT DISTINCT (p_org).id, (p_number).portfolio_id, u.contact_id, p_now
    FROM unnest(p_contact_ids, p_template_ids, p_open) u (contact_id, template_id, is_open)
    WHERE u.template_id IS NOT NULL AND NOT u.is_open
    ORDER BY u.contact_id
    ON CONFLICT (organization_id, portfolio_id, contact_id) DO UPDATE SET last_at = excluded.last_at;

    DELETE FROM wa_queue_due d WHERE d.organization_id = (p_org).id AND d.queue_id = ANY (p_ids);

    RETURN QUERY
    WITH granted AS MATERIALIZED (
        SELECT u.*, q.tid
        FROM unnest(p_ids, p_contact_ids, p_template_ids, p_classes, p_open)
            WITH ORDINALITY u (id, contact_id, template_id, class, is_open, place)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS tid FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
        ) q
    ),
    marked AS (
        UPDATE wa_outbound_queue q
        SET status = 'sending', claimed_at = p_now, attempt = q.attempt + 1, contact_id = g.contact_id,
            change_no = q.change_no + 1
        FROM granted g
        WHERE q.ctid = g.tid
        RETURNING q.*, g.template_id, g.class, g.is_open, g.place
    ),
    leased AS (
        INSERT INTO wa_queue_inflight (
            organization_id, queue_id, attempt, number_id, contact_id, class, dispatcher_id, claimed_at,
            is_within_24h, template_id, deadline_at
        )
        SELECT (p_org).id, m.id, m.attempt, (p_number).id, m.contact_id, m.class, p_dispatcher_id, p_now,
            m.is_open, m.template_id, p_now + interval '60 seconds'
        FROM marked m
    )
    SELECT
        (p_org).id, m.id, m.attempt, (p_number).id || ':' || m.contact_id || ':' || (m.class + 1) / 2,
        (p_number).phone_number_id, (p_number).provider,
        CASE (p_number).provider WHEN '360dialog' THEN '/messages'
            ELSE '/' || (p_number).phone_number_id || '/messages' END,
        _wa_build_request(
            m.id, m.attempt, m.phone, m.type, m.text_body, m.content, m.reply_to,
            CASE WHEN m.type = 'template' THEN m.template_params ELSE m.fallback_template_params END,
            (SELECT p FROM wa_templates p WHERE p.organization_id = (p_org).id AND p.id = m.template_id)
        )::text,
        30::double precision
    FROM marked m
    ORDER BY m.place;
END
$$;

COMMENT ON FUNCTION _wa_grant(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], boolean[], timestamptz
) IS
'Internal: moves granted rows from due to in flight, charges pair rate and messaging limit, returns their '
'requests.';

-- Body of POST /{phone_number_id}/messages (Cloud API, Send messages).
CREATE OR REPLACE FUNCTION _wa_build_request(
    p_id uuid, p_attempt integer, p_phone text, p_type text, p_text_body text, p_content jsonb,
    p_reply_to text, p_params jsonb, p_template wa_templates
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_type text := CASE WHEN (p_template).id IS NULL THEN p_type ELSE 'template' END;
    v_message jsonb;
    v_components jsonb;
BEGIN
    IF v_type = 'text' THEN
        v_message := coalesce(p_content, '{}') || jsonb_build_object('body', p_text_body);
    ELSIF v_type = 'template' THEN
        v_components := CASE WHEN p_type = 'template' AND p_content ? 'components'
            THEN p_content -> 'components'
            ELSE _wa_template_components(p_template, p_params) END;
        v_message := jsonb_build_object(
            'name', lower((p_template).name), 'language', jsonb_build_object('code', (p_template).language)
        );
        IF jsonb_array_length(v_components) > 0 THEN
            v_message := v_message || jsonb_build_object('components', v_components);
        END IF;
    ELSE
        v_message := p_content;
    END IF;
    RETURN jsonb_build_object(
        'messaging_product', 'whatsapp', 'recipient_type', 'individual',
        CASE WHEN left(p_phone, 1) = '+' THEN 'to' ELSE 'recipient' END, p_phone,
        'type', v_type, v_type, v_message,
        'biz_opaque_callback_data', 'q:' || p_id || ':' || p_attempt
    ) || CASE WHEN p_reply_to IS NULL OR v_type = 'reaction' THEN '{}'::jsonb
        ELSE jsonb_build_object('context', jsonb_build_object('message_id', p_reply_to)) END;
END
$$;

COMMENT ON FUNCTION _wa_build_request(uuid, integer, text, text, text, jsonb, text, jsonb, wa_templates) IS
'Internal: the request body of one message. Callback data carries the queue id and the attempt.';

REVOKE ALL ON FUNCTION _wa_weigh_due(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], timestamptz
),
_wa_grant(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], boolean[], timestamptz
),
_wa_build_request(uuid, integer, text, text, text, jsonb, text, jsonb, wa_templates) FROM PUBLIC;
$wa_script$, '1f068a898e692c5075fd8115afe18d6999237256b885d51d7452cf54c5014734', ARRAY['function _wa_weigh_due', 'function _wa_grant', 'function _wa_build_request']::text[]),
(31, 'api', 'api/complete.sql', $wa_script$-- What the provider answered. Results come in batches; each is recorded once, by queue id and attempt.

CREATE OR REPLACE FUNCTION complete_wa_messages(p_dispatcher_id uuid, p_results jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    v_org uuid;
    v_recorded integer := 0;
BEGIN
    -- Who reports is alive, also where its heartbeat is late.
    UPDATE wa_dispatchers SET seen_at = clock_timestamp()
    WHERE id = p_dispatcher_id AND seen_at < clock_timestamp() - interval '5 seconds';
    FOR v_org IN SELECT DISTINCT (r ->> 'org')::uuid FROM jsonb_array_elements(p_results) r ORDER BY 1 LOOP
        v_recorded := v_recorded + _wa_complete_organization(v_org, p_results);
    END LOOP;
    RETURN v_recorded;
END
$$;

COMMENT ON FUNCTION complete_wa_messages(uuid, jsonb) IS
'Records what became of claimed messages: [{"id", "org", "attempt", "outcome", "status", "answer", '
'"retry_after", "error"}]. outcome: answered, not_sent, unknown or not_started. Results that '
'were recorded before are passed over; returns how many were not.';

-- The answer's meaning, before anything is written. A 2xx answer without a message id may still be an
-- accepted message.
CREATE OR REPLACE FUNCTION _wa_read_result(
    p_result jsonb, OUT verdict text, OUT wamid text, OUT state text, OUT wa_id text, OUT code integer,
    OUT error text, OUT max_retries integer, OUT wait interval
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_answer jsonb := p_result -> 'answer';
    v_status integer := (p_result ->> 'status')::integer;
    v_rule wa_error_rules;
BEGIN
    CASE p_result ->> 'outcome'
        WHEN 'not_started' THEN
            verdict := 'not_started';
        WHEN 'not_sent' THEN
            verdict := 'retry';
            error := 'could not reach the provider: ' || coalesce(p_result ->> 'error', 'no connection');
        WHEN 'unknown' THEN
            verdict := 'unknown';
            error := 'no answer: ' || coalesce(p_result ->> 'error', 'connection lost');
        ELSE
            wamid := v_answer #>> '{messages,0,id}';
            IF v_status BETWEEN 200 AND 299 AND wamid IS NOT NULL THEN
                verdict := 'accepted';
                state := CASE WHEN v_answer #>> '{messages,0,message_status}' = 'held_for_quality_assessment'
                    THEN 'held' ELSE 'accepted' END;
                wa_id := v_answer #>> '{contacts,0,wa_id}';
                RETURN;
            END IF;
            wamid := NULL;
            IF v_answer #>> '{error,code}' ~ '^\d{1,9}$' THEN
                code := (v_answer #>> '{error,code}')::integer;
            END IF;
            SELECT * INTO v_rule FROM classify_wa_error(code, v_status);
            verdict := v_rule.action;
            max_retries := v_rule.max_retries;
            wait := v_rule.wait;
            error := coalesce(
                v_answer #>> '{error,error_data,details}', v_answer #>> '{error,message}',
                'HTTP status ' || v_status
            );
    END CASE;
    IF (p_result ->> 'retry_after')::double precision > 0 THEN
        wait := greatest(
            wait, make_interval(secs => least((p_result ->> 'retry_after')::double precision, 86400))
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_read_result(jsonb) IS
'Internal: what one result means: accepted, not_started, unknown, or an action of wa_error_rules.';

CREATE OR REPLACE FUNCTION _wa_complete_organization(p_org uuid, p_results jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_done record;
    v_messages bigint[];
BEGIN
    -- The queue row's lock decides against an echo that settles the same row at this moment; the in-flight
    -- row tells whether this attempt is still open. An answer that comes after we gave up on it is welcome
    -- too.
    SELECT
        count(*)::integer AS recorded,
        array_agg(x.id) FILTER (WHERE x.verdict = 'accepted') AS accepted,
        array_agg(x.wamid) FILTER (WHERE x.verdict = 'accepted') AS wamids,
        array_agg(x.state) FILTER (WHERE x.verdict = 'accepted') AS states,
        array_agg(x.contact_id)
            FILTER (WHERE x.verdict = 'accepted' AND x.wa_id <> ltrim(x.phone, '+')) AS learners,
        array_agg(x.wa_id) FILTER (WHERE x.verdict = 'accepted' AND x.wa_id <> ltrim(x.phone, '+')) AS wa_ids,
        array_agg(x.id) FILTER (WHERE x.verdict = 'not_started') AS unstarted,
        array_agg(x.id) FILTER (WHERE x.verdict = 'unknown') AS unknown,
        array_agg(x.error) FILTER (WHERE x.verdict = 'unknown') AS unknown_errors,
        array_agg(x.contact_id) AS contacts,
        jsonb_agg(jsonb_build_object(
            'id', x.id, 'verdict', x.verdict, 'code', x.code, 'error', x.error, 'max_retries', x.max_retries,
            'wait_s', extract(epoch FROM x.wait), 'retry_count', x.retry_count, 'number_id', x.number_id,
            'contact_id', x.contact_id, 'template_id', x.template_id, 'class', x.class,
            'expires_at', x.expires_at,
            'has_fallback', x.has_fallback, 'is_open', x.is_open
        )) FILTER (WHERE x.verdict NOT IN ('accepted', 'not_started', 'unknown')) AS refused
    INTO v_done
    FROM (
        SELECT q.id, q.phone, q.retry_count, q.expires_at,
            q.fallback_template_name IS NOT NULL AND i.template_id IS NULL AS has_fallback,
            i.number_id, coalesce(i.contact_id, q.contact_id) AS contact_id, i.template_id, i.class,
            i.queue_id IS NOT NULL AS is_open, r.*
        FROM (SELECT r.value AS e FROM jsonb_array_elements(p_results) r ORDER BY r.value ->> 'id') s
        CROSS JOIN LATERAL (
            SELECT x.* FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = (e ->> 'id')::uuid
                AND x.attempt = (e ->> 'attempt')::integer
            LIMIT 1
            FOR NO KEY UPDATE
        ) q
        LEFT JOIN LATERAL (
            SELECT x.* FROM wa_queue_inflight x
            WHERE x.organization_id = p_org AND x.queue_id = q.id AND x.attempt = q.attempt
            LIMIT 1
        ) i ON true
        CROSS JOIN LATERAL _wa_read_result(e) r
        WHERE (e ->> 'org')::uuid = p_org
            -- After a wait for the lock q is new and i still old: the status tells what was recorded
            -- meanwhile.
            AND ((i.queue_id IS NOT NULL AND q.status = 'sending')
                OR (r.verdict = 'accepted' AND q.wa_message_id IS NULL))
    ) x;
    IF v_done.recorded = 0 THEN
        RETURN 0;
    END IF;

    IF v_done.accepted IS NOT NULL THEN
        v_messages := _wa_finish_messages(
            p_org, v_done.accepted, v_done.wamids, v_done.states,
            array_fill(NULL::text, ARRAY[cardinality(v_done.accepted)]),
            array_fill(NULL::text, ARRAY[cardinality(v_done.accepted)])
        );
        PERFORM _wa_attach_early_statuses(p_org, v_messages);
        IF v_done.learners IS NOT NULL THEN
            PERFORM _wa_learn_wa_id(p_org, v_done.learners, v_done.wa_ids);
        END IF;
        PERFORM _wa_hold_for_delivery(p_org, v_messages, v_now);
    END IF;
    IF v_done.unstarted IS NOT NULL THEN
        PERFORM _wa_refund_pairs(p_org, v_done.unstarted);
        PERFORM _wa_requeue(p_org, v_done.unstarted, NULL, NULL, false);
    END IF;
    IF v_done.unknown IS NOT NULL THEN
        PERFORM _wa_await_outcome(p_org, v_done.unknown, v_done.unknown_errors);
    END IF;
    IF v_done.refused IS NOT NULL THEN
        PERFORM _wa_answer_errors(p_org, v_done.refused, v_now);
    END IF;
    PERFORM _wa_release_in_order(p_org, v_done.contacts);
    RETURN v_done.recorded;
END
$$;

COMMENT ON FUNCTION _wa_complete_organization(uuid, jsonb) IS
'Internal: records the results of one organization; those of others in the batch are passed over.';

CREATE OR REPLACE FUNCTION _wa_release_in_order(p_org uuid, p_contact_ids bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    -- One time for all of them, so that they keep their order. The reason stays: a claim that began before
    -- that time must not take them for rows of the future and let later ones pass.
    WITH released AS MATERIALIZED (SELECT clock_timestamp() AS at)
    UPDATE wa_queue_due d SET due_at = released.at
    FROM released
    WHERE d.organization_id = p_org AND d.contact_id = ANY (p_contact_ids) AND d.hold_reason = 'in_order'
        AND d.due_at > released.at
        AND NOT EXISTS (
            SELECT FROM wa_pair_rates r
            WHERE r.organization_id = p_org AND r.number_id = d.number_id AND r.contact_id = d.contact_id
                AND r.wait_until > clock_timestamp()
        )
$$;

COMMENT ON FUNCTION _wa_release_in_order(uuid, bigint[]) IS
'Internal: lets go of rows that waited for an earlier message to the same recipient.';

CREATE OR REPLACE FUNCTION _wa_refund_pairs(p_org uuid, p_ids uuid[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_pair_rates r
    SET clear_at = r.clear_at - interval '6 seconds' * i.n, burst_count = greatest(0, r.burst_count - i.n)
    FROM (
        SELECT f.number_id, f.contact_id, count(*)::integer AS n FROM wa_queue_inflight f
        WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids)
        GROUP BY f.number_id, f.contact_id
    ) i
    WHERE r.organization_id = p_org AND r.number_id = i.number_id AND r.contact_id = i.contact_id
$$;

COMMENT ON FUNCTION _wa_refund_pairs(uuid, uuid[]) IS
'Internal: gives back the pair rate of rows that were granted but never started.';

CREATE OR REPLACE FUNCTION _wa_hold_for_delivery(p_org uuid, p_message_ids bigint[], p_now timestamptz)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_pair_rates r SET wait_until = p_now + o.order_wait
    FROM wa_organizations o, wa_messages m
    WHERE o.id = p_org AND o.order_mode = 'delivered'
        AND m.organization_id = p_org AND m.id = ANY (p_message_ids)
        AND m.state IN ('accepted', 'held', 'sent')
        AND r.organization_id = p_org AND r.number_id = m.number_id AND r.contact_id = m.contact_id
$$;

COMMENT ON FUNCTION _wa_hold_for_delivery(uuid, bigint[], timestamptz) IS
'Internal: where the organization wants it, makes the next message to a recipient wait until this one is '
'delivered.';

-- Called by the statuses room: a delivery, or a failure, frees the next message to the recipient.
CREATE OR REPLACE FUNCTION _wa_release_after_status(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM wa_organizations o WHERE o.id = p_org AND o.order_mode = 'delivered') THEN
        RETURN;
    END IF;
    UPDATE wa_pair_rates r SET wait_until = NULL
    FROM wa_messages m
    WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids)
        AND m.state IN ('delivered', 'read', 'played', 'failed')
        AND r.organization_id = p_org AND r.number_id = m.number_id AND r.contact_id = m.contact_id;
    PERFORM _wa_release_in_order(p_org, array_agg(m.contact_id)) FROM wa_messages m
    WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids);
    PERFORM _wa_notify_dispatchers();
END
$$;

COMMENT ON FUNCTION _wa_release_after_status(uuid, bigint[]) IS
'Internal: frees what waited for the delivery of the given messages.';

-- due_at stays what it was for a row that was handed back, so that it keeps its place before later ones.
CREATE OR REPLACE FUNCTION _wa_requeue(
    p_org uuid, p_ids uuid[], p_due_at timestamptz[], p_errors text[], p_is_retry boolean
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH again AS (
        SELECT * FROM unnest(p_ids, p_due_at, p_errors) u (id, due_at, error)
    ),
    landed AS (
        DELETE FROM wa_queue_inflight i USING again a
        WHERE i.organization_id = p_org AND i.queue_id = a.id
        RETURNING i.queue_id, i.number_id, i.contact_id, i.class, i.template_id, a.due_at, a.error
    ),
    reset AS (
        UPDATE wa_outbound_queue q
        SET status = 'pending', retry_count = q.retry_count + p_is_retry::integer,
            last_error = coalesce(l.error, q.last_error),
            claimed_at = CASE WHEN p_is_retry THEN q.claimed_at END, change_no = q.change_no + 1
        FROM landed l
        WHERE q.organization_id = p_org AND q.id = l.queue_id
        RETURNING q.id, q.scheduled_at
    )
    INSERT INTO wa_queue_due (
        organization_id, number_id, class, due_at, queue_id, contact_id, template_id, hold_reason
    )
    SELECT p_org, l.number_id, l.class, coalesce(l.due_at, r.scheduled_at), l.queue_id, l.contact_id,
        l.template_id, CASE WHEN l.due_at IS NOT NULL THEN 'retry' END
    FROM landed l JOIN reset r ON r.id = l.queue_id
$$;

COMMENT ON FUNCTION _wa_requeue(uuid, uuid[], timestamptz[], text[], boolean) IS
'Internal: puts rows in flight back into the queue: at a later time with an error, or at once and uncounted '
'when they were never started.';

CREATE OR REPLACE FUNCTION _wa_await_outcome(p_org uuid, p_ids uuid[], p_errors text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH doubtful AS (
        UPDATE wa_queue_inflight i
        SET is_unknown = true, deadline_at = i.claimed_at + o.unknown_grace
        FROM wa_organizations o
        WHERE o.id = p_org AND i.organization_id = p_org AND i.queue_id = ANY (p_ids)
        RETURNING i.queue_id
    )
    UPDATE wa_outbound_queue q SET last_error = u.error, change_no = q.change_no + 1
    FROM unnest(p_ids, p_errors) u (id, error), doubtful d
    WHERE q.organization_id = p_org AND q.id = u.id AND d.queue_id = u.id
$$;

COMMENT ON FUNCTION _wa_await_outcome(uuid, uuid[], text[]) IS
'Internal: marks rows whose outcome is unknown; a status webhook settles them, or maintain_wa_dispatch() '
'after the grace.';

REVOKE ALL ON FUNCTION complete_wa_messages(uuid, jsonb), _wa_read_result(jsonb),
_wa_complete_organization(uuid, jsonb), _wa_release_in_order(uuid, bigint[]), _wa_refund_pairs(uuid, uuid[]),
_wa_hold_for_delivery(uuid, bigint[], timestamptz),
_wa_release_after_status(uuid, bigint[]), _wa_requeue(uuid, uuid[], timestamptz[], text[], boolean),
_wa_await_outcome(uuid, uuid[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION complete_wa_messages(uuid, jsonb) TO wa_dispatcher;
$wa_script$, '7a134ac0ee002770f0bd9e83a1ec6f3e53ffc2da8312e320fd792a5b46b199fe', ARRAY['function complete_wa_messages', 'function _wa_read_result', 'function _wa_complete_organization', 'function _wa_release_in_order', 'function _wa_refund_pairs', 'function _wa_hold_for_delivery', 'function _wa_release_after_status', 'function _wa_requeue', 'function _wa_await_outcome']::text[]),
(32, 'api', 'api/failures.sql', $wa_script$-- What follows from an error of the provider, and from no answer at all.

CREATE OR REPLACE FUNCTION _wa_answer_errors(p_org uuid, p_errors jsonb, p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_error record;
    v_due timestamptz;
    v_fails boolean;
BEGIN
    -- Row by row: errors are rare, each has consequences of its own, and their order does not matter.
    FOR v_error IN
        SELECT * FROM jsonb_to_recordset(p_errors) AS e (
            id uuid, verdict text, code integer, error text, max_retries integer, wait_s double precision,
            retry_count integer, number_id bigint, contact_id bigint, template_id uuid, class smallint,
            expires_at timestamptz, has_fallback boolean, is_open boolean
        )
        WHERE e.is_open
    LOOP
        v_due := greatest(
            p_now + _wa_backoff(v_error.retry_count + 1, random()),
            p_now + make_interval(secs => coalesce(v_error.wait_s, 0))
        );
        CASE v_error.verdict
            WHEN 'wait_number' THEN
                v_due := p_now + make_interval(
                    secs => coalesce(v_error.wait_s, 1) * power(2, least(v_error.retry_count, 8))
                );
                PERFORM _wa_pause_number(p_org, v_error.number_id, 'number', v_error.error, v_due);
            WHEN 'wait_account' THEN
                v_due := p_now + make_interval(secs => coalesce(v_error.wait_s, 300));
                PERFORM _wa_pause_number(p_org, v_error.number_id, 'account', v_error.error, v_due);
            WHEN 'wait_recipient' THEN
                -- Meta asks for 4^n seconds.
                v_due := greatest(
                    p_now + make_interval(secs => least(power(4, v_error.retry_count + 1), 3600)), v_due
                );
                UPDATE wa_pair_rates r SET clear_at = greatest(r.clear_at, v_due), burst_count = 45
                WHERE r.organization_id = p_org AND r.number_id = v_error.number_id
                    AND r.contact_id = v_error.contact_id;
            WHEN 'pause_number', 'pause_account', 'pause_token' THEN
                PERFORM _wa_pause_number(
                    p_org, v_error.number_id, replace(v_error.verdict, 'pause_', ''),
                    format('%s (code %s)', v_error.error, v_error.code),
                    p_now + make_interval(secs => v_error.wait_s)
                );
                v_due := p_now;
            WHEN 'opt_out' THEN
                PERFORM _wa_opt_out_contacts(
                    p_org, ARRAY[v_error.contact_id], 'marketing', v_error.error, 'provider'
                );
            WHEN 'stop_template' THEN
                UPDATE wa_templates t
                SET blocked_reason = format('%s (code %s)', v_error.error, v_error.code), blocked_at = p_now,
                    blocked_until = p_now + make_interval(secs => v_error.wait_s)
                WHERE t.organization_id = p_org AND t.id = v_error.template_id;
            WHEN 'need_template' THEN
                UPDATE wa_conversation_windows w SET window_denied_at = p_now
                WHERE w.organization_id = p_org AND w.number_id = v_error.number_id
                    AND w.contact_id = v_error.contact_id;
                v_due := p_now;
            ELSE NULL;
        END CASE;
        v_fails := v_error.verdict IN ('fail', 'fail_recipient', 'opt_out', 'stop_template')
            OR (v_error.verdict = 'need_template' AND NOT v_error.has_fallback)
            OR v_error.retry_count >= v_error.max_retries
            OR (v_error.expires_at <= v_due AND v_error.verdict NOT LIKE 'pause%');
        IF v_fails THEN
            PERFORM _wa_fail_messages(
                p_org, ARRAY[v_error.id],
                CASE
                    WHEN v_error.verdict = 'need_template' THEN 'window_closed'
                    WHEN v_error.code IS NULL AND v_error.verdict = 'fail' THEN 'refused'
                    ELSE coalesce(v_error.code::text, 'expired')
                END,
                v_error.error
            );
        ELSE
            PERFORM _wa_requeue(p_org, ARRAY[v_error.id], ARRAY[v_due], ARRAY[v_error.error], true);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_answer_errors(uuid, jsonb, timestamptz) IS
'Internal: applies the actions of wa_error_rules to refused messages.';

CREATE OR REPLACE FUNCTION maintain_wa_dispatch(p_dispatcher_id uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_late record;
    v_lost bigint := 0;
    v_settled bigint := 0;
BEGIN
    UPDATE wa_dispatchers SET seen_at = clock_timestamp(), stopped_at = NULL WHERE id = p_dispatcher_id;
    -- The schema may have been upgraded beneath a running process.
    PERFORM _wa_require_version(d.version) FROM wa_dispatchers d WHERE d.id = p_dispatcher_id;
    -- One process at a time is enough, and keeps two from settling the same rows.
    IF NOT pg_try_advisory_xact_lock(_wa_gate() + 1) THEN
        RETURN '{}';
    END IF;
    PERFORM _wa_require_installation();
    FOR v_org IN
        SELECT i.organization_id AS id, array_agg(i.queue_id) AS queue_ids
        FROM (SELECT * FROM wa_queue_inflight i WHERE i.deadline_at <= clock_timestamp() LIMIT 1000) i
        GROUP BY i.organization_id
    LOOP
        -- Queue rows are locked first, as everywhere: an answer or an echo that is being recorded is waited
        -- for, and what is read after the lock knows of it.
        PERFORM FROM wa_outbound_queue q
        WHERE q.organization_id = v_org.id AND q.id = ANY (v_org.queue_ids)
        ORDER BY q.id
        FOR NO KEY UPDATE;
        SELECT array_agg(i.queue_id) FILTER (WHERE NOT i.is_unknown) AS lost,
            array_agg(i.queue_id) FILTER (WHERE i.is_unknown) AS unknown
        INTO v_late
        FROM wa_queue_inflight i
        WHERE i.organization_id = v_org.id AND i.queue_id = ANY (v_org.queue_ids)
            AND i.deadline_at <= clock_timestamp();
        IF v_late.lost IS NOT NULL THEN
            -- Its dispatcher died or lost us: the request may have left.
            PERFORM _wa_await_outcome(v_org.id, v_late.lost, array_fill(
                'the dispatcher did not report'::text, ARRAY[cardinality(v_late.lost)]));
            v_lost := v_lost + cardinality(v_late.lost);
        END IF;
        IF v_late.unknown IS NOT NULL THEN
            v_settled := v_settled + _wa_give_up_waiting(v_org.id, v_late.unknown, clock_timestamp());
        END IF;
    END LOOP;
    PERFORM _wa_expire_panics(clock_timestamp());
    PERFORM _wa_assign_numbers(o.organization_id)
    FROM (SELECT DISTINCT d.organization_id FROM wa_queue_due d WHERE d.number_id IS NULL) o;
    RETURN jsonb_build_object('lost', v_lost, 'settled', v_settled);
END
$$;

COMMENT ON FUNCTION maintain_wa_dispatch(uuid) IS
'A dispatcher''s heartbeat. Also: leases that ran out become outcome unknown, and unknown outcomes whose '
'grace is over are failed or, where the row asks for it, sent again.';

CREATE OR REPLACE FUNCTION _wa_give_up_waiting(p_org uuid, p_ids uuid[], p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ripe record;
BEGIN
    -- While the number's webhooks arrive, their silence about a message tells something; else a long wait.
    UPDATE wa_queue_inflight i
    SET deadline_at = least(
        i.claimed_at + o.unknown_grace_silent, p_now + greatest(o.unknown_grace / 10, '1 second')
    )
    FROM wa_phone_numbers n, wa_organizations o
    WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids) AND o.id = p_org
        AND n.organization_id = p_org AND n.id = i.number_id
        AND (
            coalesce(n.last_webhook_at, '-infinity') <= i.claimed_at
            -- The echo may be among those that came in time and wait to be processed.
            OR EXISTS (
                SELECT FROM wa_webhook_logs l WHERE l.status = 'pending' AND l.received_at <= i.deadline_at
            )
        )
        AND i.claimed_at + o.unknown_grace_silent > p_now;
    SELECT
        array_agg(q.id) FILTER (WHERE NOT x.retries) AS failed,
        array_agg(q.id) FILTER (WHERE x.retries) AS retried,
        count(*)::integer AS total
    INTO v_ripe
    FROM wa_queue_inflight i
    JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = i.queue_id
    JOIN wa_organizations o ON o.id = p_org
    CROSS JOIN LATERAL (
        SELECT coalesce(q.on_unknown, o.on_unknown) = 'retry'
            AND coalesce(q.expires_at, 'infinity') > p_now AS retries
    ) x
    WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids) AND i.is_unknown AND i.deadline_at <= p_now;
    IF v_ripe.retried IS NOT NULL THEN
        PERFORM _wa_requeue(
            p_org, v_ripe.retried, array_fill(p_now, ARRAY[cardinality(v_ripe.retried)]),
            array_fill('outcome unknown, sent again'::text, ARRAY[cardinality(v_ripe.retried)]), true
        );
    END IF;
    PERFORM _wa_fail_messages(
        p_org, v_ripe.failed, 'outcome_unknown',
        'no answer and no status webhook: it may have arrived; a status that comes later corrects this'
    );
    RETURN v_ripe.total;
END
$$;

COMMENT ON FUNCTION _wa_give_up_waiting(uuid, uuid[], timestamptz) IS
'Internal: ends the wait for unknown outcomes whose grace is over.';

CREATE OR REPLACE FUNCTION get_wa_next_due() RETURNS TABLE (next_due_at timestamptz, is_contended boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT
        least(
            min(b.held_until),
            (
                SELECT min(d.due_at)
                FROM wa_lanes l
                CROSS JOIN generate_series(1, 6) c (class)
                CROSS JOIN LATERAL (
                    SELECT d.due_at FROM wa_queue_due d
                    WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                        AND d.class = c.class
                        AND d.due_at > clock_timestamp()
                    ORDER BY d.due_at LIMIT 1
                ) d
            ),
            (
                -- Due, but behind the cursor of its lane: handed back, or committed late.
                SELECT min(s.look_again_at)
                FROM wa_lanes l
                CROSS JOIN LATERAL _wa_lane_state(l.organization_id, l.number_id) s
                WHERE s.look_again_at > clock_timestamp() AND EXISTS (
                    SELECT FROM generate_series(1, 6) c (class)
                    CROSS JOIN LATERAL (
                        SELECT d.due_at FROM wa_queue_due d
                        WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                            AND d.class = c.class
                        ORDER BY d.due_at LIMIT 1
                    ) d
                    WHERE d.due_at <= clock_timestamp()
                )
            )
        ),
        coalesce(bool_or(b.held_until IS NULL), false)
    FROM _wa_busy_lanes(clock_timestamp()) b
$$;

COMMENT ON FUNCTION get_wa_next_due() IS
'When the next row becomes due or a held lane is free; is_contended: a lane has due rows that another '
'dispatcher may be claiming at this moment, so ask again soon.';

-- A claim whose answer was lost with the connection had committed all the same: what the dispatcher does not
-- hold was never started.
CREATE OR REPLACE FUNCTION release_wa_claims(p_dispatcher_id uuid, p_held uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_ids uuid[];
    v_released integer := 0;
BEGIN
    FOR v_org IN
        SELECT i.organization_id AS id, array_agg(i.queue_id ORDER BY i.queue_id) AS ids
        FROM wa_queue_inflight i
        WHERE i.dispatcher_id = p_dispatcher_id AND NOT i.is_unknown AND i.queue_id <> ALL (p_held)
        GROUP BY i.organization_id
        ORDER BY i.organization_id
    LOOP
        PERFORM FROM wa_outbound_queue q
        WHERE q.organization_id = v_org.id AND q.id = ANY (v_org.ids)
        ORDER BY q.id FOR NO KEY UPDATE;
        -- While the locks were waited for, a lease may have run out and the row gone to another dispatcher.
        SELECT array_agg(i.queue_id ORDER BY i.queue_id) INTO v_ids FROM wa_queue_inflight i
        WHERE i.organization_id = v_org.id AND i.queue_id = ANY (v_org.ids)
            AND i.dispatcher_id = p_dispatcher_id AND NOT i.is_unknown;
        CONTINUE WHEN v_ids IS NULL;
        PERFORM _wa_refund_pairs(v_org.id, v_ids);
        PERFORM _wa_requeue(v_org.id, v_ids, NULL, NULL, false);
        v_released := v_released + cardinality(v_ids);
    END LOOP;
    RETURN v_released;
END
$$;

COMMENT ON FUNCTION release_wa_claims(uuid, uuid[]) IS
'Hands back what a dispatcher was granted but does not hold, because the answer of its claim was lost; call '
'it before the next claim. Returns how many.';

REVOKE ALL ON FUNCTION _wa_answer_errors(uuid, jsonb, timestamptz), maintain_wa_dispatch(uuid),
_wa_give_up_waiting(uuid, uuid[], timestamptz), get_wa_next_due(), release_wa_claims(uuid, uuid[])
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintain_wa_dispatch(uuid), get_wa_next_due(), release_wa_claims(uuid, uuid[])
TO wa_dispatcher;
$wa_script$, 'd0ffb164eb05168c29b958d94960cbbb610d8069f68fc86e72ecae24b5960810', ARRAY['function _wa_answer_errors', 'function maintain_wa_dispatch', 'function _wa_give_up_waiting', 'function get_wa_next_due', 'function release_wa_claims']::text[]),
(33, 'api', 'api/health.sql', $wa_script$-- Why a message has not gone, what would be sent, and how the queue stands.

CREATE OR REPLACE FUNCTION _wa_explain(
    p_message wa_outbound_queue, OUT reason text, OUT held_until timestamptz, OUT explanation text,
    OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_org wa_organizations;
    v_due wa_queue_due;
    v_flight wa_queue_inflight;
    v_judged record;
    v_block record;
    v_state wa_lane_states;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = p_message.organization_id;
    SELECT d.* INTO v_due FROM wa_queue_due d
    WHERE d.organization_id = p_message.organization_id AND d.queue_id = p_message.id;
    SELECT i.* INTO v_flight FROM wa_queue_inflight i
    WHERE i.organization_id = p_message.organization_id AND i.queue_id = p_message.id;
    IF p_message.status NOT IN ('pending', 'sending') THEN
        reason := coalesce(p_message.error_code, p_message.status);
        explanation := CASE p_message.status
            WHEN 'sent' THEN 'accepted by the provider'
            WHEN 'cancelled' THEN coalesce('cancelled: ' || p_message.last_error, 'cancelled')
            ELSE p_message.last_error END;
        hint := CASE p_message.status
            WHEN 'sent' THEN 'SELECT state, state_history FROM wa_messages WHERE queue_id = ...;'
            ELSE 'retry_wa_messages() queues it again once the cause is gone.' END;
        RETURN;
    ELSIF v_flight.is_unknown THEN
        reason := 'outcome_unknown';
        held_until := v_flight.deadline_at;
        explanation := coalesce(p_message.last_error, 'no answer')
            || '; waiting for a status webhook that tells';
        hint := 'Not sent twice. wa_organizations.unknown_grace sets the wait, on_unknown what follows.';
        RETURN;
    ELSIF v_flight.queue_id IS NOT NULL THEN
        reason := 'sending';
        held_until := v_flight.deadline_at;
        explanation := 'handed to a dispatcher at ' || v_flight.claimed_at;
        hint := 'SELECT * FROM wa_dispatchers; shows which are alive.';
        RETURN;
    ELSIF v_due.number_id IS NULL THEN
        reason := 'no_number';
        explanation := 'no business number to send from';
        hint := 'SELECT register_wa_phone_number(phone_number_id, display_phone, waba_id);';
        RETURN;
    END IF;
    SELECT * INTO v_judged FROM _wa_judge(
        v_org.id, ARRAY[v_due.queue_id], ARRAY[v_due.number_id], ARRAY[v_due.contact_id],
        ARRAY[v_due.template_id],
        v_org.window_margin, v_now
    );
    SELECT * INTO v_block FROM _wa_lane_block(v_org.id, v_due.number_id, v_now);
    SELECT * INTO v_state FROM _wa_lane_state(v_org.id, v_due.number_id);
    IF NOT (SELECT i.is_sending_enabled FROM wa_installations i) THEN
        reason := 'sending_disabled';
        explanation := 'sending is switched off: '
            || coalesce((SELECT i.sending_note FROM wa_installations i), '');
        hint := 'A wa_admin resumes with set_wa_sending(true).';
    ELSIF v_block.hold_reason IS NOT NULL THEN
        reason := v_block.hold_reason;
        held_until := CASE WHEN v_block.held_until > v_now + interval '1 second' THEN v_block.held_until END;
        explanation := CASE v_block.hold_reason
            WHEN 'panic' THEN 'panic mode: ' || coalesce((
                SELECT p.reason FROM wa_panic_modes p
                WHERE p.organization_id = v_org.id AND p.active
                    AND coalesce(p.number_id, v_due.number_id) = v_due.number_id
                LIMIT 1), '')
            ELSE (SELECT format('the business number is %s: %s',
                    CASE WHEN n.pause_scope IS NULL THEN n.status ELSE 'paused' END,
                    coalesce(n.pause_reason, ''))
                FROM wa_phone_numbers n WHERE n.organization_id = v_org.id AND n.id = v_due.number_id) END;
        hint := CASE v_block.hold_reason WHEN 'panic' THEN 'resolve_wa_panic() ends it.'
            ELSE 'Settle the cause, then resume_wa_number().' END;
    ELSIF p_message.scheduled_at > v_now THEN
        reason := 'scheduled';
        held_until := p_message.scheduled_at;
        explanation := 'scheduled for later';
        hint := 'reschedule_wa_messages(now(), ids => ...) sends it at once.';
    ELSIF v_judged.refusal IS NOT NULL THEN
        reason := v_judged.refusal;
        explanation := _wa_refusal_text(v_judged.refusal) || '; it will fail when it is claimed';
        hint := _wa_refusal_hint(v_judged.refusal);
    ELSIF v_judged.hold_until IS NOT NULL THEN
        reason := v_judged.hold_reason;
        held_until := v_judged.hold_until;
        explanation := 'Meta restricts this kind of message of the account';
        hint := 'SELECT * FROM wa_account_events WHERE field = ''account_update'';';
    ELSIF v_due.hold_reason IS NOT NULL AND v_due.due_at > v_now THEN
        reason := v_due.hold_reason;
        held_until := v_due.due_at;
        explanation := CASE v_due.hold_reason
            WHEN 'recipient_rate'
                THEN 'one message in 6 seconds to a recipient, after a burst its debt first (Meta''s rule)'
            WHEN 'in_order' THEN 'an earlier message to the same recipient goes first'
            WHEN 'messaging_limit'
                THEN 'the portfolio''s messaging limit of unique recipients in 24 hours is reached'
            ELSE 'waits for its next try: ' || coalesce(p_message.last_error, '') END;
        hint := CASE v_due.hold_reason WHEN 'messaging_limit'
            THEN 'The limit rises with quality; SELECT * FROM wa_portfolios;'
            ELSE 'Nothing to do.' END;
    ELSIF v_state.held_until > v_now AND v_state.hold_reason = 'organization_rate' AND v_due.class % 2 = 0
    THEN
        reason := 'organization_rate';
        held_until := v_state.held_until;
        explanation := format('the organization''s %s messages a minute are used up',
            v_org.rate_limit_per_minute);
        hint := 'wa_organizations.rate_limit_per_minute sets the limit; NULL switches it off.';
    ELSIF NOT EXISTS (
        SELECT FROM wa_dispatchers p WHERE p.stopped_at IS NULL AND p.seen_at > v_now - interval '30 seconds'
    ) THEN
        reason := 'no_dispatcher';
        explanation := 'no dispatcher is running';
        hint := 'Start bin/wa dispatch.';
    ELSE
        reason := 'waiting';
        explanation := 'due; its turn comes with the number''s throughput';
        hint := 'SELECT * FROM wa_queue_health;';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_explain(wa_outbound_queue) IS
'Internal: why a message has not gone, until when, and the way out.';

CREATE OR REPLACE FUNCTION explain_wa_message(id uuid)
RETURNS TABLE (status text, reason text, held_until timestamptz, explanation text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_message wa_outbound_queue := _wa_visible_message($1);
BEGIN
    RETURN QUERY SELECT v_message.status, e.reason, e.held_until, e.explanation, e.hint
    FROM _wa_explain(v_message) e;
END
$$;

COMMENT ON FUNCTION explain_wa_message(uuid) IS
'Why a message has not gone: a word, until when it is held, a sentence, and the way out.';

CREATE OR REPLACE FUNCTION _wa_visible_message(p_id uuid) RETURNS wa_outbound_queue
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message wa_outbound_queue;
BEGIN
    SELECT q.* INTO v_message
    -- The caller is looked at first, so that the answer to a stranger does not depend on what there is.
    FROM (SELECT o.id FROM unnest(_wa_visible_organizations()) o (id) OFFSET 0) o
    JOIN wa_outbound_queue q ON q.organization_id = o.id AND q.id = p_id;
    IF v_message.id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = format('no queued message with the id %s', p_id),
            HINT = 'RETURNING id of your INSERT gives it.';
    END IF;
    RETURN v_message;
END
$$;

COMMENT ON FUNCTION _wa_visible_message(uuid) IS
'Internal: a queue row that the caller may see; raises P0002 otherwise.';

CREATE OR REPLACE FUNCTION preview_wa_request(id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_message wa_outbound_queue := _wa_visible_message($1);
    v_template wa_templates;
BEGIN
    SELECT t.* INTO v_template
    FROM wa_templates t
    WHERE t.organization_id = v_message.organization_id AND t.id = coalesce(
        (SELECT d.template_id FROM wa_queue_due d
            WHERE d.organization_id = v_message.organization_id AND d.queue_id = v_message.id),
        (SELECT i.template_id FROM wa_queue_inflight i
            WHERE i.organization_id = v_message.organization_id AND i.queue_id = v_message.id),
        (SELECT p.id FROM _wa_pick_template(
            v_message.organization_id, v_message.template_name, v_message.template_language, NULL) p
            WHERE v_message.type = 'template')
    );
    RETURN _wa_build_request(
        v_message.id, v_message.attempt + (v_message.status = 'pending')::integer, v_message.phone,
        v_message.type, v_message.text_body, v_message.content, v_message.reply_to,
        CASE WHEN v_message.type = 'template' THEN v_message.template_params
            ELSE v_message.fallback_template_params END,
        v_template
    );
END
$$;

COMMENT ON FUNCTION preview_wa_request(uuid) IS
'The request body that is, or would be, sent to the provider for a queued message.';

-- Definer: it counts in tables that applications need not see, for those organizations that the caller may
-- see.
CREATE OR REPLACE FUNCTION _wa_queue_health() RETURNS TABLE (
    organization_id uuid, number_id bigint, phone_number_id text, display_phone text, due bigint,
    scheduled bigint,
    held bigint, oldest_due_at timestamptz, in_flight bigint, outcome_unknown bigint, hold_reason text,
    held_until timestamptz, pause_reason text, last_claim_at timestamptz, dispatchers bigint
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT
        n.organization_id, n.id, n.phone_number_id, n.display_phone, coalesce(d.due, 0),
        coalesce(d.scheduled, 0),
        coalesce(d.held, 0), d.oldest_due_at, coalesce(f.in_flight, 0), coalesce(f.unknown, 0),
        coalesce(b.hold_reason, CASE WHEN s.held_until > clock_timestamp() THEN s.hold_reason END,
        d.hold_reason),
        coalesce(b.held_until, CASE WHEN s.held_until > clock_timestamp() THEN s.held_until END,
        d.held_until),
        n.pause_reason, s.served_at,
        (SELECT count(*) FROM wa_dispatchers p
            WHERE p.stopped_at IS NULL AND p.seen_at > clock_timestamp() - interval '30 seconds')
    FROM (
        SELECT p.organization_id, p.id, p.phone_number_id, p.display_phone,
        p.pause_reason FROM wa_phone_numbers p
        UNION ALL
        -- What waits for a first number.
        SELECT DISTINCT q.organization_id, NULL::bigint, NULL::text, NULL::text,
            'no business number is registered'
        FROM wa_queue_due q WHERE q.number_id IS NULL
    ) n
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE q.due_at <= clock_timestamp()) AS due,
            count(*) FILTER (WHERE q.due_at > clock_timestamp() AND q.hold_reason IS NULL) AS scheduled,
            count(*) FILTER (WHERE q.due_at > clock_timestamp() AND q.hold_reason IS NOT NULL) AS held,
            min(q.due_at) FILTER (WHERE q.due_at <= clock_timestamp()) AS oldest_due_at,
            mode() WITHIN GROUP (ORDER BY q.hold_reason)
                FILTER (WHERE q.due_at > clock_timestamp()) AS hold_reason,

                       min(q.due_at) FILTER (WHERE q.due_at > clock_timestamp() AND q.hold_reason IS NOT NULL) AS held_until
        FROM wa_queue_due q
        WHERE q.organization_id = n.organization_id AND q.number_id IS NOT DISTINCT FROM n.id
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE NOT i.is_unknown) AS in_flight,
            count(*) FILTER (WHERE i.is_unknown) AS unknown
        FROM wa_queue_inflight i WHERE i.organization_id = n.organization_id AND i.number_id = n.id
    ) f ON true
    LEFT JOIN LATERAL _wa_lane_block(n.organization_id, n.id, clock_timestamp()) b ON true
    LEFT JOIN LATERAL _wa_lane_state(n.organization_id, n.id) s ON true
    WHERE n.organization_id = ANY (_wa_visible_organizations())
$$;

COMMENT ON FUNCTION _wa_queue_health() IS 'Internal: the rows of wa_queue_health that the caller may see.';

CREATE OR REPLACE VIEW wa_queue_health AS
SELECT
    h.organization_id, h.number_id, h.phone_number_id, h.display_phone, h.due, h.scheduled, h.held,
    h.oldest_due_at, h.in_flight, h.outcome_unknown, h.hold_reason, h.held_until, h.pause_reason,
    h.last_claim_at, h.dispatchers
FROM _wa_queue_health() h;

COMMENT ON VIEW wa_queue_health IS
'One row per business number: what is due, scheduled, held (why and until when) and in flight, and how many '
'dispatchers run.';

REVOKE ALL ON FUNCTION _wa_explain(wa_outbound_queue), explain_wa_message(uuid), _wa_visible_message(uuid),
preview_wa_request(uuid), _wa_queue_health() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION explain_wa_message(uuid), preview_wa_request(uuid), _wa_queue_health() TO wa_app,
wa_admin;
GRANT SELECT ON wa_queue_health TO wa_app, wa_admin;
$wa_script$, '2b707a65a3869632ff845caf24e0b5e3c946084642663138ebfce515c80c0799', ARRAY['function _wa_explain', 'function explain_wa_message', 'function _wa_visible_message', 'function preview_wa_request', 'function _wa_queue_health', 'relation wa_queue_health']::text[]),
(34, 'api', 'api/webhooks.sql', $wa_script$-- Webhooks: stored byte for byte, durably, before anything is read of them; taken apart and processed
-- afterwards, and as often as needed.

-- Only its row type is used: one atom of a webhook with what is known of it, in the arrays that processing
-- hands on.
CREATE OR REPLACE VIEW _wa_webhook_atoms AS
SELECT
    NULL::bigint AS log_id, NULL::integer AS atom, NULL::integer AS place, NULL::text AS kind,
    NULL::text AS field,
    NULL::uuid AS organization_id, NULL::bigint AS number_id, NULL::text AS waba_id,
    NULL::text AS phone_number_id,
    NULL::text AS display_phone, NULL::timestamptz AS received_at, NULL::timestamptz AS at,
    NULL::jsonb AS payload,
    NULL::jsonb AS contact, NULL::text AS dedupe_key, NULL::text AS error
WHERE false;

COMMENT ON VIEW _wa_webhook_atoms IS 'Internal: the shape of an atom while it is processed. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_number_atoms(p_atoms _wa_webhook_atoms[]) RETURNS TABLE (
    n bigint, number_id bigint, phone_number_id text, display_phone text, at timestamptz, payload jsonb,
    contact jsonb
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT a.n, a.number_id, a.phone_number_id, a.display_phone, a.at, a.payload, a.contact
    FROM unnest(p_atoms) WITH ORDINALITY a (
        log_id, atom, place, kind, field, organization_id, number_id, waba_id, phone_number_id, display_phone,
        received_at, at, payload, contact, dedupe_key, error, n
    );
END;

COMMENT ON FUNCTION _wa_number_atoms(_wa_webhook_atoms[]) IS
'Internal: atoms with their places in the array.';

CREATE OR REPLACE FUNCTION ingest_wa_webhooks(p_bodies bytea[], p_sources text[],
    p_provider text DEFAULT 'meta')
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    -- The sender gets its 200 after this commit, which must therefore reach the disk.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    WITH stored AS (
        INSERT INTO wa_webhook_logs (body, source, provider)
        SELECT b.body, b.source, p_provider
        FROM unnest(p_bodies, p_sources) WITH ORDINALITY b (body, source, n)
        WHERE b.n <= cardinality(p_bodies)
        ORDER BY b.n
        RETURNING id
    )
    SELECT array_agg(s.id ORDER BY s.id) INTO v_ids FROM stored s;
    RETURN coalesce(v_ids, '{}');
END
$$;

COMMENT ON FUNCTION ingest_wa_webhooks(bytea[], text[], text) IS
'Stores webhook bodies as they arrived, with their sources (addresses); returns their ids in order. Durable '
'at commit even where synchronous_commit is off.';

CREATE OR REPLACE FUNCTION ingest_wa_webhook(p_body bytea, p_source text DEFAULT NULL,
    p_provider text DEFAULT 'meta')
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT (ingest_wa_webhooks(ARRAY[p_body], ARRAY[p_source], p_provider))[1]
$$;

COMMENT ON FUNCTION ingest_wa_webhook(bytea, text, text) IS
'Stores one webhook body as it arrived; returns its id. process_wa_webhooks() reads it.';

-- While a table grows from nothing, plans rest on statistics of its first rows until autovacuum comes by:
-- every index that starts with the organization looks equally good, also to the checks of foreign keys. So a
-- table that has grown fourfold is analysed here, which happens a few times in its life.
CREATE OR REPLACE FUNCTION _wa_analyze_grown(p_tables regclass[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT c.oid FROM pg_class c
        WHERE c.oid = ANY (p_tables)
            AND pg_relation_size(c.oid) / current_setting('block_size')::integer > 4 * greatest(c.relpages, 2)
    LOOP
        EXECUTE format('ANALYZE (SKIP_LOCKED) %s', v_table);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_analyze_grown(regclass[]) IS
'Internal: analyses those of the tables that have grown fourfold since they were last analysed.';

CREATE OR REPLACE FUNCTION process_wa_webhooks(p_limit integer DEFAULT 500) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    -- One processor at a time: bodies are read in the order of arrival, and a second one would only wait for
    -- rows.
    PERFORM pg_advisory_xact_lock(hashtextextended('wa_webhooks', 0));
    PERFORM _wa_analyze_grown(ARRAY[
        'wa_contacts', 'wa_contact_identities', 'wa_conversation_windows', 'wa_messages',
        'wa_message_statuses',
        'wa_events', 'wa_webhook_logs'
    ]::regclass[]);
    PERFORM _wa_attach_orphan_statuses(clock_timestamp());
    v_ids := ARRAY(
        SELECT l.id FROM wa_webhook_logs l WHERE l.status = 'pending' ORDER BY l.id LIMIT greatest(p_limit, 0)
    );
    PERFORM _wa_process_logs(v_ids);
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION process_wa_webhooks(integer) IS
'Processes stored webhook bodies, oldest first; returns how many. What cannot be processed is kept in '
'wa_webhook_errors and does not stop the rest. One call at a time works, others wait.';

CREATE OR REPLACE FUNCTION replay_wa_webhooks(p_log_ids bigint[] DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('wa_webhooks', 0));
    IF p_log_ids IS NULL THEN
        v_ids := ARRAY(
            SELECT DISTINCT e.log_id FROM wa_webhook_errors e WHERE e.resolved_at IS NULL ORDER BY e.log_id
                LIMIT 10000
        );
    ELSE
        v_ids := ARRAY(SELECT l.id FROM wa_webhook_logs l WHERE l.id = ANY (p_log_ids) ORDER BY l.id);
    END IF;
    PERFORM _wa_process_logs(v_ids);
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION replay_wa_webhooks(bigint[]) IS
'Processes stored bodies once more: the given ones, or all with unresolved errors; returns how many. What '
'was processed before changes nothing twice.';

-- Everything here is found by an index. Without the setting, a plan made while a table was nearly empty reads
-- all of it until the next ANALYZE, for every row.
CREATE OR REPLACE FUNCTION _wa_process_logs(p_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_atoms _wa_webhook_atoms[];
    v_org uuid;
BEGIN
    IF cardinality(p_ids) = 0 THEN
        RETURN;
    END IF;
    v_atoms := _wa_read_atoms(p_ids);
    INSERT INTO wa_webhook_errors (log_id, atom, kind, sqlstate, error, payload)
    SELECT DISTINCT ON (a.log_id, a.atom) a.log_id, a.atom, a.kind, CASE WHEN a.organization_id IS NULL
        THEN 'WA010' END,
        a.error, a.payload
    FROM unnest(v_atoms) a
    WHERE a.error IS NOT NULL
    ON CONFLICT (log_id, atom) DO UPDATE SET
        error = excluded.error, sqlstate = excluded.sqlstate, occurred_at = clock_timestamp(),
        resolved_at = NULL;

    FOR v_org IN
        SELECT DISTINCT a.organization_id FROM unnest(v_atoms) a WHERE a.error IS NULL ORDER BY 1
    LOOP
        PERFORM _wa_apply_atoms_safely(v_org, ARRAY(
            SELECT a::_wa_webhook_atoms FROM unnest(v_atoms) a
            WHERE a.organization_id = v_org AND a.error IS NULL
            ORDER BY a.place, a.log_id, a.atom
        ));
    END LOOP;
    UPDATE wa_phone_numbers n SET last_webhook_at = v_started
    WHERE (n.organization_id, n.id) IN (SELECT a.organization_id, a.number_id FROM unnest(v_atoms) a)
        AND (n.last_webhook_at IS NULL OR n.last_webhook_at < v_started - interval '10 seconds');

    UPDATE wa_webhook_errors SET resolved_at = clock_timestamp()
    WHERE log_id = ANY (p_ids) AND resolved_at IS NULL AND occurred_at < v_started;
    UPDATE wa_webhook_logs l SET
        status = CASE
            WHEN coalesce(f.failed, 0) = 0 THEN 'processed' WHEN f.failed < c.atoms THEN 'partial'
                ELSE 'failed'
        END,
        attempts = l.attempts + 1, atoms = coalesce(c.atoms, 0), failed_atoms = coalesce(f.failed, 0),
        error = f.error,
        processed_at = clock_timestamp()
    FROM unnest(p_ids) i (id)
    LEFT JOIN (
        SELECT a.log_id, count(DISTINCT a.atom) AS atoms FROM unnest(v_atoms) a GROUP BY a.log_id
    ) c ON c.log_id = i.id
    LEFT JOIN (
        SELECT e.log_id, count(*) AS failed, min(e.error) AS error
        FROM wa_webhook_errors e WHERE e.log_id = ANY (p_ids) AND e.resolved_at IS NULL
        GROUP BY e.log_id
    ) f ON f.log_id = i.id
    WHERE l.id = i.id;
END
$$;

COMMENT ON FUNCTION _wa_process_logs(bigint[]) IS
'Internal: processes the given stored bodies and records how each went.';

CREATE OR REPLACE FUNCTION _wa_read_atoms(p_ids bigint[]) RETURNS _wa_webhook_atoms[]
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(array_agg(ROW(
        s.log_id, s.atom,
        CASE s.kind
            WHEN 'message' THEN CASE WHEN s.payload ->> 'type' IN ('edit', 'revoke', 'system') THEN 2
                ELSE 1 END
            WHEN 'echo' THEN 3 WHEN 'call' THEN 4 WHEN 'status' THEN 5 WHEN 'call_status' THEN 5 ELSE 6
        END,
        s.kind, s.field, o.organization_id, o.number_id, s.waba_id, s.phone_number_id, s.display_phone,
        l.received_at,
        -- A clock that runs ahead must not lengthen a window.
        least(coalesce(
            _wa_to_timestamp(s.payload -> 'timestamp'), _wa_to_timestamp(s.payload #> '{metadata,timestamp}'),
            s.entry_time, l.received_at
        ), l.received_at),
        s.payload, s.contact, s.dedupe_key,
        coalesce(s.error, CASE
            WHEN o.organization_id IS NULL AND s.phone_number_id IS NOT NULL
                THEN 'the business number is not registered'
            WHEN o.organization_id IS NULL THEN 'no number of the business account is registered'
        END)
    )::_wa_webhook_atoms), '{}')
    FROM (
        SELECT array_agg(w.id ORDER BY w.id) AS ids, array_agg(w.body ORDER BY w.id) AS bodies
        FROM wa_webhook_logs w WHERE w.id = ANY (p_ids)
    ) b
    CROSS JOIN LATERAL _wa_split_webhooks(b.ids, b.bodies) s
    JOIN wa_webhook_logs l ON l.id = s.log_id
    LEFT JOIN LATERAL (
        SELECT r.organization_id, r.number_id FROM wa_number_routes r
            WHERE r.phone_number_id = s.phone_number_id
        UNION ALL
        -- Events of an account name no number; every tenant of the account is told.
        SELECT DISTINCT r.organization_id, NULL::bigint FROM wa_number_routes r
        WHERE s.phone_number_id IS NULL AND r.waba_id = s.waba_id
    ) o ON true
$$;

COMMENT ON FUNCTION _wa_read_atoms(bigint[]) IS
'Internal: takes stored bodies apart and finds the tenant and number of each atom; those that cannot go on '
'have an error.';

-- The whole batch at once; when something in it fails, its halves, so that one bad atom costs little and
-- harms no other.
CREATE OR REPLACE FUNCTION _wa_apply_atoms_safely(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_count integer := cardinality(p_atoms);
    v_state text;
    v_message text;
BEGIN
    BEGIN
        PERFORM _wa_apply_atoms(p_org, p_atoms);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        -- Stored for replay, except what has nothing to do with the atom: then the whole batch stays pending.
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
        IF left(v_state, 2) IN ('25', '40', '53', '55', '57', '58') THEN
            RAISE;
        END IF;
    END;
    IF v_count = 1 THEN
        INSERT INTO wa_webhook_errors (log_id, atom, kind, sqlstate, error, payload)
        VALUES (p_atoms[1].log_id, p_atoms[1].atom, p_atoms[1].kind, v_state, v_message, p_atoms[1].payload)
        ON CONFLICT (log_id, atom) DO UPDATE SET
            error = excluded.error, sqlstate = excluded.sqlstate, occurred_at = clock_timestamp(),
            resolved_at = NULL;
    ELSE
        PERFORM _wa_apply_atoms_safely(p_org, p_atoms[1:v_count / 2]);
        PERFORM _wa_apply_atoms_safely(p_org, p_atoms[v_count / 2 + 1:v_count]);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_atoms_safely(uuid, _wa_webhook_atoms[]) IS
'Internal: applies what can be applied of a batch and keeps the rest in wa_webhook_errors.';

CREATE OR REPLACE FUNCTION _wa_apply_atoms(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_group record;
BEGIN
    PERFORM _wa_settle_echoes(p_org, p_atoms);
    FOR v_group IN
        SELECT a.place, array_agg(a::_wa_webhook_atoms ORDER BY a.log_id, a.atom) AS atoms
        FROM unnest(p_atoms) a GROUP BY a.place ORDER BY a.place
    LOOP
        CASE v_group.place
            WHEN 1, 2 THEN PERFORM _wa_apply_messages(p_org, v_group.atoms);
            WHEN 3 THEN PERFORM _wa_apply_echoes(p_org, v_group.atoms);
            WHEN 4 THEN PERFORM _wa_apply_calls(p_org, v_group.atoms);
            WHEN 5 THEN PERFORM _wa_apply_statuses(p_org, v_group.atoms);
            ELSE PERFORM _wa_apply_account_events(p_org, v_group.atoms);
        END CASE;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_apply_atoms(uuid, _wa_webhook_atoms[]) IS
'Internal: applies atoms of one organization, messages before statuses.';

CREATE OR REPLACE FUNCTION record_wa_webhook_rejection(p_source text, p_reason text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    INSERT INTO audit_log AS a (organization_id, event, entity, entity_id, meta)
    SELECT o.id, 'webhook_rejected', 'wa_webhook_logs',
        concat_ws(' ', left(p_source, 200),
            to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')),
        jsonb_build_object('source', left(p_source, 200), 'reason', left(p_reason, 200), 'count', 1)
    FROM wa_organizations o
    ORDER BY o.is_default DESC, o.created_at, o.id
    LIMIT 1
    ON CONFLICT (organization_id, entity_id) WHERE event = 'webhook_rejected' DO UPDATE SET
        meta = a.meta || jsonb_build_object(
            'reason', excluded.meta -> 'reason', 'count', (a.meta ->> 'count')::integer + 1
        )
$$;

COMMENT ON FUNCTION record_wa_webhook_rejection(text, text) IS
'Counts a webhook request with a wrong or missing signature: one audit_log row per source and minute, in '
'the default organization.';

REVOKE ALL ON _wa_webhook_atoms FROM PUBLIC;
REVOKE ALL ON FUNCTION _wa_number_atoms(_wa_webhook_atoms[]), ingest_wa_webhooks(bytea[], text[], text),
ingest_wa_webhook(bytea, text, text),
_wa_analyze_grown(regclass[]), process_wa_webhooks(integer), replay_wa_webhooks(bigint[]),
_wa_process_logs(bigint[]),
_wa_read_atoms(bigint[]),
_wa_apply_atoms_safely(uuid, _wa_webhook_atoms[]), _wa_apply_atoms(uuid, _wa_webhook_atoms[]),
record_wa_webhook_rejection(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ingest_wa_webhooks(bytea[], text[], text), ingest_wa_webhook(bytea, text, text),
process_wa_webhooks(integer), record_wa_webhook_rejection(text, text) TO wa_admin, wa_receiver;
GRANT EXECUTE ON FUNCTION replay_wa_webhooks(bigint[]) TO wa_admin;
GRANT EXECUTE ON FUNCTION process_wa_webhooks(integer) TO wa_dispatcher;
GRANT SELECT ON wa_webhook_logs, wa_webhook_errors TO wa_admin;
-- A trail: added to, never changed.
GRANT SELECT, INSERT ON audit_log TO wa_admin, wa_app;
$wa_script$, '8ca4be0925a6ae04f5974ce0511509d5b94601f2596aa36923175d3471fdade3', ARRAY['relation _wa_webhook_atoms', 'function _wa_number_atoms', 'function ingest_wa_webhooks', 'function ingest_wa_webhook', 'function _wa_analyze_grown', 'function process_wa_webhooks', 'function replay_wa_webhooks', 'function _wa_process_logs', 'function _wa_read_atoms', 'function _wa_apply_atoms_safely', 'function _wa_apply_atoms', 'function record_wa_webhook_rejection']::text[]),
(35, 'api', 'api/webhook_messages.sql', $wa_script$-- Inbound messages: the ledger row, the window it opens, the words that opt out, and what edits and system
-- messages change.

CREATE OR REPLACE FUNCTION _wa_message_text(p_type text, p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_type
    WHEN 'text' THEN p_content ->> 'body'
    WHEN 'button' THEN p_content ->> 'text'
    WHEN 'reaction' THEN p_content ->> 'emoji'
    WHEN 'interactive' THEN coalesce(
        p_content #>> '{button_reply,title}', p_content #>> '{list_reply,title}',
        p_content #>> '{nfm_reply,body}'
    )
    WHEN 'order' THEN p_content ->> 'text'
    WHEN 'system' THEN p_content ->> 'body'
    WHEN 'edit' THEN coalesce(p_content #>> '{message,text,body}', p_content #>> '{message,image,caption}')
    WHEN 'location' THEN p_content ->> 'name'
    ELSE p_content ->> 'caption'
END;

COMMENT ON FUNCTION _wa_message_text(text, jsonb) IS
'Internal: the words of a message that a person would read; NULL if none.';

CREATE OR REPLACE FUNCTION _wa_read_message(p_message jsonb, OUT type text, OUT content jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(p_message ->> 'type', 'unknown'),
        coalesce(nullif(p_message -> (p_message ->> 'type'), 'null'), '{}');
END;

COMMENT ON FUNCTION _wa_read_message(jsonb) IS
'Internal: the type of a message and the object named after it.';

CREATE OR REPLACE FUNCTION _wa_apply_messages(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_ids bigint[];
BEGIN
    IF EXISTS (SELECT FROM unnest(p_atoms) a WHERE coalesce(a.payload ->> 'id', '') = '') THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the message has no id';
    END IF;
    SELECT array_agg(r.contact_id ORDER BY r.n) INTO v_contact_ids
    FROM (
        SELECT array_agg(_wa_inbound_phone(coalesce(a.payload ->> 'from', a.contact ->> 'wa_id'))
            ORDER BY a.n) AS phones,
            array_agg(_wa_inbound_user_id(
                coalesce(a.payload ->> 'from_user_id', a.contact ->> 'user_id'), a.payload ->> 'from'
            ) ORDER BY a.n) AS user_ids,
            array_agg(a.at ORDER BY a.n) AS ats
        FROM _wa_number_atoms(p_atoms) a
    ) s
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, s.phones, s.user_ids, 'webhook', s.ats) r;
    IF array_position(v_contact_ids, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the message names no sender';
    END IF;

    WITH recorded AS (
        INSERT INTO wa_messages (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            group_id,
            wa_message_id, direction, message_type, content, content_text, status, state, reply_to, referral,
            error_code,
            error_title, error_message, metadata, provider_at
        )
        SELECT
            p_org, a.number_id, a.phone_number_id, c.id, c.customer_id,
            -- In the spelling under which the contact is known, so that ledger and conversations join by
            -- number.
            CASE WHEN i.contact_id = c.id THEN c.phone_e164 ELSE p.phone END,
            coalesce(a.payload ->> 'from_user_id', a.contact ->> 'user_id'), a.payload ->> 'group_id',
            a.payload ->> 'id', 'inbound', t.type, t.content, _wa_message_text(t.type, t.content),
            'received', 'received',
            coalesce(t.content ->> 'original_message_id', t.content ->> 'message_id',
                a.payload #>> '{context,id}'),
            a.payload -> 'referral',
            CASE WHEN a.payload #>> '{errors,0,code}' ~ '^[0-9]{1,9}$'
                THEN (a.payload #>> '{errors,0,code}')::integer END,
            a.payload #>> '{errors,0,title}',
            coalesce(a.payload #>> '{errors,0,error_data,details}', a.payload #>> '{errors,0,message}'),
            a.payload - ARRAY[
                'id', 'from', 'from_user_id', 'timestamp', 'type', 'group_id', 'referral', t.type
            ],
            a.at
        FROM _wa_number_atoms(p_atoms) a
        -- LIMIT keeps each a look-up by its index, whatever the statistics say while the tables grow.
        CROSS JOIN LATERAL (
            SELECT k.id, k.customer_id, k.phone_e164 FROM wa_contacts k
            WHERE k.organization_id = p_org AND k.id = v_contact_ids[a.n] LIMIT 1
        ) c
        CROSS JOIN LATERAL (
            SELECT _wa_inbound_phone(coalesce(a.payload ->> 'from', a.contact ->> 'wa_id')) AS phone
        ) p
        LEFT JOIN LATERAL (
            SELECT k.contact_id FROM wa_contact_identities k
            WHERE k.organization_id = p_org AND k.kind = 'phone' AND k.is_current
                AND k.value = _wa_phone_key(p.phone)
            LIMIT 1
        ) i ON true
        CROSS JOIN LATERAL _wa_read_message(a.payload) t
        ORDER BY a.n
        ON CONFLICT (organization_id, wa_message_id) DO NOTHING
        RETURNING id, provider_at
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, 'received', r.provider_at FROM recorded r ORDER BY r.id
    )
    SELECT array_agg(r.id) INTO v_ids FROM recorded r;
    IF v_ids IS NULL THEN
        RETURN;
    END IF;
    PERFORM _wa_update_profiles(p_org, p_atoms, v_contact_ids);
    PERFORM _wa_record_customer_messages(p_org, v_ids);
    PERFORM _wa_heed_keywords(p_org, v_ids);
    PERFORM _wa_mark_amended(p_org, v_ids);
    PERFORM _wa_apply_system_messages(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_apply_messages(uuid, _wa_webhook_atoms[]) IS
'Internal: records inbound messages, each once, and everything that follows from them.';

-- The newest message's word counts, whatever the order of arrival; the ledger tells whether there is a newer
-- one.
CREATE OR REPLACE FUNCTION _wa_update_profiles(
    p_org uuid, p_atoms _wa_webhook_atoms[], p_contact_ids bigint[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_told record;
    v_is_newest boolean;
BEGIN
    FOR v_told IN
        SELECT DISTINCT ON (p_contact_ids[a.n]) p_contact_ids[a.n] AS contact_id, a.at,
            a.contact #>> '{profile,name}' AS profile_name, a.contact #>> '{profile,username}' AS username,
            a.contact ->> 'wa_id' AS wa_id,
            coalesce(a.payload ->> 'from_parent_user_id', a.contact ->> 'parent_user_id') AS parent_user_id,
            coalesce(a.contact ->> 'identity_key_hash', a.payload #>> '{identity,hash}') AS identity_hash
        FROM _wa_number_atoms(p_atoms) a
        WHERE a.contact IS NOT NULL
        ORDER BY p_contact_ids[a.n], a.at DESC
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM wa_contacts c
            WHERE c.organization_id = p_org AND c.id = v_told.contact_id
                AND (c.profile_name, c.username, c.wa_id, c.parent_user_id, c.identity_hash)
                IS NOT DISTINCT FROM (
                    coalesce(v_told.profile_name, c.profile_name), coalesce(v_told.username, c.username),
                    coalesce(v_told.wa_id, c.wa_id), coalesce(v_told.parent_user_id, c.parent_user_id),
                    coalesce(v_told.identity_hash, c.identity_hash)
                )
        );
        v_is_newest := NOT EXISTS (
            SELECT FROM wa_messages m
            WHERE m.organization_id = p_org AND m.contact_id = v_told.contact_id AND m.direction = 'inbound'
                AND m.message_type <> 'system' AND m.provider_at > v_told.at
        );
        UPDATE wa_contacts c SET
            profile_name = CASE WHEN v_is_newest THEN coalesce(v_told.profile_name, c.profile_name)
                ELSE coalesce(c.profile_name, v_told.profile_name) END,
            username = CASE WHEN v_is_newest THEN coalesce(v_told.username, c.username)
                ELSE coalesce(c.username, v_told.username) END,
            wa_id = CASE WHEN v_is_newest THEN coalesce(v_told.wa_id, c.wa_id)
                ELSE coalesce(c.wa_id, v_told.wa_id) END,
            parent_user_id = coalesce(v_told.parent_user_id, c.parent_user_id),
            identity_hash = CASE WHEN v_is_newest THEN coalesce(v_told.identity_hash, c.identity_hash)
                ELSE coalesce(c.identity_hash, v_told.identity_hash) END,
            updated_at = clock_timestamp()
        WHERE c.organization_id = p_org AND c.id = v_told.contact_id;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_update_profiles(uuid, _wa_webhook_atoms[], bigint[]) IS
'Internal: name, user name, wa_id and identity key of customers, as their newest message tells.';

-- The word stands alone and is unqualified, so it is taken at its word: no message at all (scope all). Meta's
-- own switch for offers only is user_preferences, which sets the scope marketing.
CREATE OR REPLACE FUNCTION _wa_heed_keywords(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_out bigint[];
    v_in bigint[];
BEGIN
    SELECT array_agg(k.contact_id) FILTER (WHERE k.is_out), array_agg(k.contact_id)
        FILTER (WHERE NOT k.is_out)
    INTO v_out, v_in
    FROM (
        SELECT DISTINCT ON (m.contact_id) m.contact_id, m.provider_at, m.id,
            _wa_is_opt_out_word(m.content_text) AS is_out
        FROM wa_messages m
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.message_type = 'text'
            AND m.group_id IS NULL
            AND (_wa_is_opt_out_word(m.content_text) OR _wa_is_opt_in_word(m.content_text))
        ORDER BY m.contact_id, m.provider_at DESC, _wa_is_opt_out_word(m.content_text) DESC
    ) k
    -- The last word counts, also when an earlier one is delivered late.
    WHERE NOT EXISTS (
        SELECT FROM wa_messages l
        WHERE l.organization_id = p_org AND l.contact_id = k.contact_id AND l.direction = 'inbound'
            AND l.message_type = 'text' AND l.group_id IS NULL AND l.id <> k.id
            AND CASE WHEN k.is_out
                THEN l.provider_at > k.provider_at AND _wa_is_opt_in_word(l.content_text)
                ELSE l.provider_at >= k.provider_at AND _wa_is_opt_out_word(l.content_text)
            END
    );
    IF v_out IS NOT NULL THEN
        PERFORM _wa_opt_out_contacts(p_org, v_out, 'all', 'the customer wrote a word that opts out',
            'keyword');
    END IF;
    IF v_in IS NOT NULL THEN
        PERFORM _wa_opt_in_contacts(p_org, v_in, 'all', 'keyword', jsonb_build_object('text', 'START'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_heed_keywords(uuid, bigint[]) IS
'Internal: STOP, UNSUBSCRIBE, CANCEL, END or QUIT as the whole typed text opts out, START takes it back.';

-- Works from either side: an edit or deletion may come before what it is about.
CREATE OR REPLACE FUNCTION _wa_mark_amended(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_wamid text;
BEGIN
    FOR v_wamid IN
        SELECT e.wamid
        FROM wa_messages m
        CROSS JOIN LATERAL (
            SELECT m.reply_to AS wamid WHERE m.message_type IN ('edit', 'revoke')
            UNION ALL
            (
                SELECT a.reply_to FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = m.wa_message_id
                    AND a.message_type IN ('edit', 'revoke') LIMIT 1
            )
        ) e
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids)
        GROUP BY e.wamid
        ORDER BY e.wamid
    LOOP
        UPDATE wa_messages o SET
            edited_at = (
                SELECT max(a.provider_at) FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = v_wamid AND a.message_type = 'edit'
            ),
            deleted_at = (
                SELECT min(a.provider_at) FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = v_wamid AND a.message_type = 'revoke'
            ),
            updated_at = clock_timestamp()
        WHERE o.organization_id = p_org AND o.wa_message_id = v_wamid;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_mark_amended(uuid, bigint[]) IS
'Internal: marks the originals of edits and deletions; their content stays as it was.';

CREATE OR REPLACE FUNCTION _wa_apply_system_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message record;
BEGIN
    FOR v_message IN
        SELECT m.id, m.phone_e164, m.user_id, m.content, m.provider_at
        FROM wa_messages m
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.message_type = 'system'
            AND m.content ->> 'type' IN ('user_changed_number', 'user_changed_user_id')
        ORDER BY m.provider_at, m.id
    LOOP
        PERFORM _wa_change_number(
            p_org, v_message.phone_e164,
            coalesce(v_message.content ->> 'previous_user_id',
                nullif(v_message.user_id, v_message.content ->> 'user_id')),
            _wa_inbound_phone(coalesce(v_message.content ->> 'wa_id', v_message.content ->> 'new_wa_id')),
            v_message.content ->> 'user_id', v_message.provider_at
        );
    END LOOP;
    UPDATE wa_contacts c SET identity_hash = h.hash, updated_at = clock_timestamp()
    FROM (
        SELECT DISTINCT ON (m.contact_id) m.contact_id,
            coalesce(m.content ->> 'identity_key_hash', m.content ->> 'identity',
                m.metadata #>> '{identity,hash}') AS hash
        FROM wa_messages m
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.message_type = 'system'
            AND m.content ->> 'type' IN ('customer_identity_changed', 'user_identity_changed')
        ORDER BY m.contact_id, m.provider_at DESC
    ) h
    WHERE c.organization_id = p_org AND c.id = h.contact_id AND h.hash IS NOT NULL
        AND c.identity_hash IS DISTINCT FROM h.hash;
END
$$;

COMMENT ON FUNCTION _wa_apply_system_messages(uuid, bigint[]) IS
'Internal: what system messages say of a customer: a new number, a new user id, a new identity key.';

REVOKE ALL ON FUNCTION _wa_message_text(text, jsonb), _wa_read_message(jsonb),
_wa_apply_messages(uuid, _wa_webhook_atoms[]),
_wa_update_profiles(uuid, _wa_webhook_atoms[], bigint[]), _wa_heed_keywords(uuid, bigint[]),
_wa_mark_amended(uuid, bigint[]), _wa_apply_system_messages(uuid, bigint[]) FROM PUBLIC;
$wa_script$, '4bbbbb57473b88213260120914c12bcb0f17f53a5c6d8f6e3901b1b6e58f7a5d', ARRAY['function _wa_message_text', 'function _wa_read_message', 'function _wa_apply_messages', 'function _wa_update_profiles', 'function _wa_heed_keywords', 'function _wa_mark_amended', 'function _wa_apply_system_messages']::text[]),
(36, 'api', 'api/webhook_echoes.sql', $wa_script$-- What the business itself did outside the queue: messages from the WhatsApp Business app. And calls, in both
-- directions.

CREATE OR REPLACE FUNCTION _wa_apply_echoes(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_ids bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a
        WHERE coalesce(a.payload ->> 'id', '') = ''
            OR num_nonnulls(a.payload ->> 'to', a.payload ->> 'to_user_id', a.payload ->> 'group_id') = 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the echo has no id or no recipient';
    END IF;
    SELECT array_agg(r.contact_id ORDER BY r.n) INTO v_contact_ids
    FROM (
        SELECT
            array_agg(CASE WHEN p.group_id IS NULL THEN _wa_inbound_phone(p.recipient) END
                ORDER BY a.n) AS phones,
            array_agg(CASE WHEN p.group_id IS NULL THEN _wa_inbound_user_id(p.user_id, p.recipient) END
                ORDER BY a.n)
                AS user_ids,
            array_agg(a.at ORDER BY a.n) AS ats
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL (
            SELECT a.payload ->> 'to' AS recipient, a.payload ->> 'to_user_id' AS user_id,
                a.payload ->> 'group_id' AS group_id
        ) p
    ) s
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, s.phones, s.user_ids, 'echo', s.ats) r;

    WITH recorded AS (
        INSERT INTO wa_messages (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            group_id,
            wa_message_id, direction, message_type, content, content_text, status, state, is_echo, reply_to,
            metadata,
            sent_at, provider_at
        )
        SELECT
            p_org, a.number_id, a.phone_number_id, c.id, c.customer_id,
            CASE
                WHEN c.phone_key = _wa_phone_key(_wa_inbound_phone(a.payload ->> 'to')) THEN c.phone_e164
                ELSE _wa_inbound_phone(a.payload ->> 'to')
            END,
            a.payload ->> 'to_user_id', a.payload ->> 'group_id', a.payload ->> 'id', 'outbound', t.type,
            t.content,
            _wa_message_text(t.type, t.content), 'sent', 'sent', true,
            coalesce(t.content ->> 'original_message_id', t.content ->> 'message_id',
                a.payload #>> '{context,id}'),
            a.payload - ARRAY['id', 'from', 'to', 'to_user_id', 'timestamp', 'type', 'group_id', t.type],
            a.at, a.at
        FROM _wa_number_atoms(p_atoms) a
        LEFT JOIN wa_contacts c ON c.organization_id = p_org AND c.id = v_contact_ids[a.n]
        CROSS JOIN LATERAL _wa_read_message(a.payload) t
        ORDER BY a.n
        ON CONFLICT (organization_id, wa_message_id) DO NOTHING
        RETURNING id, provider_at
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, 'sent', r.provider_at FROM recorded r ORDER BY r.id
    )
    SELECT array_agg(r.id) INTO v_ids FROM recorded r;
    IF v_ids IS NOT NULL THEN
        PERFORM _wa_record_business_messages(p_org, v_ids);
        PERFORM _wa_mark_amended(p_org, v_ids);
        PERFORM _wa_attach_early_statuses(p_org, v_ids);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_echoes(uuid, _wa_webhook_atoms[]) IS
'Internal: records messages that were sent from the WhatsApp Business app.';

-- A call is one row, under its id; what is told of it at its start and at its end comes together in its
-- content. The window runs from the start of the customer's call, as Meta counts it.
CREATE OR REPLACE FUNCTION _wa_apply_calls(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_known text[];
    v_started bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a
        WHERE coalesce(a.payload ->> 'id', '') = '' OR num_nonnulls(
            a.payload ->> 'from', a.payload ->> 'from_user_id', a.payload ->> 'to',
            a.payload ->> 'to_user_id', a.contact ->> 'wa_id',
            a.contact ->> 'user_id'
        ) = 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the call has no id or no customer';
    END IF;
    SELECT array_agg(r.contact_id ORDER BY r.n) INTO v_contact_ids
    FROM (
        SELECT array_agg(_wa_inbound_phone(p.phone) ORDER BY a.n) AS phones,
            array_agg(_wa_inbound_user_id(p.user_id, p.phone) ORDER BY a.n) AS user_ids,
            array_agg(a.at ORDER BY a.n) AS ats
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL _wa_call_customer(a.payload, a.contact, a.display_phone) p
    ) s
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, s.phones, s.user_ids, 'call', s.ats) r;
    v_known := ARRAY(
        SELECT m.wa_message_id FROM unnest(p_atoms) a
        JOIN wa_messages m ON m.organization_id = p_org AND m.wa_message_id = a.payload ->> 'id'
        WHERE m.content ? 'connect'
    );

    WITH calls AS (
        SELECT a.payload ->> 'id' AS id, min(a.number_id) AS number_id,
            min(a.phone_number_id) AS phone_number_id,
            min(v_contact_ids[a.n]) AS contact_id, min(_wa_inbound_phone(p.phone)) AS phone,
            min(p.user_id) AS user_id,
            bool_or(p.is_inbound) AS is_inbound,
            jsonb_object_agg(coalesce(a.payload ->> 'event', 'unknown'), a.payload - 'id') AS content,
            min(a.at) AS at
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL _wa_call_customer(a.payload, a.contact, a.display_phone) p
        GROUP BY a.payload ->> 'id'
    ),
    recorded AS (
        INSERT INTO wa_messages AS m (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            wa_message_id, direction,
            message_type, content, status, state, sent_at, provider_at
        )
        SELECT
            p_org, k.number_id, k.phone_number_id, c.id, c.customer_id,
            CASE WHEN c.phone_key = _wa_phone_key(k.phone) THEN c.phone_e164 ELSE k.phone END, k.user_id,
            k.id,
            CASE WHEN k.is_inbound THEN 'inbound' ELSE 'outbound' END, 'call', k.content,
            CASE WHEN k.is_inbound THEN 'received' ELSE 'sent' END, CASE WHEN k.is_inbound THEN 'received'
                ELSE 'sent' END,
            CASE WHEN NOT k.is_inbound THEN k.at END, k.at
        FROM calls k
        JOIN wa_contacts c ON c.organization_id = p_org AND c.id = k.contact_id
        ORDER BY k.at, k.id
        ON CONFLICT (organization_id, wa_message_id) DO UPDATE SET
            content = m.content || excluded.content, provider_at = least(m.provider_at, excluded.provider_at),
            sent_at = least(m.sent_at, excluded.sent_at), updated_at = clock_timestamp()
        WHERE NOT m.content @> excluded.content
        RETURNING m.id, m.wa_message_id, m.status, m.provider_at, m.content, m.xmax = 0 AS is_new
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, r.status, r.provider_at FROM recorded r WHERE r.is_new ORDER BY r.id
    )
    SELECT array_agg(r.id) INTO v_started FROM recorded r WHERE r.content ? 'connect'
        AND r.wa_message_id <> ALL (v_known);
    IF v_started IS NOT NULL THEN
        PERFORM _wa_record_customer_messages(p_org, v_started);
        PERFORM _wa_record_business_messages(p_org, v_started);
        PERFORM _wa_attach_early_statuses(p_org, v_started);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_calls(uuid, _wa_webhook_atoms[]) IS
'Internal: records calls; one that the customer makes opens the window.';

CREATE OR REPLACE FUNCTION _wa_call_customer(
    p_call jsonb, p_contact jsonb, p_display_phone text, OUT is_inbound boolean, OUT phone text,
    OUT user_id text
)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    is_inbound := CASE p_call ->> 'direction'
        WHEN 'USER_INITIATED' THEN true
        WHEN 'BUSINESS_INITIATED' THEN false
        ELSE coalesce(p_call ->> 'from', '') <> regexp_replace(coalesce(p_display_phone, '-'), '[^0-9]', '',
            'g')
    END;
    phone := coalesce(p_call ->> CASE WHEN is_inbound THEN 'from' ELSE 'to' END, p_contact ->> 'wa_id');
    user_id := coalesce(
        p_call ->> CASE WHEN is_inbound THEN 'from_user_id' ELSE 'to_user_id' END, p_contact ->> 'user_id'
    );
END
$$;

COMMENT ON FUNCTION _wa_call_customer(jsonb, jsonb, text) IS
'Internal: who the customer of a call is, and whether the customer made it.';

REVOKE ALL ON FUNCTION _wa_apply_echoes(uuid, _wa_webhook_atoms[]),
_wa_apply_calls(uuid, _wa_webhook_atoms[]),
_wa_call_customer(jsonb, jsonb, text) FROM PUBLIC;
$wa_script$, '05cf4a662e37d879b7280a3476292fccb56066d958c198c385a0500829ac3aa4', ARRAY['function _wa_apply_echoes', 'function _wa_apply_calls', 'function _wa_call_customer']::text[]),
(37, 'api', 'api/statuses.sql', $wa_script$-- Delivery states. Every status is stored once; the ledger's state is the highest that was reported, so that
-- repeated, late and out-of-order webhooks change nothing twice.

-- Comes before everything else of a batch: it locks queue rows, and whoever records an answer locks those
-- first too, conversations after.
CREATE OR REPLACE FUNCTION _wa_settle_echoes(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_echo record;
BEGIN
    -- Before the send's answer was recorded, the echo of our callback data is what tells the message.
    SELECT array_agg(c.parts[1]::uuid) AS queue_ids, array_agg(c.parts[2]::integer) AS attempts,
        array_agg(a.payload ->> 'id') AS wamids
    INTO v_echo
    FROM unnest(p_atoms) a
    CROSS JOIN LATERAL regexp_match(
        a.payload ->> 'biz_opaque_callback_data',
        '^q:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([0-9]{1,9})$'
    ) c (parts)
    LEFT JOIN LATERAL (
        SELECT m.id FROM wa_messages m
        WHERE m.organization_id = p_org AND m.wa_message_id = a.payload ->> 'id' LIMIT 1
    ) m ON true
    WHERE a.kind = 'status' AND c.parts IS NOT NULL AND m.id IS NULL;
    PERFORM _wa_settle_from_echo(p_org, v_echo.queue_ids, v_echo.attempts, v_echo.wamids);
END
$$;

COMMENT ON FUNCTION _wa_settle_echoes(uuid, _wa_webhook_atoms[]) IS
'Internal: settles the queued messages whose callback data statuses bring back.';

CREATE OR REPLACE FUNCTION _wa_apply_statuses(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a WHERE num_nulls(a.payload ->> 'id', a.payload ->> 'status') > 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the status has no id or no state';
    END IF;

    WITH recorded AS (
        INSERT INTO wa_message_statuses (
            organization_id, message_id, queue_id, wa_message_id, status, participant, occurred_at,
            received_at,
            recipient_id, recipient_user_id, error_code, error_title, error_message, pricing, conversation,
            payload
        )
        SELECT
            p_org, m.id, m.queue_id, a.payload ->> 'id',
            CASE a.kind WHEN 'status' THEN a.payload ->> 'status' ELSE lower(a.payload ->> 'status') END,
            coalesce(a.payload ->> 'recipient_participant_id', a.payload ->> 'recipient_participant_user_id',
                ''),
            a.at, a.received_at, a.payload ->> 'recipient_id', a.payload ->> 'recipient_user_id',
            CASE WHEN e.error ->> 'code' ~ '^[0-9]{1,9}$' THEN (e.error ->> 'code')::integer END,
            e.error ->> 'title', coalesce(e.error #>> '{error_data,details}', e.error ->> 'message'),
            a.payload -> 'pricing', a.payload -> 'conversation',
            a.payload - ARRAY['id', 'status', 'timestamp', 'recipient_id', 'recipient_user_id', 'pricing',
            'conversation']
        FROM unnest(p_atoms) a
        LEFT JOIN LATERAL (
            SELECT o.id, o.queue_id FROM wa_messages o
            WHERE o.organization_id = p_org AND o.wa_message_id = a.payload ->> 'id'
                AND o.direction = 'outbound'
            LIMIT 1
        ) m ON true
        CROSS JOIN LATERAL (SELECT a.payload #> '{errors,0}' AS error) e
        -- Repeats within a batch: the first of each is kept, whatever their order.
        ORDER BY a.payload ->> 'id', a.at
        ON CONFLICT (organization_id, wa_message_id, status, participant) DO NOTHING
        RETURNING id, message_id
    )
    SELECT array_agg(r.id) FILTER (WHERE r.message_id IS NOT NULL) INTO v_ids FROM recorded r;
    PERFORM _wa_advance_messages(p_org, v_ids);
    PERFORM _wa_learn_recipients(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_apply_statuses(uuid, _wa_webhook_atoms[]) IS
'Internal: records statuses and moves their messages forward; what belongs to no known message waits for it.';

-- Message by message where rows are updated: a join could be planned, on statistics of a table that was small
-- a minute ago, as a walk through all of it for every status.
CREATE OR REPLACE FUNCTION _wa_advance_messages(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_new record;
BEGIN
    IF p_status_ids IS NULL OR cardinality(p_status_ids) = 0 THEN
        RETURN;
    END IF;
    -- An event for each step forward, none for what a later status had already overtaken.
    INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
    SELECT p_org, 'status', step.message_id, step.status, step.occurred_at
    FROM (
        SELECT s.message_id, s.status, s.occurred_at, _wa_status_rank(s.status) AS rank,
            greatest(m.rank, max(_wa_status_rank(s.status)) OVER (
                PARTITION BY s.message_id ORDER BY s.occurred_at, _wa_status_rank(s.status), s.id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )) AS rank_before
        FROM wa_message_statuses s
        CROSS JOIN LATERAL (
            SELECT _wa_status_rank(w.state) AS rank FROM wa_messages w
            WHERE w.organization_id = p_org AND w.id = s.message_id LIMIT 1
        ) m
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids)
    ) step
    WHERE step.rank > step.rank_before
    ORDER BY step.occurred_at, step.rank;
    FOR v_new IN
        SELECT
            s.message_id, max(_wa_status_rank(s.status)) AS rank,
            (array_agg(s.status ORDER BY _wa_status_rank(s.status) DESC NULLS LAST))[1] AS state,
            min(s.occurred_at) FILTER (WHERE s.status = 'sent') AS sent_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'delivered') AS delivered_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'read') AS read_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'played') AS played_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'failed') AS failed_at,
            (array_agg(s.pricing) FILTER (WHERE s.pricing IS NOT NULL))[1] AS pricing,
            (array_agg(s.error_code) FILTER (WHERE s.status = 'failed'))[1] AS error_code,
            (array_agg(s.error_title) FILTER (WHERE s.status = 'failed'))[1] AS error_title,
            (array_agg(s.error_message) FILTER (WHERE s.status = 'failed'))[1] AS error_message,
            jsonb_agg(
                jsonb_strip_nulls(
                    jsonb_build_object('state', s.status, 'at', s.occurred_at, 'error_code', s.error_code)
                ) ORDER BY s.occurred_at, _wa_status_rank(s.status)
            ) AS history
        FROM wa_message_statuses s
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.message_id IS NOT NULL
        GROUP BY s.message_id
        ORDER BY s.message_id
    LOOP
        UPDATE wa_messages m SET
            sent_at = coalesce(v_new.sent_at, m.sent_at),
            delivered_at = least(m.delivered_at, v_new.delivered_at),
            read_at = least(m.read_at, v_new.read_at),
            played_at = least(m.played_at, v_new.played_at),
            failed_at = least(m.failed_at, v_new.failed_at),
            pricing = coalesce(v_new.pricing, m.pricing),
            state_history = m.state_history || v_new.history,
            updated_at = clock_timestamp(),
            -- An error explains a failed state only; the history keeps one that a later delivery overtook.
            (state, status, error_code, error_title, error_message) = (
                SELECT n.state, n.status, n.error_code, n.error_title, n.error_message
                FROM (
                    VALUES
                    (true, v_new.state, 'failed', v_new.error_code, v_new.error_title, v_new.error_message),
                    (false, v_new.state, 'sent', NULL, NULL, NULL),
                    (NULL, m.state, m.status, m.error_code, m.error_title, m.error_message)
                ) n (is_failure, state, status, error_code, error_title, error_message)
                WHERE n.is_failure IS NOT DISTINCT FROM CASE
                    WHEN v_new.rank > _wa_status_rank(m.state) THEN v_new.state = 'failed'
                END
            )
        WHERE m.organization_id = p_org AND m.id = v_new.message_id;
    END LOOP;
    PERFORM _wa_react_to_failures(p_org, p_status_ids);
    PERFORM _wa_release_after_status(p_org, ARRAY(
        SELECT DISTINCT s.message_id FROM wa_message_statuses s
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.message_id IS NOT NULL
    ));
END
$$;

COMMENT ON FUNCTION _wa_advance_messages(uuid, bigint[]) IS
'Internal: takes newly recorded statuses into their messages and writes the events.';

-- A status and the answer that names its message may be recorded at the same time, each unseen by the other;
-- whichever comes next (this call after an answer, or the next processing of webhooks) brings them together.
CREATE OR REPLACE FUNCTION _wa_attach_early_statuses(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_early record;
    v_ids bigint[] := '{}';
BEGIN
    FOR v_early IN
        SELECT s.id, m.id AS message_id, m.queue_id
        FROM wa_messages m
        CROSS JOIN LATERAL (
            SELECT k.id FROM wa_message_statuses k
            WHERE k.organization_id = p_org AND k.wa_message_id = m.wa_message_id AND k.message_id IS NULL
            -- More than one message ever has; keeps this a look-up by index.
            LIMIT 10000
        ) s
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.direction = 'outbound'
    LOOP
        UPDATE wa_message_statuses s SET message_id = v_early.message_id, queue_id = v_early.queue_id
        WHERE s.organization_id = p_org AND s.id = v_early.id AND s.message_id IS NULL;
        IF FOUND THEN
            v_ids := v_ids || v_early.id;
        END IF;
    END LOOP;
    PERFORM _wa_advance_messages(p_org, v_ids);
    PERFORM _wa_learn_recipients(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_attach_early_statuses(uuid, bigint[]) IS
'Internal: gives messages that have just become known the statuses that came before them.';

CREATE OR REPLACE FUNCTION _wa_attach_orphan_statuses(p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found record;
BEGIN
    FOR v_found IN
        SELECT s.organization_id, array_agg(DISTINCT m.id) AS ids
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = s.organization_id AND m.wa_message_id = s.wa_message_id
            AND m.direction = 'outbound'
        WHERE s.message_id IS NULL AND s.received_at > p_now - interval '10 minutes'
        GROUP BY s.organization_id
        ORDER BY s.organization_id
    LOOP
        PERFORM _wa_attach_early_statuses(v_found.organization_id, v_found.ids);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_attach_orphan_statuses(timestamptz) IS
'Internal: attaches statuses of the last minutes whose message was recorded at the same moment.';

CREATE OR REPLACE FUNCTION _wa_react_to_failures(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rule record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM wa_message_statuses s
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.status = 'failed'
    ) THEN
        RETURN;
    END IF;
    UPDATE wa_conversation_windows w SET
        window_denied_at = greatest(w.window_denied_at, d.denied_at), updated_at = clock_timestamp()
    FROM (
        SELECT m.contact_id, m.number_id, max(s.occurred_at) AS denied_at
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_error_rules r ON r.code = s.error_code AND r.action = 'need_template'
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.status = 'failed'
        GROUP BY m.contact_id, m.number_id
    ) d
    WHERE w.organization_id = p_org AND w.contact_id = d.contact_id AND w.number_id = d.number_id;
    FOR v_rule IN
        SELECT DISTINCT r.code, r.title, r.action, m.number_id, m.contact_id, m.template_name,
            m.template_language,
            s.occurred_at + r.wait AS ends_at
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_error_rules r ON r.code = s.error_code
            AND r.action IN ('opt_out', 'stop_template', 'pause_number', 'pause_account', 'pause_token')
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.status = 'failed'
    LOOP
        CASE v_rule.action
            WHEN 'opt_out' THEN
                PERFORM _wa_opt_out_contacts(p_org, ARRAY[v_rule.contact_id], 'marketing', v_rule.title,
                    'provider');
            WHEN 'stop_template' THEN
                UPDATE wa_templates t SET blocked_reason = format('%s (code %s)', v_rule.title, v_rule.code),
                    blocked_at = clock_timestamp(), blocked_until = v_rule.ends_at
                WHERE t.organization_id = p_org AND t.name = v_rule.template_name
                    AND t.language = v_rule.template_language
                    AND coalesce(v_rule.ends_at > clock_timestamp(), true);
            ELSE
                CONTINUE WHEN v_rule.ends_at <= clock_timestamp();
                PERFORM _wa_pause_number(
                    p_org, v_rule.number_id, replace(v_rule.action, 'pause_', ''),
                    format('%s (code %s)', v_rule.title, v_rule.code), v_rule.ends_at
                );
        END CASE;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_react_to_failures(uuid, bigint[]) IS
'Internal: what a failed status teaches, by wa_error_rules: the window is closed, the customer wants no '
'marketing, a template or number must stop. A message that the provider had accepted is not sent again.';

-- Statuses bring the user id of a customer whom we know by number, and the other way round.
CREATE OR REPLACE FUNCTION _wa_learn_recipients(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_phones text[];
    v_user_ids text[];
    v_ats timestamptz[];
BEGIN
    SELECT array_agg(l.phone), array_agg(l.recipient_user_id), array_agg(l.at) INTO v_phones, v_user_ids,
        v_ats
    FROM (
        SELECT _wa_inbound_phone(s.recipient_id) AS phone, s.recipient_user_id, max(s.occurred_at) AS at
        FROM wa_message_statuses s
        CROSS JOIN LATERAL (
            SELECT o.contact_id FROM wa_messages o
            WHERE o.organization_id = p_org AND o.id = s.message_id AND o.group_id IS NULL LIMIT 1
        ) m
        CROSS JOIN LATERAL (
            SELECT k.phone_key FROM wa_contacts k
            WHERE k.organization_id = p_org AND k.id = m.contact_id LIMIT 1
        ) c
        LEFT JOIN LATERAL (
            SELECT u.contact_id FROM wa_contact_identities u
            WHERE u.organization_id = p_org AND u.kind = 'user_id' AND u.value = s.recipient_user_id
                AND u.is_current
            LIMIT 1
        ) i ON true
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.participant = ''
            AND s.recipient_user_id IS NOT NULL AND _wa_inbound_phone(s.recipient_id) IS NOT NULL
            AND (i.contact_id IS DISTINCT FROM m.contact_id OR c.phone_key IS NULL)
        GROUP BY 1, 2
    ) l;
    IF v_phones IS NOT NULL THEN
        PERFORM FROM _wa_resolve_contacts(p_org, v_phones, v_user_ids, 'status', v_ats);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_learn_recipients(uuid, bigint[]) IS
'Internal: joins the numbers and user ids that statuses name together.';

REVOKE ALL ON FUNCTION _wa_settle_echoes(uuid, _wa_webhook_atoms[]),
_wa_apply_statuses(uuid, _wa_webhook_atoms[]), _wa_advance_messages(uuid, bigint[]),
_wa_attach_early_statuses(uuid, bigint[]), _wa_attach_orphan_statuses(timestamptz),
_wa_react_to_failures(uuid, bigint[]), _wa_learn_recipients(uuid, bigint[]) FROM PUBLIC;
GRANT SELECT ON wa_messages, wa_message_statuses TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_messages, wa_message_statuses TO wa_admin;
$wa_script$, 'aa752186fa5c72aa89d1fda5bac4b0fdca60211c382d0b3e40859fb7f6fab548', ARRAY['function _wa_settle_echoes', 'function _wa_apply_statuses', 'function _wa_advance_messages', 'function _wa_attach_early_statuses', 'function _wa_attach_orphan_statuses', 'function _wa_react_to_failures', 'function _wa_learn_recipients']::text[]),
(38, 'api', 'api/account_events.sql', $wa_script$-- What the provider tells besides messages: kept as it came, once, then applied by account_rules.sql.

CREATE OR REPLACE FUNCTION _wa_apply_account_events(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event wa_account_events;
    v_new bigint[];
BEGIN
    WITH stored AS (
        INSERT INTO wa_account_events (
            organization_id, waba_id, phone_number_id, field, event, payload, dedupe_key, occurred_at,
            received_at
        )
        SELECT
            p_org, a.waba_id, a.phone_number_id, coalesce(a.field, a.kind),
            CASE a.kind
                WHEN 'errors' THEN 'error ' || coalesce(a.payload ->> 'code', '')
                WHEN 'user_preference' THEN a.payload ->> 'value'
                ELSE coalesce(
                    a.payload ->> 'event', a.payload ->> 'decision', a.payload #>> '{alert_info,alert_type}',
                    a.payload ->> 'status', a.payload ->> 'action', a.payload ->> 'type'
                )
            END,
            -- The contact tells who it was where the element itself does not.
            a.payload || CASE WHEN a.contact IS NULL THEN '{}'
                ELSE jsonb_build_object('contact', a.contact) END,
            a.dedupe_key, a.at, a.received_at
        FROM unnest(p_atoms) a
        ORDER BY a.at, a.log_id, a.atom
        ON CONFLICT (organization_id, dedupe_key) DO NOTHING
        RETURNING id
    )
    SELECT array_agg(s.id) INTO v_new FROM stored s;
    PERFORM _wa_apply_preferences(p_org, v_new);
    FOR v_event IN
        SELECT e.* FROM wa_account_events e
        WHERE e.organization_id = p_org AND e.id = ANY (v_new)
            AND e.field NOT IN ('messages', 'user_preferences')
        ORDER BY e.occurred_at, e.id
    LOOP
        PERFORM _wa_apply_account_event(p_org, v_event);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_events(uuid, _wa_webhook_atoms[]) IS
'Internal: stores events of accounts, numbers, templates and preferences, each once, and applies the new '
'ones.';

CREATE OR REPLACE FUNCTION _wa_apply_preferences(p_org uuid, p_event_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_preferences record;
    v_contact_ids bigint[];
BEGIN
    SELECT array_agg(_wa_inbound_phone(p.phone)) AS phones,
        array_agg(_wa_inbound_user_id(p.user_id, p.phone)) AS user_ids,
        array_agg(p.occurred_at) AS ats, array_agg(p.event) AS choices
    INTO v_preferences
    FROM (
        SELECT DISTINCT ON (c.phone, c.user_id) c.phone, c.user_id, e.occurred_at, e.event
        FROM wa_account_events e
        CROSS JOIN LATERAL (
            SELECT coalesce(e.payload ->> 'wa_id', e.payload #>> '{contact,wa_id}') AS phone,
                coalesce(e.payload ->> 'user_id', e.payload #>> '{contact,user_id}') AS user_id
        ) c
        WHERE e.organization_id = p_org AND e.id = ANY (p_event_ids) AND e.field = 'user_preferences'
            AND e.event IN ('stop', 'resume', 'signup') AND num_nonnulls(c.phone, c.user_id) > 0
            -- The last choice counts, also when an earlier one is delivered late.
            AND NOT EXISTS (
                SELECT FROM wa_account_events l
                WHERE l.organization_id = p_org AND l.field = 'user_preferences'
                    AND l.occurred_at > e.occurred_at
                    AND l.event IN ('stop', 'resume', 'signup') AND (
                        coalesce(l.payload ->> 'wa_id', l.payload #>> '{contact,wa_id}') = c.phone
                        OR coalesce(l.payload ->> 'user_id', l.payload #>> '{contact,user_id}') = c.user_id
                    )
            )
        ORDER BY c.phone, c.user_id, e.occurred_at DESC, e.event DESC
    ) p;
    IF v_preferences.phones IS NULL THEN
        RETURN;
    END IF;
    v_contact_ids := ARRAY(
        SELECT r.contact_id FROM _wa_resolve_contacts(
            p_org, v_preferences.phones, v_preferences.user_ids, 'preference', v_preferences.ats
        ) r
        ORDER BY r.n
    );
    PERFORM _wa_opt_out_contacts(
        p_org, array_agg(c.contact_id), 'marketing', 'the customer stopped marketing messages',
        'user_preferences'
    )
    FROM unnest(v_contact_ids, v_preferences.choices) c (contact_id, choice)
    WHERE c.choice = 'stop'
    HAVING count(*) > 0;
    PERFORM _wa_opt_in_contacts(
        p_org, array_agg(c.contact_id), 'marketing', 'user_preferences',
        jsonb_build_object('preference', c.choice)
    )
    FROM unnest(v_contact_ids, v_preferences.choices) c (contact_id, choice)
    WHERE c.choice IN ('resume', 'signup')
    GROUP BY c.choice;
END
$$;

COMMENT ON FUNCTION _wa_apply_preferences(uuid, bigint[]) IS
'Internal: a customer''s choice to stop or resume marketing messages becomes an opt-out or consent.';

REVOKE ALL ON FUNCTION _wa_apply_account_events(uuid, _wa_webhook_atoms[]),
_wa_apply_preferences(uuid, bigint[])
FROM PUBLIC;
GRANT SELECT ON wa_account_events TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_account_events TO wa_admin;
$wa_script$, '00d626a6dc1c06f6d606d687bd371a52f1fe42011187f96de88b903c7270c88c', ARRAY['function _wa_apply_account_events', 'function _wa_apply_preferences']::text[]),
(39, 'api', 'api/account_rules.sql', $wa_script$-- What events of accounts and numbers change. An event that comes late does not undo a newer one about the
-- same thing.

CREATE OR REPLACE FUNCTION _wa_tier_limit(p_limit text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN p_limit = 'TIER_NOT_SET' THEN 250
    WHEN p_limit ~ '^(TIER_)?[0-9]{1,6}[KM]?$' THEN (regexp_replace(p_limit, '[^0-9]', '', 'g'))::integer
        * CASE right(p_limit, 1) WHEN 'K' THEN 1000 WHEN 'M' THEN 1000000 ELSE 1 END
END;

COMMENT ON FUNCTION _wa_tier_limit(text) IS
'Internal: a messaging limit as a number of recipients (TIER_2K or 2000: 2000; never used: 250); NULL for '
'unlimited.';

CREATE OR REPLACE FUNCTION _wa_event_numbers(p_org uuid, p_event wa_account_events) RETURNS bigint[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(array_agg(n.id), '{}')
    FROM wa_phone_numbers n
    CROSS JOIN LATERAL (
        SELECT regexp_replace(
            coalesce(p_event.payload ->> 'display_phone_number', p_event.payload ->> 'phone_number', ''),
            '[^0-9]', '', 'g'
        ) AS digits
    ) d
    WHERE n.organization_id = p_org AND n.waba_id = p_event.waba_id
        AND (d.digits = '' OR regexp_replace(n.display_phone, '[^0-9]', '', 'g') = d.digits)
$$;

COMMENT ON FUNCTION _wa_event_numbers(uuid, wa_account_events) IS
'Internal: the numbers that an event is about: the one it names, else all of its account.';

CREATE OR REPLACE FUNCTION _wa_is_overtaken(p_org uuid, p_event wa_account_events) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_account_events l
        WHERE l.organization_id = p_org AND l.field = p_event.field AND l.occurred_at > p_event.occurred_at
            AND l.waba_id IS NOT DISTINCT FROM p_event.waba_id
            AND (l.field <> 'account_update' OR l.event IS NOT DISTINCT FROM p_event.event)
            AND coalesce(l.payload ->> 'display_phone_number', l.payload ->> 'phone_number')
            IS NOT DISTINCT FROM coalesce(
                p_event.payload ->> 'display_phone_number', p_event.payload ->> 'phone_number'
            )
    )
$$;

COMMENT ON FUNCTION _wa_is_overtaken(uuid, wa_account_events) IS
'Internal: whether a newer event of the same kind about the same number or account is known.';

CREATE OR REPLACE FUNCTION _wa_apply_account_event(p_org uuid, p_event wa_account_events) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_numbers bigint[] := _wa_event_numbers(p_org, p_event);
    v_value jsonb := p_event.payload;
BEGIN
    IF p_event.field LIKE '%template%' THEN
        PERFORM _wa_apply_template_events(
            p_org, p_event.waba_id, ARRAY[p_event.occurred_at], ARRAY[p_event.payload]
        );
        RETURN;
    ELSIF _wa_is_overtaken(p_org, p_event) THEN
        RETURN;
    END IF;
    CASE p_event.field
        WHEN 'phone_number_quality_update' THEN
            PERFORM _wa_set_messaging_limit(p_org, v_numbers, coalesce(
                v_value ->> 'max_daily_conversations_per_business', v_value ->> 'current_limit'
            ));
            UPDATE wa_phone_numbers SET
                quality_rating = CASE p_event.event WHEN 'FLAGGED' THEN 'RED' ELSE 'UNKNOWN' END,
                updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (v_numbers)
                AND p_event.event IN ('FLAGGED', 'UNFLAGGED');
        WHEN 'business_capability_update' THEN
            PERFORM _wa_set_messaging_limit(p_org, v_numbers, coalesce(
                v_value ->> 'max_daily_conversations_per_business',
                v_value ->> 'max_daily_conversation_per_phone'
            ));
        WHEN 'phone_number_name_update' THEN
            UPDATE wa_phone_numbers SET
                verified_name = CASE
                    WHEN v_value ->> 'decision' = 'APPROVED'
                        THEN coalesce(v_value ->> 'requested_verified_name', verified_name)
                    ELSE verified_name
                END,
                name_status = v_value ->> 'decision', updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (v_numbers);
        WHEN 'business_username_update' THEN
            UPDATE wa_phone_numbers SET
                username = CASE v_value ->> 'status' WHEN 'deleted' THEN NULL ELSE v_value ->> 'username' END,
                updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (v_numbers)
                AND v_value ->> 'status' IN ('approved', 'deleted');
        WHEN 'account_review_update' THEN
            CASE v_value ->> 'decision'
                WHEN 'REJECTED' THEN
                    PERFORM _wa_pause_account(p_org, v_numbers, 'the provider rejected the account');
                WHEN 'APPROVED' THEN
                    PERFORM _wa_resume_account(p_org, v_numbers, 'the provider rejected the account');
                ELSE NULL;
            END CASE;
        WHEN 'account_update' THEN
            PERFORM _wa_apply_account_update(p_org, p_event, v_numbers);
        ELSE NULL;
    END CASE;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_event(uuid, wa_account_events) IS
'Internal: what one event changes in numbers, portfolios and templates. Most are only kept.';

CREATE OR REPLACE FUNCTION _wa_apply_account_update(p_org uuid, p_event wa_account_events, p_numbers bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_restriction record;
    v_reason constant text := 'the provider disabled the account';
BEGIN
    IF p_event.event = 'ACCOUNT_DELETED' OR p_event.payload #>> '{ban_info,waba_ban_state}' = 'DISABLE' THEN
        PERFORM _wa_pause_account(p_org, p_numbers, v_reason);
    ELSIF p_event.payload #>> '{ban_info,waba_ban_state}' = 'REINSTATE' THEN
        PERFORM _wa_resume_account(p_org, p_numbers, v_reason);
    ELSIF p_event.event = 'ACCOUNT_RESTRICTION' THEN
        FOR v_restriction IN
            -- Where no end is told, sending is tried again after a day; the answer will tell.
            SELECT r ->> 'restriction_type' AS type,
                coalesce(_wa_to_timestamp(r -> 'expiration'),
                    p_event.occurred_at + interval '24 hours') AS ends_at
            FROM jsonb_path_query(p_event.payload, '$.restriction_info[*]') r
        LOOP
            UPDATE wa_phone_numbers SET
                templates_blocked_until = CASE v_restriction.type
                    WHEN 'RESTRICTED_BIZ_INITIATED_MESSAGING' THEN v_restriction.ends_at
                        ELSE templates_blocked_until
                END,
                replies_blocked_until = CASE v_restriction.type
                    WHEN 'RESTRICTED_CUSTOMER_INITIATED_MESSAGING' THEN v_restriction.ends_at
                        ELSE replies_blocked_until
                END,
                updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (p_numbers);
        END LOOP;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_update(uuid, wa_account_events, bigint[]) IS
'Internal: bans pause an account, reinstatement resumes it, restrictions block templates or replies until '
'they end.';

CREATE OR REPLACE FUNCTION _wa_set_messaging_limit(p_org uuid, p_numbers bigint[], p_limit text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_portfolios p SET messaging_limit = p_limit, tier_limit = _wa_tier_limit(p_limit),
        updated_at = clock_timestamp()
    WHERE p.organization_id = p_org AND p_limit IS NOT NULL AND p.portfolio_id IN (
        SELECT n.portfolio_id FROM wa_phone_numbers n WHERE n.organization_id = p_org
            AND n.id = ANY (p_numbers)
    )
$$;

COMMENT ON FUNCTION _wa_set_messaging_limit(uuid, bigint[], text) IS
'Internal: the messaging limit of the portfolios of these numbers; NULL changes nothing.';

CREATE OR REPLACE FUNCTION _wa_pause_account(p_org uuid, p_numbers bigint[], p_reason text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_pause_number(p_org, n.id, 'account', p_reason, NULL)
    FROM unnest(p_numbers) n (id)
$$;

COMMENT ON FUNCTION _wa_pause_account(uuid, bigint[], text) IS
'Internal: pauses the accounts of these numbers until resumed.';

CREATE OR REPLACE FUNCTION _wa_resume_account(p_org uuid, p_numbers bigint[], p_reason text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers SET pause_scope = NULL, pause_reason = NULL, paused_at = NULL,
        paused_until = NULL,
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = ANY (p_numbers) AND pause_scope = 'account'
        AND pause_reason = p_reason
$$;

COMMENT ON FUNCTION _wa_resume_account(uuid, bigint[], text) IS
'Internal: ends the pause that was set for this reason; one set for another reason stays.';

REVOKE ALL ON FUNCTION _wa_tier_limit(text), _wa_event_numbers(uuid, wa_account_events),
_wa_is_overtaken(uuid, wa_account_events), _wa_apply_account_event(uuid, wa_account_events),
_wa_apply_account_update(uuid, wa_account_events, bigint[]), _wa_set_messaging_limit(uuid, bigint[], text),
_wa_pause_account(uuid, bigint[], text), _wa_resume_account(uuid, bigint[], text) FROM PUBLIC;
$wa_script$, 'c07a3d71961e25e9b5a59eb49f316eeb13a149f2443c656e1f4bcdccf0af3289', ARRAY['function _wa_tier_limit', 'function _wa_event_numbers', 'function _wa_is_overtaken', 'function _wa_apply_account_event', 'function _wa_apply_account_update', 'function _wa_set_messaging_limit', 'function _wa_pause_account', 'function _wa_resume_account']::text[]),
(40, 'api', 'api/events.sql', $wa_script$-- The application's own feed: inbound messages and status changes, at least once, in one order.

-- Rows get their place only here, after their commit and under a lock. An identity value alone would let a
-- reader pass one whose transaction commits late.
CREATE OR REPLACE FUNCTION _wa_place_events(p_org uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_last bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('wa_events ' || p_org, 0));
    SELECT e.position INTO v_last FROM wa_events e
    WHERE e.organization_id = p_org AND e.position IS NOT NULL
    ORDER BY e.position DESC LIMIT 1;
    UPDATE wa_events e SET position = coalesce(v_last, 0) + n.rank
    FROM (
        SELECT u.id, row_number() OVER (ORDER BY u.id) AS rank
        FROM (
            SELECT w.id FROM wa_events w
            WHERE w.organization_id = p_org AND w.position IS NULL
            ORDER BY w.id LIMIT 10000
        ) u
    ) n
    WHERE e.organization_id = p_org AND e.id = n.id;
END
$$;

COMMENT ON FUNCTION _wa_place_events(uuid) IS 'Internal: gives committed events their positions.';

CREATE OR REPLACE FUNCTION read_wa_events(p_consumer text, p_limit integer DEFAULT 100) RETURNS TABLE (
    "position" bigint, kind text, status text, occurred_at timestamptz, message_id bigint, queue_id uuid,
    reference text,
    wa_message_id text, direction text, message_type text, contact_id bigint, phone_e164 text, user_id text,
    phone_number_id text, content_text text, content jsonb, error_code integer, error_title text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_acked bigint;
BEGIN
    IF coalesce(p_consumer, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the consumer must have a name';
    END IF;
    PERFORM _wa_place_events(v_org);
    INSERT INTO wa_event_consumers (organization_id, consumer) VALUES (v_org, p_consumer) ON CONFLICT
        DO NOTHING;
    SELECT c.acked_position INTO v_acked FROM wa_event_consumers c
    WHERE c.organization_id = v_org AND c.consumer = p_consumer;
    RETURN QUERY
    SELECT e.position, e.kind, e.status, e.occurred_at, e.message_id, m.queue_id, m.reference,
        m.wa_message_id, m.direction,
        m.message_type, m.contact_id, m.phone_e164, m.user_id, m.phone_number_id, m.content_text, m.content,
        m.error_code,
        m.error_title
    FROM wa_events e
    LEFT JOIN wa_messages m ON m.organization_id = v_org AND m.id = e.message_id
    WHERE e.organization_id = v_org AND e.position > v_acked
    ORDER BY e.position
    LIMIT greatest(p_limit, 0);
END
$$;

COMMENT ON FUNCTION read_wa_events(text, integer) IS
'Inbound messages and status changes after what the consumer has acknowledged, in order, each with its '
'message as it is now. Reading again gives the same rows until ack_wa_events().';

CREATE OR REPLACE FUNCTION ack_wa_events(p_consumer text, p_position bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_last bigint;
BEGIN
    SELECT coalesce(max(e.position), 0) INTO v_last FROM wa_events e WHERE e.organization_id = v_org;
    -- An acknowledgement of what does not exist yet would skip it when it comes.
    UPDATE wa_event_consumers c SET
        acked_position = greatest(c.acked_position, least(p_position, v_last)), acked_at = clock_timestamp()
    WHERE c.organization_id = v_org AND c.consumer = p_consumer
    RETURNING c.acked_position INTO v_last;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
        MESSAGE = format('no consumer "%s"', p_consumer),
        HINT = 'A consumer is made by its first read_wa_events().';
    END IF;
    RETURN v_last;
END
$$;

COMMENT ON FUNCTION ack_wa_events(text, bigint) IS
'Acknowledges all events up to a position; returns the position that is acknowledged now. It never moves '
'back.';

REVOKE ALL ON FUNCTION _wa_place_events(uuid), read_wa_events(text, integer), ack_wa_events(text, bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_wa_events(text, integer), ack_wa_events(text, bigint) TO wa_admin, wa_app;
GRANT SELECT ON wa_events, wa_event_consumers TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_events, wa_event_consumers TO wa_admin;
$wa_script$, '4967a4ef86f88344a446356ad7cd0b571fe48053c1076c18e37530892bc18f67', ARRAY['function _wa_place_events', 'function read_wa_events', 'function ack_wa_events']::text[]),
(41, 'api', 'api/secrets.sql', $wa_script$-- Tokens and secrets. The database keeps ciphertext only; the key is with the processes that need the values.

CREATE OR REPLACE FUNCTION set_wa_secret(
    p_name text, p_phone_number_id text, p_ciphertext bytea, p_key_id text, p_fingerprint text,
    p_keep_previous boolean DEFAULT false
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_id uuid;
BEGIN
    IF EXISTS (
        SELECT FROM wa_number_routes r
        WHERE r.phone_number_id = p_phone_number_id AND r.organization_id <> v_org
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format(
                'business number %s is not registered for organization %s', p_phone_number_id, v_org
            ),
            HINT = 'SET wa.organization_id to the organization of the number; the ciphertext is bound to it.';
    END IF;
    IF length(p_ciphertext) < 28 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'the secret does not look encrypted',
            HINT = 'Use bin/wa secrets set; a plain value must never reach the database.';
    END IF;
    IF NOT p_keep_previous THEN
        UPDATE wa_secrets SET is_active = false
        WHERE organization_id = v_org AND name = p_name AND is_active
            AND phone_number_id IS NOT DISTINCT FROM p_phone_number_id;
    END IF;
    INSERT INTO wa_secrets (organization_id, name, phone_number_id, ciphertext, key_id, fingerprint)
    VALUES (v_org, p_name, p_phone_number_id, p_ciphertext, p_key_id, p_fingerprint)
    RETURNING id INTO v_id;
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (v_org, 'secret_set', 'wa_secrets', v_id::text, jsonb_build_object(
        'name', p_name, 'phone_number_id', p_phone_number_id, 'key_id', p_key_id,
        'kept_previous', p_keep_previous
    ));
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION set_wa_secret(text, text, bytea, text, text, boolean) IS
'Stores an encrypted access_token, app_secret or verify_token of the current organization, for one number '
'or (NULL) all. The previous one is retired, or stays valid beside it while a change is under way.';

CREATE OR REPLACE FUNCTION list_wa_secrets() RETURNS TABLE (
    organization_id uuid, id uuid, name text, phone_number_id text, key_id text, fingerprint text,
    is_active boolean,
    created_at timestamptz, created_by text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, s.id, s.name, s.phone_number_id, s.key_id, s.fingerprint, s.is_active,
        s.created_at,
        s.created_by
    FROM wa_secrets s
    ORDER BY s.organization_id, s.name, s.phone_number_id NULLS FIRST, s.created_at;
END
$$;

COMMENT ON FUNCTION list_wa_secrets() IS
'Which secrets are stored: names, numbers and fingerprints, never a value. Equal fingerprints are equal '
'values.';

CREATE OR REPLACE FUNCTION get_wa_credentials() RETURNS TABLE (
    organization_id uuid, phone_number_id text, waba_id text, provider text, secret_id uuid, ciphertext bytea,
    key_id text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, coalesce(n.phone_number_id, s.phone_number_id), n.waba_id, n.provider, s.id,
        s.ciphertext,
        s.key_id
    FROM (
        SELECT DISTINCT ON (a.organization_id, a.phone_number_id) a.*
        FROM wa_secrets a
        WHERE a.name = 'access_token' AND a.is_active
        ORDER BY a.organization_id, a.phone_number_id, a.created_at DESC
    ) s
    LEFT JOIN wa_phone_numbers n ON n.organization_id = s.organization_id
        AND (s.phone_number_id IS NULL OR n.phone_number_id = s.phone_number_id)
    ORDER BY s.organization_id, s.phone_number_id NULLS FIRST, n.id;
END
$$;

COMMENT ON FUNCTION get_wa_credentials() IS
'For the dispatcher: the newest encrypted access token of each number and of each organization, with the '
'numbers that it serves. A number''s own goes before its organization''s.';

CREATE OR REPLACE FUNCTION get_wa_webhook_secrets() RETURNS TABLE (
    organization_id uuid, name text, ciphertext bytea, key_id text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, s.name, s.ciphertext, s.key_id
    FROM wa_secrets s
    WHERE s.name IN ('app_secret', 'verify_token') AND s.is_active
    ORDER BY s.organization_id, s.name, s.created_at DESC;
END
$$;

COMMENT ON FUNCTION get_wa_webhook_secrets() IS
'For the receiver: every valid app secret and verify token, encrypted.';

REVOKE ALL ON FUNCTION set_wa_secret(text, text, bytea, text, text, boolean), list_wa_secrets(),
get_wa_credentials(), get_wa_webhook_secrets() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_wa_secret(text, text, bytea, text, text, boolean),
list_wa_secrets() TO wa_admin;
GRANT EXECUTE ON FUNCTION get_wa_credentials() TO wa_dispatcher;
GRANT EXECUTE ON FUNCTION get_wa_webhook_secrets() TO wa_receiver;
GRANT SELECT (
    organization_id, id, name, phone_number_id, key_id, fingerprint, is_active, created_at, created_by
), UPDATE (is_active) ON wa_secrets TO wa_admin;
$wa_script$, '26670b46ac17aacb697da51a417930a90f07b54e6e4a24dae5a54b4025f35b0c', ARRAY['function set_wa_secret', 'function list_wa_secrets', 'function get_wa_credentials', 'function get_wa_webhook_secrets']::text[]),
(42, 'api', 'api/masked.sql', $wa_script$-- What analysts may read: contact ids for joins, the last two digits of a phone number; no text, names or
-- values. These views run with the owner's rights, because an analyst may read none of the tables; each one
-- therefore filters by the organizations that the reader may see, and is a barrier for conditions that would
-- look past that filter.

CREATE OR REPLACE VIEW wa_contacts_masked WITH (security_barrier = true) AS
SELECT
    c.organization_id, c.id AS contact_id, _wa_mask_phone(c.phone_e164) AS phone,
    c.phone_e164 IS NOT NULL AS has_phone, c.user_id IS NOT NULL AS has_user_id, c.created_at, c.updated_at
FROM wa_contacts c
WHERE c.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_conversations_masked WITH (security_barrier = true) AS
SELECT
    w.organization_id, w.id, w.contact_id, w.number_id, n.phone_number_id,
    _wa_mask_phone(c.phone_e164) AS phone, w.last_customer_message_at, w.last_business_message_at,
    _wa_window_open(w.last_customer_message_at, clock_timestamp(), interval '0') AS is_within_24h,
    w.entry_point_opened_at, w.entry_point_expires_at, w.unread_count, w.created_at, w.updated_at
FROM wa_conversation_windows w
JOIN wa_contacts c ON c.organization_id = w.organization_id AND c.id = w.contact_id
JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
WHERE w.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_messages_masked WITH (security_barrier = true) AS
SELECT
    m.organization_id, m.id, m.contact_id, m.number_id, m.phone_number_id,
    _wa_mask_phone(m.phone_e164) AS phone, m.direction, m.message_type, m.template_name, m.template_language,
    m.template_category, m.status, m.state, m.is_within_24h_at_claim, m.is_echo,
    m.group_id IS NOT NULL AS is_in_group, m.reply_to IS NOT NULL AS is_reply,
    m.referral IS NOT NULL AS is_referred, m.pricing, m.error_code, m.error_title, m.queued_at, m.claimed_at,
    m.sent_at, m.delivered_at, m.read_at, m.played_at, m.failed_at, m.edited_at, m.deleted_at, m.provider_at,
    m.created_at, m.updated_at
FROM wa_messages m
WHERE m.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_message_statuses_masked WITH (security_barrier = true) AS
SELECT
    s.organization_id, s.id, s.message_id, s.status, s.occurred_at, s.received_at,
    _wa_mask_phone(s.recipient_id) AS recipient, s.error_code, s.error_title, s.pricing
FROM wa_message_statuses s
WHERE s.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_outbound_queue_masked WITH (security_barrier = true) AS
SELECT
    q.organization_id, q.id, coalesce(q.contact_id, d.contact_id, i.contact_id, m.contact_id) AS contact_id,
    _wa_mask_phone(q.phone) AS phone, q.type, q.template_name, q.template_language, q.priority, q.status,
    q.scheduled_at, q.expires_at, q.phone_number_id, q.retry_count, q.attempt, q.error_code, q.claimed_at,
    q.processed_at, q.created_at
FROM wa_outbound_queue q
LEFT JOIN wa_queue_due d ON d.organization_id = q.organization_id AND d.queue_id = q.id
LEFT JOIN wa_queue_inflight i ON i.organization_id = q.organization_id AND i.queue_id = q.id
LEFT JOIN wa_messages m ON m.organization_id = q.organization_id AND m.queue_id = q.id
WHERE q.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_templates_masked WITH (security_barrier = true) AS
SELECT
    t.organization_id, t.id, t.waba_id, t.name, t.language, t.category, t.approval_status, t.status,
    t.rejected_reason, t.quality_score, t.parameter_format, t.is_enabled, t.blocked_at, t.blocked_until,
    t.created_at, t.updated_at, t.synced_at
FROM wa_templates t
WHERE t.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_opt_ins_masked WITH (security_barrier = true) AS
SELECT i.organization_id, i.id, i.contact_id, i.scope, i.source, i.opted_in_at
FROM wa_opt_ins i
WHERE i.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_opt_outs_masked WITH (security_barrier = true) AS
SELECT
    o.organization_id, o.id, o.contact_id, o.scope, _wa_mask_phone(o.phone_number) AS phone, o.source,
    o.opt_out_date, o.revoked_at, o.revoked_source
FROM wa_opt_outs o
WHERE o.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_phone_numbers_masked WITH (security_barrier = true) AS
SELECT
    n.organization_id, n.id, n.phone_number_id, _wa_mask_phone(n.display_phone) AS phone, n.waba_id,
    n.portfolio_id, n.provider, n.throughput, n.is_test, n.status, n.quality_rating, n.pause_scope,
    n.paused_at, n.paused_until, n.created_at
FROM wa_phone_numbers n
WHERE n.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_account_events_masked WITH (security_barrier = true) AS
SELECT e.organization_id, e.id, e.waba_id, e.phone_number_id, e.field, e.event, e.occurred_at, e.received_at
FROM wa_account_events e
WHERE e.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

COMMENT ON VIEW wa_contacts_masked IS
'Customers for analysts: id and the last two digits; no names, no ids of the provider.';
COMMENT ON VIEW wa_conversations_masked IS 'Conversations and their windows for analysts.';
COMMENT ON VIEW wa_messages_masked IS
'The message ledger for analysts: kinds, states, times and costs, no content.';
COMMENT ON VIEW wa_message_statuses_masked IS 'Reported statuses for analysts.';
COMMENT ON VIEW wa_outbound_queue_masked IS 'The outbound queue for analysts: no text, values or references.';
COMMENT ON VIEW wa_templates_masked IS 'Templates for analysts: names and states, no text.';
COMMENT ON VIEW wa_opt_ins_masked IS 'Proofs of consent for analysts, without the proof itself.';
COMMENT ON VIEW wa_opt_outs_masked IS 'Opt-outs for analysts, without the reason given.';
COMMENT ON VIEW wa_phone_numbers_masked IS 'Business numbers for analysts.';
COMMENT ON VIEW wa_account_events_masked IS 'Account events for analysts, without their payload.';

GRANT SELECT ON wa_contacts_masked, wa_conversations_masked, wa_messages_masked, wa_message_statuses_masked,
wa_outbound_queue_masked, wa_templates_masked, wa_opt_ins_masked, wa_opt_outs_masked, wa_phone_numbers_masked,
wa_account_events_masked TO wa_analyst, wa_admin;
$wa_script$, 'c82546c3c169688319c52d936e48d5e531659c903a8650a7a676b5ffab17fbe2', ARRAY['relation wa_contacts_masked', 'relation wa_conversations_masked', 'relation wa_messages_masked', 'relation wa_message_statuses_masked', 'relation wa_outbound_queue_masked', 'relation wa_templates_masked', 'relation wa_opt_ins_masked', 'relation wa_opt_outs_masked', 'relation wa_phone_numbers_masked', 'relation wa_account_events_masked']::text[]);
