"""A plugin that would take a name of smlt's own."""

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends():
    """One name that is taken, and one that is free."""
    return {"local": Entry("misfits.duplicate:Nothing"), "remote": Entry("misfits.duplicate:Nothing")}
