"""The words that every other package speaks: errors, events, identity, usage, clock.

Imports nothing of ours and does no IO.
"""
