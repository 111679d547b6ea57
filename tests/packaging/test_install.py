from harness import Database


def test_a_fresh_database_is_at_the_version_of_the_extension(db: Database) -> None:
    assert db.query("SELECT * FROM wa_version()") == [{"extension_version": "0.1.0", "schema_version": "0.1.0"}]
