"""What a program that uses the litellm package does, and what it has to see. Arguments: base URL, which part."""
import sys

import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True
base, part = sys.argv[1:3]
messages = [{"role": "user", "content": "hello"}]


def ask(**options):
    return litellm.completion(model="openai/any", api_base=base, api_key="sk-nobody-0000",
                              **{"messages": messages, "num_retries": 0, "max_retries": 0, "timeout": 20, **options})


def good():
    answer = ask(temperature=0.2, max_tokens=5)
    assert answer.choices[0].message.content == "one two three" and answer.usage.total_tokens == 10, answer
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True))
    assert text == "one two three", text


def refused():
    try:
        ask()
        raise SystemExit("accepted")
    except litellm.BadRequestError as error:
        assert "hunter2" not in str(error), error


def broken():
    text = ""
    try:
        for chunk in ask(stream=True):
            text += chunk.choices[0].delta.content or ""
        raise SystemExit("ended as if it were whole")
    except Exception as error:
        assert text == "one " and "model could not answer" in str(error) and "hunter2" not in str(error), (text, error)


def busy():
    try:
        ask()
        raise SystemExit("answered")
    except (litellm.ServiceUnavailableError, litellm.InternalServerError) as error:
        assert error.status_code == 503, error


def real():
    asked = {"messages": [{"role": "user", "content": "Count to five."}], "max_tokens": 16, "temperature": 0, "timeout": 60}
    answer = ask(**asked)
    said = answer.choices[0].message.content
    assert said and 0 < answer.usage.completion_tokens <= 16, answer
    chunks = list(ask(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said and len(chunks) > 3, chunks
    print(f"{said!r}, {answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens")


globals()[part]()
print("as it should be")
