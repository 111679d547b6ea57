"""`wa optouts` and `wa adopt --optouts`: files in and out, and a restored backup that revives no consent.

Tests sql/consent/transfer.sql.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from harness import Database
from simulated import NUMBER
from wa_process import wa

FILE = """\
\ufeffphone;scope;reason;opt_out_date
+16505550101;all;asked;2026-01-31
1.65056E+10;all;;

+1 (650) 555-0102;;"two
lines";2026-02-01T12:00:00Z
nobody;;;
+16505550103;utility;;31.01.2026
+16505550101;all;again;
"""


def scopes(db: Database) -> list[tuple[str, str]]:
    rows = db.query("SELECT phone_number, scope FROM wa_opt_outs WHERE revoked_at IS NULL ORDER BY id")
    return [(row["phone_number"], row["scope"]) for row in rows]


def test_a_file_is_taken_in_line_by_line_and_as_often_as_one_likes(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_text(FILE)
    first = wa("optouts", "import", str(file), database=db)
    assert first.returncode == 1
    assert "2 added, 1 known, 0 superseded, 3 refused" in first.stdout
    # Bad lines by the number that an editor shows; no number of a person among what is said.
    told = [line.split(":")[0] for line in first.stderr.splitlines() if line.startswith("line ")]
    assert told == ["line 3", "line 7", "line 8"]
    assert "rounded" in first.stderr
    assert "555" not in first.stderr + first.stdout
    assert scopes(db) == [("+16505550101", "all"), ("+16505550102", "marketing")]
    again = wa("optouts", "import", str(file), database=db)
    assert "0 added, 3 known" in again.stdout
    assert len(db.query("SELECT 1 FROM wa_consent_events")) == 2


def test_what_is_exported_is_taken_in_by_another_database(
    db: Database, make_database: Callable[..., Database], tmp_path: Path
) -> None:
    db.query("SELECT opt_out_wa_contact('+16505550101', 'all', E'a \"quote\",\nand a line')")
    db.query("SELECT opt_out_wa_contact('US.1234567890abc', 'utility', p_source => 'keyword')")
    db.query("SELECT opt_out_wa_contact('+16505550102'), opt_in_wa_contact('+16505550102')")
    db.query("SELECT opt_out_wa_contact('+16505550103', 'sms')")
    file = tmp_path / "out.csv"
    assert wa("optouts", "export", str(file), database=db).returncode == 0
    assert file.stat().st_mode & 0o077 == 0
    assert wa("optouts", "export", "-", database=db).stdout == file.read_text()
    other = make_database()
    assert wa("optouts", "import", str(file), database=other).returncode == 0
    same = b"SELECT phone, user_id, scope, opt_out_date, source, reason FROM export_wa_opt_outs()"
    with db.connect() as one, other.connect() as two:
        assert set(one.execute(same).fetchall()) == set(two.execute(same).fetchall())
    assert ("+16505550103", "sms") in scopes(other)


def test_a_file_without_names_of_columns_is_refused(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("+16505550101,all\n")
    result = wa("optouts", "import", str(file), database=db)
    assert result.returncode == 1
    assert "column names" in result.stderr
    assert scopes(db) == []


def test_nothing_of_a_file_is_left_out_unsaid(db: Database, tmp_path: Path) -> None:
    """A misspelt scope would be another scope's opt-out, and letters of another encoding nobody's words."""
    file = tmp_path / "bad.csv"
    file.write_text("phone,scop\n+16505550101,all\n")
    refused = wa("optouts", "import", str(file), database=db)
    assert refused.returncode == 1
    assert "columns that mean nothing here: scop\n" in refused.stderr
    assert scopes(db) == []
    file.write_bytes(
        b"phone,scope,reason\n+16505550101,all,m\xfcde\n+16505550102,,ok\n+16505550103,all,asked,all\nno,,\n"
    )
    told = wa("optouts", "import", str(file), database=db)
    assert told.returncode == 1
    assert "1 added, 0 known, 0 superseded, 3 refused" in told.stdout
    lines = told.stderr.splitlines()
    assert lines[:2] == [
        "line 2: it is not UTF-8: save the file as that",
        "line 4: it has more values than the first line names columns",
    ]
    assert lines[2].startswith("line 5: not a phone number")
    assert scopes(db) == [("+16505550102", "marketing")]
    nowhere = wa("optouts", "export", str(tmp_path / "none" / "out.csv"), database=db)
    assert nowhere.stderr == "wa: the opt-outs could not be written: No such file or directory\n"


def test_a_restored_backup_revives_no_consent(db: Database, tmp_path: Path) -> None:
    """What adopt is told is in force before anything may be sent, and cancels what the backup had queued."""
    db.query("SELECT register_wa_phone_number(%s, '15550783881', '102290129340398')", NUMBER)
    db.query(
        "INSERT INTO wa_templates (name, category, status, body_text)"
        " VALUES ('sale', 'MARKETING', 'APPROVED', 'x')"
    )
    db.query("INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+16505550101', 'sale')")
    # As in a copy: the database that may send is another one.
    db.query("UPDATE wa_installations SET system_identifier = '1'")
    file = tmp_path / "since.csv"
    file.write_text("phone,scope\n+16505550101,marketing\nnobody,all\n")
    refused = wa("adopt", "--pending", "keep", "--optouts", str(file), database=db)
    assert refused.returncode == 1
    assert "not adopted" in refused.stderr
    assert db.query("SELECT 1 FROM wa_installations WHERE system_identifier = '1'")
    file.write_text("phone,scope\n+16505550101,marketing\n")
    adopted = wa("adopt", "--pending", "keep", "--optouts", str(file), database=db)
    assert adopted.returncode == 0
    assert "since.csv: 0 added, 1 known" in adopted.stdout
    (row,) = db.query("SELECT status, error_code FROM wa_outbound_queue")
    assert row == {"status": "cancelled", "error_code": "opted_out"}
    with pytest.raises(psycopg.Error) as refusal:
        db.query("INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+16505550101', 'sale')")
    assert refusal.value.sqlstate == "WA102"
