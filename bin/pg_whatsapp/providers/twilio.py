"""Twilio. Requests are forms; what a webhook is signed over is the address that it was sent to, too.

Documentation: www.twilio.com/docs, pages Message resource and Webhooks security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from pydantic import SecretStr

from pg_whatsapp.errors import ConfigError
from pg_whatsapp.providers.base import Provider, Webhook, WebhookKeys
from pg_whatsapp.providers.twilio_content import ContentTemplates

_PORTS = {"https": ":443", "http": ":80"}
# Of a webhook that nobody vouches for yet; Twilio's own have some forty fields.
_LARGEST_FORM = 1 << 18
# Not more than are read of it, with those of its address (plpython/read_form.py).
_MOST_FIELDS = 900
_BLANKS, _DIGITS = re.compile(r"[\s().-]"), re.compile("[1-9][0-9]{6,14}")
_SERVICE = re.compile("MG[0-9a-fA-F]{32}")
_ACCOUNT, _KEY = re.compile("AC[0-9a-fA-F]{32}"), re.compile("SK[0-9a-fA-F]{32}")


class Twilio(Provider):
    """Basic authentication with "AccountSid:AuthToken", or an API key and its secret."""

    name = "twilio"
    base_url = "https://api.twilio.com"
    content_type = "application/x-www-form-urlencoded"
    media_hosts = ("twilio.com", "twiliocdn.com", "s3.amazonaws.com", "s3-external-1.amazonaws.com")
    shows_token_to_hosts = False
    gives_files_at_once = True
    signature_header = b"x-twilio-signature"
    signs_address = True
    templates = ContentTemplates()

    def token_headers(self, token: str) -> dict[str, str]:
        """Basic authentication."""
        return {"authorization": "Basic " + base64.b64encode(token.encode()).decode()}

    def encode(self, body: str) -> bytes:
        """The fields as a form."""
        return urlencode(orjson.loads(body)).encode()

    def misfit(self, account: str, token: str) -> tuple[str, str] | None:
        """The account is an Account SID; the token begins with one, or with an API key."""
        user, _, secret = token.partition(":")
        if not _ACCOUNT.fullmatch(account):
            return (
                "its account is no Account SID, which is AC and 32 hexadecimal digits",
                "Register it again with the Account SID: SELECT register_wa_phone_number(...);",
            )
        if not (secret and (_ACCOUNT.fullmatch(user) or _KEY.fullmatch(user))):
            return (
                "its token is neither AccountSid:AuthToken nor an API key and its secret",
                "bin/wa secrets set access_token, with both parts and the colon between them.",
            )
        return None

    def environment(self, variables: Mapping[str, str]) -> dict[str, Any]:
        """TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, WHATSAPP_PHONE_NUMBER."""
        account, token = variables.get("TWILIO_ACCOUNT_SID"), variables.get("TWILIO_AUTH_TOKEN")
        number = variables.get("WHATSAPP_PHONE_NUMBER")
        made: dict[str, Any] = {}
        if account:
            made["waba_id"] = account
        if account and token:
            made["access_token"] = SecretStr(f"{account}:{token}")
        if token:
            made["app_secret"] = SecretStr(token)
        if number:
            made["phone_number_id"] = f"whatsapp:{_as_twilio_has_it(number)}"
        return made

    def signers(self, webhook: Webhook, keys: WebhookKeys) -> list[str]:
        """The auth tokens that signed one of the addresses that it may have been sent to."""
        given = webhook.headers.get(self.signature_header)
        if given is None:
            return []
        signed = _signed_fields(webhook)
        if signed is None:
            return []
        texts = [(url + signed).encode() for url in _addresses(webhook, keys.public_urls)]
        return [
            secret_id
            for value, ids in keys.named("app_secret").items()
            if _is_signed(value.encode(), texts, given)
            for secret_id in ids
        ]

    def kept(self, webhook: Webhook) -> bytes:
        """Body and query as one form: what of ours comes back stands in the query."""
        return b"&".join(part for part in (webhook.body, webhook.query.encode("latin-1")) if part)


def _as_twilio_has_it(number: str) -> str:
    """A phone number in E.164, or a messaging service; webhooks name it so. Raises ConfigError."""
    written = _BLANKS.sub("", number.strip().removeprefix("whatsapp:"))
    if _SERVICE.fullmatch(written):
        return written
    digits = written.removeprefix("+")
    if not _DIGITS.fullmatch(digits):
        raise ConfigError(
            "WHATSAPP_PHONE_NUMBER is no phone number in E.164",
            "Write it with its country code: +14155238886",
        )
    return f"+{digits}"


def _is_signed(key: bytes, texts: list[bytes], given: bytes) -> bool:
    matches = [
        hmac.compare_digest(base64.b64encode(hmac.digest(key, text, hashlib.sha1)), given) for text in texts
    ]
    return any(matches)


def _signed_fields(webhook: Webhook) -> str | None:
    """What is signed behind the address: every field of a form; of another body the address has the hash.

    None where that hash is not the body's, or the form is none of Twilio's by its size.
    """
    query = dict(parse_qsl(webhook.query, keep_blank_values=True))
    if "bodySHA256" in query:
        digest = hashlib.sha256(webhook.body).hexdigest()
        return "" if hmac.compare_digest(digest, query["bodySHA256"].lower()) else None
    if len(webhook.body) > _LARGEST_FORM:
        return None
    try:
        fields = set(
            parse_qsl(webhook.body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        )
    except ValueError:
        return None
    return "".join(name + value for name, value in sorted(fields))


def _addresses(webhook: Webhook, public_urls: Sequence[str]) -> Iterator[str]:
    """Where it may have been sent to: as stated, else as it says itself; with the usual port and without."""
    host = webhook.headers.get(b"host", b"").decode("latin-1")
    for base in dict.fromkeys([*public_urls, f"{webhook.scheme}://{host}"]):
        scheme, _, rest = base.partition("://")
        place, slash, path = rest.partition("/")
        usual = _PORTS.get(scheme, "")
        places = {place, place.lower()}
        places |= {one.removesuffix(usual) for one in places} | {one + usual for one in places}
        # A question mark with nothing behind it is not passed on.
        ends = (webhook.target,) if "?" in webhook.target else (webhook.target, webhook.target + "?")
        for other in places:
            for end in ends:
                yield f"{scheme}://{other}{slash}{path}{end}"


PROVIDER = Twilio()
