"""A deterministic simulator: whole clusters in one process, on a virtual clock, network and disk.

What runs is the product's own code, from `RaftCore` down to the bytes of the segment files; only
asyncio, sockets, threads and the operating system's disk are replaced. One seed is one run, byte
for byte: a failure found in the night is the same failure in the debugger.

Read from the bottom: `clock`, `scheduler` and `disk`, then `runtime`, `network` and `node` (one
process), `checks` (what must never happen), `clients`, `faults`, `modes`, and `runner`, which plays
one seed.
"""
