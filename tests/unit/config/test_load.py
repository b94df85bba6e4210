"""From files to a frozen Config."""

import asyncio
import gc
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from config.faults import ConfigFaults, Fault
from config.load import LoadedConfig, RejectedConfig, load
from config.schema import Config, FallbacksByKind, Target
from core.secret import Secret
from gateway.pauses import brief_pauses
from tests.cost import least_seconds
from tests.planted import place_of_secrets

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("text", name="config.yaml")`` writes a file and gives its path."""

    def write(text: str | bytes, name: str = "config.yaml") -> Path:
        path = place_of_secrets(tmp_path / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path: Path, **env: str) -> RejectedConfig:
    with pytest.raises(RejectedConfig) as refused:
        load(path, env)
    return refused.value


@pytest.mark.parametrize("text", ["", "\n \n", "# all gone\n", "---\n", "null\n"])
def test_an_empty_document_is_refused(write: Write, text: str) -> None:
    (fault,) = refusal(write(text)).faults
    assert (1, 1) == (fault.line, fault.column)
    assert fault.message.startswith("the file is empty: write at least `providers:`")


def test_an_empty_mapping_is_an_empty_config_with_notices(write: Write) -> None:
    loaded = load(write("{}"), {})
    assert Config() == loaded.config
    assert [
        "providers: there are none: no request can be answered",
        "tokens: there are none here: nobody may call but with tokens that the API has made",
    ] == [str(notice).partition(":1:1: ")[2] for notice in loaded.notices]


def test_an_included_file_may_be_empty(write: Write) -> None:
    write("# nothing yet", "conf.d/a.yaml")
    assert 2 == load(write("include: [conf.d/*.yaml]\nserver: {workers: 2}"), {}).config.server.workers


def test_a_copy_of_the_files_is_read_instead_of_them(write: Write) -> None:
    included = write("server: {workers: 3}", "conf.d/a.yaml")
    root = write("include: [conf.d/*.yaml]\nmanagement: {admin_key_hash: '${file:hash}'}")
    write("one", "hash")
    first = load(root, {})
    write("bogus: 1")
    included.unlink()
    again = load(root, {}, copy=first.files)
    assert (first.revision, first.sources, first.files) == (again.revision, again.sources, again.files)
    assert 3 == again.config.server.workers


def test_a_document_becomes_frozen_values(write: Write) -> None:
    loaded = load(
        write(
            """\
server: {workers: 0o2, drain_seconds: 5}
model_aliases: [{from: fast, to: a/b}]
routes:
  - name: r
    match: {token: team-*, model: [x, y]}
    targets: [a/b, {to: c/d, weight: 0}]
    fallbacks: {context: [[e/f]]}
    timeouts: {total_seconds: null}
    overrides: {set: {stop: [a], n: 1.0, no: on}}
"""
        ),
        {},
    )
    config = loaded.config
    assert (2, 5.0) == (config.server.workers, config.server.drain_seconds)
    assert "fast" == config.model_aliases[0].from_
    (route,) = config.routes
    assert ("team-*", ("x", "y")) == (route.match.token, route.match.model)
    assert ("a/b", Target(to="c/d", weight=0)) == route.targets
    assert FallbacksByKind(context=(("e/f",),)) == route.fallbacks
    assert (msgspec.UNSET, None) == (route.timeouts.connect_seconds, route.timeouts.total_seconds)
    assert {"stop": ["a"], "n": 1.0, "no": "on"} == route.overrides.set
    with pytest.raises(AttributeError):
        route.name = "other"  # type: ignore[misc]  # each task has its own handler


def test_a_missing_file_is_a_fault_with_a_place(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    error = refusal(path)
    assert f"{path}:1:1: cannot be read: there is no such file" == str(error)
    assert path == error.sources.root
    assert error.sources.revision is None


def test_what_is_not_a_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in str(refusal(tmp_path / "pipe"))
    assert "is not a file" in str(refusal(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_fault(write: Write) -> None:
    path = write("")
    path.chmod(0)
    assert "Permission denied" in str(refusal(path))


def test_includes_append_lists_and_join_mappings(write: Write) -> None:
    write("model_aliases: [{from: b, to: p/b}]\nserver: {workers: 2}", "conf.d/1.yaml")
    write("model_aliases: [{from: c, to: p/c}]\ntelemetry: {metrics: {public: true}}", "conf.d/2.yaml")
    write("model_aliases: [{from: never, to: p/x}]", "conf.d/.hidden.yaml")
    root = write(
        "include: [conf.d/*.yaml, conf.d/1.yaml, '*.yaml']\nserver: {listen: 0.0.0.0:80}\n"
        "telemetry: {access_log: false}\nmodel_aliases: [{from: a, to: p/a}]"
    )
    config = load(root, {}).config
    assert ["a", "b", "c"] == [alias.from_ for alias in config.model_aliases]
    assert ("0.0.0.0:80", 2) == (config.server.listen, config.server.workers)
    assert (False, True) == (config.telemetry.access_log, config.telemetry.metrics.public)


def test_an_include_into_an_empty_root_counts(write: Write) -> None:
    write("providers:\n  - {name: a, type: echo}", "more.yaml")
    assert ("a",) == tuple(p.name for p in load(write("include:\n  - more.yaml"), {}).config.providers)


def test_a_value_that_two_files_set_is_a_fault(write: Write) -> None:
    write("server: {workers: 2}\nmodel_aliases: {}\n", "b.yaml")
    root = write("include: [b.yaml]\nserver: {workers: 1}\nmodel_aliases: []\n")
    directory = root.parent
    assert [
        f"{directory}/b.yaml:1:10: server.workers: set twice: {root}:2 sets it already; keep it in one file",
        f"{directory}/b.yaml:2:1: model_aliases: set twice: {root}:3 sets it already; keep it in one file",
    ] == str(refusal(root)).splitlines()


def test_included_files_may_not_include(write: Write) -> None:
    write("include: [c.yaml]", "b.yaml")
    error = refusal(write("include: [b.yaml]"))
    assert str(error).endswith("b.yaml:1:1: include: an included file may not include: name the file in the root")


def test_faults_of_all_files_are_told_at_once_the_root_first(write: Write) -> None:
    write("routes: 5\nservre: {}", "a.yaml")
    write("a: [", "b.yaml")
    root = write("include: ['?.yaml']\nserver: {workers: x}\ntokens: 3")
    faults = refusal(root).faults
    places = [(Path(fault.file).name, fault.line) for fault in faults]
    assert [("config.yaml", 2), ("config.yaml", 3), ("a.yaml", 1), ("a.yaml", 2), ("b.yaml", 1)] == places


def test_an_entry_of_an_included_list_is_placed_in_its_own_file(write: Write) -> None:
    write("providers:\n  - {name: b, type: 5}\n", "b.yaml")
    root = write("include: [b.yaml]\nproviders: [{name: a, type: echo}]")
    (fault,) = refusal(root).faults
    assert (("providers", 1, "type"), str(root.parent / "b.yaml"), 2) == (fault.path, fault.file, fault.line)


def test_an_unreadable_include_is_a_fault(write: Write) -> None:
    (write("").parent / "dangling.yaml").symlink_to("nowhere")
    error = refusal(write("include: ['*.yaml']"))
    assert "dangling.yaml:1:1: cannot be read: there is no such file" in str(error)
    assert error.sources.revision is None


def test_more_included_files_than_allowed_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.sources.MAX_INCLUDED_FILES", 1)
    write("", "a.yaml")
    write("", "b.yaml")
    assert "include: names 2 files, more than 1: name fewer" in str(refusal(write("include: ['?.yaml']")))


def test_the_revision_is_of_paths_and_bytes_before_references(write: Write) -> None:
    write("server: {}", "b.yaml")
    root = write("include: [b.yaml]\nserver: {public_url: 'http://${env:HOST}'}")
    first = load(root, {"HOST": "a"})
    assert first.revision == load(root, {"HOST": "b"}).revision == first.sources.revision
    digest = hashlib.sha256()
    for name in ("config.yaml", "b.yaml"):
        data = (root.parent / name).read_bytes()
        digest.update(f"{len(name)}:{name}{len(data)}:".encode() + data)
    assert digest.hexdigest() == first.revision
    revisions = {first.revision}
    write("server: {} ", "b.yaml")
    revisions.add(load(root, {"HOST": "a"}).revision)
    (root.parent / "b.yaml").rename(root.parent / "c.yaml")
    root.write_text(root.read_text().replace("b.yaml", "c.yaml"))
    revisions.add(load(root, {"HOST": "a"}).revision)
    assert 3 == len(revisions)


def test_the_revision_does_not_depend_on_the_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = write("server: {}", "1/c.yaml"), write("server: {}", "2/c.yaml")
    monkeypatch.chdir(one.parent)
    assert load("c.yaml", {}).revision == load(two, {}).revision


def test_sources_name_everything_that_a_change_can_come_through(write: Write) -> None:
    write("k", "key.txt")
    write("127.0.0.1", "host.txt")
    root = write(
        "include: ['conf.d/*']\nserver: {listen: '${file:host.txt}:80'}\n"
        "providers: [{name: a, type: echo, credentials: [{name: k, api_key: '${file:key.txt}'}]}]"
    )
    sources = load(root, {}).sources
    assert (root, ("conf.d/*",)) == (sources.root, sources.includes)
    assert {root.parent / "key.txt", root.parent / "host.txt"} == sources.secret_files
    assert {root.parent / "host.txt"} == sources.interpolated_files


def test_a_refused_document_names_its_sources_too(write: Write) -> None:
    root = write("include: ['conf.d/*']\nmanagement: {admin_key_hash: '${file:absent}'}")
    sources = refusal(root).sources
    assert ("conf.d/*",) == sources.includes
    assert {root.parent / "absent"} == sources.secret_files
    assert 64 == len(sources.revision or "")


def test_faults_of_later_steps_are_placed_by_their_paths(write: Write) -> None:
    write("routes:\n  - {name: b, targets: [p/m]}", "b.yaml")
    root = write("include: [b.yaml]\nroutes:\n  - name: a\n    targets: [p/m]\n")
    loaded = load(root, {})
    late = loaded.locate(
        [Fault(("routes", 1, "targets", 0), "no"), Fault(("routes", 0, "strategy"), "no"), Fault(("server",), "no")]
    )
    assert [("config.yaml", 1, 1), ("config.yaml", 3, 5), ("b.yaml", 2, 25)] == [
        (Path(fault.file).name, fault.line, fault.column) for fault in late
    ]


def test_a_literal_secret_loads_with_a_notice(write: Write, planted_secret: str) -> None:
    root = write(
        f"providers: [{{name: a, type: echo, credentials: [{{name: k, api_key: {planted_secret}}}]}}]\n"
        "management: {admin_key_hash: '$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2g'}\n"
    )
    loaded = load(root, {})
    api_key = loaded.config.providers[0].credentials[0].api_key
    assert api_key is not None
    assert planted_secret == api_key.reveal()
    (notice,) = (each for each in loaded.notices if each.path != ("tokens",))
    assert f"{root}:1:68: providers[0].credentials[0].api_key: a secret stands in the file itself" in str(notice)
    assert planted_secret not in repr(loaded.config)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://127.0.0.1:6379/0", False),
        ("unix:///run/redis.sock", False),
        ("redis://:a@127.0.0.1:6379/0", True),
        ("redis://127.0.0.1:6379/0?password=a", True),
    ],
)
def test_an_address_is_a_secret_where_somebody_signs_in_by_it(write: Write, url: str, told: bool) -> None:
    notices = load(write(f"redis: {{url: '{url}'}}"), {}).notices
    assert told is (("redis", "url") in [notice.path for notice in notices])


def test_what_is_accepted_without_effect_has_a_notice(write: Write) -> None:
    loaded = load(write("webhooks: []"), {})
    assert [("providers",), ("tokens",)] == [notice.path for notice in loaded.notices]


def test_a_secret_is_never_compared_or_shown_through_the_config(write: Write) -> None:
    config = load(write("management: {admin_key_hash: '${env:H}'}"), {"H": "value"}).config
    handle = config.management.admin_key_hash
    assert isinstance(handle, Secret)
    assert "${env:H}" == handle.label
    assert "value" not in repr(config)


def routes_document(count: int) -> str:
    head = 'providers:\n  - {name: p, type: echo, credentials: [{name: k, api_key: "${env:KEY}"}]}\nroutes:\n'
    return head + "".join(
        f"""
  - name: route-{number}
    match: {{model: "gpt-{number}*", token: ["team-{number}", b], headers: {{x-tier: gold}}, stream: true}}
    strategy: weighted
    targets:
      - {{to: p/gpt-4o, weight: 3}}
      - {{to: p/gpt-4.1, weight: 1}}
    fallbacks: [[p/small]]
    retry: {{attempts: 3, backoff_seconds: 0.25, max_backoff_seconds: 8}}
    timeouts: {{connect_seconds: 5, first_byte_seconds: 60, idle_seconds: 120}}
    overrides: {{default: {{temperature: 0.2}}, remove: [logit_bias]}}
"""
        for number in range(count)
    )


async def test_loading_a_thousand_routes_in_a_thread_blocks_the_loop_for_moments_alone(write: Write) -> None:
    """20 ms on a machine that counts to two million in as much; a full collection or a parser of C takes many times that.

    Counted is the time that this process has, of both threads: what others take of it is no part of the loop's wait.
    """
    path = write(routes_document(1000))
    (most,) = least_seconds(lambda: sum(range(2_000_000)))

    def load_as_a_reload_does() -> LoadedConfig:
        with brief_pauses():
            return load(path, {"KEY": "k"})

    # What the tests before have left is no part of it: a full collection would go through all of it.
    gc.collect()
    gc.freeze()
    worst: list[float] = []
    while len(worst) < 10 and min(worst, default=most) >= most:  # another processor may have gone on in that time
        lags = [0.0]
        loading = asyncio.get_running_loop().run_in_executor(None, load_as_a_reload_does)
        while not loading.done():
            began = time.process_time()
            await asyncio.sleep(0.001)
            lags.append(time.process_time() - began)
        assert 1000 == len((await loading).config.routes)
        worst.append(max(lags))
    gc.unfreeze()
    assert min(worst) < most, worst


def test_a_thousand_faults_are_all_told(write: Write) -> None:
    path = write(routes_document(1000).replace("attempts: 3", "attempts: 99"))
    with pytest.raises(ConfigFaults) as refused:
        load(path, {"KEY": "k"})
    assert 1000 == len(refused.value.faults)
