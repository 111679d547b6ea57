"""The `wa` command: what moves bytes between PostgreSQL and the WhatsApp providers. Policy lives in SQL."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pg_whatsapp")
except PackageNotFoundError:  # run straight from a checkout that was never installed
    __version__ = "0.0.0+unknown"
