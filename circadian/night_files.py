"""Names of files in a night's home that both the night and the service know."""

JOB_FILE = "job.json"
"""What is asked (NightJob), and the number of the last attempt."""
OUTCOME_FILE = "outcome.json"
"""How it ended."""
