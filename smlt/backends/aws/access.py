"""Who may do what in an account: whoever starts runs, and functions. The one place that lists permissions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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


def starter_actions(backend: AwsBackend, account: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """What whoever starts runs must be allowed to do, in one account: pairs of a resource and actions.

    Args:
        backend: whose bucket and role are meant.
        account: its number.
    """
    options = backend.options
    here = f"arn:aws:lambda:{backend.region}:{account}"
    bucket = f"arn:aws:s3:::{options.bucket}" if options.bucket else None
    objects = f"{bucket}/*" if bucket else None
    for resource, actions in starter_statements(bucket, objects, options.role, here):
        if resource:
            yield resource, actions


def starter_statements(
    bucket: Any, objects: Any, role: Any, here: str = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}"
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The same of any account, for resources as CloudFormation or IAM take them.

    Args:
        bucket, objects, role: ARNs.
        here: what the ARNs of functions and layers begin with.
    """
    yield bucket, ("s3:ListBucket",)
    yield objects, OBJECTS
    for kind, actions in (("function", FUNCTIONS), ("layer", LAYERS)):
        arn = f"{here}:{kind}:smlt-*"
        yield {"Fn::Sub": arn} if "${" in arn else arn, actions
    yield "*", LOOKING
    yield role, ("iam:PassRole",)
