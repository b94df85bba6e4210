"""The way of a request, on one screen: identify, parse, resolve, attempt, relay, settle."""

import asyncio
import logging
import math
from collections.abc import Callable
from types import TracebackType
from urllib.parse import quote

import msgspec

from access import permissions
from access.identify import caller
from core.clock import Clock
from core.errors import (
    CredentialsRejected,
    Draining,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    PermissionDenied,
    Unauthenticated,
    UpgradeRefused,
    UpstreamAnswered,
    UpstreamError,
    UpstreamErrorEvent,
    UpstreamMalformed,
    UpstreamTimeout,
)
from core.events import AttemptFailed, Events, RequestStarted
from core.identity import ApiToken, Grant
from proxy import endpoints, models
from proxy.answer import Answer, Shape, read_error, shape_of
from proxy.dataplane import DataPlane
from proxy.dialects import DIALECTS
from proxy.dialects.base import Dialect
from proxy.endpoints import Endpoint, ModelRule, Service
from proxy.exchange import ClientGone, Exchange
from proxy.headers import forwarded_answer_headers
from proxy.intake import Inbound, read_inbound
from proxy.outbound import Outbound, shown_model
from proxy.record import Record
from routing.plan import Plan, PlanTimeouts, RouteQuery
from routing.tries import Attempt, Tries, Verdict
from transport.messages import Clocks

_log = logging.getLogger("sluice.proxy")

ONE_WRITE_BYTES = 256 * 1024
"""A longer answer is sent piece by piece, as its client takes it."""

FAREWELL_SECONDS = 1.0
"""How long a stream that is cut at the end of draining has to take the event that says so."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Deadline:
    """`total_seconds` of an exchange, entered for each of its stretches. Raises UpstreamTimeout when it has passed."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._timeout = asyncio.timeout_at(self._at)

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout_at(self._at)
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise UpstreamTimeout(f"the request took longer than its `total_seconds` ({self._seconds:g})") from None


class Pipeline:
    """Answers exchanges, each on the generation that is in force when it begins."""

    def __init__(self, current: Callable[[], DataPlane], events: Events, clock: Clock) -> None:
        self._current = current
        self._events = events
        self._clock = clock

    async def run(self, exchange: Exchange) -> None:
        """Answer one exchange. Never raises, except when cancelled while the client is still there."""
        run = _Run(exchange, self._current(), self._events, self._clock)
        self._events.emit(RequestStarted(endpoint=run.record.endpoint))
        try:
            await run.answer()
        except GatewayError as error:
            await run.refuse(error)
        except ClientGone:
            run.record.client_gone = True
            await exchange.abort()
        except asyncio.CancelledError:
            if not exchange.closed:
                # Not the client's doing: the time for draining is over.
                await run.dismiss()
                raise
            run.record.client_gone = True
        except Exception:
            _log.exception("request %s failed in the gateway", exchange.request_id)
            await run.refuse(InternalError(f"the gateway failed; its log has the details under {exchange.request_id}"))
        finally:
            self._events.emit(run.record.ended(self._clock.monotonic()))


class _Run:
    """One exchange on its way through the pipeline."""

    def __init__(self, exchange: Exchange, plane: DataPlane, events: Events, clock: Clock) -> None:
        self.exchange = exchange
        self.plane = plane
        self.events = events
        self.clock = clock
        self.record = Record(exchange, plane.revision)
        self.path = endpoints.canonical_path(exchange.head.path)
        self.endpoint: Endpoint | None = endpoints.find(self.path)
        self.dialect: Dialect = DIALECTS["openai-chat" if self.endpoint is None else self.endpoint.dialect]
        if self.endpoint is not None:
            self.record.endpoint = self.endpoint.name

    async def answer(self) -> None:
        """The request path. Raises whatever ends it early."""
        exchange, plane, record = self.exchange, self.plane, self.record
        head = exchange.head
        token = caller(head.headers, plane.tokens)
        record.token = token.name
        endpoint = self._endpoint(head.method)
        permissions.require_grant(token, endpoint.grant)
        if endpoint.service is not Service.FORWARD:
            self.complete(models.answer(plane, token, self.path, endpoint))
            return

        record.reading_at = self.clock.monotonic()
        inbound = await read_inbound(exchange, endpoint, plane.limits)
        record.body_read_at = self.clock.monotonic()
        record.requested_model, record.stream = inbound.model, inbound.stream
        self._permit(token, endpoint, inbound)

        plan = plane.router.resolve(
            RouteQuery(
                model=inbound.model,
                path=self.path,
                token=token.name,
                headers=head.headers,
                stream=inbound.stream,
                provider=head.headers.get("x-sluice-provider"),
            )
        )
        record.route = plan.route
        tries = plane.router.begin(plan, maybe_delivered=endpoint.grant is Grant.INFERENCE)
        outbound = Outbound(head, self.path, endpoint, inbound, plan)
        deadline = Deadline(plan.total_seconds)
        async with deadline:
            answer = await self._attempts(tries, outbound, plan)
        await self._relay(answer, deadline)

    def _endpoint(self, method: str) -> Endpoint:
        headers = self.exchange.head.headers
        if method == "GET" and self.endpoint is not None and self.endpoint.upgrade_refused and "upgrade" in headers:
            raise UpgradeRefused(f"{self.path} speaks plain HTTP here: POST to it")
        return endpoints.require(self.path, method)

    def _permit(self, token: ApiToken, endpoint: Endpoint, inbound: Inbound) -> None:
        if inbound.model is not None:
            permissions.require_model(token, inbound.model)
        elif endpoint.model is ModelRule.OPTIONAL and not token.any_model:
            # Without a name the provider would choose one.
            raise PermissionDenied("name a `model`: this token is limited to some models", param="model")
        document = inbound.document
        if document is not None and endpoint.dialect == "openai-responses":
            for name in ("previous_response_id", "conversation"):
                if document.raw(name) not in (None, b"null"):
                    permissions.require_grant(token, Grant.RESPONSES)

    async def _attempts(self, tries: Tries, outbound: Outbound, plan: Plan) -> Answer:
        """Attempt until an answer has begun. Raises the last failure when the tries are used up."""
        record = self.record
        while True:
            attempt = tries.next(self.clock.monotonic())
            if attempt.wait_seconds > 0:
                await asyncio.sleep(attempt.wait_seconds)
            try:
                answer = await self._attempt(attempt, outbound, plan)
            except UpstreamError as error:
                if outbound.caller_fault is not None:
                    raise outbound.caller_fault from error
                verdict = tries.failed(attempt, error, self.clock.monotonic(), resendable=outbound.resendable)
                self.events.emit(
                    AttemptFailed(
                        request_id=self.exchange.request_id,
                        provider=attempt.target.provider,
                        model_label=attempt.target.label,
                        credential=attempt.credential,
                        number=attempt.number,
                        error_code=error.client_code,
                        delivered=error.delivered.value,
                        next=verdict.value,
                    )
                )
                if verdict is Verdict.GIVE_UP:
                    raise
            else:
                tries.succeeded(attempt, self.clock.monotonic())
                record.first_byte_at = self.clock.monotonic()
                return answer

    async def _attempt(self, attempt: Attempt, outbound: Outbound, plan: Plan) -> Answer:
        """One try, up to the commit point."""
        record, target, endpoint = self.record, attempt.target, outbound.endpoint
        provider = self.plane.providers[target.provider]
        record.attempts = attempt.number
        record.provider, record.model, record.model_label = target.provider, target.model, target.label
        record.credential = attempt.credential
        timeouts = plan.timeouts[target.provider]
        api_key = self.plane.pools.api_key(target.provider, attempt.credential)
        request = provider.adapter.prepare(outbound.call(target.model, clocks_of(timeouts)), api_key)
        record.attempt_started_at = self.clock.monotonic()
        if record.first_attempt_at is None:
            record.first_attempt_at = record.attempt_started_at
        first_token = timeouts.first_token_seconds if outbound.inbound.stream else None
        try:
            async with asyncio.timeout(first_token):
                response = await provider.client.send(request)
                try:
                    if response.status >= 400:
                        raise provider.adapter.classify(response.status, response.headers, await read_error(response))
                    if not (200 <= response.status < 300 or self._not_modified(response.status)):
                        raise UpstreamMalformed(f"the provider answered with {response.status}: check `base_url`")
                    shown = shown_model(outbound.inbound.model, target.model)
                    shape = shape_of(response, endpoint.reads_answer)
                    answer = Answer(response, self.dialect, shape, shown, expects_final=endpoint.reads_answer)
                    await answer.open()
                except BaseException:
                    response.close()
                    raise
        except TimeoutError:
            if first_token is None:
                raise
            raise UpstreamTimeout(f"no output within `first_token_seconds` ({first_token:g})") from None
        return answer

    def _not_modified(self, status: int) -> bool:
        # The answer to a condition of the client's own (RFC 9110 section 15.4.5).
        return status == 304 and self.exchange.head.method == "GET"

    async def _relay(self, answer: Answer, deadline: Deadline) -> None:
        """Pass the answer on. From its head on there is no fallback: a failure is said in the stream."""
        exchange, record = self.exchange, self.record
        record.status = answer.response.status
        try:
            if answer.shape is Shape.WHOLE:
                record.upstream_ended_at = self.clock.monotonic()
                await self._start(answer)
                return
            try:
                async with deadline:
                    await self._start(answer)
                    await answer.deliver(exchange)
            except UpstreamError as error:
                await self._broken(answer, error)
            except asyncio.CancelledError:
                if not exchange.closed:
                    # Not the client's doing: the time for draining is over.
                    await self._farewell(answer)
                raise
            finally:
                record.upstream_ended_at = self.clock.monotonic()
        finally:
            record.usage = answer.settled_usage()
            if record.error is None and answer.failure is not None:
                record.error = UpstreamErrorEvent(answer.failure, b"")
            answer.response.close()

    async def _broken(self, answer: Answer, error: GatewayError) -> None:
        """Tell the client of an answer that broke under way, unless all that it was to get has come."""
        if answer.complete:
            self.exchange.finish()
            return
        self.record.error = error
        await answer.fail(self.exchange, error)

    async def _farewell(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._broken(answer, _draining())
        except TimeoutError:
            # The client takes nothing; it is not waited for.
            await self.exchange.abort()

    async def _start(self, answer: Answer) -> None:
        """Send the head and what is held: in one write, unless the client is to take it piece by piece."""
        whole = answer.shape is Shape.WHOLE
        at_once = len(answer.held) <= ONE_WRITE_BYTES
        # What is spliced or may end early has another length than the provider stated.
        drop = () if answer.shape is Shape.OPAQUE else ("content-length",)
        headers = forwarded_answer_headers(answer.response.headers, drop)
        if whole and not at_once:
            headers.append(("content-length", str(len(answer.held))))
        self.record.sent_at = self.clock.monotonic()
        first = answer.held if at_once else b""
        self.exchange.start(answer.response.status, self._headers(headers), first, complete=whole and at_once)
        if not at_once:
            await self.exchange.write(answer.held)
            if whole:
                self.exchange.finish()

    def _headers(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """``headers`` and the gateway's own."""
        record = self.record
        headers.append(("x-request-id", self.exchange.request_id))
        headers.append(("x-sluice-revision", record.revision))
        if record.provider is not None:
            target = record.provider if record.model is None else f"{record.provider}/{record.model}"
            # A model's name may be the client's own text: no byte of it may end the field.
            headers.append(("x-sluice-target", quote(target, safe="/:@+,!~*'()")))
            headers.append(("x-sluice-attempts", str(record.attempts)))
        overhead = record.overhead_seconds(self.clock.monotonic())
        headers.append(("server-timing", f"gateway;dur={overhead * 1000:.3f}"))
        return headers

    async def refuse(self, error: GatewayError) -> None:
        """Answer with ``error`` in the caller's dialect; one that comes after the head cuts the connection."""
        exchange, record = self.exchange, self.record
        record.error = error
        if exchange.started:
            await exchange.abort()
            return
        record.status = error.client_status
        headers = [("content-type", "application/json")]
        body = relayed_body(error) or self.dialect.error_body(error)
        if error.retry_after_seconds is not None:
            headers.append(("retry-after", str(math.ceil(error.retry_after_seconds))))
        match error:
            case MethodNotAllowed():
                headers.append(("allow", ", ".join(error.allowed)))
            case Unauthenticated():
                headers.append(("www-authenticate", "Bearer"))
            case UpgradeRefused():
                headers.append(("upgrade", "HTTP/1.1"))
        exchange.start(record.status, self._headers(headers), body, complete=True)

    async def dismiss(self) -> None:
        """End an exchange for which there is no more time; one whose head was sent has been told already."""
        if self.exchange.started:
            await self.exchange.abort()
        else:
            await self.refuse(_draining())

    def complete(self, body: bytes) -> None:
        """Answer with JSON of the gateway's own."""
        self.record.status = 200
        self.exchange.start(200, self._headers([("content-type", "application/json")]), body, complete=True)


def clocks_of(timeouts: PlanTimeouts) -> Clocks:
    """The clocks that the transport keeps."""
    return Clocks(
        connect_seconds=timeouts.connect_seconds,
        first_byte_seconds=timeouts.first_byte_seconds,
        idle_seconds=timeouts.idle_seconds,
    )


def relayed_body(error: GatewayError) -> bytes | None:
    """The provider's own error answer where it explains the failure to the client.

    It does when it is a whole JSON object (no more than a part may have come), and not about our credential.
    """
    if not isinstance(error, UpstreamAnswered) or isinstance(error, CredentialsRejected):
        return None
    essence = (error.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if essence != "application/json":
        return None
    try:
        _OBJECT.decode(error.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return error.body


def _draining() -> Draining:
    return Draining("the gateway is shutting down: try again")
