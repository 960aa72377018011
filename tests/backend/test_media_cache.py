"""Downloads kept: asked about again, gone on with, within a limit, once for all who ask."""

import dataclasses
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import encode_presign_fileuri

from backend.errors import (
    CutOff,
    HostDown,
    MediaNotFound,
    MediaRefused,
    MediaTooLarge,
    MediaUnreachable,
    UnusableTask,
)
from backend.deadlines import Deadline
from backend.media import MediaStore
from backend.media_cache import MediaCache
from tests.backend.http_server import Reply, serving_site

ROOT = Path(__file__).resolve().parents[2]
VIDEO = {"Content-Type": "video/mp4"}
FILM = bytes(range(1, 251))
ALWAYS_ASK = 1e-9
"""Seconds after which a download is stale: at once."""


@pytest.fixture
def site():
    """Another host that media comes from."""
    with serving_site() as site:
        yield site


@pytest.fixture
def make_store(settings, site):
    def make(**changes):
        changes = {"allow_private_media_hosts": (f"127.0.0.1:{site.port}",)} | changes
        return MediaStore(dataclasses.replace(settings, **changes))

    return make


def cached(settings):
    return sorted((settings.media_cache / "files").iterdir())


def ranges(site):
    return [asked.headers.get("Range") for asked in site.asked]


class Film:
    """A file behind a server that knows validators and ranges, and can break off."""

    def __init__(self, body=FILM, *, etag='"one"', last_modified=None):
        self.body = body
        self.validators = {}
        if etag:
            self.validators["ETag"] = etag
        if last_modified:
            self.validators["Last-Modified"] = last_modified
        self.breaks_after = []
        """Bytes that the next answers give before they break off."""

    def __call__(self, asked):
        headers = {**VIDEO, **self.validators}
        if asked.headers.get("If-None-Match", "no") == self.validators.get("ETag"):
            return Reply(status=304, headers=self.validators)
        start, status = 0, 200
        condition = asked.headers.get("If-Range")
        if "Range" in asked.headers and condition in (None, *self.validators.values()):
            start, status = int(asked.headers["Range"][6:-1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        rest = self.body[start:]
        sent = rest[: self.breaks_after.pop(0)] if self.breaks_after else rest
        return Reply(sent, status, headers, announced=len(rest))


# --- validators --------------------------------------------------------------


def test_a_fresh_download_is_not_asked_about(make_store, site):
    site.replies["/v.mp4"] = Film()
    paths = {make_store().video_file(f"{site.url}/v.mp4") for _ in range(3)}
    assert len(paths) == len(site.asked) == 1
    assert paths.pop().suffix == ".mp4"


def test_an_older_download_is_asked_about_and_kept_when_unchanged(make_store, site):
    site.replies["/v.mp4"] = Film()
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    first, second = (store.video_file(f"{site.url}/v.mp4") for _ in range(2))
    assert first == second and second.read_bytes() == FILM
    assert [asked.headers.get("If-None-Match") for asked in site.asked] == [None, '"one"']


def test_last_modified_serves_where_there_is_no_etag(make_store, site):
    date = "Sun, 01 Nov 2026 10:00:00 GMT"
    site.replies["/v.mp4"] = Film(etag=None, last_modified=date)
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    store.video_file(f"{site.url}/v.mp4")
    site.replies["/v.mp4"] = Reply(status=304)
    assert store.video_file(f"{site.url}/v.mp4").read_bytes() == FILM
    assert site.asked[1].headers["If-Modified-Since"] == date


def test_a_changed_file_gets_a_new_path_and_the_old_one_goes_when_unused(
    make_store, settings, site
):
    site.replies["/v.mp4"] = Film()
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    with store.in_use() as user:
        old = user.video_file(f"{site.url}/v.mp4")
        site.replies["/v.mp4"] = Film(b"new", etag='"two"')
        new = store.video_file(f"{site.url}/v.mp4")
        assert (old.read_bytes(), new.read_bytes()) == (FILM, b"new")
    assert cached(settings) == [new]


def test_the_copy_there_is_serves_while_the_host_is_down(make_store, settings, site, caplog):
    site.replies["/v.mp4?signature=secret"] = Film()
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    first = store.video_file(f"{site.url}/v.mp4?signature=secret")
    for reply in (Reply(status=503), Reply(FILM, headers=VIDEO, announced=999)):
        site.replies["/v.mp4?signature=secret"] = reply
        assert store.video_file(f"{site.url}/v.mp4?signature=secret") == first
    assert "the copy from earlier is used" in caplog.text
    assert "secret" not in caplog.text
    assert cached(settings) == [first]


def test_a_host_that_is_down_is_not_asked_each_time(make_store, site):
    site.replies["/v.mp4"] = Film()
    make_store().video_file(f"{site.url}/v.mp4")
    site.replies["/v.mp4"] = Reply(status=503)
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    store.video_file(f"{site.url}/v.mp4")
    later = make_store(media_fresh_seconds=3600.0)
    later.video_file(f"{site.url}/v.mp4")
    assert len(site.asked) == 2


def test_a_file_that_its_host_took_away_is_not_served(make_store, site):
    site.replies["/v.mp4"] = Film()
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    store.video_file(f"{site.url}/v.mp4")
    del site.replies["/v.mp4"]
    with pytest.raises(MediaNotFound):
        store.video_file(f"{site.url}/v.mp4")


def test_an_upload_is_fixed_and_never_asked_about_again(make_store, label_studio):
    label_studio.replies["/data/upload/a.mp4"] = Reply(FILM, headers=VIDEO)
    store = make_store(media_fresh_seconds=ALWAYS_ASK)
    for _ in range(2):
        store.video_file("/data/upload/a.mp4")
    assert len(label_studio.asked) == 1


# --- what breaks off ---------------------------------------------------------


def test_a_cut_download_is_gone_on_with(make_store, site):
    site.replies["/v.mp4"] = film = Film()
    film.breaks_after = [100, 50]
    assert make_store().video_file(f"{site.url}/v.mp4").read_bytes() == FILM
    assert ranges(site) == [None, "bytes=100-", "bytes=150-"]
    assert [asked.headers.get("If-Range") for asked in site.asked[1:]] == ['"one"'] * 2


def test_the_next_call_goes_on_where_an_earlier_one_gave_up(make_store, settings, site):
    site.replies["/v.mp4"] = film = Film()
    film.breaks_after = [100, 0]
    with pytest.raises(CutOff, match="100 of 250"):
        make_store().video_file(f"{site.url}/v.mp4")
    assert [file.suffix for file in cached(settings)] == [".partial"]
    assert make_store().video_file(f"{site.url}/v.mp4").read_bytes() == FILM
    assert ranges(site)[-1] == "bytes=100-"


def test_a_file_that_changed_meanwhile_is_not_pieced_together(make_store, site):
    site.replies["/v.mp4"] = film = Film()
    film.breaks_after = [100, 0]
    with pytest.raises(CutOff):
        make_store().video_file(f"{site.url}/v.mp4")
    site.replies["/v.mp4"] = Film(b"another film", etag='"two"')
    assert make_store().video_file(f"{site.url}/v.mp4").read_bytes() == b"another film"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_it_starts_over(make_store, settings, site, etag):
    site.replies["/v.mp4"] = film = Film(etag=etag)
    film.breaks_after = [100]
    with pytest.raises(CutOff):
        make_store().video_file(f"{site.url}/v.mp4")
    assert cached(settings) == []
    assert make_store().video_file(f"{site.url}/v.mp4").read_bytes() == FILM
    assert ranges(site) == [None, None]


def test_an_upload_is_gone_on_with_though_it_has_no_validator(make_store, label_studio):
    label_studio.replies["/data/upload/a.mp4"] = film = Film(etag=None)
    film.breaks_after = [100]
    assert make_store().video_file("/data/upload/a.mp4").read_bytes() == FILM
    assert ranges(label_studio) == [None, "bytes=100-"]


def test_a_server_that_gives_less_than_was_asked_is_asked_again(make_store, site):
    def give(asked):  # as Label Studio passes on files from cloud storage
        start = int(asked.headers.get("Range", "bytes=0-")[6:-1])
        part = FILM[start : start + 100]
        status, headers = 200, {**VIDEO, "ETag": '"one"'}
        if start:
            status = 206
            end = start + len(part) - 1
            headers["Content-Range"] = f"bytes {start}-{end}/{len(FILM)}"
        return Reply(part, status, headers, announced=None if start else len(FILM))

    site.replies["/v.mp4"] = give
    assert make_store().video_file(f"{site.url}/v.mp4").read_bytes() == FILM
    assert ranges(site) == [None, "bytes=100-", "bytes=200-"]


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-149/250", "bytes 100-249/999", "bytes */250", "items 100-249/250", "bytes 100-249/*"],
)
def test_a_part_that_was_not_asked_for_is_refused(make_store, settings, site, content_range):
    site.replies["/v.mp4"] = film = Film()
    film.breaks_after = [100, 0]
    store = make_store()
    with pytest.raises(CutOff):
        store.video_file(f"{site.url}/v.mp4")
    headers = {**VIDEO, "Content-Range": content_range}
    site.replies["/v.mp4"] = Reply(FILM[100:], 206, headers)
    with pytest.raises(MediaUnreachable, match="not the rest"):
        store.video_file(f"{site.url}/v.mp4")
    assert cached(settings) == []


def test_a_range_that_the_server_cannot_give_begins_anew(make_store, site):
    site.replies["/v.mp4"] = film = Film()
    film.breaks_after = [100, 0]
    store = make_store()
    with pytest.raises(CutOff):
        store.video_file(f"{site.url}/v.mp4")
    site.replies["/v.mp4"] = lambda asked: (
        Reply(status=416) if "Range" in asked.headers else Reply(FILM, headers=VIDEO)
    )
    assert store.video_file(f"{site.url}/v.mp4").read_bytes() == FILM


def test_a_chunked_answer_that_breaks_off_is_not_whole(make_store, settings, site):
    headers = {**VIDEO, "Transfer-Encoding": "chunked"}
    site.replies["/v.mp4"] = lambda _: Reply([b"5\r\nhello\r\n"], headers=headers)
    with pytest.raises(CutOff):
        make_store().video_file(f"{site.url}/v.mp4")
    assert cached(settings) == []


# --- one download for all ----------------------------------------------------


def test_threads_that_ask_for_one_url_share_one_download(make_store, site):
    started, go_on = threading.Event(), threading.Event()

    def give(_):
        started.set()
        assert go_on.wait(60)
        return Reply(FILM, headers=VIDEO)

    site.replies["/v.mp4"] = give
    stores = [make_store() for _ in range(2)]  # each with its own connection to the index
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(stores[n % 2].video_file, f"{site.url}/v.mp4") for n in range(8)]
        assert started.wait(60)
        go_on.set()
        paths = {call.result() for call in calls}
    assert len(paths) == len(site.asked) == 1


CHILD = """
import json, os, sys
from pathlib import Path
from backend.media import MediaStore
from backend.settings import Settings

given = json.loads(sys.argv[1])
store = MediaStore(Settings(
    media_cache=Path(given["cache"]), allow_private_media_hosts=(given["host"],),
    max_download_bytes=300, media_cache_bytes=300,
))
print("ready", flush=True)
sys.stdin.readline()
with store.in_use() as user:
    print(user.video_file(given["url"]), flush=True)
    sys.stdin.readline()
    if given["dies"]:
        os._exit(9)
"""


@pytest.fixture
def start_child(settings, site):
    """Another process on the same cache: a line lets it fetch, another ends its lease."""
    children = []

    def start(name, *, dies=False):
        given = {
            "cache": str(settings.media_cache),
            "host": f"127.0.0.1:{site.port}",
            "url": f"{site.url}{name}",
            "dies": dies,
        }
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(given)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        children.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def tell(child):
    child.stdin.write("\n")
    child.stdin.flush()


def test_processes_that_ask_for_one_url_share_one_download(start_child, site):
    site.replies["/v.mp4"] = Film()
    children = [start_child("/v.mp4") for _ in range(2)]
    for child in children:
        tell(child)
    paths = {child.stdout.readline() for child in children}
    assert len(paths) == len(site.asked) == 1
    assert Path(paths.pop().strip()).read_bytes() == FILM


def test_a_file_that_another_process_works_with_stays(start_child, make_store, site):
    site.replies["/a.mp4"], site.replies["/b.mp4"] = Film(), Film()
    child = start_child("/a.mp4")
    tell(child)
    path = Path(child.stdout.readline().strip())
    store = make_store(max_download_bytes=300, media_cache_bytes=300)
    with pytest.raises(MediaTooLarge, match="in use now"):
        store.video_file(f"{site.url}/b.mp4")
    assert path.read_bytes() == FILM
    tell(child)
    child.wait(60)
    store.video_file(f"{site.url}/b.mp4")
    assert not path.exists()


def test_a_process_that_died_holds_nothing(start_child, make_store, settings, site):
    site.replies["/a.mp4"], site.replies["/b.mp4"] = Film(), Film()
    child = start_child("/a.mp4", dies=True)
    tell(child)
    path = Path(child.stdout.readline().strip())
    tell(child)
    assert child.wait(60) == 9
    kept = make_store(max_download_bytes=300, media_cache_bytes=300).video_file(
        f"{site.url}/b.mp4"
    )
    assert cached(settings) == [kept] and not path.exists()


# --- the limit ---------------------------------------------------------------


def test_the_least_recently_used_goes_first(make_store, settings, site):
    store = make_store(max_download_bytes=300, media_cache_bytes=800)
    paths = {}
    for name in "abcad":
        site.replies[f"/{name}.mp4"] = Film()
        paths[name] = store.video_file(f"{site.url}/{name}.mp4")
    assert set(cached(settings)) == {paths["c"], paths["a"], paths["d"]}


def test_a_file_in_use_is_never_removed(make_store, settings, site):
    store = make_store(max_download_bytes=300, media_cache_bytes=500)
    for name in "abcd":
        site.replies[f"/{name}.mp4"] = Film()
    with store.in_use() as user:
        used = user.video_file(f"{site.url}/a.mp4")
        for name in "bcd":
            store.video_file(f"{site.url}/{name}.mp4")
        assert used in cached(settings) and len(cached(settings)) == 2
        user.video_file(f"{site.url}/d.mp4")
        with pytest.raises(MediaTooLarge, match="SAM2_MEDIA_CACHE_MIB"):
            store.video_file(f"{site.url}/b.mp4")
    store.video_file(f"{site.url}/b.mp4")
    assert used not in cached(settings)


def test_what_came_with_no_length_is_within_the_limit_once_unused(make_store, settings, site):
    store = make_store(max_download_bytes=300, media_cache_bytes=300)
    for name in "ab":
        site.replies[f"/{name}.mp4"] = lambda _: Reply([FILM], headers=VIDEO)
        store.video_file(f"{site.url}/{name}.mp4")
    assert len(cached(settings)) == 1


def test_all_frames_of_a_list_are_there_together(make_store, site):
    references = []
    for index in range(20):
        site.replies[f"/{index}.jpg"] = Reply(bytes([index + 1]) * 10, headers=VIDEO)
        references.append(f"{site.url}/{index}.jpg")
    store = make_store(max_download_bytes=200, media_cache_bytes=200)
    with store.in_use() as user:
        files = user.frame_files(references)
        assert [file.read_bytes()[0] - 1 for file in files] == list(range(20))


def test_begun_files_count_and_go_too(make_store, settings, site):
    site.replies["/a.mp4"] = film = Film()
    film.breaks_after = [100, 0]
    store = make_store(max_download_bytes=300, media_cache_bytes=300)
    with pytest.raises(CutOff):
        store.video_file(f"{site.url}/a.mp4")
    site.replies["/b.mp4"] = Film()
    kept = store.video_file(f"{site.url}/b.mp4")
    assert cached(settings) == [kept]


def test_the_limit_must_hold_one_download(settings):
    with pytest.raises(ValueError, match="media_cache_bytes"):
        dataclasses.replace(settings, max_download_bytes=11, media_cache_bytes=10)


# --- what happens to the folder ----------------------------------------------


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"half")])
def test_a_file_that_was_harmed_on_disk_is_fetched_again(make_store, site, harm):
    site.replies["/v.mp4"] = Film()
    store = make_store()
    harm(store.video_file(f"{site.url}/v.mp4"))
    assert store.video_file(f"{site.url}/v.mp4").read_bytes() == FILM


def test_files_that_nobody_knows_are_swept(make_store, settings, site):
    site.replies["/v.mp4"] = Film()
    kept = make_store().video_file(f"{site.url}/v.mp4")
    kept.with_name("left-by-a-crash.mp4").write_bytes(b"x")
    beside = settings.media_cache / "mine.txt"
    beside.write_text("x")
    make_store().video_file(f"{site.url}/v.mp4")
    assert cached(settings) == [kept] and beside.exists()


def test_a_folder_that_cannot_be_written_is_said(make_store, site, tmp_path):
    (tmp_path / "file").write_text("no folder")
    site.replies["/v.mp4"] = Film()
    with pytest.raises(MediaUnreachable, match="media cache"):
        make_store(media_cache=tmp_path / "file" / "cache").video_file(f"{site.url}/v.mp4")


def test_local_files_need_no_cache(make_store, media_root, tmp_path):
    (tmp_path / "file").write_text("no folder")
    store = make_store(media_cache=tmp_path / "file" / "cache")
    assert store.video_file("/data/local-files/?d=n25.mp4") == media_root / "n25.mp4"


# --- cloud URIs --------------------------------------------------------------


@pytest.fixture
def cloud(label_studio, site):
    """Label Studio signs another URL each time; the bucket wants the signature."""
    signed = iter(range(1, 99))

    def presign(asked):
        if asked.headers.get("Authorization") != "Token secret-key":
            return Reply(status=401)
        url = f"{site.url}/bucket/clip.mp4?X-Signature=signed-{next(signed)}"
        return Reply(status=303, headers={"Location": url})

    film = Film()
    for number in range(1, 9):
        site.replies[f"/bucket/clip.mp4?X-Signature=signed-{number}"] = film

    def add(uri, task_id=7):
        path = f"/tasks/{task_id}/presign/?fileuri={encode_presign_fileuri(uri)}"
        label_studio.replies[path] = presign
        return film

    return add


@pytest.mark.parametrize(
    "uri", ["s3://bucket/clip.mp4", "gs://b/a b/ü.mp4", "azure-blob://c/clip.mp4", "S3://b/x?y#z"]
)
def test_a_cloud_uri_is_resolved_by_label_studio_and_the_token_stays_there(
    make_store, cloud, label_studio, site, uri
):
    cloud(uri)
    assert make_store().video_file(uri, task_id=7).read_bytes() == FILM
    assert label_studio.tokens() == ["Token secret-key"]
    assert site.tokens() == [None]


def test_a_cloud_file_is_kept_under_its_uri(make_store, cloud, label_studio, site, caplog):
    caplog.set_level(logging.DEBUG)
    film = cloud("s3://bucket/clip.mp4")
    store = make_store()
    first = store.video_file("s3://bucket/clip.mp4", task_id=7)
    assert store.video_file("s3://bucket/clip.mp4", task_id=7) == first
    assert len(site.asked) == 1 and first.suffix == ".mp4"
    again = make_store(media_fresh_seconds=ALWAYS_ASK)
    assert again.video_file("s3://bucket/clip.mp4", task_id=7) == first
    assert site.asked[-1].headers["If-None-Match"] == film.validators["ETag"]
    assert "signed-" not in caplog.text and "secret-key" not in caplog.text


def test_a_cloud_file_is_for_the_tasks_that_label_studio_gives_it_to(make_store, cloud):
    cloud("s3://bucket/clip.mp4", task_id=7)
    cloud("s3://bucket/clip.mp4", task_id=9)
    store = make_store()
    store.video_file("s3://bucket/clip.mp4", task_id=7)
    with pytest.raises(MediaNotFound):  # another project's, which has no such storage
        store.video_file("s3://bucket/clip.mp4", task_id=8)
    assert store.video_file("s3://bucket/clip.mp4", task_id=9).read_bytes() == FILM


def test_a_cloud_file_of_another_label_studio_is_another(make_store, cloud, elsewhere_studio):
    cloud("s3://bucket/clip.mp4")
    make_store().video_file("s3://bucket/clip.mp4", task_id=7)
    with pytest.raises(MediaNotFound):
        make_store(label_studio_url=elsewhere_studio.url).video_file(
            "s3://bucket/clip.mp4", task_id=7
        )


@pytest.fixture
def elsewhere_studio():
    with serving_site() as site:
        yield site


def test_a_cut_cloud_file_is_gone_on_with_under_a_new_signature(make_store, cloud, site):
    cloud("s3://bucket/clip.mp4").breaks_after = [100]
    path = make_store().video_file("s3://bucket/clip.mp4", task_id=7)
    assert path.read_bytes() == FILM
    assert [asked.path[-8:] for asked in site.asked] == ["signed-1", "signed-2"]


def test_frames_in_the_cloud_are_resolved_with_the_task(make_store, cloud):
    cloud("s3://bucket/0.jpg", task_id=3)
    assert len(make_store().frame_files(["s3://bucket/0.jpg"], task_id=3)) == 1


def test_a_bucket_on_a_private_address_must_be_named(make_store, cloud, site):
    cloud("s3://bucket/clip.mp4")
    with pytest.raises(MediaRefused, match="SAM2_ALLOW_PRIVATE_MEDIA_HOSTS"):
        make_store(allow_private_media_hosts=()).video_file("s3://bucket/clip.mp4", task_id=7)
    assert site.asked == []


@pytest.mark.parametrize("task_id", [None, "7", 0, -1, True, 7.0, "7/../8"])
def test_a_cloud_uri_needs_a_task_id(make_store, label_studio, task_id):
    with pytest.raises(UnusableTask, match="its id is"):
        make_store().video_file("s3://bucket/clip.mp4", task_id=task_id)
    assert label_studio.asked == []


def test_a_cloud_uri_needs_label_studio(make_store):
    store = make_store(label_studio_url=None, label_studio_api_key=None)
    with pytest.raises(UnusableTask, match="LABEL_STUDIO_URL"):
        store.video_file("s3://bucket/clip.mp4", task_id=7)


def test_a_cloud_uri_that_label_studio_cannot_resolve_is_named(make_store, label_studio):
    with pytest.raises(MediaNotFound, match="s3://bucket/clip.mp4.*source storage"):
        make_store().video_file("s3://bucket/clip.mp4", task_id=7)
    with pytest.raises(HostDown):
        with serving_site() as gone:
            url = gone.url
        make_store(label_studio_url=url).video_file("s3://bucket/clip.mp4", task_id=7)


def test_lock_files_do_not_grow_with_what_was_asked_for(tmp_path):
    """A refused address leaves no file in the cache, but had left its lock."""
    cache = MediaCache(tmp_path, max_bytes=1000, fresh_seconds=60)

    def refused(file, **_):
        raise MediaRefused("no")

    with cache.lease() as lease:
        for number in range(300):
            with pytest.raises(MediaRefused):
                cache.file(
                    f"http://10.0.0.1/{number}", refused, suffix="", shown="x", lease=lease,
                    deadline=Deadline(10),
                )
    names = {path.name for path in (tmp_path / "locks").iterdir()}
    assert names and all(len(name) == 3 for name in names)
