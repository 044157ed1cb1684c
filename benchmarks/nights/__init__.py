"""Many nights on the toy world, every method against every other: `make bench-nights`."""
