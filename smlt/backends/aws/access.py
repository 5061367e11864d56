"""Who may do what in an account: whoever starts runs, and functions. The one place that lists permissions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smlt.backends.aws.backend import AwsBackend

OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")

FUNCTIONS = (
    "lambda:CreateFunction",
    "lambda:DeleteFunction",
    "lambda:GetFunction",
    "lambda:GetFunctionConfiguration",
    "lambda:InvokeFunction",
    "lambda:PutFunctionEventInvokeConfig",
    "lambda:TagResource",
)

LAYERS = (
    "lambda:DeleteLayerVersion",
    "lambda:GetLayerVersion",
    "lambda:ListLayerVersions",
    "lambda:PublishLayerVersion",
)

LOOKING = ("lambda:GetAccountSettings", "lambda:ListFunctions", "lambda:ListLayers")

LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")


def starter_actions(backend: AwsBackend, account: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What whoever starts runs must be allowed to do: pairs of a resource and actions.

    Args:
        backend: whose bucket and role are meant.
        account: its number.
    """
    options = backend.options
    here = f"arn:aws:lambda:{backend.region}:{account}"
    if options.bucket:
        yield f"arn:aws:s3:::{options.bucket}", ("s3:ListBucket",)
        yield f"arn:aws:s3:::{options.bucket}/*", OBJECTS
    yield f"{here}:function:smlt-*", FUNCTIONS
    yield f"{here}:layer:smlt-*", LAYERS
    yield "*", LOOKING
    if options.role:
        yield options.role, ("iam:PassRole",)
