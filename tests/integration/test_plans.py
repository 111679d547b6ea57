"""Plans that were made while the tables were empty still look rows up by key once they are full."""

from __future__ import annotations

from harness import CHECKOUT, Database

BATCHES, BATCH = 60, 50
# Rows that an index hands out for each message: a few look-ups by key, never the whole table.
MOST_READ = 8
READ = """
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes
WHERE relname IN ('wa_messages', 'wa_message_statuses', 'wa_outbound_queue')
"""


def test_a_session_from_the_first_day_reads_by_key(db: Database) -> None:
    with db.connect() as session:
        session.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
        session.execute("UPDATE wa_organizations SET rate_limit_per_minute = NULL")
        session.execute("VACUUM ANALYZE")
        for first in range(0, BATCHES * BATCH, BATCH):
            session.execute(
                "SELECT world.queue(n) FROM generate_series(%s::int, %s) n", (first, first + BATCH - 1)
            )
            assert session.execute("SELECT world.claimed()").fetchone() == (BATCH,)
            session.execute("SELECT world.accept_all()")
            session.execute("SELECT world.later('1 second')")
        assert session.execute("SELECT count(*) FROM wa_messages").fetchone() == (BATCHES * BATCH,)
        session.execute("SELECT pg_stat_force_next_flush()")
        session.execute("SELECT 1")
        walked = {name: read for name, read in session.execute(READ) if read > MOST_READ * BATCHES * BATCH}
    assert walked == {}
