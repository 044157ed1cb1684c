"""One controller leads: never two, and never none for longer than a lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from migrated import MIGRATED
from postgres import new_database
from pydantic import SecretStr
from sqlalchemy import update

from services.keys import Keys
from services.leader import Deposed, Leader, Lease
from services.settings import Settings
from services.tables import ApiKey, AuditEvent, Database, Leadership


@pytest.fixture
def shared(tmp_path: Path, migrated_server: str) -> Iterator[tuple[Settings, Database]]:
    """A database of several controllers."""
    settings = Settings(
        home=tmp_path / "home", database_url=new_database(migrated_server, "leaders", like=MIGRATED), lease_seconds=60.0
    )
    database = Database(settings.database, settings.database_busy_seconds)
    yield settings, database
    database.close()


@pytest.mark.parametrize("given", [None, "cdn_" + "4e" * 16])
def test_of_many_that_start_at_once_one_makes_the_operators_key(shared: tuple[Settings, Database], given: str | None) -> None:
    settings, database = shared
    settings = settings.model_copy(update={"api_key": SecretStr(given) if given else None, "key_pepper": SecretStr("7a" * 16)})
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda keys: keys.provide(), [Keys(settings, database) for _ in range(8)]))
    with database.read() as tx:
        assert tx.query(ApiKey).count() == 1
    assert len([key for key in made if key]) == (0 if given else 1), "it is shown once"


def over(database: Database) -> None:
    """The lease runs out."""
    with database.write() as tx:
        tx.execute(update(Leadership).values(until=0.0))


def test_of_many_that_ask_at_once_one_leads(shared: tuple[Settings, Database]) -> None:
    leases = [Lease(*shared) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(Lease.take, leases)) == 1
        assert sum(pool.map(Lease.take, leases)) == 1
    assert sorted(lease.term for lease in leases) == [0] * 7 + [1]


def test_a_lease_is_kept_by_asking_again_and_is_nobodys_when_it_is_over(shared: tuple[Settings, Database]) -> None:
    first, second = Lease(*shared), Lease(*shared)
    assert first.take()
    assert first.take()
    assert first.term == 1
    over(shared[1])
    assert second.take()
    assert second.term == 2
    assert not first.take()


def test_a_lease_that_is_given_back_is_free_at_once(shared: tuple[Settings, Database]) -> None:
    first, second = Lease(*shared), Lease(*shared)
    assert first.take()
    first.give_back()
    assert second.take()
    first.give_back()
    assert second.take()


def test_a_leader_that_was_away_for_longer_than_its_lease_writes_nothing(shared: tuple[Settings, Database]) -> None:
    _, database = shared
    first, second = Lease(*shared), Lease(*shared)
    first.take()
    over(database)
    second.take()

    def event() -> AuditEvent:
        return AuditEvent(id="evt_1", tenant="default", actor="controller", action="x", object="y", data={}, digest="")

    with pytest.raises(Deposed), first.write() as tx:
        tx.add(event())
    with second.write() as tx:
        tx.add(event())


def test_nobody_takes_the_lease_while_its_leader_writes(shared: tuple[Settings, Database]) -> None:
    _, database = shared
    first, second = Lease(*shared), Lease(*shared)
    first.take()
    over(database)
    with ThreadPoolExecutor(1) as pool:
        with first.write() as tx:
            taking = pool.submit(second.take)
            time.sleep(0.2)
            assert not taking.done()
            tx.flush()
        assert taking.result()


def test_the_next_one_leads_when_the_first_one_says_nothing(shared: tuple[Settings, Database]) -> None:
    """Its beats stop, as those of a process that was killed: what it did is done by the other one, and it by itself stops."""
    settings, database = shared
    told: list[str] = []

    def leader(name: str) -> Leader:
        async def lead() -> None:
            told.append(f"{name} leads")

        async def step_down() -> None:
            told.append(f"{name} steps down")

        return Leader(Lease(settings, database), lead, step_down)

    async def life() -> None:
        first, second = leader("first"), leader("second")
        await first.campaign()
        await second.campaign()
        over(database)
        await second.campaign()
        await first.campaign()
        await second.close()
        await first.campaign()

    asyncio.run(life())
    assert told == ["first leads", "second leads", "first steps down", "second steps down", "first leads"]


def test_one_that_leads_again_after_another_one_has_begins_anew(shared: tuple[Settings, Database]) -> None:
    """What it did was refused while the other one led, and stands still."""
    settings, database = shared
    told: list[str] = []

    async def lead() -> None:
        told.append("leads")

    async def step_down() -> None:
        told.append("steps down")

    async def life() -> None:
        first = Leader(Lease(settings, database), lead, step_down)
        await first.campaign()
        over(database)
        assert Lease(settings, database).take()
        over(database)
        await first.campaign()
        await first.campaign()

    asyncio.run(life())
    assert told == ["leads", "steps down", "leads"]


def test_on_sqlite_the_only_controller_leads_at_once(settings: Settings) -> None:
    settings.home_folder.mkdir()
    database = Database(settings.database, settings.database_busy_seconds)
    assert Lease(settings, database).take()
    assert Lease(settings, database).take()
    database.close()
