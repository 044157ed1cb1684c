"""When a deployment falls asleep by itself: what a schedule says (`spec.py`), what the clock on the wall makes of it (`clock.py`,
`cron.py`), when it is held back (`cooling.py`), and what to do about it at a moment (`plan.py`). Pure: no database, no HTTP, no clock of
its own."""
