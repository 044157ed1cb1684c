"""What a candidate is measured by, one criterion a file; `pipelines/gate.py` puts them together.

asking.py       cues that are completed: agreement, taught, dreamt, forgotten
forgetting.py   forgotten, night by night
reading.py      free text that is read: lost, rises of nats, drift
secrets.py      canaries
probes.py       what the operator asks
judging.py      limits, and the verdict
"""
