"""The single source of the configuration's keys: types, bounds, defaults, descriptions.

`config/schema.json` is generated from here (`./sluice schema`), documents are validated against that,
and the same definitions give the frozen values that the program reads.

Two marks go into the JSON schema: ``x-restart`` on keys that only take effect at start, and ``x-secret`` on
values that are kept as handles (:class:`core.secret.Secret`) and shown to nobody.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from core.secret import Secret

_RESTART = {"x-restart": True}

Name = Annotated[
    str,
    Meta(
        # `$(?!\n)` is the end of the text alone: Python's `$` stands before a last line break too, and ECMA 262,
        # which editors read the JSON schema by, has no `\Z`.
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)",
        max_length=64,
        description="letters, digits, `.`, `_` and `-`, a letter or digit first",
    ),
]
_YEAR_SECONDS = 31_536_000
_TEBIBYTE = 1 << 40
Seconds = Annotated[float, Meta(ge=0, le=_YEAR_SECONDS)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=_YEAR_SECONDS)]
Names = str | Annotated[tuple[str, ...], Meta(min_length=1)]
"""One glob or several; several are joined by OR."""


# gc=False: a configuration is a tree, and a large one should not be walked by every full collection.
class _Section(msgspec.Struct, gc=False, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ServerTls(_Section, frozen=True, kw_only=True):
    """HTTPS at the listener. Renewed files take effect for new connections, without a reload."""

    cert: Annotated[
        str, Meta(min_length=1, description="PEM file of the certificate and its chain; relative to this file")
    ]
    key: Annotated[str, Meta(min_length=1, description="PEM file of its private key; relative to this file")]
    minimum: Annotated[Literal["1.2", "1.3"], Meta(description="oldest version of TLS that is spoken")] = "1.2"


class Server(_Section, frozen=True, kw_only=True):
    """The listener and its limits."""

    listen: Annotated[
        str,
        Meta(description="address:port for clients; port 0 picks a free one", extra_json_schema=_RESTART),
    ] = "127.0.0.1:8080"
    workers: Annotated[
        int, Meta(ge=1, le=256, description="processes that share the listener", extra_json_schema=_RESTART)
    ] = 1
    public_url: Annotated[str | None, Meta(description="the address that clients use, when a proxy stands before")] = (
        None
    )
    tls: Annotated[
        ServerTls | None,
        Meta(description="certificate and key for HTTPS; null: plain HTTP", extra_json_schema=_RESTART),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="addresses or networks whose X-Forwarded-For is believed")
    ] = ()
    max_body_bytes: Annotated[
        int,
        Meta(ge=1024, le=_TEBIBYTE, description="largest request body that is read whole, as sent"),
    ] = 33554432
    max_decompressed_bytes: Annotated[int, Meta(ge=1024, le=_TEBIBYTE, description="the same once decompressed")] = (
        33554432
    )
    max_upload_bytes: Annotated[
        int, Meta(ge=1024, le=_TEBIBYTE, description="largest streamed upload (multipart: files, audio, images)")
    ] = 1073741824
    max_header_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 20, description="largest head of a request: its first line and header fields")
    ] = 65536
    max_header_fields: Annotated[int, Meta(ge=8, le=4096, description="most header fields of a request")] = 128
    max_url_bytes: Annotated[int, Meta(ge=256, le=1 << 20, description="longest path and query of a request")] = 16384
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000_000, description="open connections of clients, for each worker")
    ] = 10000
    max_requests_per_connection: Annotated[
        int, Meta(ge=1, le=1_000_000_000, description="a connection is closed after this many requests")
    ] = 10000
    header_seconds: Annotated[
        PositiveSeconds, Meta(description="longest time from a request's first byte to the end of its head")
    ] = 20.0
    body_idle_seconds: Annotated[
        PositiveSeconds, Meta(description="longest pause of a client that is sending a body")
    ] = 30.0
    send_idle_seconds: Annotated[
        PositiveSeconds, Meta(description="longest time that a client may take nothing of its answer")
    ] = 120.0
    keep_alive_seconds: Annotated[PositiveSeconds, Meta(description="idle connections are closed after this")] = 75.0
    drain_seconds: Annotated[Seconds, Meta(description="how long streams in flight may go on after SIGTERM")] = 30.0
    drain_delay_seconds: Annotated[
        Seconds, Meta(description="how long /readyz says 503 before the listener closes")
    ] = 0.0
    allow_private_targets: Annotated[
        bool, Meta(description="let the management API set URLs that lead into private networks")
    ] = False


class Management(_Section, frozen=True, kw_only=True):
    """The control plane."""

    listen: Annotated[
        str | None,
        Meta(description="own address:port; null: the same listener, under /api/v1", extra_json_schema=_RESTART),
    ] = None
    admin_key_hash: Annotated[
        Secret | None, Meta(description="argon2id hash of the admin key, made by `./sluice hash-key`; null: no admin")
    ] = None
    allowed_references: Annotated[
        tuple[str, ...],
        Meta(description="globs over the references that the API may add, such as `env:LLM_*`; none: no reference"),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="globs over the names in Host by which the API may be called, besides addresses, localhost "
            "and the name in server.public_url"
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(description="origins whose pages may call the API, such as https://console.example.com; none: no page"),
    ] = ()


class Storage(_Section, frozen=True, kw_only=True):
    """The database: API tokens that the API makes, the audit, revisions of the configuration, models of providers, the
    ledger of requests, deliveries to webhooks."""

    url: Annotated[
        Secret | None,
        Meta(
            description="sqlite:///PATH, relative to this file, or postgresql://USER:PASSWORD@HOST/DATABASE; "
            "null: sqlite:///data/sluice.db",
            extra_json_schema=_RESTART,
        ),
    ] = None


class MetricsSettings(_Section, frozen=True, kw_only=True):
    """Prometheus metrics at /metrics."""

    public: Annotated[bool, Meta(description="serve /metrics without credentials")] = False


class Telemetry(_Section, frozen=True, kw_only=True):
    """What the gateway tells about itself."""

    metrics: Annotated[MetricsSettings, Meta(description="who may read /metrics")] = MetricsSettings()
    access_log: Annotated[bool, Meta(description="one JSON line a request on standard output")] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least serious that is written")
    ] = "info"


Count = Annotated[int, Meta(ge=1)]
Money = Annotated[float, Meta(gt=0)]


class Limit(_Section, frozen=True, kw_only=True):
    """So much of one thing, at most: exactly one of the amounts, and the time that it is for."""

    requests: Annotated[Count | None, Meta(description="requests")] = None
    tokens: Annotated[Count | None, Meta(description="tokens, input and output together")] = None
    input_tokens: Annotated[Count | None, Meta(description="input tokens")] = None
    output_tokens: Annotated[Count | None, Meta(description="output tokens")] = None
    usd: Annotated[Money | None, Meta(description="money, in US dollars; see `prices`")] = None
    concurrency: Annotated[Count | None, Meta(description="requests under way at a time; takes no `per`")] = None
    per: Annotated[
        Literal["minute", "hour", "day", "month"] | None,
        Meta(
            description="a window begins with the first request after the last one has ended; month: the UTC calendar month"
        ),
    ] = None
    shadow: Annotated[bool, Meta(description="only count, refuse nothing")] = False
    max_wait_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="let a request wait for so long instead of refusing it")
    ] = 0.0


LimitedBy = Literal["token", "owner", "model", "path", "provider", "credential"]


class LimitMatch(_Section, frozen=True, kw_only=True):
    """Which requests a shared limit counts: fields are joined by AND, a list by OR; none: every request."""

    token: Annotated[Names | None, Meta(description="globs over the token's name")] = None
    owner: Annotated[Names | None, Meta(description="globs over the token's owner")] = None
    model: Annotated[Names | None, Meta(description="globs over the name that the client asks for")] = None
    path: Annotated[Names | None, Meta(description="globs over the request path, such as /v1/embeddings")] = None
    provider: Annotated[Names | None, Meta(description="globs over the provider's name")] = None
    credential: Annotated[Names | None, Meta(description="globs over the credential's name")] = None


class SharedLimit(Limit, frozen=True, kw_only=True):
    """A limit over requests that match."""

    match: Annotated[LimitMatch, Meta(description="which requests it counts; none: every request")] = LimitMatch()
    each: Annotated[
        tuple[LimitedBy, ...],
        Meta(description="of these, each name has a count of its own; none: all that match share one"),
    ] = ()


class Redis(_Section, frozen=True, kw_only=True):
    """A Redis server (5 or later) that several processes and machines share: it counts what limits count."""

    url: Annotated[
        Secret | None,
        Meta(
            description="redis://[USER:PASSWORD@]HOST:PORT/DATABASE, rediss:// for TLS, unix://PATH; null: no Redis",
            extra_json_schema=_RESTART,
        ),
    ] = None
    timeout_seconds: Annotated[
        PositiveSeconds,
        Meta(description="a Redis that takes longer counts as away", extra_json_schema=_RESTART),
    ] = 0.25
    prefix: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            description="of all keys; the braces keep them on one node of a cluster",
            extra_json_schema=_RESTART,
        ),
    ] = "{sluice}:"


class Quotas(_Section, frozen=True, kw_only=True):
    """How limits are kept."""

    on_store_failure: Annotated[
        Literal["local", "refuse"],
        Meta(
            description="while Redis is away: `local`, each process counts for itself; `refuse`, 503 for what is limited",
            extra_json_schema=_RESTART,
        ),
    ] = "local"
    lease_seconds: Annotated[
        float,
        Meta(
            ge=3,
            le=3600,
            description="so long what is under way counts after its process has died",
            extra_json_schema=_RESTART,
        ),
    ] = 15.0
    max_waiting: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="requests that wait at a time by `max_wait_seconds`, for each worker",
            extra_json_schema=_RESTART,
        ),
    ] = 1000
    assumed_output_tokens: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="reserved for the answer to a request that sets no maximum of its own"),
    ] = 500
    thresholds: Annotated[
        tuple[Annotated[float, Meta(gt=0, lt=1)], ...],
        Meta(description="shares of a limit at which quota.threshold and budget.threshold are told"),
    ] = (0.8,)


class Price(_Section, frozen=True, kw_only=True):
    """What models cost, in US dollars for a million tokens."""

    model: Annotated[Names, Meta(description="globs over provider/model, the provider by its name in this file")]
    input_usd: Annotated[float, Meta(ge=0, le=1_000_000, description="for a million input tokens")]
    output_usd: Annotated[float, Meta(ge=0, le=1_000_000, description="for a million output tokens")]
    cached_input_usd: Annotated[
        Annotated[float, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="for a million input tokens read from the cache; null: as input_usd"),
    ] = None
    cache_write_usd: Annotated[
        Annotated[float, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="for a million input tokens put into the cache; null: as input_usd"),
    ] = None
    request_usd: Annotated[float, Meta(ge=0, le=1_000_000, description="for each request, besides its tokens")] = 0.0


class Usage(_Section, frozen=True, kw_only=True):
    """The ledger: one row a request, with its tokens, cost, status and times."""

    ledger: Annotated[bool, Meta(description="keep it")] = True
    flush_seconds: Annotated[
        float,
        Meta(
            ge=0.05,
            le=60,
            description="so long rows gather, to be written together; a process that is killed loses them",
        ),
    ] = 1.0
    retention_seconds: Annotated[
        float, Meta(ge=60, le=_YEAR_SECONDS * 10, description="rows that are older are deleted; 7776000 is 90 days")
    ] = 7776000.0
    max_spool_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=_TEBIBYTE,
            description="so much waits on the disk while the database is away; then rows are lost and counted",
            extra_json_schema=_RESTART,
        ),
    ] = 268435456


class Token(_Section, frozen=True, kw_only=True):
    """An API token that the file itself declares."""

    name: Name
    sha256: Annotated[str, Meta(description="SHA-256 of the token's text, 64 hexadecimal digits; or a reference to it")]
    models: Annotated[
        tuple[str, ...], Meta(description="globs over the names that clients ask for; none: no model")
    ] = ()
    scope: Annotated[
        Literal["scope_token_user", "scope_token_power_user", "scope_metrics"],
        Meta(description="what it opens besides the models: nothing, reading the management API, or /metrics alone"),
    ] = "scope_token_user"
    endpoints: Annotated[
        tuple[Literal["inference", "files", "batches", "responses"], ...],
        Meta(
            description="inference, files, batches, responses; the last three share the provider's account "
            "between callers"
        ),
    ] = ("inference",)
    expires_at: Annotated[
        str | None, Meta(description="until when it counts, such as 2027-01-31T12:00:00Z; null: for ever")
    ] = None
    ip_ranges: Annotated[
        tuple[str, ...], Meta(description="addresses and networks that it may be used from; none: everywhere")
    ] = ()
    owner: Annotated[str | None, Meta(description="whose it is")] = None
    metadata: Annotated[dict[str, str], Meta(description="notes of your own")] = {}
    limits: Annotated[tuple[Limit, ...], Meta(description="how much it may use; none: no limit of its own")] = ()


class ClientTls(_Section, frozen=True, kw_only=True):
    """Certificates of TLS with a server."""

    ca: Annotated[
        str | None, Meta(description="PEM file of the authorities to trust; null: the system's; relative to this file")
    ] = None
    cert: Annotated[str | None, Meta(description="PEM file of a certificate to show; null: none")] = None
    key: Annotated[str | None, Meta(description="PEM file of its key; null: it is in `cert` too")] = None


class VaultAuth(_Section, frozen=True, kw_only=True):
    """How the gateway signs in to Vault."""

    method: Annotated[
        Literal["token", "approle", "kubernetes"], Meta(description="which of the fields below are used")
    ] = "token"
    mount: Annotated[str | None, Meta(description="where the method is mounted; null: at its own name")] = None
    token: Annotated[Secret | None, Meta(description="for `token`, as a reference")] = None
    role_id: Annotated[str | None, Meta(description="for `approle`")] = None
    secret_id: Annotated[Secret | None, Meta(description="for `approle`, as a reference")] = None
    role: Annotated[str | None, Meta(description="for `kubernetes`")] = None
    jwt_file: Annotated[
        str, Meta(description="for `kubernetes`: the service account's token; read at each sign-in")
    ] = "/var/run/secrets/kubernetes.io/serviceaccount/token"


KvVersion = Literal["auto", 1, 2]


class VaultMount(_Section, frozen=True, kw_only=True):
    """A secrets engine of Vault."""

    path: Annotated[str, Meta(min_length=1, description="where it is mounted, such as `team/secrets`")]
    kv: Annotated[KvVersion | None, Meta(description="version of its key-value store; null: as `secrets.vault.kv`")] = (
        None
    )


class Vault(_Section, frozen=True, kw_only=True):
    """A Vault server that `${vault:…}` references are read from."""

    address: Annotated[str, Meta(description="http(s) address of the server")]
    namespace: Annotated[str | None, Meta(description="Vault Enterprise namespace")] = None
    auth: Annotated[VaultAuth, Meta(description="how the gateway signs in")] = VaultAuth()
    kv: Annotated[
        KvVersion, Meta(description="version of the key-value stores; auto: as Vault says, 2 where it may not be asked")
    ] = "auto"
    mounts: Annotated[
        tuple[str | VaultMount, ...],
        Meta(description="mounts of several segments, or of another `kv`; of others the first segment is the mount"),
    ] = ()
    cache_seconds: Annotated[PositiveSeconds, Meta(description="a value without a lease is read again after this")] = (
        60.0
    )
    timeout_seconds: Annotated[PositiveSeconds, Meta(description="for one answer of Vault")] = 5.0
    tls: Annotated[ClientTls, Meta(description="certificates, where the address is https")] = ClientTls()


class Transit(_Section, frozen=True, kw_only=True):
    """A key of Vault's Transit engine, which master keys are wrapped by."""

    mount: Annotated[str, Meta(min_length=1, description="where the engine is mounted")] = "transit"
    key: Annotated[str, Meta(min_length=1, description="name of the key")]


class MasterKey(_Section, frozen=True, kw_only=True):
    """What `${sealed:…}` values are sealed by. `SLUICE_MASTER_KEY` in the environment goes before both."""

    file: Annotated[str | None, Meta(description="file of the keys, one a line; relative to this file")] = None
    transit: Annotated[
        Transit | None, Meta(description="the keys in `file` are wrapped by this; null: they are not")
    ] = None


class Secrets(_Section, frozen=True, kw_only=True):
    """Where references are read from, besides the environment and files."""

    vault: Annotated[Vault | None, Meta(description="null: no `${vault:…}` references")] = None
    master_key: Annotated[MasterKey, Meta(description="what `${sealed:…}` values are sealed by")] = MasterKey()
    persist: Annotated[
        bool, Meta(description="keep the last values of Vault, sealed, for a start while it does not answer")
    ] = False
    directory: Annotated[
        str,
        Meta(
            min_length=1,
            description="where kept values, and a master key of our own making, are; relative to this file",
        ),
    ] = "data"


class Transport(_Section, frozen=True, kw_only=True):
    """Connections to providers."""

    proxy_url: Annotated[
        Secret | None,
        Meta(description="http(s)://[user:password@]host:port of a proxy for all providers; null: none"),
    ] = None
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000, description="open at most, for each worker")] = 10000
    max_connections_per_origin: Annotated[
        int, Meta(ge=1, le=1_000_000, description="the same, to one scheme, host and port")
    ] = 10000
    max_waiting: Annotated[
        int, Meta(ge=0, le=1_000_000, description="requests that wait for a connection, on their connect clock")
    ] = 1000
    keep_alive_seconds: Annotated[Seconds, Meta(description="idle connections are closed after this")] = 15.0
    dns_cache_seconds: Annotated[Seconds, Meta(description="how long an address that was looked up is used")] = 5.0
    max_decoded_bytes: Annotated[
        int,
        Meta(ge=1024, le=_TEBIBYTE, description="largest answer, decoded, of a provider that encodes unasked"),
    ] = 268435456


CONNECT_SECONDS = 5.0
FIRST_BYTE_SECONDS = 60.0
IDLE_SECONDS = 120.0


class Timeouts(_Section, frozen=True, kw_only=True):
    """Clocks of one attempt; unset: as the provider says, else the default; null: off."""

    connect_seconds: Annotated[
        PositiveSeconds | None | UnsetType,
        Meta(description=f"until connected, TLS included (default {CONNECT_SECONDS:g})"),
    ] = UNSET
    first_byte_seconds: Annotated[
        PositiveSeconds | None | UnsetType,
        Meta(description=f"from the request sent to the answer's head (default {FIRST_BYTE_SECONDS:g})"),
    ] = UNSET
    first_token_seconds: Annotated[
        PositiveSeconds | None | UnsetType,
        Meta(description="from the request sent to the first output; until then another may answer (default off)"),
    ] = UNSET
    idle_seconds: Annotated[
        PositiveSeconds | None | UnsetType,
        Meta(description=f"longest silence inside an answer (default {IDLE_SECONDS:g})"),
    ] = UNSET
    total_seconds: Annotated[
        PositiveSeconds | None | UnsetType, Meta(description="the whole exchange, all attempts (default off)")
    ] = UNSET


class GoogleServiceAccount(_Section, frozen=True, kw_only=True):
    """A key of Google's that is exchanged for access tokens (RFC 7523)."""

    key: Annotated[Secret, Meta(description="the JSON key that Google gives, as a reference such as ${file:PATH}")]
    scopes: Annotated[tuple[str, ...], Meta(min_length=1, description="what the tokens are for")] = (
        "https://www.googleapis.com/auth/cloud-platform",
    )
    subject: Annotated[str | None, Meta(description="the user it acts for, by domain-wide delegation")] = None


class AzureEntra(_Section, frozen=True, kw_only=True):
    """An application of Microsoft Entra ID; one of client_secret, certificate and federated_token says how it signs in."""

    tenant: Annotated[str, Meta(min_length=1, description="id or domain of the directory")]
    client_id: Annotated[str, Meta(min_length=1, description="id of the application")]
    client_secret: Annotated[Secret | None, Meta(description="its secret, as a reference")] = None
    certificate: Annotated[
        Secret | None, Meta(description="its certificate and private key as PEM, as a reference such as ${file:PATH}")
    ] = None
    federated_token: Annotated[
        Secret | None,
        Meta(
            description="token of the workload's identity, as a reference such as ${file:PATH}; read for each sign-in"
        ),
    ] = None
    scope: Annotated[str, Meta(description="what the tokens are for")] = "https://cognitiveservices.azure.com/.default"
    authority: Annotated[str, Meta(description="address of the sign-in service")] = "https://login.microsoftonline.com"


class CommandCredential(_Section, frozen=True, kw_only=True):
    """A program that prints a token. It stands in a file alone: the API neither adds nor changes one."""

    run: Annotated[tuple[str, ...], Meta(min_length=1, description="program and arguments; no shell reads them")]
    environment: Annotated[
        dict[str, str], Meta(description="its variables, besides PATH, HOME and LANG; nothing else is passed on")
    ] = {}
    timeout_seconds: Annotated[float, Meta(gt=0, le=300, description="it is killed after this")] = 30.0
    lifetime_seconds: Annotated[
        PositiveSeconds, Meta(description="how long a token serves whose end the program does not print")
    ] = 300.0


class Credential(_Section, frozen=True, kw_only=True):
    """What we call a provider by. One of api_key, client_credentials, google_service_account, azure_entra and command
    says of which kind it is; accounts that sign in by OAuth are added through the API."""

    name: Name
    api_key: Annotated[
        Secret | None, Meta(description="the key, as a reference: ${env:NAME}, ${file:PATH}, ${vault:…}")
    ] = None
    client_credentials: Annotated[
        Name | None, Meta(description="name of an entry of oauth.providers whose client signs in for itself")
    ] = None
    google_service_account: Annotated[
        GoogleServiceAccount | None, Meta(description="a key of Google's that is exchanged for access tokens")
    ] = None
    azure_entra: Annotated[AzureEntra | None, Meta(description="an application of Microsoft Entra ID")] = None
    command: Annotated[CommandCredential | None, Meta(description="a program that prints a token")] = None
    weight: Annotated[int, Meta(ge=1, le=1000, description="share of requests among the pool")] = 1
    priority: Annotated[
        int,
        Meta(
            ge=-1000,
            le=1000,
            description="the highest of those that can be used come first; weights share among equals",
        ),
    ] = 0
    prefix: Annotated[
        Name | None, Meta(description="requests for PREFIX/model are served by credentials of this prefix alone")
    ] = None
    models: Annotated[tuple[str, ...], Meta(description="globs of the models it may be used for; none: all")] = ()
    proxy_url: Annotated[
        Secret | None, Meta(description="as the provider's, for this credential; `direct`: none; null: the provider's")
    ] = None
    disabled: Annotated[bool, Meta(description="whether it is left out")] = False
    note: Annotated[Annotated[str, Meta(max_length=500)] | None, Meta(description="for people")] = None
    limits: Annotated[
        tuple[Limit, ...], Meta(description="how much is sent by it; then another credential or target is taken")
    ] = ()


class HealthCheck(_Section, frozen=True, kw_only=True):
    """Asking an idle provider whether it answers, by its list of models, which costs nothing."""

    probe_seconds: Annotated[
        PositiveSeconds | None,
        Meta(description="a provider that served no request for this long is asked; null: never"),
    ] = 60.0


class Discovery(_Section, frozen=True, kw_only=True):
    """Reading a provider's list of models."""

    ttl_seconds: Annotated[PositiveSeconds, Meta(description="a list that is older is read again when asked for")] = (
        3600.0
    )


class Provider(_Section, frozen=True, kw_only=True):
    """A configured upstream account or endpoint."""

    name: Name
    type: Annotated[str, Meta(description="the vendor adapter: openai, openai-compatible, echo")]
    base_url: Annotated[str | None, Meta(description="http(s) address up to and with /v1; null: the type's own")] = None
    credentials: Annotated[tuple[Credential, ...], Meta(description="the pool; a provider may need none")] = ()
    oauth: Annotated[
        Name | None, Meta(description="name of the entry of oauth.providers by which accounts sign in to this provider")
    ] = None
    models: Annotated[
        tuple[str, ...], Meta(description="globs of the models it serves by bare name; none: by prefix, alias or route")
    ] = ()
    headers: Annotated[dict[str, str], Meta(description="extra request headers")] = {}
    proxy_url: Annotated[
        Secret | None, Meta(description="as transport.proxy_url, for this provider; `direct`: none; null: that one")
    ] = None
    tls: Annotated[ClientTls, Meta(description="authorities and certificates")] = ClientTls()
    timeouts: Annotated[Timeouts, Meta(description="for its attempts, where the route sets none")] = Timeouts()
    allow_private: Annotated[
        bool, Meta(description="whether its address may lie in a private network; the API writes false")
    ] = True
    health: Annotated[HealthCheck, Meta(description="asking it while it is idle")] = HealthCheck()
    discovery: Annotated[Discovery, Meta(description="reading its list of models")] = Discovery()
    limits: Annotated[tuple[Limit, ...], Meta(description="how much is sent to it; then another target is taken")] = ()
    include_usage: Annotated[
        bool,
        Meta(
            description="ask it for the usage of streams (stream_options.include_usage) where the client does not, and take "
            "the chunk that tells it out again"
        ),
    ] = False
    options: Annotated[dict[str, Any], Meta(description="settings of the type; see docs/providers.md")] = {}


class ModelAlias(_Section, frozen=True, kw_only=True):
    """A public model name."""

    from_: Annotated[str, Meta(min_length=1, description="name or glob that clients ask for")] = field(name="from")
    to: Annotated[str, Meta(min_length=1, description="provider/model, a model, or another alias; `*` takes a capture")]


class Target(_Section, frozen=True, kw_only=True):
    """One dialable choice of a route."""

    to: Annotated[str, Meta(description="provider/model, split at the first `/`")]
    weight: Annotated[int, Meta(ge=0, le=1000, description="share under `weighted`")] = 1


Group = Annotated[tuple[str | Target, ...], Meta(min_length=1)]
"""Targets that are tried together; a text is a target of weight 1."""


class Match(_Section, frozen=True, kw_only=True):
    """Which requests a route takes: fields are joined by AND, a list by OR; none: every request."""

    model: Annotated[Names | None, Meta(description="globs over the name after aliases, with its prefix")] = None
    requested_model: Annotated[Names | None, Meta(description="globs over the client's spelling")] = None
    token: Annotated[Names | None, Meta(description="globs over the token's name")] = None
    path: Annotated[Names | None, Meta(description="globs over the request path, such as /v1/files*")] = None
    headers: Annotated[dict[str, Names], Meta(description="header name → globs over its value")] = {}
    stream: Annotated[bool | None, Meta(description="streamed or not")] = None


class FallbacksByKind(_Section, frozen=True, kw_only=True):
    """Groups to go on to, by what went wrong."""

    error: Annotated[tuple[Group, ...], Meta(description="the provider failed or is busy")] = ()
    context: Annotated[tuple[Group, ...], Meta(description="the prompt is too long")] = ()
    content: Annotated[tuple[Group, ...], Meta(description="the provider's policy refused")] = ()


class Retry(_Section, frozen=True, kw_only=True):
    """Trying again within a group."""

    attempts: Annotated[int, Meta(ge=1, le=10, description="most attempts in one group, the first included")] = 3
    backoff_seconds: Annotated[Seconds, Meta(description="first pause before the same target again; doubles")] = 0.25
    max_backoff_seconds: Annotated[
        Seconds, Meta(description="longest pause; a target that asks for more is left for the next")
    ] = 8.0
    maybe_delivered: Annotated[
        bool | None,
        Meta(
            description="retry what the provider may have begun; null: true for inference, false for files and batches"
        ),
    ] = None


class Cooldown(_Section, frozen=True, kw_only=True):
    """Taking a failing target out of rotation."""

    after_failures: Annotated[int, Meta(ge=1, le=100, description="failures in a row until it cools")] = 3
    seconds: Annotated[Seconds, Meta(description="for how long; a provider's Retry-After counts at once")] = 10.0
    max_seconds: Annotated[Seconds, Meta(description="ceiling, also over Retry-After")] = 300.0


class Overrides(_Section, frozen=True, kw_only=True):
    """Changes to the request body's top level."""

    set: Annotated[dict[str, Any], Meta(description="members that are set, whatever the client sent")] = {}
    default: Annotated[dict[str, Any], Meta(description="members that are added where the client sent none")] = {}
    remove: Annotated[tuple[str, ...], Meta(description="members that are left out")] = ()


class Route(_Section, frozen=True, kw_only=True):
    """An ordered rule: what it matches, and where that goes."""

    name: Name
    match: Annotated[Match, Meta(description="which requests it takes; none: every request")] = Match()
    strategy: Annotated[str, Meta(description="first, round_robin, weighted, random")] = "first"
    targets: Annotated[Group, Meta(description="the first group")]
    fallbacks: Annotated[
        tuple[Group, ...] | FallbacksByKind, Meta(description="further groups in order, or by kind")
    ] = ()
    retry: Annotated[Retry, Meta(description="trying again within a group")] = Retry()
    cooldown: Annotated[Cooldown, Meta(description="when a failing target is left out")] = Cooldown()
    timeouts: Annotated[Timeouts, Meta(description="clocks of one attempt")] = Timeouts()
    overrides: Annotated[Overrides, Meta(description="changes to the request body")] = Overrides()


class TokenPlacement(_Section, frozen=True, kw_only=True):
    """How an access token is put on requests to the provider."""

    header: Annotated[str, Meta(min_length=1, description="the field that carries it")] = "authorization"
    scheme: Annotated[str | None, Meta(description="the word before it; null: none")] = "Bearer"
    headers: Annotated[dict[str, str], Meta(description="fields that go with it")] = {}


class OAuthProvider(_Section, frozen=True, kw_only=True):
    """Where accounts sign in, by a client that its operator has registered there. What a template or the issuer's
    discovery document says counts where nothing is given here."""

    name: Name
    template: Annotated[
        str | None,
        Meta(
            description="claude, openai, google, github, azure, openrouter or huggingface: public endpoints and scopes"
        ),
    ] = None
    issuer: Annotated[
        str | None, Meta(description="identifier of the server, whose discovery document tells the endpoints")
    ] = None
    authorization_endpoint: Annotated[str | None, Meta(description="where a person signs in")] = None
    token_endpoint: Annotated[str | None, Meta(description="where codes and refresh tokens are exchanged")] = None
    device_authorization_endpoint: Annotated[str | None, Meta(description="where a device asks for its code")] = None
    revocation_endpoint: Annotated[str | None, Meta(description="where tokens are given back")] = None
    client_id: Annotated[str | None, Meta(description="id of the registered client; a reference may stand here")] = None
    client_secret: Annotated[Secret | None, Meta(description="its secret, as a reference; null: a public client")] = (
        None
    )
    client_authentication: Annotated[
        Literal["basic", "post", "private_key_jwt"] | None,
        Meta(
            description="the secret goes in the Authorization field, or in the form, or is a private key as PEM that signs "
            "assertions (RFC 7523); null: the template's, else basic"
        ),
    ] = None
    redirect_url: Annotated[
        str | None, Meta(description="registered at the server; null: /oauth/callback below server.public_url")
    ] = None
    scopes: Annotated[tuple[str, ...] | None, Meta(description="what is asked for; null: the template's")] = None
    pkce: Annotated[bool, Meta(description="send a code challenge (S256); false for servers that refuse one")] = True
    audience: Annotated[str | None, Meta(description="whom the tokens are for, where the server asks for that")] = None
    authorization_parameters: Annotated[
        dict[str, str], Meta(description="added to the address where a person signs in")
    ] = {}
    token_parameters: Annotated[dict[str, str], Meta(description="added to the forms sent to the token endpoint")] = {}
    placement: Annotated[
        TokenPlacement | None,
        Meta(description="how a token is put on requests; null: the template's, else a bearer token"),
    ] = None
    tls: Annotated[ClientTls, Meta(description="authorities and certificates")] = ClientTls()
    proxy_url: Annotated[Secret | None, Meta(description="as transport.proxy_url, for its endpoints")] = None


class OAuth(_Section, frozen=True, kw_only=True):
    """Accounts that sign in to providers, and where their tokens are kept, always sealed with the master key."""

    store: Annotated[
        Literal["memory", "database", "redis", "file"],
        Meta(description="where accounts are kept", extra_json_schema=_RESTART),
    ] = "database"
    directory: Annotated[
        str, Meta(description="of the store `file`; relative to secrets.directory", extra_json_schema=_RESTART)
    ] = "credentials"
    refresh_ahead_seconds: Annotated[
        PositiveSeconds, Meta(description="so long before its end a token is exchanged for a fresh one; jittered")
    ] = 300.0
    providers: Annotated[tuple[OAuthProvider, ...], Meta(description="where accounts sign in")] = ()


class WebhookTls(_Section, frozen=True, kw_only=True):
    """TLS with a webhook's endpoint."""

    ca: Annotated[
        str | None, Meta(description="PEM file of the authorities to trust; relative to this file; null: the system's")
    ] = None


class Webhook(_Section, frozen=True, kw_only=True):
    """A subscription to events, signed as of Standard Webhooks (https://www.standardwebhooks.com)."""

    name: Name
    url: Annotated[str, Meta(description="http(s) address that deliveries are posted to")]
    secret: Annotated[
        Secret,
        Meta(description="signs the deliveries, as a reference; `./sluice webhook-secret` makes one (`whsec_…`)"),
    ]
    former_secrets: Annotated[
        tuple[Secret, ...],
        Meta(max_length=4, description="secrets that sign too, until receivers know the present one"),
    ] = ()
    events: Annotated[tuple[str, ...], Meta(min_length=1, description="globs over the names of events")] = ("*",)
    match: Annotated[
        dict[str, Names],
        Meta(description="field of the event → globs over its value; fields are joined by AND, a list by OR"),
    ] = {}
    sample: Annotated[float, Meta(gt=0, le=1, description="share of these events that it is told, by their ids")] = 1.0
    allow_private: Annotated[bool, Meta(description="whether its address may be in a private network")] = True
    timeout_seconds: Annotated[float, Meta(gt=0, le=300, description="for one try")] = 15.0
    concurrency: Annotated[int, Meta(ge=1, le=100, description="deliveries under way at a time, for each worker")] = 2
    tls: Annotated[WebhookTls, Meta(description="authorities")] = WebhookTls()


class WebhookDelivery(_Section, frozen=True, kw_only=True):
    """How much is kept of deliveries to webhooks, for each webhook."""

    retention_seconds: Annotated[
        float, Meta(ge=60, le=_YEAR_SECONDS * 10, description="so long a delivery is kept that was made or given up")
    ] = 604800.0
    max_delivered: Annotated[
        int, Meta(ge=0, le=10_000_000, description="deliveries that were made and are kept to be looked at")
    ] = 10_000
    max_pending: Annotated[
        int, Meta(ge=1, le=10_000_000, description="deliveries that are to be made; beyond it events are shed")
    ] = 100_000


class TestRequest(_Section, frozen=True, kw_only=True):
    """A request as a route test states it."""

    model: Annotated[str | None, Meta(description="the name that the client asks for")] = None
    token: Annotated[str | None, Meta(description="name of the token that the client presents")] = None
    path: Annotated[str, Meta(description="request path")] = "/v1/chat/completions"
    headers: Annotated[dict[str, str], Meta(description="request headers")] = {}
    stream: Annotated[bool, Meta(description="whether a stream is asked for")] = False


class TestExpectation(_Section, frozen=True, kw_only=True):
    """What a route test demands; only the given fields are compared."""

    provider: Annotated[str | None, Meta(description="name of the first target's provider")] = None
    model: Annotated[str | None, Meta(description="model that the first target is asked for")] = None
    route: Annotated[str | None, Meta(description="name of the route that matches")] = None
    error: Annotated[str | None, Meta(description="wire code of the refusal, such as model_not_found")] = None


class RouteTest(_Section, frozen=True, kw_only=True):
    """A check that gates every swap: its request must resolve as expected."""

    request: Annotated[TestRequest, Meta(description="the request")]
    expect: Annotated[TestExpectation, Meta(description="what must come out; only the given fields are compared")]


class Config(_Section, frozen=True, kw_only=True):
    """The whole document."""

    include: Annotated[
        tuple[str, ...], Meta(description="globs of further files, relative to this one; root file only")
    ] = ()
    server: Annotated[Server, Meta(description="the listener and its limits")] = Server()
    management: Annotated[Management, Meta(description="the control plane")] = Management()
    telemetry: Annotated[Telemetry, Meta(description="metrics and logs")] = Telemetry()
    transport: Annotated[Transport, Meta(description="connections to providers")] = Transport()
    secrets: Annotated[Secrets, Meta(description="where references are read from")] = Secrets()
    storage: Annotated[Storage, Meta(description="the database")] = Storage()
    redis: Annotated[Redis, Meta(description="what several processes share")] = Redis()
    tokens: Annotated[tuple[Token, ...], Meta(description="API tokens of callers; none: no access")] = ()
    limits: Annotated[tuple[SharedLimit, ...], Meta(description="how much may be used, over requests that match")] = ()
    quotas: Annotated[Quotas, Meta(description="how limits are kept")] = Quotas()
    prices: Annotated[
        tuple[Price, ...], Meta(description="what models cost, before the list prices that the gateway knows")
    ] = ()
    usage: Annotated[Usage, Meta(description="the ledger of requests")] = Usage()
    oauth: Annotated[OAuth, Meta(description="accounts that sign in to providers")] = OAuth()
    providers: Annotated[tuple[Provider, ...], Meta(description="upstream accounts and endpoints")] = ()
    model_aliases: Annotated[tuple[ModelAlias, ...], Meta(description="public model names")] = ()
    routes: Annotated[tuple[Route, ...], Meta(description="ordered rules: the first that matches counts")] = ()
    webhooks: Annotated[tuple[Webhook, ...], Meta(description="subscriptions to events")] = ()
    webhook_delivery: Annotated[WebhookDelivery, Meta(description="how much is kept of deliveries")] = WebhookDelivery()
    route_tests: Annotated[tuple[RouteTest, ...], Meta(description="checks that gate every swap")] = ()
