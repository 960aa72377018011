"""The OpenAPI document describes the app: all of it, and nothing else."""

from __future__ import annotations

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from backend.openapi import openapi_document
from backend.settings import Settings


def test_it_is_served_and_valid(client):
    answer = client.get("/api/openapi.json")
    assert answer.status_code == 200 and answer.content_type == "application/json"
    assert answer.json == openapi_document()
    OpenAPIV31SpecValidator(answer.json).validate()


def test_it_has_every_route_with_its_methods_and_parameters(client):
    served, described = set(), set()
    for rule in client.application.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        served |= {(path, method) for method in rule.methods - {"HEAD", "OPTIONS"}}
    for path, item in openapi_document()["paths"].items():
        described |= {(path, method.upper()) for method in item if method != "parameters"}
        named = {p["name"] for p in item.get("parameters", ()) if p["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), path
    assert described == served


def test_no_schema_is_left_over_and_no_operation_is_named_twice():
    document = openapi_document()
    text = repr(document)
    for kind in ("schemas", "responses"):
        for name in document["components"][kind]:
            assert f"'#/components/{kind}/{name}'" in text, name
    names = re.findall(r"'operationId': '(\w+)'", text)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("auth", [None, ("annotator", "a password")])
def test_it_needs_the_password_where_there_is_one(make_client, auth):
    client = make_client(basic_auth_user="annotator", basic_auth_password="a password")
    assert client.get("/api/openapi.json", auth=auth).status_code == (401 if auth is None else 200)


def test_it_tells_nothing_of_the_settings():
    assert Settings().model_version not in repr(openapi_document())
