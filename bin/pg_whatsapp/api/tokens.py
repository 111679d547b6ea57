"""JSON Web Tokens of an issuer that the administrator trusts, instead of API keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt

from pg_whatsapp.api.problems import Problem
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import ConfigError

# A shared secret signs with HS256 only; a public key must never be taken for one (RFC 8725, 3.1).
_SHARED = ["HS256"]
_PUBLIC = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
LEAST_SECRET = 32
LEEWAY_S = 30
# The library's own, and what it lets through: an algorithm that is not for keys of the kind that the token
# names, numbers that are none, nesting.
_NOT_GOOD = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError)


class Issuer:
    """Checks tokens; built from WA_JWT_SECRET or WA_JWT_JWKS_FILE."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
        self._keys: jwt.PyJWKSet | None = None
        self._settings = settings
        if self._secret is not None and len(self._secret) < LEAST_SECRET:
            raise ConfigError(f"WA_JWT_SECRET has fewer than {LEAST_SECRET} characters", "Make a longer one.")
        if settings.jwt_jwks_file is not None:
            self._keys = _load_keys(settings.jwt_jwks_file)

    def read(self, token: str) -> tuple[str, str | None, str, list[str]]:
        """Subject, organization (None: the default one), database role and scopes of a token.

        Raises Problem 401 for one that is forged, over, too early, for another audience, or lacks a claim.
        """
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(token),
                algorithms=_SHARED if self._keys is None else _PUBLIC,
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=LEEWAY_S,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": settings.jwt_audience is not None,
                },
            )
        except _NOT_GOOD as error:
            raise Problem(401, "WA601", f"the token is not good: {type(error).__name__}") from None
        role = claims.get(settings.jwt_role_claim) or settings.jwt_role
        organization = claims.get(settings.jwt_organization_claim)
        scopes = claims.get("scope", settings.jwt_scopes)
        scopes = scopes.split() if isinstance(scopes, str) else scopes
        if not isinstance(role, str) or not isinstance(organization, str | None) or not _are_texts(scopes):
            raise Problem(401, "WA601", "the token names no database role, or claims of another form")
        if not all(_is_holdable(text) for text in (claims["sub"], organization or "", role, *scopes)):
            raise Problem(401, "WA601", "a claim of the token holds what no text of the database can")
        return str(claims["sub"]), organization, role, scopes

    def _key(self, token: str) -> Any:
        if self._keys is None:
            return self._secret
        wanted = jwt.get_unverified_header(token).get("kid")
        for key in self._keys.keys:
            if wanted is None or key.key_id == wanted:
                return key.key
        raise jwt.InvalidKeyError("unknown key")


def _is_holdable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _load_keys(path: Path) -> jwt.PyJWKSet:
    try:
        return jwt.PyJWKSet.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, jwt.PyJWTError) as error:
        raise ConfigError(
            f"WA_JWT_JWKS_FILE cannot be read: {type(error).__name__}", "It is a JSON Web Key Set."
        ) from None


def load_issuer(settings: Settings) -> Issuer | None:
    """The trusted issuer, if a setting names one."""
    if settings.jwt_secret is None and settings.jwt_jwks_file is None:
        return None
    return Issuer(settings)
