"""A plugin for a smlt that is not there yet."""

from smlt.core.plugins import Entry, hookimpl

api_version = (2, 0)


@hookimpl
def smlt_backends():
    """Never asked."""
    return {"future": Entry("misfits.too_new:Nothing")}
