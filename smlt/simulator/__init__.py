"""The test bench: both machines, as they are, in a world of virtual time with faults drawn from one seed.

It knows `smlt.core` only. No threads, no sleeps, no clock of this machine: the same seed gives the same run.
"""
