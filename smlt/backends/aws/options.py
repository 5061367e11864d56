"""`[backend]` of aws: where functions and runs are. Credentials are no option: the usual ways of AWS count."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from smlt.backends.channels.redis_address import addresses_of
from smlt.backends.priced import PricedOptions
from smlt.core.errors import ConfigError
from smlt.core.job import Seconds

LITHOPS_MARGIN_S = 5
"""Lithops ends a function so long before its timeout, to say so."""

SETTLE_S = 1
"""Before a function's own clock begins, Lambda and Lithops have started."""

LONGEST_S = 900


class AwsOptions(PricedOptions):
    """`[backend]` of aws."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a URL may have a password in it, though it is refused

    region: str | None = Field(None, description="AWS_REGION, where not given", examples=["eu-west-1"])
    endpoint: str | None = Field(
        None,
        description="of S3 and Lambda, instead of the region's own; AWS_ENDPOINT_URL, where not given",
        examples=["http://127.0.0.1:4566"],
    )
    bucket: str | None = Field(None, description="where runs are kept", examples=["my-smlt-runs"])
    prefix: str = Field("smlt", description="what the keys of all runs in the bucket begin with")
    role: str | None = Field(
        None, description="the ARN of what functions may do", examples=["arn:aws:iam::123456789012:role/smlt-function"]
    )
    function_time_limit: Seconds = Field(
        float(LONGEST_S), description="after which Lambda ends a function; 900s at most", examples=["900s"]
    )
    worker_threads: int = Field(1, ge=1, le=6, description="threads of each worker's mathematics")
    max_workers: int | None = Field(None, ge=1, description="most functions at once; the account's usual quota if not")
    preinstalled: tuple[str, ...] = Field(
        (),
        description="packages that functions have from elsewhere, and that are not deployed with them",
        examples=[["torch"]],
    )
    image: str | None = Field(
        None,
        description="the URI of the functions' image in ECR, from `smlt build`; without it they are a zip",
        examples=["123456789012.dkr.ecr.eu-west-1.amazonaws.com/smlt:digits"],
    )
    subnets: tuple[str, ...] = Field((), description="of the VPC that functions are in, if they must be in one")
    security_groups: tuple[str, ...] = Field((), description="of functions in a VPC")
    redis_url: str | None = Field(
        None, description="for the channel redis: a server that functions reach", examples=["redis://host:6379"]
    )

    @field_validator("function_time_limit")
    @classmethod
    def _is_one_of_lambda(cls, limit_s: float) -> float:
        least_s = LITHOPS_MARGIN_S + SETTLE_S + 4
        if not least_s <= limit_s <= LONGEST_S or limit_s != int(limit_s):
            raise ValueError(f"Lambda takes whole seconds, {LONGEST_S} at most; {least_s} are the least of use")
        return limit_s

    @field_validator("redis_url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        try:
            if url is not None:
                addresses_of(url)
        except ConfigError as error:
            raise ValueError(f"{error.message} ({error.hint})") from None
        return url

    @property
    def architecture(self) -> Literal["x86_64", "arm64"]:
        """As Lambda calls it."""
        return "arm64" if self.functions == "lambda_arm64" else "x86_64"
