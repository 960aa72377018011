"""`SAM2_STORAGE=s3://...`: the storage over S3's own protocol, as moto's server speaks it."""

import datetime
import threading
import uuid

import boto3
import pytest
from moto.server import ThreadedMotoServer

from backend.jobs.distributed.storage import open_storage

BUCKET = "annotations"


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        # As people set them: s3fs reads them as Amazon's own tools do.
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
    server.stop()


@pytest.fixture
def prefix():
    return f"sam2/{uuid.uuid4().hex}"


@pytest.fixture
def storage(s3, prefix):
    return open_storage(f"s3://{BUCKET}/{prefix}")


def test_what_is_saved_is_there_for_every_process(s3, storage, prefix):
    storage.save("results/ab/abcd", b"body" * 1000)
    found = s3.get_object(Bucket=BUCKET, Key=f"{prefix}/results/ab/abcd")
    assert found["Body"].read() == b"body" * 1000
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/results/ab/other", Body=b"of another process")
    assert storage.load("results/ab/other") == b"of another process"


def test_the_newer_one_is_read(storage):
    for body in (b"older, and longer", b"newer", b""):
        storage.save("windows/a", body)
        assert storage.load("windows/a") == body


def test_a_body_of_several_parts(storage):
    body = bytes(range(256)) * 4 * 15_000  # s3fs sends parts of 5 MB and more
    storage.save("progress/job/writer/bookmark-000001", body)
    assert storage.load("progress/job/writer/bookmark-000001") == body


def test_what_is_not_there(storage):
    assert storage.load("results/none") is None
    storage.delete("results/none")


def test_what_is_deleted_is_gone_at_once(storage):
    storage.save("progress/job/listing", b"{}")
    assert storage.load("progress/job/listing") == b"{}"
    storage.delete("progress/job/listing")
    assert storage.load("progress/job/listing") is None


def test_what_another_process_deleted_is_not_there(s3, storage, prefix):
    storage.save("windows/a", b"1")
    s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/windows/a")
    assert storage.load("windows/a") is None


def test_only_what_is_old_is_cleared_away(storage, monkeypatch):
    for name in ("progress/a/listing", "progress/b/c/frames-000000", "results/a"):
        storage.save(name, b"{}")
    storage.delete_old("progress", 3600)
    assert storage.load("progress/a/listing") == b"{}"

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=1)

    monkeypatch.setattr(datetime, "datetime", Tomorrow)
    storage.delete_old("progress", 3600)
    monkeypatch.undo()
    assert storage.load("progress/a/listing") is None
    assert storage.load("progress/b/c/frames-000000") is None
    assert storage.load("results/a") == b"{}"
    storage.delete_old("windows", 3600)  # nothing was ever kept there


def test_many_threads_at_once(storage):
    errors = []

    def work(number):
        try:
            for turn in range(5):
                storage.save(f"windows/{number}", f"{number} {turn}".encode())
                assert storage.load(f"windows/{number}") == f"{number} {turn}".encode()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_bucket_that_is_not_there_is_said(s3):
    with pytest.raises(OSError):
        open_storage("s3://no-such-bucket/sam2").save("windows/a", b"")
