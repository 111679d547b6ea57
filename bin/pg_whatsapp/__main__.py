"""`python -m pg_whatsapp` is the `wa` command."""

from pg_whatsapp.cli import main

if __name__ == "__main__":
    main()
