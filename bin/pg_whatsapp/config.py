"""Settings from the environment."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pg_whatsapp.errors import ConfigError
from pg_whatsapp.providers import PROVIDERS


class Settings(BaseSettings):
    """The environment variables that the commands read; every one may be absent."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, populate_by_name=True)

    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    provider: str = Field(default="meta", validation_alias="WHATSAPP_PROVIDER")
    api_base_url: str | None = Field(
        default=None, validation_alias="WHATSAPP_API_BASE_URL", pattern="^https?://"
    )
    api_version: str = Field(default="v25.0", validation_alias="WHATSAPP_API_VERSION", pattern=r"^v\d+\.\d+$")
    access_token: SecretStr | None = Field(default=None, validation_alias="WHATSAPP_ACCESS_TOKEN")
    phone_number_id: str | None = Field(default=None, validation_alias="WHATSAPP_PHONE_NUMBER_ID")
    phone_number: str | None = Field(default=None, validation_alias="WHATSAPP_PHONE_NUMBER")
    waba_id: str | None = Field(default=None, validation_alias="WHATSAPP_BUSINESS_ACCOUNT_ID")
    # What a first start makes of the organization's settings; later the database is asked.
    enable_media: bool = Field(default=True, validation_alias="WHATSAPP_ENABLE_MEDIA")
    enable_templates: bool = Field(default=True, validation_alias="WHATSAPP_ENABLE_TEMPLATES")
    retention_days: int | None = Field(
        default=None, validation_alias="WHATSAPP_MESSAGE_RETENTION_DAYS", ge=2, le=36500
    )
    app_secret: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("WHATSAPP_APP_SECRET", "WHATSAPP_WEBHOOK_SECRET")
    )
    verify_token: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("WHATSAPP_VERIFY_TOKEN", "WHATSAPP_WEBHOOK_VERIFY_TOKEN")
    )
    trusted_proxies: str | None = Field(default=None, validation_alias="WA_TRUSTED_PROXIES")
    webhook_client_header: str | None = Field(default=None, validation_alias="WA_WEBHOOK_CLIENT_HEADER")
    most_per_source: int | None = Field(default=None, validation_alias="WA_MOST_PER_SOURCE", ge=1)
    secret_key: SecretStr | None = Field(default=None, validation_alias="WA_SECRET_KEY")
    secret_key_file: Path | None = Field(default=None, validation_alias="WA_SECRET_KEY_FILE")
    secret_key_command: str | None = Field(default=None, validation_alias="WA_SECRET_KEY_COMMAND")

    # The issuer whose tokens the HTTP API takes instead of keys, and what their claims are called.
    jwt_secret: SecretStr | None = Field(default=None, validation_alias="WA_JWT_SECRET")
    jwt_jwks_file: Path | None = Field(default=None, validation_alias="WA_JWT_JWKS_FILE")
    jwt_issuer: str | None = Field(default=None, validation_alias="WA_JWT_ISSUER")
    jwt_audience: str | None = Field(default=None, validation_alias="WA_JWT_AUDIENCE")
    jwt_role_claim: str = Field(default="role", validation_alias="WA_JWT_ROLE_CLAIM")
    jwt_organization_claim: str = Field(default="organization", validation_alias="WA_JWT_ORGANIZATION_CLAIM")
    jwt_role: str | None = Field(default=None, validation_alias="WA_JWT_ROLE")
    jwt_scopes: str = Field(default="send read", validation_alias="WA_JWT_SCOPES")
    api_connections: int = Field(default=8, validation_alias="WA_API_CONNECTIONS", ge=1, le=500)
    api_timeout_s: float = Field(default=10, validation_alias="WA_API_TIMEOUT", gt=0, le=300)
    cors_origins: str | None = Field(default=None, validation_alias="WA_CORS_ORIGINS")

    @field_validator("provider")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in PROVIDERS:
            raise ValueError(f"input should be one of {', '.join(PROVIDERS)}")
        return name

    @cached_property
    def conninfo(self) -> str:
        """libpq connection string; empty when the PG* variables say it all."""
        return self.database_url.get_secret_value() if self.database_url else ""

    def secret(self, name: str) -> str | None:
        """A secret by its name in wa_secrets, where the environment has it."""
        known = {"app_secret": self.app_secret, "verify_token": self.verify_token}.get(name)
        return known.get_secret_value() if known else None

    def base_url(self, provider: str, other: str | None = None) -> str:
        """Where a provider's API is, or another of its APIs, without a slash at the end.

        WHATSAPP_API_BASE_URL is that of WHATSAPP_PROVIDER only: another provider's key must not be sent
        there.
        """
        chosen = self.api_base_url if provider == self.provider else None
        return (chosen or other or PROVIDERS[provider].base_url).rstrip("/")


def load() -> Settings:
    """Read the environment.

    Raises ConfigError that names each bad variable, without its value.
    """
    try:
        settings = Settings()
        return settings.model_copy(update=PROVIDERS[settings.provider].environment(os.environ))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)
        )
        raise ConfigError(f"wrong settings in the environment: {wrong}") from None


def from_environment(name: str) -> str:
    """The value of a named environment variable; raises ConfigError if it is unset or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(f"the environment variable {name} is not set")
    return value
