"""The `wa` command: what moves bytes between PostgreSQL and the WhatsApp providers. Policy lives in SQL."""

__version__: str


def __getattr__(name: str) -> str:
    # Looked up when asked for: it costs more than importing all of the client.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pg_whatsapp")
    except PackageNotFoundError:  # run straight from a checkout that was never installed
        return "0.0.0+unknown"
