"""Keys in links: whose they are, how long they hold, where their secret lies."""

import base64
import dataclasses
import hmac
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend import link_keys
from backend.link_keys import STAND_ALONE, KeyPurpose, KeyRefused, check_key, make_key, revoke_keys
from backend.settings import Settings


PREVIEW, PANEL = KeyPurpose.PREVIEW, KeyPurpose.PANEL


def made(settings, project_id, purpose=PREVIEW, **options):
    return make_key(settings, project_id, purpose, **options)


def project_of(settings, key, purpose=PREVIEW):
    return check_key(settings, key, purpose).project_id


@pytest.fixture
def settings(tmp_path):
    return Settings(data_folder=tmp_path / "data")


def test_a_key_names_its_project_and_fits_into_a_url(settings):
    key = made(settings, 12)
    assert project_of(settings, key) == 12
    assert all(c.isalnum() or c in ".-_" for c in key)


def test_the_secret_is_made_once_and_nobody_else_may_read_it(settings):
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda number: made(settings, number), range(1, 9)))
    assert [project_of(settings, key) for key in keys] == list(range(1, 9))
    (file,) = settings.data_folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_of_another_service_is_refused(settings, tmp_path):
    other = dataclasses.replace(settings, data_folder=tmp_path / "other")
    with pytest.raises(KeyRefused, match="not one of this service"):
        project_of(settings, made(other, 1))


def test_services_with_one_secret_in_their_settings_share_keys(tmp_path):
    one, two = (
        Settings(data_folder=tmp_path / name, link_secret="s" * 32) for name in ("one", "two")
    )
    assert project_of(two, made(one, 5)) == 5
    assert not list(tmp_path.iterdir())


def test_a_key_expires(settings, monkeypatch):
    key = made(settings, 3, days=2)
    now = time.time()
    monkeypatch.setattr(link_keys.time, "time", lambda: now + 2 * 86400 - 60)
    assert project_of(settings, key) == 3
    monkeypatch.setattr(link_keys.time, "time", lambda: now + 2 * 86400 + 60)
    with pytest.raises(KeyRefused, match="expired; project 3"):
        project_of(settings, key)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_part_of_a_key_can_be_changed(settings, place):
    parts = made(settings, 3).split(".")
    parts[place] = ("4", str(int(parts[1]) + 1), parts[2][::-1])[place]
    with pytest.raises(KeyRefused) as refused:
        project_of(settings, ".".join(parts))
    assert parts[2] not in refused.value.detail


@pytest.mark.parametrize("key", ["", "..", "1.2.3", "00.1." + "A" * 43, "٣.1." + "A" * 43, "1" * 9999])
def test_what_is_no_key_is_refused(settings, key):
    with pytest.raises(KeyRefused, match="must have a key"):
        project_of(settings, key)


def test_a_key_is_for_one_purpose(settings):
    for purpose, other in ((PREVIEW, PANEL), (PANEL, PREVIEW)):
        key = made(settings, 3, purpose)
        assert project_of(settings, key, purpose) == 3
        with pytest.raises(KeyRefused, match=f"for a {other}"):
            project_of(settings, key, other)


def test_a_key_may_be_for_no_project(settings):
    assert project_of(settings, made(settings, STAND_ALONE, PANEL), PANEL) == STAND_ALONE


def test_a_key_tells_how_long_it_holds(settings):
    assert check_key(settings, made(settings, 3, days=10), PREVIEW).days_left == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize("days", [0, -1, float("nan"), 1e9])
def test_a_time_that_no_key_holds_is_refused(settings, days):
    with pytest.raises(ValueError, match="days="):
        made(settings, 1, days=days)


def test_a_secret_that_others_can_read_is_told(settings, caplog):
    made(settings, 1)
    (file,) = settings.data_folder.iterdir()
    file.chmod(0o644)
    project_of(settings, made(settings, 1))
    assert "mode 0600" in caplog.text


def test_a_secret_that_is_too_short_is_refused(settings):
    settings.data_folder.mkdir()
    (settings.data_folder / "link_secret").write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes, must have 32"):
        made(settings, 1)


def test_settings_hide_the_secret_and_refuse_a_guessable_one():
    settings = Settings(link_secret="x" * 32)
    assert "x" * 32 not in repr(settings) and "x" * 32 in settings.secrets
    with pytest.raises(ValueError, match="link_secret must have at least 32"):
        Settings(link_secret="short")

def test_keys_made_up_to_now_can_be_revoked_for_one_project_and_purpose(settings):
    old = {(n, p): made(settings, n, p) for n in (1, 2) for p in (PREVIEW, PANEL)}
    revoke_keys(settings, 1, [PANEL])
    with pytest.raises(KeyRefused, match="was revoked; project 1 .*project connect 1"):
        project_of(settings, old[1, PANEL], PANEL)
    for (number, purpose), key in old.items():
        if (number, purpose) != (1, PANEL):
            assert project_of(settings, key, purpose) == number
    new = made(settings, 1, PANEL)
    assert project_of(settings, new, PANEL) == 1
    revoke_keys(settings, 2, [PANEL])
    assert project_of(settings, new, PANEL) == 1
    with pytest.raises(KeyRefused, match="was revoked"):
        project_of(settings, old[1, PANEL], PANEL)


def test_a_key_of_the_first_form_holds_until_it_is_revoked(tmp_path):
    """As `project create` made them before keys had the time at which they were made."""
    settings = Settings(data_folder=tmp_path, link_secret="s" * 32)
    signature = base64.urlsafe_b64encode(
        hmac.digest(b"s" * 32, b"sam2-label-studio preview\0" + b"7.4102444800", "sha256")
    ).rstrip(b"=")
    key = f"7.4102444800.{signature.decode()}"
    assert project_of(settings, key) == 7
    revoke_keys(settings, 7, [PREVIEW])
    with pytest.raises(KeyRefused, match="was revoked"):
        project_of(settings, key)
