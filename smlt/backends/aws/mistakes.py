"""What AWS says when it refuses, in words that name the mistake and mend it. Nothing of a key is ever repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smlt.core.errors import CloudError, SmltError

_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403")
_KEYS = (
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "InvalidSignatureException",
)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_BUSY = (
    "TooManyRequestsException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "SlowDown",
    "ServiceUnavailable",
    "ServiceException",
    "EC2ThrottledException",
    "500",
    "503",
)
_BUCKET = ("NoSuchBucket", "404")


def code_of(error: BaseException) -> str:
    """AWS's word for an error; empty for one that is not AWS's."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, Mapping) else ""


def is_passing(error: BaseException) -> bool:
    """Whether AWS was busy, and will take the same request later."""
    return code_of(error) in _BUSY


def explained(error: BaseException, settings: Mapping[str, Any]) -> CloudError:
    """An error of boto3, Lithops or pip as one of ours.

    Args:
        error: what was raised.
        settings: of the functions: region, bucket, role.
    """
    if isinstance(error, CloudError):
        return error
    if isinstance(error, SmltError):
        return CloudError(error.message, error.hint)
    code, what, region = code_of(error), getattr(error, "operation_name", ""), settings["region"]
    if code in _DENIED:
        return CloudError(
            f"AWS denies {what or 'access'} to the credentials in use",
            "let an administrator allow it, or use other credentials: `smlt check --backend aws` lists what is needed",
        )
    if code in _KEYS:
        return CloudError(
            "AWS does not know the credentials in use", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws login"
        )
    if code in _EXPIRED:
        return CloudError("the AWS credentials in use have expired", "get new ones: aws sso login, or aws login")
    if code in _BUSY:
        return CloudError(f"AWS has no room for {what or 'the request'} now ({code})", "ask for a higher quota")
    if code in _BUCKET and what in ("", "HeadBucket", "PutObject", "GetObject", "ListObjectsV2", "CreateBucket"):
        return CloudError(
            f"there is no bucket {settings['bucket']!r} in {region}", f"aws s3 mb s3://{settings['bucket']}"
        )
    if "role" in str(error).lower() and code == "InvalidParameterValueException":
        return CloudError(
            f"functions cannot have the role {settings['role']}", "it must exist and trust lambda.amazonaws.com"
        )
    return _foreign(error, region)


def _foreign(error: BaseException, region: str) -> CloudError:
    name, text = type(error).__name__, str(error).partition("\n")[0]
    match name:
        case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError":
            return CloudError("there are no AWS credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        case "EndpointConnectionError" | "ConnectTimeoutError" | "ConnectionClosedError":
            return CloudError(
                f"AWS cannot be reached in {region}: {text}", "is backend.region right, and a network there?"
            )
        case "ModuleNotFoundError" | "ImportError":
            return CloudError(f"launching on AWS needs more than is installed: {text}", "pip install 'smlt[aws]'")
    return CloudError(f"AWS functions cannot be started: {name}: {text}", "")
