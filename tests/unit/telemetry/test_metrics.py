import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import telemetry.metrics
from core.clock import ManualClock
from core.events import (
    AttemptFailed,
    ConfigApplied,
    ConfigRejected,
    CredentialCooled,
    Event,
    Events,
    GatewayStarted,
    RequestCompleted,
    RequestFailed,
    RequestStarted,
    SecretRotated,
    TargetCooled,
)
from core.usage import Usage
from telemetry.credential_series import Shown
from telemetry.metrics import Metrics, forget_worker
from telemetry.registry import METRICS, Kind
from telemetry.tallies import Tallies

ROOT = Path(__file__).parents[3]
Ended = Callable[..., RequestCompleted | RequestFailed]
Samples = dict[tuple[str, tuple[str, ...]], float]


def samples_in(text: str) -> Samples:
    """Every sample of ours by its name and its label values, in the order of the labels' names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("sluice_")
    }


def samples_of(metrics: Metrics) -> Samples:
    return samples_in(metrics.render()[1].decode())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(ManualClock(time=1_700_000_000.0))


def failed_attempt(then: str) -> AttemptFailed:
    return AttemptFailed(
        request_id="req_1",
        provider="openai",
        model_label="gpt-4o",
        credential="main",
        number=1,
        error_code="upstream_timeout",
        delivered="maybe",
        next=then,
    )


def applied(revision: str) -> ConfigApplied:
    return ConfigApplied(revision=revision, trigger="watch", duration_seconds=0.1)


def test_a_request_is_counted_with_its_durations_and_tokens(metrics: Metrics, ended: Ended) -> None:
    metrics.observe(RequestStarted(endpoint="chat"))
    assert 1 == samples_of(metrics)["sluice_requests_in_flight", ("chat",)]
    metrics.observe(ended())
    samples = samples_of(metrics)
    assert 0 == samples["sluice_requests_in_flight", ("chat",)]
    labels = ("chat", "gpt-4o*", "openai", "gold", "200", "team")
    assert 1 == samples["sluice_requests_total", labels]
    assert 1.5 == samples["sluice_request_duration_seconds_sum", ("chat", "gpt-4o*", "openai")]
    assert 0.25 == samples["sluice_time_to_first_token_seconds_sum", ("gpt-4o*", "openai")]
    assert 1.49 == samples["sluice_upstream_duration_seconds_sum", ("gpt-4o*", "openai")]
    assert 11 == samples["sluice_input_tokens_total", ("gpt-4o*", "openai", "team")]
    assert 7 == samples["sluice_output_tokens_total", ("gpt-4o*", "openai", "team")]
    assert 3 == samples["sluice_cached_tokens_total", ("gpt-4o*", "openai", "team")]


def test_tokens_that_no_cache_served_make_no_series(metrics: Metrics, ended: Ended) -> None:
    metrics.observe(ended(usage=Usage(11, 7)))
    assert ("sluice_cached_tokens_total", ("gpt-4o*", "openai", "team")) not in samples_of(metrics)


def test_the_overhead_is_resolved_from_fifty_microseconds(metrics: Metrics, ended: Ended) -> None:
    for seconds in (0.00004, 0.00009, 0.00015):
        metrics.observe(ended(overhead_seconds=seconds))
    samples = samples_of(metrics)
    name = "sluice_gateway_overhead_seconds_bucket"
    assert [1, 2, 3] == [samples[name, ("chat", bound)] for bound in ("5e-05", "0.0001", "0.0002")]


def test_what_is_not_known_is_a_dash_and_what_a_client_sent_is_no_label(metrics: Metrics, ended: Ended) -> None:
    metrics.observe(
        ended(
            error_code="invalid_api_key",
            status=401,
            requested_model="the client's text",
            client_request_id="the client's text",
            **dict.fromkeys(
                (
                    "token",
                    "route",
                    "provider",
                    "model",
                    "model_label",
                    "credential",
                    "ttft_seconds",
                    "upstream_seconds",
                    "usage",
                )
            ),
        )
    )
    text = metrics.render()[1].decode()
    samples = samples_in(text)
    assert 1 == samples["sluice_requests_total", ("chat", "-", "-", "-", "401", "-")]
    assert not any(name.startswith(("sluice_time_to_first", "sluice_upstream", "sluice_input")) for name, _ in samples)
    assert "the client's text" not in text


@pytest.mark.parametrize(("status", "label"), [(99, "-"), (100, "100"), (499, "499"), (599, "599"), (999, "-")])
def test_a_status_beyond_http_is_no_label(metrics: Metrics, ended: Ended, status: int, label: str) -> None:
    metrics.observe(ended(status=status))
    assert ("sluice_requests_total", ("chat", "gpt-4o*", "openai", "gold", label, "team")) in samples_of(metrics)


@pytest.mark.parametrize(("then", "retries", "fallbacks"), [("retry", 1, 0), ("fallback", 0, 1), ("give_up", 0, 0)])
def test_failed_attempts_are_counted_and_what_followed(
    metrics: Metrics, then: str, retries: int, fallbacks: int
) -> None:
    metrics.observe(failed_attempt(then))
    samples = samples_of(metrics)
    assert 1 == samples["sluice_attempts_failed_total", ("upstream_timeout", "gpt-4o", "openai")]
    assert retries == samples.get(("sluice_retries_total", ("gpt-4o", "openai")), 0)
    assert fallbacks == samples.get(("sluice_fallbacks_total", ("gpt-4o", "openai")), 0)


def test_cooldowns_are_counted_by_reason(metrics: Metrics) -> None:
    metrics.observe(TargetCooled(provider="openai", model_label="gpt-4o", reason="failures", seconds=10))
    for model in (None, "gpt-4o"):
        metrics.observe(
            CredentialCooled(provider="openai", credential="main", model_label=model, reason="rate_limit", seconds=10)
        )
    samples = samples_of(metrics)
    assert 1 == samples["sluice_cooldowns_total", ("gpt-4o", "openai", "failures")]
    assert 1 == samples["sluice_cooldowns_total", ("gpt-4o", "openai", "rate_limit")]
    assert 1 == samples["sluice_cooldowns_total", ("-", "openai", "rate_limit")]


def test_a_webhook_that_is_gone_has_no_deliveries_pending_any_more(metrics: Metrics) -> None:
    webhooks = metrics.webhooks
    for name in ("ops", "other"):
        webhooks.pending(name, 3)
    webhooks.follow(["other"])
    name = "sluice_webhook_pending_deliveries"
    assert {(name, ("other",)): 3} == {key: value for key, value in samples_of(metrics).items() if key[0] == name}
    webhooks.pending("ops", 0)
    assert 0 == samples_of(metrics)[name, ("ops",)]


def test_a_credential_shows_whether_it_needs_a_login_and_when_it_ends_until_it_is_gone(metrics: Metrics) -> None:
    def shown() -> dict[tuple[str, tuple[str, ...]], float]:
        return {key: value for key, value in samples_of(metrics).items() if key[0].startswith("sluice_credential_")}

    state, end = "sluice_credential_state", "sluice_credential_expires_timestamp_seconds"
    one, other = ("one", "hub"), ("other", "hub")
    metrics.credentials.show({("hub", "one"): Shown(True, 1_700_000_001.0), ("hub", "other"): Shown(False, None)})
    assert {(state, one): 1, (end, one): 1_700_000_001, (state, other): 0} == shown()
    metrics.credentials.show({("hub", "one"): Shown(False, 1_700_003_601.0)})
    assert {(state, one): 0, (end, one): 1_700_003_601} == shown()
    metrics.credentials.show({})
    assert {} == shown()


def test_only_the_revision_in_force_is_shown(metrics: Metrics) -> None:
    for revision in ("one", "two", "two", "three"):
        metrics.observe(applied(revision))
    samples = samples_of(metrics)
    assert [("three",)] == [labels for name, labels in samples if name == "sluice_config_revision_info"]
    assert 1 == samples["sluice_config_revision_info", ("three",)]
    assert 1_700_000_000.0 == samples["sluice_config_last_applied_timestamp_seconds", ()]


def test_a_rejected_configuration_shows_until_the_next_is_applied(metrics: Metrics) -> None:
    metrics.observe(ConfigRejected(trigger="signal", faults=("one",)))
    samples = samples_of(metrics)
    assert 1 == samples["sluice_config_reloads_total", ("rejected", "signal")]
    assert 0 == samples["sluice_config_last_reload_successful", ()]
    metrics.observe(applied("one"))
    assert 1 == samples_of(metrics)["sluice_config_last_reload_successful", ()]
    # Of an edit that was never written there is nothing to mend.
    metrics.observe(ConfigRejected(trigger="api", faults=("one",), on_disk=False))
    samples = samples_of(metrics)
    assert 1 == samples["sluice_config_reloads_total", ("rejected", "api")]
    assert 1 == samples["sluice_config_last_reload_successful", ()]


def test_the_lag_of_the_event_loop_is_a_histogram(metrics: Metrics) -> None:
    metrics.observe_loop_lag(0.003)
    samples = samples_of(metrics)
    assert [0, 1] == [samples["sluice_event_loop_lag_seconds_bucket", (bound,)] for bound in ("0.002", "0.005")]


def test_events_without_a_metric_are_ignored(metrics: Metrics) -> None:
    before = samples_of(metrics)
    metrics.observe(GatewayStarted(address="127.0.0.1:8080", revision="one"))
    metrics.observe(Event())
    assert before == samples_of(metrics)


def test_the_exposition_has_its_content_type_and_describes_the_process(metrics: Metrics, ended: Ended) -> None:
    metrics.observe(ended())
    content_type, body = metrics.render()
    assert prometheus_client.CONTENT_TYPE_LATEST == content_type
    assert b"\nprocess_open_fds " in body
    assert b"_created" not in body


def test_two_sets_of_metrics_do_not_know_each_other(metrics: Metrics, ended: Ended) -> None:
    other = Metrics(ManualClock())
    other.observe(ended())
    assert ("sluice_requests_in_flight", ("chat",)) not in samples_of(metrics)


def test_everything_that_is_rendered_is_in_the_table_and_the_other_way_round(metrics: Metrics, ended: Ended) -> None:
    for event in (
        RequestStarted(endpoint="chat"),
        ended(usage=Usage(11, 7, 3, 5)),
        ended(cost_nano_usd=1),
        ended(error_code="upstream_timeout", status=504),
        failed_attempt("retry"),
        failed_attempt("fallback"),
        TargetCooled(provider="openai", model_label="gpt-4o", reason="failures", seconds=10),
        applied("one"),
        ConfigRejected(trigger="api", faults=()),
        SecretRotated(reference="${vault:a/b#c}"),
    ):
        metrics.observe(event)
    metrics.observe_loop_lag(0.001)
    metrics.show_stale_since({"${vault:a/b#c}": 0})
    metrics.show_provider("openai", True)
    metrics.show_storage(True)
    metrics.webhooks.written("config.applied", 1)
    metrics.webhooks.shed("config.applied", "full", 1)
    metrics.webhooks.tried("ops", "delivered")
    metrics.webhooks.given_up("ops", "status", 1)
    metrics.webhooks.pending("ops", 1)
    metrics.quotas.quota_decisions("refused").total += 1
    metrics.quotas.quota_refusals("requests", "token").total += 1
    metrics.quotas.show_store(up=True)
    metrics.credentials.refreshed("openai", "refreshed")
    metrics.credentials.show({("openai", "team"): Shown(False, 1_700_000_000.0)})
    rendered = {}
    for family in text_string_to_metric_families(metrics.render()[1].decode()):
        if family.name.startswith("sluice_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            name = family.name + "_total" if family.type == "counter" else family.name
            rendered[name] = (family.type, family.documentation, labels)
    assert {metric.name: (metric.kind, metric.help, set(metric.labels)) for metric in METRICS} == rendered


def test_a_stale_secret_shows_since_when_until_it_is_fresh_or_no_longer_in_use(metrics: Metrics) -> None:
    def since(reference: str) -> float:
        return samples_of(metrics)["sluice_secret_stale_since_timestamp_seconds", (reference,)]

    metrics.show_stale_since({"one": 1_700_000_000, "other": 1_700_000_001})
    assert (1_700_000_000, 1_700_000_001) == (since("one"), since("other"))
    metrics.show_stale_since({"one": 0, "other": 1_700_000_001})
    assert (0, 1_700_000_001) == (since("one"), since("other"))
    metrics.show_stale_since({"one": 0})
    assert 0 == since("other")


def test_a_provider_shows_whether_it_answers_until_it_is_gone(metrics: Metrics) -> None:
    def shown() -> dict[str, float]:
        samples = samples_of(metrics).items()
        return {labels[0]: value for (name, labels), value in samples if name == "sluice_provider_up"}

    assert {} == shown()
    metrics.show_provider("one", True)
    metrics.show_provider("other", False)
    assert {"one": 1, "other": 0} == shown()
    metrics.show_provider("other", True)
    metrics.show_provider("one", None)
    assert {"other": 1} == shown()


def test_a_database_shows_whether_it_answers_once_there_is_one(metrics: Metrics) -> None:
    def shown() -> float | None:
        return samples_of(metrics).get(("sluice_storage_up", ()))

    found = [shown()]
    for up in (True, False, True):
        metrics.show_storage(up)
        found.append(shown())
    assert [None, 1, 0, 1] == found


def test_what_waits_for_the_database_is_shown_and_what_came_of_it_counted(metrics: Metrics) -> None:
    metrics.show_audit_waiting(3)
    metrics.show_audit_waiting(1)
    metrics.show_audit_spooled(2)
    for count in (2, 5):
        metrics.count_audit_spooled(count)
    metrics.count_audit_replayed(4)
    samples = samples_of(metrics)
    assert [1, 2, 7, 4] == [
        samples[f"sluice_audit_{name}", ()]
        for name in ("waiting_entries", "spooled_entries", "spooled_total", "replayed_total")
    ]


def test_the_docs_table_is_the_registry() -> None:
    documented = re.findall(
        r"^\| `(sluice_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    registered = [
        (metric.name, str(metric.kind), ", ".join(f"`{label}`" for label in metric.labels) or "none", metric.help)
        for metric in METRICS
    ]
    assert registered == documented


def test_every_label_is_explained_in_the_docs() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \| [^|]*\|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert {label for metric in METRICS for label in metric.labels} == explained


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_buckets_keep_the_rules(metric: object) -> None:
    (row,) = [known for known in METRICS if known is metric]
    assert row.name.startswith("sluice_")
    assert (row.kind is Kind.COUNTER) == row.name.endswith("_total")
    assert (row.kind is Kind.HISTOGRAM) == bool(row.buckets)
    assert sorted(set(row.buckets)) == list(row.buckets)


def test_a_directory_for_workers_must_be_known_before_the_library_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="PROMETHEUS_MULTIPROC_DIR"):
        Metrics(ManualClock(), str(tmp_path))


WORKER = """
    import asyncio, contextlib, sys
    from core.clock import SystemClock
    from core.events import ConfigApplied, ConfigRejected, RequestStarted
    from telemetry.metrics import Metrics, forget_worker

    directory, name, role = sys.argv[1:]
    metrics = Metrics(SystemClock(), directory, name)
    for revision in ("old", "new"):
        metrics.observe(ConfigApplied(revision=revision, trigger="start", duration_seconds=0.1))
    metrics.observe(RequestStarted(endpoint="chat"))
    metrics.show_provider("gone", True)
    metrics.show_provider("gone", None)
    metrics.show_provider("forgotten-by-one", True)
    metrics.show_provider("down-to-one", role != "rejects")
    if role == "rejects":
        metrics.show_provider("forgotten-by-one", None)
        metrics.observe(ConfigRejected(trigger="watch", faults=("one",)))
        metrics.show_storage(True)
    metrics.show_audit_spooled(2)
    metrics.count_audit_spooled(3)
    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(metrics.run(), 0.01))
    print("ready", flush=True)
    sys.stdin.readline()
    if role == "renders":
        sys.stdout.write(metrics.render()[1].decode())
        forget_worker(directory, sys.stdin.readline().strip())
        sys.stdout.write("# EOF\\n")
        sys.stdout.write(metrics.render()[1].decode())
"""


def test_one_worker_answers_for_all_and_forgets_the_dead(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start(name: str, role: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(WORKER), str(tmp_path), name, role],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        assert "ready\n" == worker.stdout.readline()
        return worker

    # Names that begin alike: the tenth life of a worker is not its first.
    other = start("1.1", "rejects")
    renderer = start("1.10", "renders")
    assert {"1.1", "1.10"} == {path.stem.split("_")[-1] for path in tmp_path.iterdir()}
    other.communicate("\n", timeout=60)
    output, _ = renderer.communicate("\n1.1\n", timeout=60)
    both, one = (samples_in(text) for text in output.split("# EOF\n"))
    assert 2 == both["sluice_requests_in_flight", ("chat",)]
    assert 4 == both["sluice_config_reloads_total", ("applied", "start")]
    assert 0 == both["sluice_config_last_reload_successful", ()]
    assert [("new",)] == [labels for name, labels in both if name == "sluice_config_revision_info"]
    assert 1 == both["sluice_config_revision_info", ("new",)]
    assert {("forgotten-by-one",): 1, ("down-to-one",): 0} == {
        labels: value for (name, labels), value in both.items() if name == "sluice_provider_up"
    }
    assert 1 == one["sluice_provider_up", ("down-to-one",)]
    # Only one of them has asked the database.
    assert (1, None) == tuple(each.get(("sluice_storage_up", ())) for each in (both, one))
    assert (4, 2) == tuple(each["sluice_audit_spooled_entries", ()] for each in (both, one))
    assert (6, 6) == tuple(each["sluice_audit_spooled_total", ()] for each in (both, one))
    assert 1 == one["sluice_requests_in_flight", ("chat",)]
    assert 1 == one["sluice_config_last_reload_successful", ()]
    assert 4 == one["sluice_config_reloads_total", ("applied", "start")]


@pytest.mark.parametrize("name", ["", "1_2", "*", "[1]", "../1", "1\n"])
def test_a_workers_name_that_is_no_part_of_a_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="worker's name"):
        forget_worker(str(tmp_path), name)


async def test_what_is_counted_is_passed_on_while_it_runs_and_at_its_end(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry.metrics, "FOLD_SECONDS", 0.001)
    # What another worker would read: prometheus_client's own values.
    own = prometheus_client.CollectorRegistry()
    tallies = metrics._tallies = Tallies(own)

    def in_flight() -> float | None:
        return own.get_sample_value("sluice_requests_in_flight", {"endpoint": "chat"})

    task = asyncio.ensure_future(metrics.run())
    tallies.started(RequestStarted(endpoint="chat"))
    async with asyncio.timeout(60):
        while in_flight() != 1:
            await asyncio.sleep(0.001)
    monkeypatch.setattr(telemetry.metrics, "FOLD_SECONDS", 60)
    await asyncio.sleep(0.01)
    tallies.started(RequestStarted(endpoint="chat"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 2 == in_flight()


def test_it_subscribes_to_what_it_counts(metrics: Metrics, ended: Ended) -> None:
    events = Events()
    metrics.subscribe(events)
    for event in (RequestStarted(endpoint="chat"), ended(), ended(error_code="internal_error"), applied("one")):
        events.emit(event)
    events.emit(GatewayStarted(address="127.0.0.1:8080", revision="one"))
    samples = samples_of(metrics)
    assert 2 == samples["sluice_requests_total", ("chat", "gpt-4o*", "openai", "gold", "200", "team")]
    assert 1 == samples["sluice_config_reloads_total", ("applied", "watch")]
