"""Runs the official `openai` package against a server.

    python openai_client.py http://127.0.0.1:8080/v1 [--api-key KEY] [--model NAME] [--double]

Nothing is assumed of what the model knows. Prints a line a failure and `N passed, N failed` at the end; the exit
code is 1 when something failed.
"""

import argparse
import asyncio
import json
import math
import sys
import traceback
import typing

import openai
import pydantic

CHECKS = []

# Whether a model answers; the gateway's own tests put a double in its place, which heeds no form and no bias.
REAL = True


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
def logit_bias_moves_an_answer(client, model):
    off = {"autoglm": {"recall": "off"}, "return_token_ids": True}
    body = {"model": model, "messages": HELLO, "max_tokens": 1, "temperature": 0, "extra_body": off}
    first = client.chat.completions.create(**body).choices[0].token_ids[0]
    client.chat.completions.create(**body, logit_bias={str(first): 5})
    if not REAL:
        return
    other = client.chat.completions.create(**body, logit_bias={str(first): -100}).choices[0].token_ids[0]
    assert other != first


@check
def echo_stands_before_the_answer(client, model):
    prompt = "once upon a time"
    answer = client.completions.create(model=model, prompt=prompt, max_tokens=2, echo=True, logprobs=1)
    choice = answer.choices[0]
    assert choice.text.startswith(prompt)
    lists = choice.logprobs
    assert lists.token_logprobs[0] is None and all(value <= 0 for value in lists.token_logprobs[1:])
    assert len(lists.tokens) == len(lists.text_offset) == len(lists.top_logprobs)
    assert lists.text_offset == sorted(lists.text_offset)
    alone = client.completions.create(model=model, prompt=prompt, max_tokens=0, echo=True, logprobs=0).choices[0]
    assert alone.text == prompt and alone.finish_reason == "length"
    count = len(alone.logprobs.tokens)
    assert alone.logprobs.token_logprobs[1:] == lists.token_logprobs[1:count]
    streamed = client.completions.create(model=model, prompt=prompt, max_tokens=2, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed).startswith(prompt)


@check
def token_ids_and_prompt_scores(client, model):
    body = {"model": model, "messages": HELLO, "max_tokens": 3, "logprobs": True}
    more = {"return_token_ids": True, "prompt_logprobs": 1}
    answer = client.chat.completions.create(**body, extra_body=more)
    assert len(answer.prompt_token_ids) == len(answer.prompt_logprobs) == answer.usage.prompt_tokens
    assert answer.prompt_logprobs[0] is None
    for token, scores in list(zip(answer.prompt_token_ids, answer.prompt_logprobs))[1:]:
        assert scores[str(token)]["rank"] >= 1 and scores[str(token)]["logprob"] <= 0
    choice = answer.choices[0]
    assert len(choice.token_ids) == len(choice.logprobs.content) == answer.usage.completion_tokens


PERSON = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "good": {"type": "boolean"},
    },
    "required": ["kind", "age", "good"],
    "additionalProperties": False,
}


def is_person(value):
    return value["kind"] in ("cat", "dog") and 0 <= value["age"] <= 99 and value["good"] in (True, False)


@check
def answers_of_a_schema(client, model):
    schema = {"type": "json_schema", "json_schema": {"name": "animal", "schema": PERSON, "strict": True}}
    for temperature in (0, 1):
        answer = client.chat.completions.create(
            model=model, messages=HELLO, response_format=schema, max_tokens=100, temperature=temperature, seed=3
        )
        if REAL:
            assert answer.choices[0].finish_reason == "stop"
            assert is_person(json.loads(answer.choices[0].message.content)), answer.choices[0].message.content
    cut = client.chat.completions.create(model=model, messages=HELLO, response_format={"type": "json_object"}, max_tokens=4)
    if REAL:
        assert cut.choices[0].finish_reason in ("length", "stop")
        assert cut.choices[0].message.content.startswith("{")
        bad = {"type": "json_schema", "json_schema": {"name": "b", "schema": {"type": "string", "pattern": "("}}}
        call = lambda: client.chat.completions.create(model=model, messages=HELLO, response_format=bad)  # noqa: E731
        refused(openai.BadRequestError, call, param="response_format")


class Animal(pydantic.BaseModel):
    kind: typing.Literal["cat", "dog"]
    good: bool


@check
def parsed_answers(client, model):
    if not REAL:
        return
    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=Animal, max_tokens=60)
    assert isinstance(answer.choices[0].message.parsed, Animal)
    response = client.responses.parse(model=model, input="an animal", text_format=Animal, max_output_tokens=60)
    assert isinstance(response.output_parsed, Animal)


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "what the sky does",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Bern", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


@check
def tools_are_called(client, model):
    body = {"model": model, "tools": [WEATHER], "max_tokens": 120, "parallel_tool_calls": False}
    client.chat.completions.create(**body, messages=HELLO)
    if not REAL:
        return
    answer = client.chat.completions.create(**body, messages=HELLO, tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls" and answer.choices[0].message.content is None
    (call,) = answer.choices[0].message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.type == "function" and call.function.name == "weather"
    assert arguments["city"] in ("Bern", "Rome") and 1 <= arguments["days"] <= 7
    messages = HELLO + [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    client.chat.completions.create(**body, messages=messages)

    named = {"type": "function", "function": {"name": "weather"}}
    chunks = list(client.chat.completions.create(**body, messages=HELLO, tool_choice=named, stream=True))
    pieces = [piece for chunk in chunks for choice in chunk.choices for piece in choice.delta.tool_calls or []]
    assert pieces[0].id and pieces[0].function.name == "weather" and pieces[0].index == 0
    assert json.loads("".join(piece.function.arguments or "" for piece in pieces)) == arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@check
def responses(client, model):
    answer = client.responses.create(model=model, input="hello", instructions="be brief", max_output_tokens=6)
    assert answer.object == "response" and answer.id.startswith("resp_") and isinstance(answer.output_text, str)
    assert answer.status in ("completed", "incomplete") and answer.usage.output_tokens <= 6
    items = [{"role": "user", "content": [{"type": "input_text", "text": "and"}]}]
    follow = client.responses.create(model=model, input=items, previous_response_id=answer.id, max_output_tokens=2)
    assert follow.previous_response_id == answer.id and follow.usage.input_tokens > answer.usage.input_tokens
    client.post("/feedback", body={"id": follow.id, "thumb": "up"}, cast_to=object)
    call = lambda: client.responses.create(model=model, input="q", tools=[{"type": "web_search"}])  # noqa: E731
    refused(openai.BadRequestError, call, param="tools[0].type")
    call = lambda: client.responses.create(model=model, input="q", previous_response_id="resp_" + "0" * 32)  # noqa: E731
    refused(openai.BadRequestError, call, param="previous_response_id")


@check
def response_streams(client, model):
    off = {"autoglm": {"recall": "off"}}
    events = list(client.responses.create(model=model, input="hello", max_output_tokens=5, stream=True, extra_body=off))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text
    with client.responses.stream(model=model, input="hello", max_output_tokens=5) as stream:
        for _ in stream:
            pass
    if not REAL:
        return
    flat = {"type": "function", **WEATHER["function"], "strict": True}
    body = {"model": model, "input": "hello", "tools": [flat], "tool_choice": "required", "parallel_tool_calls": False}
    answer = client.responses.create(**body)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "weather" and json.loads(call.arguments)["city"] in ("Bern", "Rome")
    output = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    client.responses.create(
        model=model, input=output, tools=[flat], previous_response_id=answer.id, max_output_tokens=2
    )
    kinds = [event.type for event in client.responses.create(**body, stream=True)]
    assert "response.function_call_arguments.delta" in kinds and "response.function_call_arguments.done" in kinds


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
    refused(bad, create(tools=[{"type": "web_search"}]), param="tools[0].type")
    refused(bad, create(tool_choice="required"), param="tool_choice")
    unknown = {"type": "function", "function": {"name": "no_such_tool"}}
    refused(bad, create(tools=[WEATHER], tool_choice=unknown), param="tool_choice")
    refused(bad, create(response_format={"type": "xml"}), param="response_format.type")
    refused(bad, create(logit_bias={"7": 101}), param="logit_bias.7")
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
    parser.add_argument("--double", action="store_true", help="no model answers")
    arguments = parser.parse_args()
    global REAL
    REAL = not arguments.double
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
