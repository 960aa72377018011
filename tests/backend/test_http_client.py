"""Where a request may go, how long it may take, and what it takes for a file."""

import contextlib
import io
import itertools
import socket
import ssl
import subprocess
import threading
from shutil import which

import pytest

from backend import checked_connection
from backend.checked_connection import is_public
from backend.deadlines import Deadline
from backend.errors import HostDown, MediaRefused, MediaTooLarge, MediaUnreachable
from backend.http_client import Access, Origin, download
from tests.backend.http_server import Reply, serving_site

VIDEO = {"Content-Type": "video/mp4"}
REAL_RESOLVER = socket.getaddrinfo


@pytest.fixture
def site():
    with serving_site() as site:
        site.replies["/v.mp4"] = Reply(b"film", headers=VIDEO)
        yield site


def fetch(url, *, private_hosts=(), seconds=60.0, max_bytes=10_000):
    file = io.BytesIO()
    download(
        url,
        file,
        access=Access(private_hosts=tuple(private_hosts)),
        max_bytes=max_bytes,
        deadline=Deadline(seconds),
    )
    return file.getvalue()


@pytest.fixture
def resolve(monkeypatch):
    """Names of .test are found at the addresses given, each look-up at the next."""
    asked = []

    def use(**answers):
        queues = {name.replace("_", "."): iter(lists) for name, lists in answers.items()}

        def resolver(host, port, *args, **keywords):
            if not str(host).endswith(".test"):
                return REAL_RESOLVER(host, port, *args, **keywords)
            asked.append(host)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in next(queues[host])
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        return asked

    return use


# --- addresses ---------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "0177.0.0.1", "0x7f.1",
        "0x7f000001", "0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[ff02::1]",
        "169.254.169.254", "0xA9FEA9FE", "10.0.0.1", "100.64.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1",
    ],
)
def test_no_spelling_of_a_private_address_is_reached(site, host):
    with pytest.raises(MediaRefused, match="private or reserved"):
        fetch(f"http://{host}:{site.port}/v.mp4")
    assert site.asked == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("64:ff9b::808:808", True),
        ("::7f00:1", False), ("fec0::1", False), ("64:ff9b:1::808:808", False),
        ("64:ff9b:1:a00:0:100::", False), ("2001:db8::1", False), ("5f00::1", False),
        ("100::1", False), ("192.0.0.192", False), ("168.63.129.16", False), ("198.18.0.1", False),
    ],
)
def test_unusual_addresses_are_told_apart(address, expected):
    assert is_public(address) is expected


def test_a_name_that_has_a_private_address_among_others_is_refused(resolve):
    resolve(mixed_test=[["8.8.8.8", "10.0.0.1"]])
    with pytest.raises(MediaRefused, match="10.0.0.1"):
        fetch("http://mixed.test/v.mp4")


def test_the_connection_goes_to_the_address_that_was_checked(resolve, monkeypatch):
    asked = resolve(rebind_test=[["8.8.8.8"], ["127.0.0.1"]])
    reached = []

    def connect(address, *_):
        reached.append(address)
        raise ConnectionRefusedError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(HostDown):
        fetch("http://rebind.test/v.mp4")
    assert asked == ["rebind.test"] and reached == [("8.8.8.8", 80)]


def test_a_listed_name_is_looked_up_once_a_request(resolve, site):
    asked = resolve(inner_test=[["127.0.0.1"], ["127.0.0.9"]])
    assert fetch(f"http://inner.test:{site.port}/v.mp4", private_hosts=["inner.test"]) == b"film"
    assert asked == ["inner.test"]


def test_a_listed_port_does_not_open_the_others(site):
    with pytest.raises(MediaRefused):
        fetch(f"{site.url}/v.mp4", private_hosts=["127.0.0.1:1"])
    assert fetch(f"{site.url}/v.mp4", private_hosts=[f"127.0.0.1:{site.port}"]) == b"film"


def test_a_redirect_is_looked_up_and_checked_like_the_first(resolve, site):
    site.replies["/away"] = Reply(status=302, headers={"Location": "http://inner.test/v.mp4"})
    resolve(inner_test=[["192.168.0.7"]])
    with pytest.raises(MediaRefused, match="192.168.0.7"):
        fetch(f"{site.url}/away", private_hosts=["127.0.0.1"])


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd", "ftp://host/v.mp4", "gopher://host/", "http://user:pw@host/v.mp4",
        "data:video/mp4;base64,AAAA", "http://a b:80x/", "http://h/\x01v.mp4",
        "//169.254.169.254/latest", "http://[::1]/v.mp4", "http://[/v.mp4", "/v\t.mp4",
    ],
)
def test_a_redirect_to_what_is_not_allowed_is_refused(site, location):
    site.replies["/away"] = Reply(status=302, headers={"Location": location})
    with pytest.raises((MediaRefused, MediaUnreachable)) as caught:
        fetch(f"{site.url}/away", private_hosts=[f"127.0.0.1:{site.port}"])
    assert "pw" not in str(caught.value)
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    "url", ["{url}/v.mp4\r\nX-Evil: 1", "{url}/v\n.mp4", "http://exa\tmple.com/", "{url}/\x00"]
)
def test_control_characters_are_refused_unasked(site, url):
    with pytest.raises(MediaRefused, match="control"):
        fetch(url.format(url=site.url), private_hosts=["127.0.0.1"])
    assert site.asked == []


def test_escaped_line_breaks_stay_escaped(site):
    site.replies["/a%0d%0aX:1%20b%C3%BC?q=%0d%0a"] = Reply(b"film", headers=VIDEO)
    url = f"{site.url}/a%0d%0aX:1 bü?q=%0d%0a"
    assert fetch(url, private_hosts=["127.0.0.1"]) == b"film"


def test_other_redirects_than_five_end(site):
    for number in range(9):
        site.replies[f"/{number}"] = Reply(status=307, headers={"Location": f"/{number + 1}"})
    with pytest.raises(MediaUnreachable, match="more than 5 redirects"):
        fetch(f"{site.url}/0", private_hosts=["127.0.0.1"])
    assert len(site.asked) == 6


# --- time and size -----------------------------------------------------------


def test_an_endless_stream_ends_at_the_limit(site):
    site.replies["/v.mp4"] = lambda _: Reply(itertools.repeat(b"x" * 1000), headers=VIDEO)
    with pytest.raises(MediaTooLarge, match="more than 10000 bytes"):
        fetch(f"{site.url}/v.mp4", private_hosts=["127.0.0.1"])


def test_what_announces_too_much_is_refused_before_it_comes(site):
    site.replies["/v.mp4"] = Reply(b"", headers=VIDEO, announced=10**15)
    with pytest.raises(MediaTooLarge, match=str(10**15)):
        fetch(f"{site.url}/v.mp4", private_hosts=["127.0.0.1"])


@contextlib.contextmanager
def dripping(head, drop):
    """A server that sends `head`, then `drop` again and again until the client has gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(head)
                while not done.wait(0.02):
                    connection.sendall(drop)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"//127.0.0.1:{listener.getsockname()[1]}/v.mp4"
    finally:
        done.set()
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "head", "drop"),
    [
        ("http", b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nX: ", b"y"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"y"),
        ("http", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n", b"y"),
        ("http", b"", b"\x00"),
        ("https", b"\x16\x03\x03\x40\x00", b"\x02"),  # a TLS record that never fills
    ],
)
def test_a_host_that_drips_is_left_at_the_time_limit(scheme, head, drop):
    with dripping(head, drop) as address:
        with pytest.raises(HostDown, match="too long"):
            fetch(f"{scheme}:{address}", private_hosts=["127.0.0.1"], seconds=0.3)


@pytest.mark.parametrize(
    "head", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"]
)
def test_what_is_no_answer_is_unreachable(head):
    with dripping(head, b"\r\n") as address:
        with pytest.raises(MediaUnreachable):
            fetch(f"http:{address}", private_hosts=["127.0.0.1"], seconds=0.5)


# --- TLS ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secure_site(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving_site(context) as site:
        site.replies["/v.mp4"] = Reply(b"film", headers=VIDEO)
        yield site


def test_a_certificate_is_checked_against_the_name(secure_site, certificate, monkeypatch):
    port, hosts = secure_site.port, ["localhost", "127.0.0.1"]
    with pytest.raises(HostDown, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://localhost:{port}/v.mp4", private_hosts=hosts)
    trusting = ssl.create_default_context(cafile=certificate / "cert.pem")
    monkeypatch.setattr(checked_connection, "_tls_context", lambda: trusting)
    assert fetch(f"https://localhost:{port}/v.mp4", private_hosts=hosts) == b"film"
    with pytest.raises(HostDown, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://127.0.0.1:{port}/v.mp4", private_hosts=hosts)


# --- origins -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["https://ls.example:80/x", "http://ls.example:8080/x", "http://ls.example.evil/x",
     "http://evil/ls.example", "http://evil?ls.example", "http://evil#@ls.example/"],
)
def test_no_other_origin_is_taken_for_home(url):
    assert Origin.of(url) != Origin.of("http://ls.example")


def test_one_origin_has_many_spellings():
    assert Origin.of("HTTP://LS.Example:80/a?b#c") == Origin.of("http://ls.example")


def test_a_label_studio_that_redirects_to_its_other_address_is_told(site):
    with serving_site() as other:
        other.replies["/v.mp4"] = Reply(status=401)
        site.replies["/v.mp4"] = Reply(status=301, headers={"Location": f"{other.url}/v.mp4"})

        class Key:
            def headers(self):
                yield "Token secret"

        access = Access(Origin.of(site.url), Key(), (f"127.0.0.1:{other.port}",))
        with pytest.raises(MediaUnreachable, match="set LABEL_STUDIO_URL to this address"):
            download(
                f"{site.url}/v.mp4", io.BytesIO(), access=access, max_bytes=9,
                deadline=Deadline(60),
            )
        assert other.tokens() == [None]
