"""What an account needs once, as a CloudFormation template to read before it is applied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from smlt.backends.aws.access import LOGS, OBJECTS, starter_statements
from smlt.core.backend import Recipe

if TYPE_CHECKING:
    from smlt.backends.aws.backend import AwsBackend

STACK = "smlt"
FILE = "smlt-aws.json"
EXPIRE_DAYS = 7
"""What Lithops left of calls is gone after so long."""


def recipe(backend: AwsBackend) -> Recipe:
    """The template, and how to apply it."""
    options = backend.options
    bucket = options.bucket or "NAME-OF-A-NEW-BUCKET"
    deploy = f"aws cloudformation deploy --stack-name {STACK} --template-file {FILE}"
    return Recipe(
        {FILE: (json.dumps(template(), indent=2) + "\n").encode()},
        (
            f"{deploy} --capabilities CAPABILITY_NAMED_IAM --parameter-overrides BucketName={bucket}",
            f"aws cloudformation describe-stacks --stack-name {STACK} --query 'Stacks[0].Outputs'",
        ),
        {"name": "aws", "bucket": bucket, "role": "arn:aws:iam::ACCOUNT:role/smlt-function"},
    )


def template() -> dict[str, Any]:
    """The stack: a private bucket, the role of functions, and a policy for whoever starts runs."""
    bucket, objects = {"Fn::GetAtt": ["Runs", "Arn"]}, {"Fn::Sub": "${Runs.Arn}/*"}
    role = {"Fn::GetAtt": ["FunctionRole", "Arn"]}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "What smlt needs in an account: a bucket for runs, a role for functions, a policy for users",
        "Parameters": {"BucketName": {"Type": "String", "Description": "of a bucket that is made for runs"}},
        "Resources": {
            "Runs": {
                "Type": "AWS::S3::Bucket",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {
                    "BucketName": {"Ref": "BucketName"},
                    "PublicAccessBlockConfiguration": dict.fromkeys(
                        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
                    ),
                    "LifecycleConfiguration": {"Rules": _rules()},
                },
            },
            "FunctionRole": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": "smlt-function",
                    "AssumeRolePolicyDocument": _policy(
                        [{**_allow("sts:AssumeRole"), "Principal": {"Service": "lambda.amazonaws.com"}}]
                    ),
                    "Policies": [
                        {
                            "PolicyName": "smlt-function",
                            "PolicyDocument": _policy(
                                [
                                    {**_allow("s3:ListBucket"), "Resource": bucket},
                                    {**_allow(*OBJECTS), "Resource": objects},
                                    {
                                        **_allow(*LOGS),
                                        "Resource": {
                                            "Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:"
                                            "log-group:/aws/lambda/smlt-*"
                                        },
                                    },
                                ]
                            ),
                        }
                    ],
                },
            },
            "UserPolicy": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "ManagedPolicyName": "smlt-user",
                    "Description": "attach it to whoever starts runs",
                    "PolicyDocument": _policy(
                        [
                            {**_allow(*actions), "Resource": resource}
                            for resource, actions in starter_statements(bucket, objects, role)
                        ]
                    ),
                },
            },
        },
        "Outputs": {
            "Bucket": {"Value": {"Ref": "Runs"}},
            "Role": {"Value": role},
            "Policy": {"Value": {"Ref": "UserPolicy"}},
        },
    }


def _rules() -> list[dict[str, Any]]:
    """Lithops' own objects, and uploads that broke off; no rule can tell a run's gradients, which end with the run."""
    return [
        {"Id": "lithops", "Status": "Enabled", "Prefix": "lithops.jobs/", "ExpirationInDays": EXPIRE_DAYS},
        {
            "Id": "uploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": EXPIRE_DAYS},
        },
    ]


def _policy(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(*actions: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions)}
