"""Benchmarks: the bridge beside what cannot be avoided, as ratios in one run.

__main__   the command: what runs, in which order
meter      one cell: what is counted, from when to when, and how the CPU is read
raw        the raw round trip: records there and back with the client library alone
echo       the empty echo: the ingress's web server with nothing behind it
load       the load generator for HTTP
running    processes: started, waited for, ended
table      the table, the ratios, the expectations
"""
