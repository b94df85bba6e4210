"""Which models a provider was last seen to have."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, select

from storage.changes import bump, version
from storage.database import Database
from storage.records import ProviderModels, SeenModel
from storage.tables import provider_models as table

TOPIC = "provider_models"


class ModelStore:
    """The models of all providers. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace(self, provider: str, models: Iterable[SeenModel], at: int) -> None:
        """Keep these alone of the provider; of several with one name the last. None forgets the provider."""
        rows = {
            one.model: {"provider": provider, "model": one.model, "raw": one.raw.decode(), "seen_at": at}
            for one in models
        }
        async with self._database.transaction() as connection:
            await bump(connection, TOPIC)
            await connection.execute(table.delete().where(table.c.provider == provider))
            if rows:
                await connection.execute(table.insert(), list(rows.values()))

    async def version(self) -> int:
        """A number that is another one after every change."""
        async with self._database.reading() as connection:
            return await version(connection, TOPIC)

    async def of(self, provider: str) -> ProviderModels | None:
        """None where none were seen."""
        return (await self._found(_SELECT.where(table.c.provider == provider))).get(provider)

    async def all(self) -> dict[str, ProviderModels]:
        """By the names of the providers."""
        return await self._found(_SELECT)

    async def _found(self, statement: Select[*tuple[Any, ...]]) -> dict[str, ProviderModels]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        seen: dict[str, tuple[int, list[SeenModel]]] = {}
        for provider, model, raw, seen_at in rows:
            seen.setdefault(provider, (seen_at, []))[1].append(SeenModel(model, raw.encode()))
        return {
            provider: ProviderModels(at, tuple(sorted(models, key=_name))) for provider, (at, models) in seen.items()
        }


def _name(one: SeenModel) -> str:
    # Sorted here: PostgreSQL would by the language of the database.
    return one.model


_SELECT = select(table.c.provider, table.c.model, table.c.raw, table.c.seen_at)
