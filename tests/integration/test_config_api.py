"""The configuration, explain, cooldowns and the audit by the API of running gateways. No answer holds a secret:
:meth:`tests.gateway_process.Gateway.request` searches them all."""

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import ACCESS, ADMIN_KEY, TOKEN, Answer, Gateway, gateway, put_text, run_cli
from tests.planted import place_of_secrets, planted

KEY = planted("provider-key", "sk-")
ROOT = f"""\
{ACCESS}\
include: [conf.d/*.yaml]

# what is ours
providers:
  - name: echo   # answers by itself
    type: echo
  - name: remote
    type: openai
    base_url: 'http://127.0.0.1:9/v1'
    credentials: [{{name: main, api_key: {KEY}}}]   # the one that we pay for

server: {{workers: WORKERS}}
routes:
  - {{name: cold, match: {{model: cold}}, targets: [remote/m], retry: {{attempts: 1}},
      cooldown: {{after_failures: 1, seconds: 300}}}}
route_tests: [{{request: {{model: fast}}, expect: {{provider: echo}}}}]
"""
INCLUDED = """\
# names
model_aliases:
  - {from: fast, to: echo/first}   # the only one
"""


@contextmanager
def running(place: Path, workers: int = 1) -> Iterator[Gateway]:
    (place / "conf.d").mkdir(parents=True)
    (place / "conf.d/more.yaml").write_text(INCLUDED)
    with gateway(ROOT.replace("WORKERS", str(workers)), place) as found:
        if workers > 1:
            until(lambda: found.err.count("listening on") == workers + 1, "all workers listen")
        yield found


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("single")) as found:
        yield found


@pytest.fixture
def single(shared: Gateway) -> Gateway:
    """One of one worker, with the document above in force."""
    included(shared).chmod(0o644)
    put_text(included(shared), INCLUDED)
    put_text(shared.config, ROOT.replace("WORKERS", "1"))
    answer = manage(shared, "POST", "/config/reload")
    assert 200 == answer.status, answer.body
    return shared


def manage(found: Gateway, method: str, path: str, body: object = None, match: str | None = None) -> Answer:
    fields = {} if match is None else {"if-match": match}
    return found.request(method, f"/api/v1{path}", body, fields, key=ADMIN_KEY)


def etag(found: Gateway) -> str:
    answer = manage(found, "GET", "/config")
    assert 200 == answer.status, answer.body
    return answer.headers["etag"]


def included(found: Gateway) -> Path:
    return found.config.parent / "conf.d/more.yaml"


def contents(found: Gateway) -> tuple[str, str]:
    return found.config.read_text(), included(found).read_text()


def target(found: Gateway, model: str) -> str:
    return found.chat(model).headers["x-sluice-target"]


def test_comments_order_and_secrets_survive_edits_by_document_and_patch(single: Gateway) -> None:
    root, names = contents(single)
    shown = manage(single, "GET", "/config/document")
    put = manage(single, "PUT", "/config/document", shown.body.replace(b"echo   #", b"echo #"), shown.headers["etag"])
    assert (200, ["config.yaml"]) == (put.status, put.json()["files"])
    assert (root.replace("echo   #", "echo #"), names) == contents(single)
    patch = {"model_aliases": [{"from": "fast", "to": "echo/second"}], "server": {"drain_seconds": 5}}
    patched = manage(single, "PATCH", "/config", patch, put.headers["etag"])
    assert (200, {"config.yaml", "conf.d/more.yaml"}) == (patched.status, set(patched.json()["files"]))
    assert (
        root.replace("echo   #", "echo #").replace("{workers: 1}", "{workers: 1, drain_seconds: 5}"),
        names.replace("first", "second"),
    ) == contents(single)
    assert "echo/second" == target(single, "fast")
    assert patched.headers["etag"] == etag(single)
    assert patched.json()["revision"] == single.chat("fast").headers["x-sluice-revision"]


def test_every_value_is_shown_with_its_place(single: Gateway) -> None:
    shown = manage(single, "GET", "/config").json()
    assert {"kind": "literal"} == shown["config"]["providers"][1]["credentials"][0]["api_key"]
    place = shown["sources"]["/model_aliases/0/to"]
    assert ("conf.d/more.yaml", 3) == (place["file"], place["line"])
    line = shown["sources"]["/providers/1/base_url"]["line"]
    assert "base_url" in single.config.read_text().splitlines()[line - 1]


def test_a_file_that_cannot_be_parsed_is_never_overwritten(single: Gateway) -> None:
    single.expect_log("configuration refused|stays")
    before = etag(single)
    broken = f"model_aliases: [{{from: fast, to: {KEY}"
    place_of_secrets(included(single)).write_text(broken)
    for method, path, body in [
        ("PUT", "/config/document?file=conf.d/more.yaml", INCLUDED.encode()),
        ("PATCH", "/config", {"model_aliases": []}),
        ("GET", "/config", None),
        ("GET", "/config/document?file=conf.d/more.yaml", None),
    ]:
        answer = manage(single, method, path, body, before if body is not None else None)
        assert answer.status in (409, 412), (method, path)
    # Not even by who has seen it so.
    revision = manage(single, "PATCH", "/config", {}, before).headers["etag"]
    answer = manage(single, "PUT", "/config/document?file=conf.d/more.yaml", INCLUDED.encode(), revision)
    assert (409, "config_error-unreadable") == (answer.status, answer.code)
    assert broken == included(single).read_text()
    assert "echo/first" == target(single, "fast")
    # The other file can be shown, and what is wrong is told.
    assert 200 == manage(single, "GET", "/config/document").status
    trial = manage(single, "POST", "/config/validate").json()
    assert False is trial["ok"]
    assert "more.yaml" in {Path(fault["file"]).name for fault in trial["faults"]}


def test_a_file_that_is_read_only_says_so(single: Gateway) -> None:
    included(single).chmod(0o444)
    patch = {"model_aliases": [{"from": "fast", "to": "echo/second"}]}
    answer = manage(single, "PATCH", "/config", patch, etag(single))
    assert (409, "config_error-read_only") == (answer.status, answer.code)
    assert "more.yaml is read-only" in answer.json()["error"]["message"]
    assert INCLUDED == included(single).read_text()


def test_a_trial_changes_nothing_and_what_it_tells_comes_true(single: Gateway) -> None:
    before = contents(single)
    revision = etag(single)
    good = {"patch": {"model_aliases": [{"from": "fast", "to": "echo/second"}]}}
    bad = {"patch": {"model_aliases": [{"from": "fast", "to": "remote/m"}]}}
    restart = {"patch": {"server": {"listen": "127.0.0.1:1"}}}
    trial = manage(single, "POST", "/config/validate", good).json()
    assert (True, "passed") == (trial["ok"], trial["route_tests"])
    assert "-  - {from: fast, to: echo/first}   # the only one" in trial["diff"].splitlines()
    refused = manage(single, "POST", "/config/validate", bad).json()
    assert (False, "failed") == (refused["ok"], refused["route_tests"])
    assert ["route_tests[0].expect.provider"] == [fault["path"] for fault in refused["faults"]]
    assert ["server.listen"] == manage(single, "POST", "/config/validate", restart).json()["restart"]
    assert (before, revision) == (contents(single), etag(single))
    assert trial["revision"] == manage(single, "PATCH", "/config", good["patch"], revision).json()["revision"]
    assert 422 == manage(single, "PATCH", "/config", bad["patch"], etag(single)).status


def test_of_patches_at_the_same_time_each_is_made_once_or_refused(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as found:
        revision = etag(found)

        def edit(number: int) -> tuple[int, Answer]:
            alias = {"from": f"n{number}", "to": f"echo/{number}"}
            current = {"from": "fast", "to": "echo/first"}
            match = revision if number % 2 else etag(found)
            return number, manage(found, "PATCH", "/config", {"model_aliases": [current, alias]}, match)

        with ThreadPoolExecutor(20) as threads:
            done = list(threads.map(edit, range(20)))
        assert {200, 412} == {answer.status for _, answer in done}
        assert {answer.headers["etag"] for _, answer in done if answer.status == 412} <= {
            f'"{each["revision"]}"' for each in manage(found, "GET", "/config/revisions").json()["data"]
        }
        made = {answer.json()["revision"]: number for number, answer in done if answer.status == 200}
        kept: list[Any] = []

        def all_are_kept() -> bool:
            kept[:] = manage(found, "GET", "/config/revisions").json()["data"]
            return len(made) < len(kept)

        # Nobody waits longer than two seconds for the database.
        until(all_are_kept, "every edit is kept")
        *edits, start = kept
        assert (revision, "start") == (f'"{start["revision"]}"', start["trigger"])
        # Each once, the newest the one on the disk, and each in the place of the one below it.
        assert etag(found) == f'"{edits[0]["revision"]}"'
        assert sorted(made) == sorted(each["revision"] for each in edits)
        for newer, older in pairwise(kept):
            diff = manage(found, "GET", f"/config/revisions/{newer['id']}/diff").body.decode()
            expected = {
                f"+{made[newer['revision']]}",
                *(f"-{made[each['revision']]}" for each in [older] if each != start),
            }
            assert expected == {
                sign + number for sign, number in re.findall(r"^([+-]).*echo/(\d+)", diff, re.MULTILINE)
            }
        last = made[etag(found).strip('"')]
        assert f"echo/{last}" in included(found).read_text()
        assert {f"echo/{last}"} == {target(found, f"n{last}") for _ in range(8)}


def test_what_is_read_beside_edits_is_one_of_them_and_has_its_etag(tmp_path: Path) -> None:
    """Each edit is of both files."""
    with running(tmp_path, workers=2) as found:
        # ETags, with the number that is in each file.
        made = {etag(found): {0}}
        read: list[tuple[str, set[int]]] = []

        def look() -> str:
            shown = manage(found, "GET", "/config")
            assert (200, True) == (shown.status, "etag" in shown.headers), shown.body
            config = shown.json()["config"]
            to = config["model_aliases"][0]["to"].replace("first", "0")
            read.append((shown.headers["etag"], {config["server"].get("drain_seconds", 0), int(to.split("/")[1])}))
            return shown.headers["etag"]

        def edit(number: int) -> None:
            expected = [look(), look()][-1]
            patch = {"server": {"drain_seconds": number}, "model_aliases": [{"from": "fast", "to": f"echo/{number}"}]}
            answer = manage(found, "PATCH", "/config", patch, expected)
            assert answer.status in (200, 412), answer.body
            if answer.status == 200:
                made[answer.headers["etag"]] = {number}

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(edit, range(1, 201)))
        assert 20 < len(made)
        assert [] == [(tag, numbers) for tag, numbers in read if made.get(tag) != numbers]


@pytest.mark.parametrize("by_hand", ["rename", "write"])
def test_edits_by_the_api_and_by_hand_at_the_same_time_lose_nothing(tmp_path: Path, by_hand: str) -> None:
    """What was answered as made is there, unless a hand has written what it had read before; and what was written by hand is."""
    with running(tmp_path, workers=2) as found:
        found.expect_log("configuration refused|stays")  # of a file that is half written
        file = included(found)
        ended = threading.Event()
        made: list[tuple[float, str]] = []
        written: list[tuple[float, str]] = []

        def edit(client: str) -> None:
            for number in itertools.count():
                if ended.is_set():
                    return
                name, began = f"{client}{number}-", time.monotonic()
                shown = manage(found, "GET", "/config")
                aliases = shown.json()["config"].get("model_aliases", []) if shown.status == 200 else None
                if not aliases:
                    continue  # seen while it was being written by hand
                patch = {"model_aliases": [*aliases, {"from": name, "to": "echo/x"}]}
                answer = manage(found, "PATCH", "/config", patch, shown.headers["etag"])
                # 202: another worker has met the file while it was being written by hand.
                assert answer.status in (200, 202, 409, 412, 422, 503), answer.body
                if answer.status in (200, 202):
                    made.append((began, name))

        with ThreadPoolExecutor(2) as threads:
            editing = [threads.submit(edit, client) for client in "ab"]
            number = 0
            # A busy machine makes fewer edits meanwhile: those by hand come less and less often.
            deadline = time.monotonic() + 120
            while number < 60 or (len(made) < 6 and time.monotonic() < deadline):
                text = file.read_text() + f"# {number}-\n"
                if by_hand == "rename":
                    (beside := file.with_suffix(".new")).write_text(text)
                    beside.replace(file)
                else:
                    file.write_text(text)
                written.append((time.monotonic(), text))
                number += 1
                time.sleep(0.03 * 1.05 ** max(0, number - 60))
            ended.set()
            for each in editing:
                each.result()
        text = file.read_text()
        assert [] == [each for each in range(number) if f"# {each}-\n" not in text]
        assert [] == [
            name for began, name in made if name not in text and all(at < began or name in each for at, each in written)
        ]
        assert 5 < len(made)


def test_a_revision_is_shown_compared_and_put_back_with_all_its_files(single: Gateway) -> None:
    before = contents(single)
    providers = [{"name": "echo", "type": "echo"}]
    patch = {"providers": providers, "routes": [], "model_aliases": [{"from": "fast", "to": "echo/second"}]}
    assert 200 == manage(single, "PATCH", "/config?comment=less", patch, etag(single)).status
    single.settle()
    newest, oldest, *_ = manage(single, "GET", "/config/revisions").json()["data"]
    assert ("api", "less") == (newest["trigger"], newest["comment"])
    files = manage(single, "GET", f"/config/revisions/{oldest['id']}").json()["files"]
    assert ["config.yaml", "conf.d/more.yaml"] == [each["file"] for each in files]
    assert '{name: main, api_key: "${kept}"}' in files[0]["text"]
    diff = manage(single, "GET", f"/config/revisions/{newest['id']}/diff").body.decode()
    assert "+  - {from: fast, to: echo/second}   # the only one" in diff.splitlines()
    back = manage(single, "GET", f"/config/revisions/{oldest['id']}/diff?against=current").body.decode()
    assert "-  - {from: fast, to: echo/second}   # the only one" in back.splitlines()
    # Its hash will do, as the `ETag` had it.
    restored = manage(single, "POST", f"/config/revisions/{oldest['revision']}/restore", match=etag(single))
    # What the API may put nowhere by itself, it may put back: the provider's secret is new beside its address again.
    assert 200 == restored.status, restored.body
    assert before[1] == included(single).read_text()
    assert KEY in single.config.read_text()
    assert "echo/first" == target(single, "fast")


def test_explain_tells_what_the_command_tells(single: Gateway) -> None:
    question = {"model": "fast", "token": "tester", "headers": {"x-tier": "gold"}, "stream": True}
    answer = manage(single, "POST", "/explain", question).json()
    arguments = ("--config", single.config, "--token", "tester", "--header", "x-tier=gold", "--stream", "--json")
    status, out, _ = run_cli("explain", "fast", *arguments, cwd=single.config.parent)
    assert (0, json.loads(out)) == (status, answer)
    unknown = manage(single, "POST", "/explain", {"model": "fast", "token": "nobody"})
    assert (404, "token_error-not_found") == (unknown.status, unknown.code)


def test_explain_knows_the_tokens_that_the_api_has_made(single: Gateway) -> None:
    made = manage(single, "POST", "/tokens", {"name": "made", "models": ["other"]})
    assert 201 == made.status
    found = {
        model: manage(single, "POST", "/explain", {"model": model, "token": "made"}).json()["allowed"]
        for model in ("fast", "other")
    }
    assert {"fast": False, "other": True} == found


def test_what_is_out_of_rotation_is_taken_back_on_all_workers(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as found:

        def cooling() -> list[Any]:
            """Of all workers."""
            with ThreadPoolExecutor(8) as threads:
                answers = threads.map(lambda _: manage(found, "GET", "/cooldowns").json()["data"], range(16))
                return [each for answer in answers for each in answer]

        def fail() -> bool:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda _: found.chat("cold"), range(8)))
            return len(cooling()) == 16

        until(fail, "both workers have left the target out")
        assert {("remote", "m", None, "failures")} == {
            (each["provider"], each["model"], each["credential"], each["reason"]) for each in cooling()
        }
        cleared = manage(found, "DELETE", "/cooldowns?provider=remote&model=m")
        assert (200, ["m"]) == (cleared.status, [each["model"] for each in cleared.json()["cleared"]])
        assert [] == cooling()
        unknown = manage(found, "DELETE", "/cooldowns?provider=nobody")
        assert (404, "provider_error-not_found") == (unknown.status, unknown.code)


def test_the_audit_tells_who_has_changed_what(single: Gateway) -> None:
    single.settle()
    head = manage(single, "GET", "/audit/head").json()
    before = etag(single).strip('"')
    edited = manage(single, "PATCH", "/config", {"server": {"drain_seconds": 5}}, f'"{before}"').json()
    manage(single, "PATCH", "/config", {"server": {"drain_seconds": 6}}, f'"{before}"')
    single.settle()
    stale, done = manage(single, "GET", "/audit?action=config.*&limit=2").json()["data"]
    assert ("config.patch", "config_error-stale") == (stale["action"], stale["outcome"])
    assert ("config.patch", "done", "admin_key") == (done["action"], done["outcome"], done["actor_kind"])
    assert ("127.0.0.1", {"revision": before}) == (done["address"], done["before"])
    assert edited["revision"] == done["after"]["revision"]
    assert "+server: {workers: 1, drain_seconds: 5}" in done["after"]["diff"].splitlines()
    assert stale["previous_hash"] == done["hash"]
    assert {"seq": stale["seq"], "hash": stale["hash"]} == manage(single, "GET", "/audit/head").json() != head
    assert [done] == manage(single, "GET", "/audit?outcome=done&actor=admin-key&limit=1").json()["data"]
    assert [] == manage(single, "GET", "/audit?since=2999-01-01T00:00:00Z").json()["data"]
    assert 400 == manage(single, "GET", "/audit?since=yesterday").status
    assert 403 == single.request("GET", "/api/v1/audit", key=TOKEN).status
