"""The models of providers in a database."""

from storage.database import Database
from storage.models import ModelStore
from storage.records import ProviderModels, SeenModel


async def test_the_models_of_a_provider_are_replaced_as_a_whole(database: Database) -> None:
    store = ModelStore(database)
    await store.replace("openai", [SeenModel("b", b'{"id": "b", "n":1.0}'), SeenModel("A", b"{}")], 10)
    await store.replace("local", [SeenModel("b", b"[]")], 20)
    await store.replace("openai", [SeenModel("c/ü", '{ "x" :"ü\\u0000"}'.encode()), SeenModel("A", b"{}")], 30)
    openai = ProviderModels(30, (SeenModel("A", b"{}"), SeenModel("c/ü", '{ "x" :"ü\\u0000"}'.encode())))
    assert openai == await store.of("openai")
    assert {"openai": openai, "local": ProviderModels(20, (SeenModel("b", b"[]"),))} == await store.all()


async def test_a_provider_without_models_is_forgotten(database: Database) -> None:
    store = ModelStore(database)
    assert None is await store.of("openai")
    await store.replace("openai", [SeenModel("a", b"{}")], 10)
    await store.replace("openai", [], 20)
    assert None is await store.of("openai")
    assert {} == await store.all()


async def test_of_two_models_of_one_name_the_last_counts(database: Database) -> None:
    store = ModelStore(database)
    await store.replace("openai", [SeenModel("a", b"1"), SeenModel("a", b"2")], 10)
    assert ProviderModels(10, (SeenModel("a", b"2"),)) == await store.of("openai")


async def test_thousands_of_models_are_kept(database: Database) -> None:
    store = ModelStore(database)
    many = tuple(SeenModel(f"m-{number:05}", b"{}") for number in range(5000))
    await store.replace("openrouter", many, 10)
    assert ProviderModels(10, many) == await store.of("openrouter")
