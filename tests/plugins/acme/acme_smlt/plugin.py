"""What this package offers smlt, by name; nothing else is imported until it is used."""

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends():
    """Backends by their name in `[backend].name`."""
    return {"acme": Entry("acme_smlt.backend:AcmeBackend", summary="a Python of its own for each function")}


@hookimpl
def smlt_planners():
    """Planners by their name in `[planner].name`."""
    return {"frugal": Entry("acme_smlt.planner:FrugalPlanner", summary="one worker, whatever the job")}
