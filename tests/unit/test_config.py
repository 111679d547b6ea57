"""Settings from the environment."""

from __future__ import annotations

import pytest
from pg_whatsapp import config
from pg_whatsapp.errors import ConfigError
from pg_whatsapp.providers import PROVIDERS


def test_nothing_needs_to_be_set() -> None:
    settings = config.load()
    assert settings.conninfo == ""
    assert settings.provider == "meta"
    assert settings.base_url("meta") == "https://graph.facebook.com"
    assert settings.base_url("360dialog") == "https://waba-v2.360dialog.io"
    assert settings.access_token is None


def test_documented_names_and_their_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_WEBHOOK_SECRET", "old name")
    monkeypatch.setenv("WHATSAPP_WEBHOOK_VERIFY_TOKEN", "old token")
    settings = config.load()
    assert settings.app_secret is not None
    assert settings.app_secret.get_secret_value() == "old name"
    monkeypatch.setenv("WHATSAPP_APP_SECRET", "new name")
    monkeypatch.setenv("WHATSAPP_VERIFY_TOKEN", "new token")
    settings = config.load()
    assert settings.app_secret is not None
    assert settings.app_secret.get_secret_value() == "new name"
    assert settings.verify_token is not None
    assert settings.verify_token.get_secret_value() == "new token"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_ACCESS_TOKEN", "")
    monkeypatch.setenv("WHATSAPP_API_VERSION", "")
    settings = config.load()
    assert settings.access_token is None
    assert settings.api_version == "v25.0"


def test_a_base_url_is_for_the_provider_of_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_API_BASE_URL", "http://127.0.0.1:8801/")
    settings = config.load()
    assert settings.base_url("meta") == "http://127.0.0.1:8801"
    assert settings.base_url("360dialog") == "https://waba-v2.360dialog.io"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WHATSAPP_PROVIDER", "telegraph"),
        ("WHATSAPP_API_VERSION", "25"),
        ("WHATSAPP_API_BASE_URL", "graph.facebook.com"),
    ],
)
def test_a_wrong_value_is_named_but_not_quoted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        config.load()
    assert name in str(raised.value)
    assert value not in str(raised.value).replace(name, "").replace("'360dialog'", "").replace("v\\d+", "")


def test_secrets_do_not_show_when_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_ACCESS_TOKEN", "EAA-very-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/app")
    settings = config.load()
    assert "very-secret" not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert settings.conninfo == "postgresql://me:hunter2@db/app"


def test_the_environment_may_name_every_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROVIDERS:
        monkeypatch.setenv("WHATSAPP_PROVIDER", name)
        assert config.load().provider == name


def test_twilio_has_variables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "hunter2")
    monkeypatch.setenv("WHATSAPP_PHONE_NUMBER", "+14155238886")
    assert config.load().access_token is None
    monkeypatch.setenv("WHATSAPP_PROVIDER", "twilio")
    settings = config.load()
    assert settings.access_token is not None
    assert settings.access_token.get_secret_value() == "AC1:hunter2"
    assert settings.app_secret is not None
    assert settings.app_secret.get_secret_value() == "hunter2"
    assert (settings.waba_id, settings.phone_number_id) == ("AC1", "whatsapp:+14155238886")
    assert "hunter2" not in repr(settings)
    for written in ("whatsapp:+14155238886", "14155238886", "+1 (415) 523-8886"):
        monkeypatch.setenv("WHATSAPP_PHONE_NUMBER", written)
        assert config.load().phone_number_id == "whatsapp:+14155238886"
    monkeypatch.setenv("WHATSAPP_PHONE_NUMBER", "04155238886")
    with pytest.raises(ConfigError, match="no phone number"):
        config.load()
