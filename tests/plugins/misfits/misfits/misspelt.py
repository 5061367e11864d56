"""A plugin with a hook that smlt does not have."""

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backend():
    """The hook is called smlt_backends."""
    return {"misspelt": Entry("misfits.misspelt:Nothing")}
