"""Runs the official `openai` package against a server.

    python openai_client.py http://127.0.0.1:8080/v1 [--api-key KEY] [--model NAME]

Nothing is assumed of what the model knows. Prints a line a failure and `N passed, N failed` at the end; the exit
code is 1 when something failed.
"""

import argparse
import asyncio
import math
import sys
import traceback

import openai

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def refused(error, call, **expected):
    """That `call` is refused with `error`; `expected` are its fields."""
    try:
        call()
    except error as caught:
        for field, value in expected.items():
            assert getattr(caught, field) == value, f"{field} is {getattr(caught, field)!r}, not {value!r}"
        assert caught.message, "an error without a message"
        return caught
    raise AssertionError(f"not refused with {error.__name__}")


HELLO = [{"role": "user", "content": "hello"}]


@check
def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.model == model
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and isinstance(choice.message.content, str)
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.prompt_tokens and answer.usage.completion_tokens <= 8


@check
def headers_name_version_and_request(client, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, max_tokens=2)
    answer = raw.parse()
    version = raw.headers["x-autoglm-model-version"]
    assert version.startswith("v") and int(version[1:]) >= 0
    assert raw.headers["x-request-id"] == answer.id == answer._request_id
    assert answer.system_fingerprint == f"autoglm-{version}"


@check
def conversation_with_parts_and_system_prompt(client, model):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": "very brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "you"}]},
    ]
    first = client.chat.completions.create(model=model, messages=messages, max_tokens=2)
    messages += [first.choices[0].message.model_dump(), {"role": "user", "content": "go on"}]
    client.chat.completions.create(model=model, messages=messages, max_tokens=2)


@check
def every_documented_field_that_changes_nothing(client, model):
    client.chat.completions.create(
        model=model, messages=HELLO, max_completion_tokens=4, temperature=0.7, top_p=0.9, seed=7, stop=["\n\n", "###"],
        frequency_penalty=0.1, presence_penalty=0.1, user="ada", metadata={"task": "greeting"}, store=True,
        service_tier="auto", response_format={"type": "text"}, prompt_cache_key="k", safety_identifier="s",
        logit_bias={}, extra_body={"top_k": 5, "min_p": 0.05, "repetition_penalty": 1.1, "autoglm": {"recall": "off"}},
    )


@check
def stream_gives_what_the_plain_call_gives(client, model):
    body = {"model": model, "messages": HELLO, "max_tokens": 8, "seed": 1, "temperature": 0}
    body["extra_body"] = {"autoglm": {"recall": "off"}}
    plain = client.chat.completions.create(**body)
    chunks = list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    *chunks, last = chunks
    assert last.choices == [] and last.usage.completion_tokens == plain.usage.completion_tokens
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content, f"{text!r} != {plain.choices[0].message.content!r}"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == plain.choices[0].finish_reason and not any(reasons[:-1])
    assert all(chunk.usage is None for chunk in chunks)


@check
def stream_helper_collects(client, model):
    with client.chat.completions.stream(model=model, messages=HELLO, max_tokens=4) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.content, str)


@check
def a_stream_can_be_left(client, model):
    with client.chat.completions.create(model=model, messages=HELLO, stream=True, max_tokens=64) as stream:
        next(iter(stream))
    client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)


@check
def choices(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, n=3, max_tokens=3, temperature=1, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    ids = [choice.autoglm["id"] for choice in answer.choices]
    assert ids[0] == answer.id and len(set(ids)) == 3
    chunks = client.chat.completions.create(model=model, messages=HELLO, n=2, max_tokens=3, stream=True)
    seen = {choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason}
    assert seen == {0, 1}


@check
def logprobs(client, model):
    off = {"autoglm": {"recall": "off"}}
    body = {"model": model, "messages": HELLO, "logprobs": True, "top_logprobs": 2, "max_tokens": 3, "extra_body": off}
    for token in client.chat.completions.create(**body).choices[0].logprobs.content:
        assert token.logprob <= 0 and math.isfinite(token.logprob) and len(token.top_logprobs) == 2
        assert token.bytes is None or bytes(token.bytes).decode() == token.token
    streamed = [
        token
        for chunk in client.chat.completions.create(**body, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert 1 <= len(streamed) <= 3


@check
def completions(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a", max_tokens=4, logprobs=1, stop=["\n\n"])
    assert answer.object == "text_completion" and isinstance(answer.choices[0].text, str)
    lists = answer.choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset)
    text = "".join(c.choices[0].text for c in client.completions.create(model=model, prompt="a", max_tokens=4, stream=True))
    assert isinstance(text, str)
    two = client.completions.create(model=model, prompt=["a", "b"], n=2, max_tokens=2)
    assert len(two.choices) == 4


@check
def embeddings(client, model):
    # The client asks for base64 by itself and decodes it.
    one = client.embeddings.create(model=model, input="hello")
    plain = client.embeddings.create(model=model, input=["hello", "good bye"], encoding_format="float")
    assert len(plain.data) == 2 and [item.index for item in plain.data] == [0, 1]
    vector = plain.data[0].embedding
    assert all(abs(a - b) < 1e-6 for a, b in zip(one.data[0].embedding, vector, strict=True))
    assert abs(sum(value * value for value in vector) - 1) < 1e-3
    assert plain.usage.total_tokens == plain.usage.prompt_tokens > 0
    client.embeddings.create(model=model, input="hello", dimensions=len(vector))
    refused(openai.BadRequestError, lambda: client.embeddings.create(model=model, input=[1, 2]), param="input")
    refused(openai.BadRequestError, lambda: client.embeddings.create(model=model, input=""), param="input")
    more = len(vector) + 1
    call = lambda: client.embeddings.create(model=model, input="a", dimensions=more)  # noqa: E731
    refused(openai.BadRequestError, call, param="dimensions")


@check
def models(client, model):
    names = [entry.id for entry in client.models.list()]
    assert "base" in names and "champion" in names, names
    for name in names:
        entry = client.models.retrieve(name)
        assert entry.id == name and entry.object == "model" and entry.created >= 0
    client.chat.completions.create(model="base", messages=HELLO, max_tokens=1)
    refused(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"), code="model_not_found")


@check
def feedback(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=2)
    said = client.post("/feedback", body={"request_id": answer.id, "thumb": "up", "tags": ["test"]}, cast_to=object)
    assert said["object"] == "feedback" and said["request_id"] == answer.id and said["thumb"] == "up"
    for more in ({"score": 80}, {"metric": "resolved", "value": 1}, {"comment": "fine"}, {"thumb": False}):
        client.post("/feedback", body={"id": answer.id, **more}, cast_to=object)
    unknown = {"id": "chatcmpl-" + "0" * 32, "thumb": "up"}
    refused(openai.NotFoundError, lambda: client.post("/feedback", body=unknown, cast_to=object))
    empty = {"id": answer.id}
    refused(openai.BadRequestError, lambda: client.post("/feedback", body=empty, cast_to=object))


@check
def errors(client, model):
    def create(**more):
        return lambda: client.chat.completions.create(**{"model": model, "messages": HELLO, "max_tokens": 1, **more})

    refused(openai.NotFoundError, create(model="no-such-model"), code="model_not_found", param="model")
    bad = openai.BadRequestError
    refused(bad, create(messages=[]), param="messages", type="invalid_request_error")
    refused(bad, create(messages=[{"role": "robot", "content": "x"}]), param="messages[0].role")
    refused(bad, create(temperature=9), param="temperature")
    refused(bad, create(top_logprobs=3), param="top_logprobs")
    refused(bad, create(max_completion_tokens=2), param="max_tokens")
    refused(bad, create(stream_options={"include_usage": True}), param="stream_options")
    refused(bad, create(tools=[{"type": "function", "function": {"name": "f"}}]), param="tools")
    refused(bad, create(response_format={"type": "json_object"}), param="response_format")
    unknown = refused(bad, create(extra_body={"temprature": 1}), param="temprature", code="unknown_parameter")
    assert "temperature" in unknown.message
    long = [{"role": "user", "content": "word " * 200_000}]
    refused(bad, create(messages=long), code="context_length_exceeded", param="messages")
    refused(openai.NotFoundError, lambda: client.get("/no-such-path", cast_to=object))
    refused(openai.APIStatusError, lambda: client.get("/chat/completions", cast_to=object), status_code=405)


@check
def the_asynchronous_client(client, model):
    async def run():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as asynchronous:
            one = asynchronous.chat.completions.create
            answers = await asyncio.gather(*(one(model=model, messages=HELLO, max_tokens=2) for _ in range(8)))
            assert len({answer.id for answer in answers}) == 8
            stream = await one(model=model, messages=HELLO, max_tokens=2, stream=True)
            assert [chunk async for chunk in stream][-1].choices[0].finish_reason

    asyncio.run(run())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", default="champion")
    arguments = parser.parse_args()
    client = openai.OpenAI(base_url=arguments.base_url, api_key=arguments.api_key, max_retries=0, timeout=60)
    failed = 0
    for function in CHECKS:
        try:
            function(client, arguments.model)
        except Exception:
            failed += 1
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
