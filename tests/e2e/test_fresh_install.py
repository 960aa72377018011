"""As a fresh Label Studio is: legacy tokens off, a personal access token alone.

Its validation of predictions, off by default, is on.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import httpx
import pytest
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from backend.label_studio_client import LabelStudioClient, LabelStudioError
from backend.label_studio_process import running_label_studio
from backend.studio import Studio, connected_backend
from tests.e2e.conftest import ACCOUNT, EMPTY_DATA, PROGRAM
from tests.e2e.objects import OPOSSUM, STANDING_PERSON
from tests.e2e.test_predictions import drawn_box, drawn_rectangle
from tests.e2e.waiting import eventually

_SECONDS = 120.0
"""A page of Label Studio's, also on a busy machine."""
VALIDATION = {"fflag_feat_utc_210_prediction_validation_15082025": "true"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, pictures) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("fresh")
    try:
        with (
            running_label_studio(
                PROGRAM, account=ACCOUNT, data=folder / "label_studio",
                log=folder / "label_studio.log", empty_data=EMPTY_DATA, legacy_tokens=False,
                variables=VALIDATION,
            ) as url,
            connected_backend(url, personal_access_token(url), folder) as studio,
        ):
            yield studio
    finally:
        for log in folder.glob("*.log"):
            shutil.copy(log, pictures / f"fresh-{log.name}")


def personal_access_token(url: str) -> str:
    """Made as a person makes it: signed in, under Account & Settings."""
    with httpx.Client(base_url=url, follow_redirects=True, timeout=_SECONDS) as client:
        client.get("/user/login/")
        form = {"email": ACCOUNT.email, "password": ACCOUNT.password}
        client.post("/user/login/", data={**form, "csrfmiddlewaretoken": client.cookies["csrftoken"]})
        answer = client.post("/api/token/", headers={"X-CSRFToken": client.cookies["csrftoken"]})
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]


@pytest.fixture(scope="module")
def client(fresh) -> LabelStudioClient:
    return LabelStudioClient(fresh.label_studio_url, fresh.api_key)


def test_the_legacy_token_is_refused(fresh):
    with pytest.raises(LabelStudioError) as refused:
        LabelStudioClient(fresh.label_studio_url, ACCOUNT.legacy_token).who_am_i()
    assert refused.value.http_status == 401


@pytest.mark.parametrize(
    "config, every, drawn, expected",
    [
        ("video", None, [drawn_box(OPOSSUM)], {"videorectangle"}),
        (
            "both", 2, [drawn_box(OPOSSUM), drawn_rectangle(STANDING_PERSON)],
            {"videorectangle", "brushlabels"},
        ),
    ],
)
def test_a_personal_access_token_is_enough_and_predictions_pass_the_validation(
    fresh, client, short_sample, config, every, drawn, expected
):
    project = fresh.create_project(f"Fresh {config}", config)
    (backend,) = client.ml_backends(project)
    assert backend["state"] == "CO"
    task = fresh.import_video(project, short_sample, every=every)
    client.create_annotation(task, drawn)
    (prediction,) = eventually(
        lambda: client.predictions(task), what="the prediction of the webhook"
    )
    assert {r["type"] for r in prediction["result"]} == expected
    (region,) = (r for r in prediction["result"] if r["type"] == "videorectangle")
    assert len(region["value"]["sequence"]) > 1

    # That the validation is on: the same, with one thing wrong.
    del region["value"]["sequence"][0]["x"]
    sdk = LabelStudio(base_url=fresh.label_studio_url, api_key=fresh.api_key)
    with pytest.raises(ApiError) as refused:
        sdk.predictions.create(task=task, result=prediction["result"], score=0.5)
    assert refused.value.status_code == 400
