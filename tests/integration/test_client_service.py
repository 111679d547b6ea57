"""The ready-made `whatsapp_service`: the Python blocks of the requirement documents run as they stand.

Tests bin/whatsapp_service.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented import FOLDER, documents
from harness import Database
from wa_process import environment
from webhook_bodies import NUMBER_ID, message

PUBLIC = "https://samiatarot.example"
# As the document has them; test_these_are_the_blocks_of_the_document compares.
LINK = """\
# Generate signed URL for media access
signed_url = whatsapp_service.create_media_signature(
    message_id=123,
    max_access=1,      # Single use
    ttl_minutes=60     # 1 hour expiry
)
print(f"Signed URL: {signed_url}")
"""
NUMBERS = """\
# Test E.164 normalization
from whatsapp_service import whatsapp_service

test_numbers = [
    "+15551234567",
    "15551234567",
    "+1 (555) 123-4567",
    "invalid_number"
]

for number in test_numbers:
    normalized = whatsapp_service.normalize_phone_e164(number)
    print(f"{number} -> {normalized}")
"""
# The first block begins where its reader has the service already.
IMPORT = "from whatsapp_service import whatsapp_service\n"


def run(script: str, db: Database, directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A program of a user, in a directory of theirs."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env=environment(db, None, **env),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def media(db: Database) -> Database:
    """With a file at the message 123 of the ledger."""
    db.query("SELECT register_wa_phone_number(%s, '+1 555 123 4567', '200')", NUMBER_ID)
    db.query("ALTER TABLE wa_messages ALTER COLUMN id RESTART WITH 123")
    db.query(
        "SELECT ingest_wa_webhook(%s)", message("wamid.1", "5491140000001", 1790000001, "image", {"id": "M"})
    )
    db.query("SELECT process_wa_webhooks()")
    return db


def test_a_link_is_printed(media: Database, tmp_path: Path) -> None:
    done = run(IMPORT + LINK, media, tmp_path)
    assert "public_url" in done.stderr
    media.query("UPDATE wa_organizations SET public_url = %s", PUBLIC)
    done = run(IMPORT + LINK, media, tmp_path)
    assert done.returncode == 0, done.stderr
    [_, row] = media.query(
        "SELECT id::text, max_access, expires_at > now() AS is_open"
        " FROM wa_media_signatures ORDER BY created_at"
    )
    assert re.fullmatch(
        rf"Signed URL: {PUBLIC}/api/whatsapp/media/{row['id']}\?token=[0-9a-f]{{64}}\n", done.stdout
    )
    assert (row["max_access"], row["is_open"]) == (1, True)
    other = run(IMPORT + LINK.replace("123", "99"), media, tmp_path)
    assert "InputError: there is no such file" in other.stderr


def test_numbers_are_normalized(db: Database, tmp_path: Path) -> None:
    done = run(NUMBERS, db, tmp_path, DATABASE_URL=f"postgresql:///{db.name}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "+15551234567 -> +15551234567",
        "15551234567 -> +15551234567",
        "+1 (555) 123-4567 -> +15551234567",
        "invalid_number -> None",
    ]


@pytest.mark.skipif(not documents(), reason=f"no requirement documents in {FOLDER}")
def test_these_are_the_blocks_of_the_document() -> None:
    text = next(path for path in documents() if path.name.startswith("000")).read_text()
    assert re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) == [LINK, NUMBERS]
