"""`make studio`'s own parts; the whole of it runs in tests/e2e."""

import stat

import pytest

from backend.processes import ProcessError
from backend.studio import Studio, kept_account


VARIABLES = {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "secret-key"}


def test_the_login_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "login.txt"
    account = kept_account(path)
    assert kept_account(path) == account
    assert kept_account(tmp_path / "other.txt").password != account.password
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(account.legacy_token) == 40


def test_neither_password_nor_token_are_shown(tmp_path):
    account = kept_account(tmp_path / "login.txt")
    assert account.password not in repr(account) and account.legacy_token not in repr(account)
    studio = Studio(label_studio_url="http://a", backend_url="http://b", variables=VARIABLES)
    assert "secret-key" not in repr(studio)


def test_what_a_command_complains_of_is_said():
    studio = Studio(label_studio_url="http://127.0.0.1:9", backend_url="", variables=VARIABLES)
    with pytest.raises(ProcessError, match="project create"):
        studio.create_project("A", "video")
