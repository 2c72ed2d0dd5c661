"""What a program that uses the openai package does, and what it has to see. Arguments: base URL, which part."""
import json
import sys
import time

import openai
from openai import OpenAI

base, part = sys.argv[1:3]
messages = [{"role": "user", "content": "hello"}]


def client(**options):
    return OpenAI(base_url=base, api_key="sk-nobody-0000", **{"max_retries": 0, "timeout": 20, **options})


def good():
    api = client()
    assert [model.id for model in api.models.list()] == ["fake"]
    answer = api.chat.completions.create(
        model="any", messages=messages, temperature=0.2, top_p=0.9, max_tokens=5, stop=["END"], seed=7, n=1,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        response_format={"type": "json_object"}, extra_body={"top_k": 3})
    assert answer.choices[0].message.content == "one two three", answer
    assert answer.usage.total_tokens == 10 and answer.choices[0].finish_reason == "stop"
    stream = api.chat.completions.create(
        model="any", messages=messages, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three", chunks
    assert chunks[-1].usage.total_tokens == 10 and chunks[-1].choices == []
    raw = api.chat.completions.with_raw_response.create(
        model="any", messages=messages, extra_headers={"X-Request-Id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1" and raw.parse()._request_id == "mine-1"


def wrong():
    api = client()
    for options, param in [({"n": 2}, "n"), ({"messages": []}, "messages"), ({"extra_body": {"stream": "x"}}, "stream")]:
        try:
            api.chat.completions.create(**{"model": "any", "messages": messages, **options})
            raise SystemExit(f"accepted {options}")
        except openai.BadRequestError as error:
            assert error.param == param and error.code == "invalid_request", error
            assert error.type == "invalid_request_error", error
    try:
        api.models.retrieve("nothing")
        raise SystemExit("found nothing")
    except openai.NotFoundError as error:
        assert error.code == "not_found", error


def refused():
    """The upstream answers 400: its field is named, its words are not told."""
    try:
        client().chat.completions.create(model="any", messages=messages)
        raise SystemExit("accepted")
    except openai.BadRequestError as error:
        assert error.param == "top_k" and "hunter2" not in str(error), error


def broken():
    """A stream that fails in the middle raises, after what there was of it."""
    text = ""
    try:
        for chunk in client().chat.completions.create(model="any", messages=messages, stream=True):
            text += chunk.choices[0].delta.content or ""
        raise SystemExit("ended as if it were whole")
    except openai.APIError as error:
        assert text == "one ", text
        assert "model could not answer" in error.message and "hunter2" not in str(error), error
        assert error.code == "upstream_error", error


def limited():
    """Two are let in, the third is refused, and the library does not try again: the wait is too long."""
    api = client(max_retries=2)
    for _ in range(2):
        api.chat.completions.create(model="any", messages=messages)
    try:
        api.chat.completions.create(model="any", messages=messages)
        raise SystemExit("let in")
    except openai.RateLimitError as error:
        assert error.code == "rate_limited" and error.type == "rate_limit_error", error
        headers = error.response.headers
        assert headers["x-should-retry"] == "false" and int(headers["retry-after"]) > 60, headers
        assert "ratelimit" in headers and headers["access-control-allow-origin"] == "*"


def again():
    """The first answer is a 503 that asks for a second; the library waits for it and gets the second."""
    begun = time.monotonic()
    answer = client(max_retries=2).chat.completions.create(model="any", messages=messages)
    assert answer.choices[0].message.content == "one two three", answer
    assert time.monotonic() - begun >= 1, "it did not wait as long as it was told to"


def busy():
    try:
        client().chat.completions.create(model="any", messages=messages)
        raise SystemExit("answered")
    except openai.InternalServerError as error:
        assert error.status_code == 503 and error.code == "overloaded", error
        headers = error.response.headers
        assert headers["x-should-retry"] == "true" and headers["retry-after"] == "7", headers


def real():
    """A real model behind it: what it says is its own, what surrounds it is the contract's."""
    api = client(timeout=60)
    model = api.models.list().data[0].id
    ask = {"model": model, "messages": [{"role": "user", "content": "Count to five."}], "max_tokens": 16, "temperature": 0}
    whole = api.chat.completions.create(**ask)
    said, usage = whole.choices[0].message.content, whole.usage
    assert said and whole.choices[0].finish_reason in ("length", "stop") and whole.model == model, whole
    assert 0 < usage.completion_tokens <= 16 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    chunks = list(api.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == said and len(chunks) > 3, (said, chunks)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == usage.completion_tokens, chunks[-1]
    word = said.split()[1]
    cut = api.chat.completions.create(**ask, stop=[word]).choices[0]
    assert word not in cut.message.content and cut.finish_reason == "stop", (word, cut)
    wish = {"messages": [{"role": "user", "content": "Describe a cat as JSON with the keys name and age."}], "max_tokens": 100}
    held = api.chat.completions.create(**{**ask, **wish}, response_format={"type": "json_object"}).choices[0]
    said_json = held.message.content
    assert said_json.startswith("{"), held
    assert held.finish_reason == "length" or isinstance(json.loads(said_json), dict), held
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    for name, value in [("tools", [tool]), ("logprobs", True), ("response_format", schema)]:
        try:
            api.chat.completions.create(**ask, **{name: value})
            raise SystemExit(f"accepted {name}")
        except openai.BadRequestError as error:
            assert error.param == name, error
    try:
        api.chat.completions.create(**{**ask, "messages": [{"role": "user", "content": "sea " * 5000}]})
        raise SystemExit("read it all")
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error
    print(f"{model}: {said!r}, {usage.prompt_tokens} + {usage.completion_tokens} tokens")
    print(f"as JSON: {said_json!r}, {held.finish_reason}")


globals()[part]()
print("as it should be")
