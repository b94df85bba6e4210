"""Every metric, as one table: the code, docs/metrics.md and a test are fed from it, both ways.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` on counters. Label values are names
of the configuration or words of ours; whatever is not known is `-`. Nothing that a client sends becomes a label.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """The types of metrics in use. `Info` is not among them: it fails with several workers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


MultiprocessMode = Literal["all", "livesum", "livemax", "livemin"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds in seconds, for histograms; +Inf is added."""
    across_workers: MultiprocessMode = "all"
    """How the gauges of several workers become one; dead workers do not count. Counters and histograms are summed."""


UNKNOWN = "-"
"""The label of whatever is not known, or not configured."""

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_TTFT_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
# The budget is 50 µs of CPU and 300 µs at the median, so the resolution is there.
_OVERHEAD_BUCKETS = (
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5,
)  # fmt: skip
_BATCH_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)

REQUESTS = Metric(
    "sluice_requests_total",
    Kind.COUNTER,
    "Requests on the data plane that have ended, by the status that the client got (499: it had gone before one).",
    ("endpoint", "route", "provider", "model", "status", "token"),
)
REQUEST_DURATION = Metric(
    "sluice_request_duration_seconds",
    Kind.HISTOGRAM,
    "From the end of a request's head to the last byte of its answer.",
    ("endpoint", "provider", "model"),
    _REQUEST_BUCKETS,
)
TTFT = Metric(
    "sluice_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    "From the end of a request's head to the first byte of output that the client was sent; streams only.",
    ("provider", "model"),
    _TTFT_BUCKETS,
)
UPSTREAM_DURATION = Metric(
    "sluice_upstream_duration_seconds",
    Kind.HISTOGRAM,
    "From the start of the last attempt to the end of the provider's answer.",
    ("provider", "model"),
    _REQUEST_BUCKETS,
)
OVERHEAD = Metric(
    "sluice_gateway_overhead_seconds",
    Kind.HISTOGRAM,
    "The gateway's own share of a request: head to the upstream's start, and first byte in to first byte out.",
    ("endpoint",),
    _OVERHEAD_BUCKETS,
)
IN_FLIGHT = Metric(
    "sluice_requests_in_flight",
    Kind.GAUGE,
    "Requests on the data plane that have begun and not ended.",
    ("endpoint",),
    across_workers="livesum",
)
ATTEMPTS_FAILED = Metric(
    "sluice_attempts_failed_total",
    Kind.COUNTER,
    "Attempts at a target that failed, by the wire code of the error.",
    ("provider", "model", "code"),
)
RETRIES = Metric(
    "sluice_retries_total",
    Kind.COUNTER,
    "Failed attempts at this target that were followed by another within the group.",
    ("provider", "model"),
)
FALLBACKS = Metric(
    "sluice_fallbacks_total",
    Kind.COUNTER,
    "Failed attempts at this target that were followed by one in the next group.",
    ("provider", "model"),
)
COOLDOWNS = Metric(
    "sluice_cooldowns_total",
    Kind.COUNTER,
    "Times that a target or a credential of the provider (model `-`) was taken out of rotation.",
    ("provider", "model", "reason"),
)
PROVIDER_UP = Metric(
    "sluice_provider_up",
    Kind.GAUGE,
    "1 if the provider answers, 0 if it has failed several times in a row (to any worker); absent while unknown.",
    ("provider",),
    across_workers="livemin",
)
INPUT_TOKENS = Metric(
    "sluice_input_tokens_total",
    Kind.COUNTER,
    "Input tokens, cached ones included: as providers reported them, else estimated.",
    ("provider", "model", "token"),
)
OUTPUT_TOKENS = Metric(
    "sluice_output_tokens_total",
    Kind.COUNTER,
    "Output tokens: as providers reported them, else estimated.",
    ("provider", "model", "token"),
)
CACHED_TOKENS = Metric(
    "sluice_cached_tokens_total",
    Kind.COUNTER,
    "Input tokens that providers read from their cache.",
    ("provider", "model", "token"),
)
REASONING_TOKENS = Metric(
    "sluice_reasoning_tokens_total",
    Kind.COUNTER,
    "Output tokens that models spent on reasoning.",
    ("provider", "model", "token"),
)
COST = Metric(
    "sluice_cost_usd_total",
    Kind.COUNTER,
    "What requests cost whose price is known, in US dollars.",
    ("provider", "model"),
)
UNPRICED = Metric(
    "sluice_unpriced_requests_total",
    Kind.COUNTER,
    "Requests that used tokens whose price is not known, so that their cost is not either.",
    ("provider", "model"),
)
CONFIG_RELOADS = Metric(
    "sluice_config_reloads_total",
    Kind.COUNTER,
    "Configurations that were tried, the first included: `applied`, or `rejected` and the last good one kept.",
    ("result", "trigger"),
)
CONFIG_REVISION = Metric(
    "sluice_config_revision_info",
    Kind.GAUGE,
    "1 for the revision in force; two for a moment while several workers swap.",
    ("revision",),
    across_workers="livemax",
)
CONFIG_LAST_RELOAD_SUCCESSFUL = Metric(
    "sluice_config_last_reload_successful",
    Kind.GAUGE,
    "1 if the last configuration that was tried is in force, 0 if it was rejected (by any worker). An edit by the API "
    "that is refused leaves it as it is.",
    across_workers="livemin",
)
CONFIG_LAST_APPLIED = Metric(
    "sluice_config_last_applied_timestamp_seconds",
    Kind.GAUGE,
    "When the configuration in force was applied, in seconds since the Unix epoch.",
    across_workers="livemax",
)
SECRET_STALE_SINCE = Metric(
    "sluice_secret_stale_since_timestamp_seconds",
    Kind.GAUGE,
    "Since when a secret is in use that could not be read again, in seconds since the Unix epoch; 0: it could be.",
    ("reference",),
    across_workers="livemax",
)
SECRET_ROTATIONS = Metric(
    "sluice_secret_rotations_total",
    Kind.COUNTER,
    "Secrets that were read again and found changed (each worker reads for itself).",
    ("reference",),
)
STORAGE_UP = Metric(
    "sluice_storage_up",
    Kind.GAUGE,
    "1 if the database answered the last time that it was asked, 0 if it did not (to any worker); absent while there is "
    "none yet.",
    across_workers="livemin",
)
AUDIT_WAITING = Metric(
    "sluice_audit_waiting_entries",
    Kind.GAUGE,
    "Entries of the audit that are in memory alone, neither in the database nor on the disk yet.",
    across_workers="livesum",
)
AUDIT_ON_DISK = Metric(
    "sluice_audit_spooled_entries",
    Kind.GAUGE,
    "Entries of the audit that wait on the disk for the database.",
    across_workers="livesum",
)
AUDIT_SPOOLED = Metric(
    "sluice_audit_spooled_total",
    Kind.COUNTER,
    "Entries of the audit that went to the disk, since the database did not take them in time.",
)
AUDIT_REPLAYED = Metric(
    "sluice_audit_replayed_total",
    Kind.COUNTER,
    "Entries of the audit that went from the disk to the database, those that ended processes had left too.",
)
LEDGER_ROWS = Metric(
    "sluice_ledger_rows_total",
    Kind.COUNTER,
    "Rows of requests that were written to the ledger, those that had waited on the disk too.",
)
LEDGER_LOST = Metric(
    "sluice_ledger_lost_rows_total",
    Kind.COUNTER,
    "Rows of the ledger that were lost: neither the database nor the disk took them, and as many waited as may.",
)
LEDGER_WAITING = Metric(
    "sluice_ledger_waiting_rows",
    Kind.GAUGE,
    "Rows of the ledger that are to be written and are in memory alone.",
    across_workers="livesum",
)
LEDGER_ON_DISK = Metric(
    "sluice_ledger_spooled_rows",
    Kind.GAUGE,
    "Rows of the ledger that wait on the disk for the database.",
    across_workers="livesum",
)
LEDGER_BATCH_DURATION = Metric(
    "sluice_ledger_batch_duration_seconds",
    Kind.HISTOGRAM,
    "How long the database took for a batch of rows of the ledger that it has written.",
    buckets=_BATCH_BUCKETS,
)
WEBHOOK_EVENTS = Metric(
    "sluice_webhook_events_total",
    Kind.COUNTER,
    "Events that were written to the outbox, by their name.",
    ("event",),
)
WEBHOOK_SHED = Metric(
    "sluice_webhook_shed_total",
    Kind.COUNTER,
    "Deliveries to webhooks that were not written to the outbox, by the event's name and why.",
    ("event", "reason"),
)
WEBHOOK_TRIES = Metric(
    "sluice_webhook_tries_total",
    Kind.COUNTER,
    "Tries of deliveries to a webhook, by what came of them.",
    ("webhook", "outcome"),
)
WEBHOOK_DEAD_LETTERS = Metric(
    "sluice_webhook_dead_letters_total",
    Kind.COUNTER,
    "Deliveries to a webhook that were given up, by why.",
    ("webhook", "reason"),
)
WEBHOOK_PENDING = Metric(
    "sluice_webhook_pending_deliveries",
    Kind.GAUGE,
    "Deliveries that wait for a webhook, in the whole database.",
    ("webhook",),
    across_workers="livemax",
)
QUOTA_DECISIONS = Metric(
    "sluice_quota_decisions_total",
    Kind.COUNTER,
    "Decisions on requests and attempts that limits count.",
    ("result",),
)
QUOTA_REFUSALS = Metric(
    "sluice_quota_refusals_total",
    Kind.COUNTER,
    "Requests and attempts that a limit refused, by what it limits and what it is tied to.",
    ("metric", "scope"),
)
QUOTA_WAITING = Metric(
    "sluice_quota_waiting_requests",
    Kind.GAUGE,
    "Requests that wait for a limit.",
    across_workers="livesum",
)
QUOTA_STORE_UP = Metric(
    "sluice_quota_store_up",
    Kind.GAUGE,
    "1 if Redis counts what limits count, 0 if it cannot be used (by any worker); absent where there is none.",
    across_workers="livemin",
)
CREDENTIAL_REFRESHES = Metric(
    "sluice_credential_refreshes_total",
    Kind.COUNTER,
    "Refreshes of credentials whose tokens end, by what came of them: `refreshed`, `needs_login`, `refused` or "
    "`unavailable`.",
    ("provider", "outcome"),
)
CREDENTIAL_STATE = Metric(
    "sluice_credential_state",
    Kind.GAUGE,
    "1 for a credential that needs a person to sign in again (until its token ends it serves), else 0.",
    ("provider", "credential"),
    across_workers="livemax",
)
CREDENTIAL_EXPIRES = Metric(
    "sluice_credential_expires_timestamp_seconds",
    Kind.GAUGE,
    "When a credential's token ends, in seconds since the Unix epoch (the first of several workers' own); absent where "
    "that is not known.",
    ("provider", "credential"),
    across_workers="livemin",
)
EVENT_LOOP_LAG = Metric(
    "sluice_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    "How much later than asked for a timer of the event loop ran, measured four times a second.",
    buckets=_LAG_BUCKETS,
)

METRICS: tuple[Metric, ...] = (
    REQUESTS,
    REQUEST_DURATION,
    TTFT,
    UPSTREAM_DURATION,
    OVERHEAD,
    IN_FLIGHT,
    ATTEMPTS_FAILED,
    RETRIES,
    FALLBACKS,
    COOLDOWNS,
    PROVIDER_UP,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHED_TOKENS,
    REASONING_TOKENS,
    COST,
    UNPRICED,
    CONFIG_RELOADS,
    CONFIG_REVISION,
    CONFIG_LAST_RELOAD_SUCCESSFUL,
    CONFIG_LAST_APPLIED,
    SECRET_STALE_SINCE,
    SECRET_ROTATIONS,
    STORAGE_UP,
    AUDIT_WAITING,
    AUDIT_ON_DISK,
    AUDIT_SPOOLED,
    AUDIT_REPLAYED,
    LEDGER_ROWS,
    LEDGER_LOST,
    LEDGER_WAITING,
    LEDGER_ON_DISK,
    LEDGER_BATCH_DURATION,
    WEBHOOK_EVENTS,
    WEBHOOK_SHED,
    WEBHOOK_TRIES,
    WEBHOOK_DEAD_LETTERS,
    WEBHOOK_PENDING,
    QUOTA_DECISIONS,
    QUOTA_REFUSALS,
    QUOTA_WAITING,
    QUOTA_STORE_UP,
    CREDENTIAL_REFRESHES,
    CREDENTIAL_STATE,
    CREDENTIAL_EXPIRES,
    EVENT_LOOP_LAG,
)
