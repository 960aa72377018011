"""Task data to files: what is read, what is fetched, who is told the key, what is refused."""

import base64
import dataclasses
import gzip
import io
import json
import os
import random
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import (
    MediaNotFound,
    MediaRefused,
    MediaTooLarge,
    MediaUnreachable,
    ServiceError,
    UnusableTask,
)
from backend.checked_connection import is_public
from backend.deadlines import Deadline
from backend.http_client import Access, Origin, download, without_query
from backend.media import MediaStore
from tests.backend.http_server import Reply, serving_site

UPLOAD = "/data/upload/1/ef9e5fd2-n25.mp4"
VIDEO = {"Content-Type": "video/mp4"}


@pytest.fixture
def make_store(settings):
    def make(**changes):
        return MediaStore(dataclasses.replace(settings, **changes))

    return make


@pytest.fixture
def elsewhere():
    """Another site on this machine; as 127.0.0.1 it is private, and must be allowed by name."""
    with serving_site() as site:
        site.replies["/v.mp4"] = Reply(b"elsewhere", headers=VIDEO)
        yield site


def cached(settings):
    return sorted((settings.media_cache / "files").iterdir())


def host(site):
    return f"127.0.0.1:{site.port}"


# --- files -------------------------------------------------------------------


def test_a_file_inside_a_root_is_read_in_place(make_store, media_root):
    file = media_root / "n25.mp4"
    assert make_store(media_roots=(media_root,)).video_file(str(file)) == file.resolve()


@pytest.mark.parametrize(
    "reference",
    [
        "/etc/passwd",
        "{root}/../outside.mp4",
        "{root}/sub/../../outside.mp4",
        "{root}/link.mp4",  # a symlink to a file outside
        "{root}/folder/outside.mp4",  # through a symlinked folder
        "{root}-other/outside.mp4",  # begins like the root, is another folder
        "sub/f0.jpg",  # relative to who knows what
        "../outside.mp4",
        "{root}/a\0b",
    ],
)
def test_a_path_that_leads_out_of_the_roots_is_refused(make_store, tmp_path, reference):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "root-other").mkdir()
    for outside in (tmp_path / "outside.mp4", tmp_path / "root-other" / "outside.mp4"):
        outside.write_bytes(b"secret")
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(MediaRefused):
        make_store(media_roots=(root,)).video_file(reference.format(root=root))


def test_a_symlink_that_stays_inside_is_followed(make_store, tmp_path):
    (tmp_path / "real.mp4").write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real.mp4")
    store = make_store(media_roots=(tmp_path,))
    assert store.video_file(str(tmp_path / "link.mp4")) == tmp_path / "real.mp4"


def test_a_pipe_or_folder_is_no_file(make_store, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("pipe.mp4", "."):
        with pytest.raises(MediaNotFound):
            make_store(media_roots=(tmp_path,)).video_file(str(tmp_path / name))


def test_without_roots_no_path_is_read(make_store, media_root):
    with pytest.raises(MediaRefused, match="SAM2_MEDIA_ROOTS"):
        make_store().video_file(str(media_root / "n25.mp4"))


def test_local_files_come_from_the_document_root_without_a_request(
    make_store, media_root, label_studio
):
    store = make_store()
    expected = media_root / "sub" / "f0.jpg"
    assert store.video_file("/data/local-files/?d=sub/f0.jpg") == expected
    assert store.video_file(f"{label_studio.url}/data/local-files/?d=sub%2Ff0.jpg") == expected
    assert label_studio.asked == []


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "%2e%2e/secret", "/../secret"])
def test_local_files_do_not_leave_the_document_root(make_store, media_root, name):
    with pytest.raises(MediaRefused):
        make_store().video_file(f"/data/local-files/?d={name}")


def test_local_files_of_another_host_are_not_ours(make_store, elsewhere):
    store = make_store(allow_private_media_hosts=(host(elsewhere),))
    with pytest.raises(MediaNotFound):
        store.video_file(f"{elsewhere.url}/data/local-files/?d=sub/f0.jpg")
    assert len(elsewhere.asked) == 1


def test_local_files_without_a_document_root_are_fetched_with_the_key(make_store, label_studio):
    label_studio.replies["/data/local-files/?d=a b.mp4".replace(" ", "%20")] = Reply(
        b"film", headers=VIDEO
    )
    store = make_store(label_studio_local_files_root=None)
    path = store.video_file("/data/local-files/?d=a b.mp4")
    assert path.read_bytes() == b"film" and path.suffix == ".mp4"
    assert label_studio.tokens() == ["Token secret-key"]


@pytest.mark.parametrize(
    "reference",
    ["/data/upload/../../api/x", "/static/%2e%2e/api/x", "/data/upload/..%2F..%2Fapi/x",
     "/data/local-files/?d=../x", "/static/..\\x", "/data/local-files/", "/tasks/1/presign/../x",
     "/data/local-files/?d=a&d=b"],
)
def test_no_path_leads_elsewhere_on_label_studio(make_store, label_studio, reference):
    store = make_store(label_studio_local_files_root=None)
    for asked in (reference, f"{label_studio.url}{reference}"):
        with pytest.raises(MediaRefused):
            store.video_file(asked)
    assert label_studio.asked == []


@pytest.mark.parametrize(
    "path",
    ["/data/upload/%252e%252e/%252e%252e/api/x", "/static/%25252e%25252e/api/x",
     "/data/upload/%2e%2e%5Capi", "/data/upload/x%255c..%255capi", "/data/upload/%" + "25" * 9 + "2e",
     "/data/local-files/?d=%25252e%25252e/x", "/storage-data/uploaded/?filepath=upload/../x",
     "/data/upload/.\t./api/x"],
)
def test_no_path_leads_elsewhere_however_often_it_is_encoded(make_store, label_studio, path):
    store = make_store(label_studio_local_files_root=None)
    for asked in (path, f"{label_studio.url}{path}"):
        with pytest.raises(MediaRefused):
            store.video_file(asked, task_id=7, project_id=1)
    assert label_studio.asked == []


def test_a_name_may_hold_points_and_percent_signs(make_store, label_studio):
    for name in ("a..b.mp4", "50%25.mp4", "...mp4", "%2541.mp4"):
        label_studio.replies[f"/data/upload/1/{name}"] = Reply(b"film", headers=VIDEO)
        assert make_store().video_file(f"/data/upload/1/{name}").read_bytes() == b"film"


@pytest.mark.parametrize(
    "path",
    ["/api/projects/2/export?exportType=JSON", "/api/tasks/21", "/api/users/1/token", "/", "",
     "//api/tasks/21", "/user/account", "/export/2.mp4", "/data/export/2.mp4", "/data/upload",
     "/data/local-files/x.mp4?d=y", "/tasks/7/presign/x.mp4", "/tasks/7/annotations/",
     "/%74asks/7/presign/", "/django-rq/v.mp4"],
)
def test_nothing_but_media_is_fetched_from_label_studio(make_store, label_studio, path):
    label_studio.otherwise = lambda asked: Reply(b"secret", headers=VIDEO)
    for url in (label_studio.url, label_studio.url.replace("http", "HTTP")):
        with pytest.raises(MediaRefused, match="is no media|SAM2_MEDIA_ROOTS"):
            make_store().video_file(f"{url}{path}", task_id=7, project_id=1)
    assert label_studio.asked == []


@pytest.mark.parametrize("verb", ["presign", "resolve"])
@pytest.mark.parametrize("kind, own", [("tasks", 7), ("projects", 1)])
def test_the_key_is_for_the_files_of_the_task_at_hand_alone(
    make_store, label_studio, kind, own, verb
):
    label_studio.otherwise = lambda asked: Reply(b"film", headers=VIDEO)
    store, query = make_store(), "?fileuri=czM6Ly9iL3YubXA0"
    ours = {"task_id": 7, "project_id": 1}
    for base in ("", label_studio.url):
        for other in (21, "\u0662\u0661", own * 10, "07000000000000000000"):
            with pytest.raises(MediaRefused, match="at hand|is no media|SAM2_MEDIA_ROOTS"):
                store.video_file(f"{base}/{kind}/{other}/{verb}/{query}", **ours)
        with pytest.raises(MediaRefused, match=f"must be of the {kind[:-1]} at hand$"):
            store.video_file(f"{base}/{kind}/{own}/{verb}/{query}")
    assert label_studio.asked == []
    assert store.video_file(f"/{kind}/{own}/{verb}/{query}", **ours).read_bytes() == b"film"
    assert store.video_file(f"{label_studio.url}/{kind}/{own}/{verb}/{query}", **ours)
    assert label_studio.tokens() == ["Token secret-key"]


def test_what_was_fetched_for_one_task_is_not_given_to_another_that_names_it(
    make_store, label_studio
):
    label_studio.otherwise = lambda asked: Reply(b"film", headers=VIDEO)
    store = make_store()
    store.video_file("/tasks/7/presign/?fileuri=czM6Ly9iL3YubXA0", task_id=7)
    with pytest.raises(MediaRefused, match="task 7, must be of the task at hand, 8"):
        store.video_file("/tasks/7/presign/?fileuri=czM6Ly9iL3YubXA0", task_id=8)


def test_static_files_are_fetched_without_the_key(make_store, label_studio):
    label_studio.replies["/static/v.mp4"] = Reply(b"film", headers=VIDEO)
    assert make_store().video_file("/static/v.mp4").read_bytes() == b"film"
    assert label_studio.tokens() == [None]


@pytest.mark.parametrize("path", ["/api/projects/2/export?signed=1", "/tasks/21/presign/?fileuri=x"])
def test_a_redirect_within_label_studio_takes_the_key_to_media_only(
    make_store, label_studio, path
):
    """Who sets up a storage chooses its address, and so where Label Studio redirects to."""
    label_studio.replies["/tasks/7/presign/?fileuri=czM6Ly9hcGkvdi5tcDQ="] = Reply(
        status=303, headers={"Location": path}
    )
    label_studio.replies[path] = Reply(status=401)
    with pytest.raises(MediaUnreachable, match="401.*key is not sent"):
        make_store().video_file("s3://api/v.mp4", task_id=7)
    assert label_studio.tokens() == ["Token secret-key", None]


def test_the_key_stays_below_the_path_of_label_studio(make_store, label_studio):
    """On one host with another program, whose users put files there."""
    label_studio.replies["/data/upload/v.mp4"] = Reply(b"film", headers=VIDEO)
    store = make_store(label_studio_url=f"{label_studio.url}/studio")
    assert store.video_file(f"{label_studio.url}/data/upload/v.mp4").read_bytes() == b"film"
    assert label_studio.tokens() == [None]


def test_an_error_about_a_local_file_of_label_studio_names_it(make_store, label_studio):
    store = make_store(label_studio_local_files_root=None)
    with pytest.raises(MediaNotFound, match="sub/gone.mp4.*404"):
        store.video_file("/data/local-files/?d=sub/gone.mp4")


def test_other_paths_of_that_spelling_are_files(make_store, tmp_path):
    for path in ("/tasks/v.mp4", "/projects/7/v.mp4", "/api/projects/1/export"):
        with pytest.raises(MediaRefused, match="SAM2_MEDIA_ROOTS"):
            make_store().video_file(path)


@pytest.mark.parametrize("reference", [None, 7, "", "  ", ["/a"], {"video": "/a"}])
def test_a_reference_that_is_no_text_is_refused(make_store, reference):
    with pytest.raises(UnusableTask):
        make_store().video_file(reference)


@pytest.mark.parametrize(
    "reference",
    ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://host/v.mp4",
     "data:video/mp4;base64,AAAA", "concat:/etc/passwd"],
)
def test_other_schemes_are_refused(make_store, reference):
    with pytest.raises(MediaRefused):
        make_store().video_file(reference)


# --- downloads ---------------------------------------------------------------


def test_an_upload_is_fetched_once_with_the_key(make_store, label_studio, media_root):
    store = make_store()
    with ThreadPoolExecutor(4) as pool:
        files = set(pool.map(store.video_file, [UPLOAD] * 4))
    assert len(files) == 1
    assert files.pop().read_bytes() == (media_root / "n25.mp4").read_bytes()
    assert label_studio.tokens() == ["Token secret-key"]


def test_local_files_need_only_the_document_root(make_store, media_root):
    store = make_store(label_studio_url=None, label_studio_api_key=None)
    assert store.video_file("/data/local-files/?d=n25.mp4") == media_root / "n25.mp4"


def test_media_on_label_studio_needs_its_url(make_store):
    store = make_store(label_studio_url=None, label_studio_api_key=None)
    with pytest.raises(UnusableTask, match="LABEL_STUDIO_URL"):
        store.video_file(UPLOAD)


def test_a_label_studio_under_a_path_keeps_its_path(make_store, label_studio):
    label_studio.replies["/studio/data/upload/a.mp4"] = Reply(b"film", headers=VIDEO)
    store = make_store(label_studio_url=f"{label_studio.url}/studio")
    for reference in ("/data/upload/a.mp4", "/studio/data/upload/a.mp4"):
        assert store.video_file(reference).read_bytes() == b"film"
    assert {asked.path for asked in label_studio.asked} == {"/studio/data/upload/a.mp4"}


def test_a_personal_access_token_buys_a_short_lived_one(make_store, label_studio):
    def refresh(asked):
        assert json.loads(asked.body) == {"refresh": "aaa.bbb.ccc"}
        return Reply(b'{"access": "short"}', headers={"Content-Type": "application/json"})

    label_studio.replies["/api/token/refresh"] = refresh
    for name in ("/data/upload/a.mp4", "/data/upload/b.mp4"):
        label_studio.replies[name] = Reply(b"film", headers=VIDEO)
    store = make_store(label_studio_api_key="aaa.bbb.ccc")
    store.video_file("/data/upload/a.mp4")
    store.video_file("/data/upload/b.mp4")
    assert label_studio.tokens() == [None, "Bearer short", "Bearer short"]


def test_a_personal_access_token_that_is_refused_is_said(make_store, label_studio):
    label_studio.replies["/api/token/refresh"] = Reply(b"{}", 401)
    with pytest.raises(MediaUnreachable, match="no valid personal access token"):
        make_store(label_studio_api_key="aaa.bbb.ccc").video_file(UPLOAD)


def test_another_host_never_gets_the_key(make_store, elsewhere):
    store = make_store(allow_private_media_hosts=(host(elsewhere),))
    assert store.video_file(f"{elsewhere.url}/v.mp4").read_bytes() == b"elsewhere"
    assert elsewhere.tokens() == [None]


def test_a_redirect_to_another_host_does_not_take_the_key_along(
    make_store, label_studio, elsewhere
):
    label_studio.replies["/data/upload/a.mp4"] = Reply(
        status=302, headers={"Location": f"{elsewhere.url}/v.mp4"}
    )
    store = make_store(allow_private_media_hosts=(host(elsewhere),))
    assert store.video_file("/data/upload/a.mp4").read_bytes() == b"elsewhere"
    assert label_studio.tokens() == ["Token secret-key"]
    assert elsewhere.tokens() == [None]


def test_another_host_cannot_borrow_the_key_by_a_redirect(make_store, label_studio, elsewhere):
    elsewhere.replies["/v.mp4"] = Reply(
        status=307, headers={"Location": f"{label_studio.url}{UPLOAD}"}
    )
    store = make_store(allow_private_media_hosts=(host(elsewhere),))
    with pytest.raises(MediaUnreachable, match="401"):
        store.video_file(f"{elsewhere.url}/v.mp4")
    assert label_studio.tokens() == [None]


def test_a_redirect_to_a_private_address_is_refused(make_store, label_studio, elsewhere):
    label_studio.replies["/data/upload/a.mp4"] = Reply(
        status=302, headers={"Location": f"{elsewhere.url}/v.mp4"}
    )
    with pytest.raises(MediaRefused, match="private"):
        make_store().video_file("/data/upload/a.mp4")
    assert elsewhere.asked == []


def test_redirects_in_a_circle_end(make_store, label_studio):
    label_studio.replies["/data/upload/a.mp4"] = Reply(
        status=301, headers={"Location": "/data/upload/a.mp4"}
    )
    with pytest.raises(MediaUnreachable, match="redirects"):
        make_store().video_file("/data/upload/a.mp4")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/v.mp4", "http://localhost:{port}/v.mp4", "http://[::1]:{port}/v.mp4",
     "http://2130706433:{port}/v.mp4", "http://169.254.169.254/latest", "http://10.0.0.1/v.mp4",
     "http://user:pw@example.com/v.mp4", "http:///v.mp4", "http://host:port/v.mp4"],
)
def test_private_hosts_and_odd_urls_are_refused_unasked(make_store, elsewhere, url, settings):
    with pytest.raises(MediaRefused):
        make_store().video_file(url.format(port=elsewhere.port))
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False),
        ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False),
        ("fd00::1", False), ("ff02::1", False), ("::", False),
        ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
    ],
)
def test_public_addresses_are_told_from_others(address, expected):
    assert is_public(address) is expected


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(b"x" * 41, headers=VIDEO), MediaTooLarge),
        (Reply(b"x" * 41, headers=VIDEO, announced=-1), MediaTooLarge),  # length not told
        (Reply(b"", headers=VIDEO), MediaUnreachable),
        (Reply(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}), MediaUnreachable),
        (Reply(b"{}", headers={"Content-Type": "application/json"}), MediaUnreachable),
        (Reply(status=404), MediaNotFound),
        (Reply(b"\n<!DOCTYPE html><p>Log in", headers=VIDEO), MediaUnreachable),
        (Reply(b"x", headers=VIDEO | {"Content-Encoding": "gzip"}), MediaUnreachable),
        (Reply(b"x", 206, VIDEO | {"Content-Range": "bytes 4-4/5"}), MediaUnreachable),
        (Reply(status=304), MediaUnreachable),
        (Reply(status=403), MediaUnreachable),
        (Reply(status=500), MediaUnreachable),
    ],
)
def test_a_bad_reply_is_told_apart_and_leaves_nothing(
    make_store, label_studio, settings, reply, error
):
    label_studio.replies["/data/upload/a.mp4"] = reply
    with pytest.raises(error):
        make_store(max_download_bytes=40).video_file("/data/upload/a.mp4")
    assert cached(settings) == []


MIB = bytes(range(256)) * 4096


def deflated(content: bytes, *, window_bits: int) -> bytes:
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    "coding, body",
    [
        ("gzip", gzip.compress(MIB)),
        ("x-gzip", gzip.compress(MIB)),
        (" GZIP ", gzip.compress(MIB[:5000]) + gzip.compress(MIB[5000:])),
        ("gzip", gzip.compress(MIB) + bytes(512)),
        ("deflate", zlib.compress(MIB)),
        ("deflate", deflated(MIB, window_bits=-15)),
        ("aws-chunked", MIB),
        ("aws-chunked,gzip", gzip.compress(MIB)),
        ("", MIB),
    ],
)
def test_a_compressed_answer_is_the_file_that_was_compressed(make_store, elsewhere, coding, body):
    headers = VIDEO | {"Content-Encoding": coding, "ETag": '"1"'}
    # In small parts too, as they come.
    elsewhere.replies["/v.mp4"] = Reply([body[i : i + 999] for i in range(0, len(body), 999)], headers=headers)
    elsewhere.replies["/w.mp4"] = Reply(body, headers=headers)
    for name in "vw":
        store = make_store(allow_private_media_hosts=(host(elsewhere),))
        assert store.video_file(f"{elsewhere.url}/{name}.mp4").read_bytes() == MIB


@pytest.mark.parametrize(
    "coding, body, error, message",
    [
        ("br", b"x", MediaUnreachable, "'br', which was not asked for; gzip and deflate can"),
        ("gzip, br", b"x", MediaUnreachable, "'gzip, br'"),
        ("gzip", b"plain", MediaUnreachable, "says that it is compressed .*without Content-Encoding"),
        ("gzip", gzip.compress(MIB)[:-9], MediaUnreachable, "broke off"),
        ("gzip", gzip.compress(b""), MediaUnreachable, "is empty"),
        ("gzip", gzip.compress(bytes(2**24)), MediaTooLarge, "more than 4194304 bytes"),
        ("gzip", gzip.compress(b"<!doctype html>..."), MediaUnreachable, "login page"),
    ],
)
def test_a_compressed_answer_that_is_no_file_leaves_none(
    make_store, elsewhere, settings, coding, body, error, message
):
    elsewhere.replies["/v.mp4"] = Reply(body, headers=VIDEO | {"Content-Encoding": coding})
    store = make_store(allow_private_media_hosts=(host(elsewhere),), max_download_bytes=2**22)
    with pytest.raises(error, match=message):
        store.video_file(f"{elsewhere.url}/v.mp4")
    assert cached(settings) == []


def test_a_compressed_file_that_breaks_off_is_not_gone_on_with_in_its_middle(make_store, elsewhere):
    whole = gzip.compress(random.Random(0).randbytes(200_000))
    headers = VIDEO | {"Content-Encoding": "gzip", "ETag": '"1"'}
    elsewhere.replies["/v.mp4"] = Reply(whole[:90_000], headers=headers, announced=len(whole))
    store = make_store(allow_private_media_hosts=(host(elsewhere),))
    with pytest.raises(MediaUnreachable, match="broke off"):
        store.video_file(f"{elsewhere.url}/v.mp4")
    elsewhere.replies["/v.mp4"] = Reply(whole, headers=headers)
    assert store.video_file(f"{elsewhere.url}/v.mp4").read_bytes() == gzip.decompress(whole)
    assert not any("Range" in asked.headers for asked in elsewhere.asked)


def test_blanks_around_a_reference_are_none_of_it(make_store, elsewhere, media_root):
    store = make_store(allow_private_media_hosts=(host(elsewhere),), media_roots=(media_root,))
    assert store.video_file(f" \t{elsewhere.url}/v.mp4\n").read_bytes() == b"elsewhere"
    assert store.video_file(f" {media_root / 'n25.mp4'}\n") == (media_root / "n25.mp4").resolve()


def test_label_studio_on_windows_names_local_files_with_backslashes(make_store, tmp_path):
    (tmp_path / "dir").mkdir()
    for name in ("dir/file.mp4", "other\\file.mp4"):
        (tmp_path / name).write_bytes(b"x")
    store = make_store(label_studio_local_files_root=tmp_path)
    local = "/data/local-files/?d="
    assert store.video_file(f"{local}dir%5Cfile.mp4") == tmp_path.resolve() / "dir/file.mp4"
    assert store.video_file(f"{local}dir/file.mp4") == tmp_path.resolve() / "dir/file.mp4"
    assert store.video_file(f"{local}other%5Cfile.mp4") == tmp_path.resolve() / "other\\file.mp4"
    with pytest.raises(MediaNotFound, match="dir/gone.mp4.*no such file"):
        store.video_file(f"{local}dir%5Cgone.mp4")
    with pytest.raises(MediaRefused, match="LOCAL_FILES_DOCUMENT_ROOT"):
        store.video_file(f"{local}..%5C..%5Cetc%5Cpasswd")


@pytest.mark.parametrize(
    "url, path",
    [
        ("http://ls.example:8080", "/label-studio/data/upload/1/a.mp4"),
        ("http://ls.example:8080", "/label-studio/data/local-files/?d=a.mp4"),
        (None, "/label-studio/data/upload/1/a.mp4"),
        ("http://ls.example:8080", "/label-studio/tasks/3/presign/?fileuri=eA=="),
    ],
)
def test_a_label_studio_under_a_path_that_its_url_lacks_is_said(make_store, url, path):
    right = f"set LABEL_STUDIO_URL to {url or 'http://HOST'}/label-studio"
    with pytest.raises(MediaRefused, match=f"SAM2_MEDIA_ROOTS; if Label Studio is under /label-studio, {right}"):
        make_store(label_studio_url=url, label_studio_api_key=None).video_file(path)


@pytest.mark.parametrize("path", ["C:\\clips\\a.mp4", "C:/clips/a.mp4", "\\\\server\\share\\a.mp4"])
def test_a_path_of_windows_is_called_that(make_store, path):
    with pytest.raises(MediaRefused, match=r"a\.mp4.*it is a path of a Windows machine"):
        make_store().video_file(path)


def test_a_cloud_key_is_asked_for_as_it_is(make_store, label_studio):
    uri = "s3://bucket/my clip/a#1 100%.mp4?"
    encoded = base64.urlsafe_b64encode(uri.encode()).decode()
    label_studio.replies[f"/tasks/7/presign/?fileuri={encoded}"] = Reply(b"x", headers=VIDEO)
    assert make_store().video_file(uri, task_id=7).read_bytes() == b"x"
    with pytest.raises(MediaNotFound, match=r"s3://bucket/a#1.mp4\?\.\.\."):
        make_store().video_file("s3://bucket/a#1.mp4?sig=secret", task_id=7)


def test_a_host_that_is_down_is_unreachable(make_store):
    with serving_site() as site:
        url = site.url
    store = make_store(label_studio_url=url)
    with pytest.raises(MediaUnreachable, match="ConnectionRefusedError"):
        store.video_file(UPLOAD)


def test_a_download_that_takes_too_long_ends(label_studio):
    label_studio.replies["/a"] = Reply(b"x" * 10, headers=VIDEO)
    access = Access(home=Origin.of(label_studio.url))
    with pytest.raises(MediaUnreachable, match="too long"):
        download(
            f"{label_studio.url}/a", io.BytesIO(), access=access, max_bytes=100,
            deadline=Deadline(0),
        )


def test_what_is_shown_of_a_url_holds_no_key():
    shown = without_query("https://me:pw@host:1/v.mp4?X-Amz-Signature=abc#t")
    assert shown == "https://host:1/v.mp4"


@pytest.mark.parametrize(
    "reference", ["s3://b/a\n\x1b[2JERROR fake.mp4", "/data/local-files/?d=a%0aERROR fake.mp4",
                  "http://10.0.0.1/a\x1b[2J\nERROR fake"],
)
def test_a_reference_cannot_write_log_lines(make_store, label_studio, caplog, reference):
    store = make_store(label_studio_local_files_root=None)
    site = label_studio.replies
    site["/data/local-files/?d=a%0aERROR%20fake.mp4"] = Reply(b"film", headers=VIDEO)
    site["/tasks/1/presign/?fileuri=czM6Ly9iL2EKG1sySkVSUk9SIGZha2UubXA0"] = Reply(
        b"film", headers=VIDEO
    )
    caplog.set_level("INFO")
    try:
        told = str(store.video_file(reference, task_id=1))
    except ServiceError as error:
        told = error.detail
    told += "".join(record.getMessage() for record in caplog.records)
    assert "\n" not in told and "\x1b" not in told


# --- frames ------------------------------------------------------------------


def test_frames_keep_their_order(make_store, media_root):
    references = [f"/data/local-files/?d=sub/f{index}.jpg" for index in (3, 0, 5)]
    names = [file.name for file in make_store().frame_files(references)]
    assert names == ["f3.jpg", "f0.jpg", "f5.jpg"]


@pytest.mark.parametrize("references", [None, [], "/data/upload/a.jpg", 3, {}])
def test_frames_must_be_a_list(make_store, references):
    with pytest.raises(UnusableTask):
        make_store().frame_files(references)


def test_limits_hold_for_all_frames_together(make_store, label_studio):
    for index in range(3):
        label_studio.replies[f"/data/upload/{index}.jpg"] = Reply(b"x" * 6, headers=VIDEO)
    references = [f"/data/upload/{index}.jpg" for index in range(3)]
    with pytest.raises(MediaTooLarge, match="more than 10 bytes"):
        make_store(max_download_bytes=10).frame_files(references)
    with pytest.raises(MediaTooLarge, match="3 frames"):
        make_store(max_frames=2).frame_files(references)
    assert threading.active_count() < 20
