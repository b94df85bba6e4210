"""Webhooks: who is told of which events, the outbox that holds them until they are delivered, and the delivery."""
