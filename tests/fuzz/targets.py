"""Every fuzz target. To add one: a module with `run` and `seeds`, and its line here."""

from tests.fuzz import chunked_body, event_relay, multipart_fields, provider_front, server_front
from tests.fuzz.target import Target

TARGETS = {
    target.name: target
    for target in (
        Target("server-front", server_front.run, server_front.seeds),
        Target("chunked-body", chunked_body.run, chunked_body.seeds),
        Target("provider-front", provider_front.run, provider_front.seeds),
        Target("event-relay", event_relay.run, event_relay.seeds),
        Target("multipart-fields", multipart_fields.run, multipart_fields.seeds),
    )
}
