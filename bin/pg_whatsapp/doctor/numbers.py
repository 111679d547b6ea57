"""Whether business numbers can send and be heard: secrets, tokens, addresses, SMS, and what is free."""

from __future__ import annotations

from pg_whatsapp import errors
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.secrets import load_box

from . import provider
from .report import Check, Finding, Patient

# Of the month's free messages.
NEARLY_USED_UP = 0.1


async def _numbers(patient: Patient) -> Finding:
    known, paused, off, restricted = await patient.ask(
        "SELECT count(*), count(*) FILTER (WHERE pause_scope IS NOT NULL"
        " AND coalesce(paused_until, 'infinity') > clock_timestamp()),"
        " count(*) FILTER (WHERE status <> 'CONNECTED'),"
        " count(*) FILTER (WHERE"
        " greatest(templates_blocked_until, replies_blocked_until) > clock_timestamp())"
        " FROM wa_phone_numbers"
    )
    if not known:
        return Finding("numbers", False, "none registered", "SELECT register_wa_phone_number(...);")
    # 360dialog signs nothing that an app secret could check.
    deaf = await patient.list(
        "SELECT n.phone_number_id FROM wa_phone_numbers n WHERE n.provider = '360dialog' AND NOT EXISTS ("
        " SELECT FROM wa_secrets s WHERE s.organization_id = n.organization_id AND s.is_active"
        " AND s.name IN ('webhook_header', 'platform_secret')"
        " AND coalesce(s.phone_number_id, n.phone_number_id) = n.phone_number_id) ORDER BY 1"
    )
    if deaf:
        return Finding(
            "numbers",
            False,
            f"{len(deaf)} of 360dialog whose webhooks no stored secret lets in",
            f"bin/wa secrets set webhook_header --number {deaf[0][0]}, with the header told to 360dialog.",
        )
    has_secret = patient.settings.app_secret is not None
    unheard = await patient.list("SELECT phone_number_id FROM get_wa_unheard_numbers(%s)", has_secret)
    [of_meta] = await patient.ask("SELECT count(*) FROM wa_phone_numbers WHERE provider = 'meta'")
    # Without any secret at all the webhooks' line says so.
    if unheard and len(unheard) < of_meta:
        return Finding(
            "numbers",
            False,
            f"{len(unheard)} whose webhooks no secret may sign, the first is {unheard[0][0]}",
            f"bin/wa secrets set app_secret --number {unheard[0][0]}, or SELECT share_wa_app(owner) where one"
            " Meta app serves several organizations; then replay_wa_webhooks().",
        )
    return Finding(
        "numbers",
        not (paused or off or restricted),
        f"{known} registered, {paused} paused"
        + (f", {off} not connected" if off else "")
        + (f", {restricted} restricted by Meta" if restricted else ""),
        "SELECT phone_number_id, status, pause_reason, templates_blocked_until, replies_blocked_until FROM"
        " wa_phone_numbers; says why; resume_wa_number(phone_number_id) ends a pause, an UPDATE the others.",
    )


async def _tokens(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT organization_id::text, phone_number_id, provider, coalesce(waba_id, '') FROM wa_phone_numbers"
        " ORDER BY 1, 2"
    )
    numbers = [provider.Number(*row) for row in rows]
    try:
        box = load_box(patient.settings)
    except errors.SecretKeyError as error:
        return Finding("tokens", False, "stored tokens cannot be opened", error.hint)
    answers = await provider.ask(patient.settings, box, numbers)
    patient.skews += [answer.skew_s for answer in answers if answer.skew_s is not None]
    bad = [answer for answer in answers if answer.problem]
    others = sum(not answer.is_asked for answer in answers)
    unasked = f"; {others} of another provider not asked" if others else ""
    if bad:
        text = "; ".join(f"{answer.number.phone_number_id}: {answer.problem}" for answer in bad)
        return Finding("tokens", False, text + unasked, bad[0].hint)
    return Finding("tokens", True, f"{len(numbers) - others} accepted by the provider{unasked}")


async def _addresses(patient: Patient) -> Finding:
    signing = [one.name for one in PROVIDERS.values() if one.signs_address]
    rows = await patient.list(
        "SELECT n.phone_number_id FROM wa_phone_numbers n JOIN wa_organizations o ON o.id = n.organization_id"
        " WHERE n.provider = ANY (%s) AND o.public_url IS NULL"
        " AND NOT EXISTS (SELECT FROM wa_installations i WHERE i.public_url IS NOT NULL) ORDER BY 1",
        signing,
    )
    if not rows:
        return Finding("public address", True, "known where a provider signs it")
    return Finding(
        "public address",
        False,
        f"unknown, though {len(rows)} numbers need it, the first is {rows[0][0]}: no statuses come, and"
        " signatures of webhooks that went through a proxy cannot be checked",
        "UPDATE wa_installations SET public_url = 'https://your.host';",
    )


async def _sms(patient: Patient) -> Finding:
    using, without, name = await patient.ask(
        "SELECT count(*), count(*) FILTER (WHERE NOT o.has_number),"
        " min(o.name) FILTER (WHERE NOT o.has_number)"
        " FROM (SELECT x.name, EXISTS ("
        "   SELECT FROM wa_phone_numbers n WHERE n.organization_id = x.id AND n.channel = 'sms'"
        " ) AS has_number FROM wa_organizations x WHERE x.sms_fallback) o"
    )
    if without:
        text = f"on for {without} organizations without a number for SMS, the first is {name}"
        hint = "Register one that is for SMS (docs/providers.md), or set sms_fallback to false."
        return Finding("sms in reserve", False, text, hint)
    return Finding("sms in reserve", True, f"on for {using} organizations" if using else "off")


async def _free_messages(patient: Patient) -> Finding:
    # A month ends by the clock of the account, at most twelve hours after UTC's.
    rows = await patient.list(
        "SELECT phone_number_id, allowance, remaining, to_char(month, 'YYYY-MM') FROM ("
        "   SELECT DISTINCT ON (organization_id, phone_number_id) * FROM wa_service_allowances"
        "   WHERE month >= date_trunc('month', now() AT TIME ZONE 'UTC' - interval '12 hours')"
        "   ORDER BY organization_id, phone_number_id, month DESC"
        " ) a ORDER BY remaining, phone_number_id"
    )
    near = [row for row in rows if row[2] <= row[1] * NEARLY_USED_UP]
    if not near:
        return Finding("free messages", True, f"enough left at {len(rows)} numbers" if rows else "none used")
    number, allowance, remaining, month = near[0]
    return Finding(
        "free messages",
        True,
        f"{remaining} of {allowance} left in {month} at number {number}"
        + (f", and few at {len(near) - 1} more" if len(near) > 1 else ""),
        "What is beyond them costs the service rate (docs/costs.md), and needs a payment method at Meta.",
        warns=True,
    )


CHECKS: tuple[Check, ...] = (
    _numbers,
    _tokens,
    _addresses,
    _sms,
    _free_messages,
)
