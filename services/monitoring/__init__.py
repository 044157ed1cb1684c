"""What Prometheus is told of the registry at each scrape, and what people see of it: dashboards, alerts, and the page of all metrics.

    told.py        samples of the metrics of circadian/metrics.py, as prometheus_client takes them
    fleet.py       looked up: replicas, versions, levels, experiences, webhooks
    nights.py      looked up: the night that runs, lateness, gates, dreams
    ledger.py      what the nights that have ended add up to
    queries.py     PromQL of these metrics
    panels.py      what a dashboard consists of, and its JSON for Grafana
    operators.py   fleet, nights, deliveries, costs
    scientists.py  recall, forgetting, divergence, rewards, dreams
    alerts.py      when somebody is called, each with a page in docs/runbooks

`python -m services.monitoring` writes what is made of it: helm/circadian/dashboards, helm/circadian/alerts.yaml and docs/metrics.md.
"""
