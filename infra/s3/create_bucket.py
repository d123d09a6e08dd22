"""Makes the bucket named on the command line, unless it is there. Endpoint and keys come from AWS_*."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def main(bucket: str) -> None:
    """Create ``bucket``; a second call changes nothing."""
    # The server's first answers after a start may be errors: its parts find each other a moment later.
    s3 = boto3.client("s3", config=Config(retries={"max_attempts": 10, "mode": "standard"}))
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=bucket)
        print(f"Bucket {bucket} created.")
    else:
        print(f"Bucket {bucket} is there.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the name of one bucket.")
    main(sys.argv[1])
