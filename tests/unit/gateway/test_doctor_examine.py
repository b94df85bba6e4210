"""A document that does not load: all its faults are told, and the rest of it is looked at."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.faults import render_path
from gateway.doctor.examine import Examined, examine
from gateway.resources import Resources

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources({"SET": "a-key"})
    yield made
    await made.close()


def examined(place: Path, text: str, resources: Resources, *, offline: bool = False) -> Examined:
    path = place / "config.yaml"
    path.write_text(text)
    return examine(path, resources, offline=offline)


def told(found: Examined) -> list[tuple[int, str]]:
    return [(fault.line, render_path(fault.path)) for fault in found.faults]


async def test_a_good_document_is_whole(tmp_path: Path, resources: Resources) -> None:
    found = examined(tmp_path, "providers: [{name: echo, type: echo}]\n", resources)
    assert [] == told(found)
    assert found.whole
    assert found.generation is not None
    assert ["tokens"] == [render_path(notice.path) for notice in found.notices()]


async def test_what_stands_beside_faults_loads(tmp_path: Path, resources: Resources) -> None:
    found = examined(
        tmp_path,
        "server: {lisen: nowhere, workers: many}\n"
        "providers:\n"
        "  - name: a\n"
        "    type: openai\n"
        '    credentials: [{name: one, api_key: "${env:NOT_SET}"}, {name: two, api_key: "${env:SET}"}]\n'
        "  - {name: b}\n"
        "  - {name: echo, type: echo}\n",
        resources,
    )
    assert [
        (1, "server.lisen"),
        (1, "server.workers"),
        (5, "providers[0].credentials[0].api_key"),
        (6, "providers[1]"),
    ] == told(found)
    assert found.generation is not None
    assert ["a", "echo"] == [provider.name for provider in found.generation.config.providers]
    assert ("providers", 2, "type") == found.original(("providers", 1, "type"))
    assert ("providers", 0, "credentials", 0, "api_key") in found.unread
    assert () == found.notices()


async def test_faults_that_show_when_the_parts_are_put_together_are_told_too(
    tmp_path: Path, resources: Resources
) -> None:
    found = examined(
        tmp_path,
        f'tokens: [{{name: t, sha256: "{SHA256}"}}]\n'
        "providers:\n"
        '  - {name: a, type: openai, credentials: [{name: one, api_key: "${env:NOT_SET}"}]}\n'
        "server:\n"
        "  tls: {cert: none.pem, key: none.pem}\n"
        "routes: [{name: r, targets: [nobody/x]}]\n",
        resources,
    )
    assert [
        (3, "providers[0].credentials[0].api_key"),
        (5, "server.tls.cert"),
        (6, "routes[0].targets[0]"),
    ] == sorted(told(found))
    assert found.generation is not None
    assert found.generation.config.server.tls is None


async def test_what_follows_from_an_entry_that_was_left_out_is_no_fault(tmp_path: Path, resources: Resources) -> None:
    found = examined(
        tmp_path,
        "providers: [{name: a, typo: openai}, {name: echo, type: echo}]\nroutes: [{name: r, targets: [a/x]}]\n",
        resources,
    )
    assert [(1, "providers[0]"), (1, "providers[0].typo")] == sorted(told(found))
    assert found.generation is not None
    assert () == found.generation.config.routes
    assert found.is_damaged(("routes",))
    assert not found.is_damaged(("providers", 1))


@pytest.mark.parametrize("text", ["", "providers: [\n", "- a\n"])
async def test_where_nothing_can_be_read_nothing_is_looked_at(tmp_path: Path, resources: Resources, text: str) -> None:
    found = examined(tmp_path, text, resources)
    assert 1 == len(found.faults)
    assert found.generation is None


async def test_a_document_that_is_not_there(tmp_path: Path, resources: Resources) -> None:
    found = examine(tmp_path / "config.yaml", resources, offline=False)
    assert 1 == len(found.faults)
    assert found.generation is None


async def test_a_fault_of_the_text_hides_nothing_of_what_could_be_read(tmp_path: Path, resources: Resources) -> None:
    found = examined(
        tmp_path,
        "providers: [{name: echo, type: echo}]\nproviders: []\nserver: {workers: 0}\n",
        resources,
    )
    assert [(2, ""), (3, "server.workers")] == told(found)
    assert found.generation is not None
    assert ["echo"] == [provider.name for provider in found.generation.config.providers]


async def test_included_files_are_told_by_their_names(tmp_path: Path, resources: Resources) -> None:
    (tmp_path / "more.yaml").write_text("providers: [{name: echo, type: echo}, {name: x, type: ecko}]\n")
    found = examined(tmp_path, "include: [more.yaml]\nproviders: []\n", resources)
    more = tmp_path / "more.yaml"
    assert {str(tmp_path / "config.yaml"): tmp_path / "config.yaml", str(more): more} == found.files
    assert [(str(more), 1, "providers[1].type")] == [
        (fault.file, fault.line, render_path(fault.path)) for fault in found.faults
    ]
    assert found.generation is not None
    assert ["echo"] == [provider.name for provider in found.generation.config.providers]


async def test_without_a_network_vault_is_left_out(tmp_path: Path, resources: Resources) -> None:
    found = examined(
        tmp_path,
        'secrets: {vault: {address: "http://vault.invalid:8200", auth: {token: "${env:NOT_SET}"}}}\n'
        "providers:\n"
        "  - name: a\n"
        "    type: openai\n"
        '    credentials: [{name: one, api_key: "${vault:secret/a#key}"}, {name: two, api_key: "${env:NOT_SET}"}]\n',
        resources,
        offline=True,
    )
    assert [(5, "providers[0].credentials[1].api_key")] == told(found)
    assert ("providers", 0, "credentials", 0, "api_key") in found.unread
    assert found.generation is not None
