"""How much callers may use, and what providers may be asked: limits, their counters in memory and in Redis, the wait for them.

The arithmetic (amounts, windows, limits, outcomes, counters, rules, headers) does no IO and reads no clock.
"""
