"""What tells a copy of a data directory from its original."""

import os


def data_directory_mark() -> str:
    """Inode numbers of two files that a server writes in place and never replaces.

    Whatever copies files (pg_basebackup, a backup tool, cp -a, rsync) makes new ones, whereas restarts, chown
    and renaming the directory keep them. Not so a snapshot of the disk: it has the same ones. The directory
    is the server's working directory.
    """
    return "/".join(str(os.stat(name).st_ino) for name in ("PG_VERSION", "global/pg_control"))
