"""The way of a request, on one screen: identify, parse, resolve, admit, attempt, relay, settle."""

import asyncio
import logging
from functools import lru_cache

from access import permissions
from access.identify import caller
from core.clock import Clock
from core.errors import (
    CredentialsRejected,
    GatewayError,
    InternalError,
    PermissionDenied,
    UpgradeRefused,
    UpstreamError,
    UpstreamMalformed,
    UpstreamTimeout,
)
from core.events import AttemptFailed, Events, RequestStarted
from core.identity import ApiToken, Grant
from core.usage import Usage
from credentials.members import Member
from proxy import endpoints, models
from proxy.admission import Leases, Quotas
from proxy.answer import Answer, read_error, shape_of, without_echo
from proxy.dataplane import DataPlane
from proxy.deadline import deadline_in
from proxy.delivery import Delivery, draining
from proxy.dialects import DIALECTS
from proxy.dialects.base import Dialect
from proxy.endpoints import Endpoint, ModelRule, Service
from proxy.estimates import estimated_input
from proxy.exchange import ClientGone, Exchange
from proxy.headers import gateway_headers, sent_secret
from proxy.intake import Inbound, read_inbound, refers_to_stored_items
from proxy.live_credentials import freshen, freshened, may_be_stale, member_of, token_of
from proxy.outbound import Outbound, shown_model
from proxy.placement import prepared
from proxy.record import Record
from proxy.refusal import refusal_of
from routing.plan import Plan, PlanTimeouts, RouteQuery, Target
from routing.tries import Attempt, Tries, Verdict
from transport.messages import Clocks

_log = logging.getLogger("sluice.proxy")


class Pipeline:
    """Answers exchanges."""

    def __init__(self, events: Events, clock: Clock, quotas: Quotas) -> None:
        self._events = events
        self._clock = clock
        self._quotas = quotas

    async def run(self, exchange: Exchange, plane: DataPlane) -> None:
        """Answer one exchange on ``plane``, whatever is put in force meanwhile.

        Never raises, except when cancelled while the client is still there.
        """
        run = _Run(exchange, plane, self._events, self._clock, self._quotas)
        self._events.emit(_started(run.record.endpoint))
        try:
            await run.answer()
        except GatewayError as error:
            await run.refuse(error)
        except ClientGone:
            run.record.client_gone = True
            exchange.abort()
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
            run.settle()
            self._events.emit(run.record.ended(self._clock.monotonic()))
            # An error knows the frames that it went through, and these the record: a circle, if it were kept.
            run.record.error = None


@lru_cache(maxsize=64)
def _started(endpoint: str) -> RequestStarted:
    return RequestStarted(endpoint=endpoint)


class _Run:
    """One exchange on its way through the pipeline."""

    waits_for_output = False
    """Whether the attempt's stream has to say something within its time, and not only to begin."""
    renewed: frozenset[tuple[str, str]] = frozenset()
    """Live credentials, by provider and name, that have got another token since one was refused: each does once."""

    def __init__(self, exchange: Exchange, plane: DataPlane, events: Events, clock: Clock, quotas: Quotas) -> None:
        self.exchange = exchange
        self.plane = plane
        self.events = events
        self.clock = clock
        self.quotas = quotas
        self.leases: Leases | None = None
        self.unanswered: Inbound | None = None
        """What a provider has been asked for, as long as it has not answered."""
        self.record = Record(exchange, plane.revision)
        self.path = endpoints.canonical_path(exchange.head.path)
        self.endpoint: Endpoint | None = endpoints.find(self.path)
        if self.endpoint is not None:
            self.record.endpoint, self.record.dialect = self.endpoint.name, self.endpoint.dialect
        self.dialect: Dialect = DIALECTS[self.record.dialect]

    async def answer(self) -> None:
        """The request path. Raises whatever ends it early."""
        exchange, plane, record = self.exchange, self.plane, self.record
        head = exchange.head
        token = caller(head.headers, plane.tokens, head.remote_ip, self.clock.time())
        record.caller = token
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
        if token.limits or plane.rules.any:
            self.leases = Leases(self.quotas, plane, record, token, self.path, endpoint, inbound)
        tries = plane.router.begin(plan, maybe_delivered=endpoint.grant is Grant.INFERENCE)
        outbound = Outbound(head, self.path, endpoint, inbound, plan)
        deadline = deadline_in(plan.total_seconds)
        async with deadline:
            if self.leases is not None and (waits := self.leases.admit(plan.first.targets[0])) is not None:
                await waits
            answer = await self._attempts(tries, outbound, plan)
        await Delivery(exchange, record, self.clock).relay(answer, outbound, deadline)

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
        if document is not None:
            for name, grant in endpoint.granted_members:
                if document.raw(name) not in (None, b"null"):
                    permissions.require_grant(token, grant)
            if endpoint.granted_members and refers_to_stored_items(document):
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
                self.unanswered = None
                if self.leases is not None:
                    self.leases.attempt_failed(error)
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
                    if self.leases is not None:
                        self.leases.give_up(error)
                    raise
            else:
                tries.succeeded(attempt, self.clock.monotonic())
                record.first_byte_at = self.clock.monotonic()
                return answer

    async def _attempt(self, attempt: Attempt, outbound: Outbound, plan: Plan) -> Answer:
        """One try, up to the commit point."""
        record, target = self.record, attempt.target
        record.attempts = attempt.number
        record.provider, record.model, record.model_label = target.provider, target.model, target.label
        record.credential = attempt.credential
        timeouts = plan.timeouts[target.provider]
        leases = self.leases
        if leases is not None and self.plane.rules.on_targets:
            waits = leases.admit_at(target, attempt.credential)
            if waits is not None:
                await waits
        clocks = clocks_of(timeouts)
        member = member_of(self.plane.pools, target.provider, attempt.credential)
        answer_to = self._answer_to
        if member.live is not None:
            answer_to = self._answer_to_live
            if not member.live.fresh(self.clock.time()):
                record.first_attempt_at = record.first_attempt_at or self.clock.monotonic()
                await freshen(member, target.provider, clocks)
        first_token = timeouts.first_token_seconds if outbound.inbound.stream else None
        self.waits_for_output = first_token is not None
        if first_token is None:
            return await answer_to(target, member, outbound, clocks)
        try:
            async with asyncio.timeout(first_token):
                return await answer_to(target, member, outbound, clocks)
        except TimeoutError:
            raise UpstreamTimeout(f"no output within `first_token_seconds` ({first_token:g})") from None

    async def _answer_to_live(self, target: Target, member: Member, outbound: Outbound, clocks: Clocks) -> Answer:
        """The same by a credential whose token ends: where that is refused, once more by another, once a request."""
        sent = token_of(member)
        try:
            return await self._answer_to(target, member, outbound, clocks)
        except CredentialsRejected as refusal:
            renewed = (target.provider, member.name)
            if not may_be_stale(refusal) or renewed in self.renewed:
                raise
            self.renewed |= {renewed}
            self.unanswered = None
            if not await freshened(member, target.provider, clocks, sent) or not outbound.resendable:
                # A fresh token is for the next one, where this client alone can send its request again.
                raise
        return await self._answer_to(target, member, outbound, clocks)

    async def _answer_to(self, target: Target, member: Member, outbound: Outbound, clocks: Clocks) -> Answer:
        """Send and read on to the commit point."""
        provider = self.plane.providers[target.provider]
        adapter, reads_answer = provider.adapter, outbound.endpoint.reads_answer
        options = provider.options if member.proxy_url is None else provider.options_for(member.proxy_url)
        call = outbound.call(target.model, clocks, options, asks_usage=provider.include_usage)
        request = adapter.prepare(call, member.secret) if member.placement is None else prepared(adapter, call, member)
        record = self.record
        record.attempt_started_at = self.clock.monotonic()
        if record.first_attempt_at is None:
            record.first_attempt_at = record.attempt_started_at
        self.unanswered = outbound.inbound if reads_answer else None
        response = await provider.client.send(request)
        try:
            if 400 <= response.status < 600:
                body = without_echo(await read_error(response), request.headers, outbound.headers)
                raise adapter.classify(response.status, response.headers, body)
            if not (200 <= response.status < 300 or self._not_modified(response.status)):
                raise UpstreamMalformed(f"the provider answered with {response.status}: check `base_url`")
            answer = Answer(
                response,
                self.dialect,
                shape_of(response, reads_answer),
                shown_model(outbound.inbound.model, self.record.model),
                expects_final=reads_answer,
                account_headers=adapter.account_headers,
                secret=sent_secret(request.headers, member.placement),
                usage_unasked=provider.include_usage and outbound.usage_question is not None,
                waits_for_output=self.waits_for_output,
            )
            await answer.open()
        except BaseException:
            response.close()
            raise
        return answer

    def _not_modified(self, status: int) -> bool:
        # The answer to a condition of the client's own (RFC 9110 section 15.4.5).
        return status == 304 and self.exchange.head.method == "GET"

    def settle(self) -> None:
        """It is over: what was used has its price, and what was reserved beyond it is given back."""
        record = self.record
        if (
            self.unanswered is not None
            and record.first_byte_at is None
            and (record.client_gone or self.exchange.closed)
        ):
            # The provider may work on it and bill it. Were that free, whoever leaves early would have no limit.
            record.usage = Usage(input_tokens=estimated_input(self.unanswered), estimated=True)
        if record.usage is not None and record.provider is not None:
            record.cost_nano_usd = self.plane.prices.cost(record.provider, record.model, record.usage)
        elif record.first_byte_at is not None and record.provider is not None and record.model is not None:
            record.cost_nano_usd = self.plane.prices.flat_cost(record.provider, record.model)
        if self.leases is not None:
            self.leases.settle()

    async def refuse(self, error: GatewayError) -> None:
        """Answer with ``error`` in the caller's dialect; one that comes after the head cuts the connection."""
        exchange, record = self.exchange, self.record
        record.error = error
        if exchange.started:
            exchange.abort()
            return
        refusal = refusal_of(error, self.dialect)
        record.status = refusal.status
        headers = [*refusal.headers, *gateway_headers(record, self.clock.monotonic())]
        exchange.start(refusal.status, headers, refusal.body, complete=True)

    async def dismiss(self) -> None:
        """End an exchange for which there is no more time; one whose head was sent has been told already."""
        if self.exchange.started:
            self.exchange.abort()
        else:
            await self.refuse(draining())

    def complete(self, body: bytes) -> None:
        """Answer with JSON of the gateway's own."""
        self.record.status = 200
        headers = [("content-type", "application/json"), *gateway_headers(self.record, self.clock.monotonic())]
        self.exchange.start(200, headers, body, complete=True)


@lru_cache(maxsize=1024)
def clocks_of(timeouts: PlanTimeouts) -> Clocks:
    """The clocks that the transport keeps."""
    return Clocks(
        connect_seconds=timeouts.connect_seconds,
        first_byte_seconds=timeouts.first_byte_seconds,
        idle_seconds=timeouts.idle_seconds,
    )
