"""What operators see: metrics of the gateway, alert rules and dashboards.

`table.METRICS` is the one table of the metrics: the page that Prometheus reads, the rules, the
dashboards and the documentation are made from it.
"""
