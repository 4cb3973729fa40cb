"""Workloads with figures to reach, each beside the bare limit of the machine and beside its peers.

Run `python -m benchmarks`; what the figures mean stands in docs/performance.md. One file a workload; `harness` says
what a workload is and measures it, `table` and `plots` show what was measured.
"""
