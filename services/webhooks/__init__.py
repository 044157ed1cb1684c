"""Webhooks after the Standard Webhooks specification: an event becomes a signed POST to an address that the operator does not own.

    events.py    which events there are, who hears which, and what is sent
    address.py   where a request may go: checked, resolved once, and pinned
    signing.py   secrets, their rotation, and the three headers
    deliver.py   one attempt
    plan.py      when the next attempt is due, when a delivery is dead, when an endpoint is disabled

Tables, routes and the loop over what is due are elsewhere; nothing here reads or writes a database. A message reaches an endpoint at
least once and in any order: receivers tell repetitions by `webhook-id`.
"""
