"""Where URLs of tenants may lead, by the rules that the database gives to the processes.

Tests sql/organizations/outside.sql with bin/pg_whatsapp/outside.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

import pytest
from harness import Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pg_whatsapp import outside
from pg_whatsapp.db import Link

ADDRESSES = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    # Networks of special use, and those that hold IPv4 addresses in them.
    *(
        st.ip_addresses(network=network)
        for network in ("10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10", "2000::/3")
    ),
    st.ip_addresses(v=4).map(lambda address: ipaddress.IPv6Address(f"::ffff:{address}")),
    st.ip_addresses(v=4).map(lambda address: ipaddress.IPv6Address(f"64:ff9b::{address}")),
    st.ip_addresses(v=4).map(lambda address: ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80)),
)
# Used as if they were of the internet by their holders.
PLATFORMS = {ipaddress.ip_address("168.63.129.16")}


def rules_of(database: Database, user: str | None = None) -> outside.Rules:
    """What a process is told that logs in as that role."""

    async def work() -> outside.Rules:
        link = Link(f"{database.dsn} user={user}" if user else database.dsn, "test")
        try:
            return await outside.fetch_rules(link)
        finally:
            await link.drop()

    return asyncio.run(work())


def test_only_the_internet_may_be_called(db: Database, make_role: Callable[..., str]) -> None:
    rules = rules_of(db, make_role("wa_dispatcher"))
    assert not rules.allows_plain_http

    @settings(max_examples=2000, suppress_health_check=list(HealthCheck), deadline=None)
    @given(address=ADDRESSES)
    def check(address: outside.Address) -> None:
        embeds = address.version == 6 and (
            address.ipv4_mapped or address.sixtofour or address in ipaddress.ip_network("64:ff9b::/96")
        )
        if not address.is_global or address.is_multicast or embeds:
            assert not rules.permits(address)

    check()
    for good in ("1.1.1.1", "93.184.216.34", "192.0.66.1", "2606:4700::1111", "2a00:1450:4001::200e"):
        assert rules.permits(ipaddress.ip_address(good))
    assert not any(map(rules.permits, PLATFORMS))


def test_database_and_process_agree(db: Database) -> None:
    db.query("UPDATE wa_installations SET outside_networks = '{10.0.0.0/8,64:ff9b::/96,fd00::/16}'")
    rules = rules_of(db)
    seen = []

    @settings(max_examples=500, suppress_health_check=list(HealthCheck), deadline=None)
    @given(address=ADDRESSES)
    def collect(address: outside.Address) -> None:
        seen.append(address)

    collect()
    rows = db.query(
        "SELECT u.address, _wa_may_lead_to(u.address::inet) AS may FROM unnest(%s::text[]) u (address)",
        [str(address) for address in seen],
    )
    assert {row["may"] for row in rows} == {True, False}
    assert [row for row in rows if rules.permits(ipaddress.ip_address(row["address"])) != row["may"]] == []


@pytest.mark.parametrize("role", ["wa_app", "wa_receiver", "wa_analyst"])
def test_the_rules_are_for_those_who_call(db: Database, make_role: Callable[..., str], role: str) -> None:
    with pytest.raises(Exception, match="permission denied"):
        rules_of(db, make_role(role))
