"""What a program that uses LangChain's OpenAI chat model does, and what it has to see. Arguments: base URL, which part."""
import sys

import openai
from langchain_openai import ChatOpenAI

base, part = sys.argv[1:3]
model = ChatOpenAI(base_url=base, api_key="sk-nobody-0000", model="any", max_retries=0, timeout=60, stream_usage=True)


def good():
    answer = model.invoke("hello")
    assert answer.content == "one two three" and answer.usage_metadata["total_tokens"] == 10, answer
    chunks = list(model.stream("hello"))
    assert "".join(chunk.content for chunk in chunks) == "one two three", chunks
    assert sum((chunk.usage_metadata or {}).get("total_tokens", 0) for chunk in chunks) == 10, chunks


def refused():
    try:
        model.invoke("hello")
        raise SystemExit("accepted")
    except openai.BadRequestError as error:
        assert error.param == "top_k" and "hunter2" not in str(error), error


def broken():
    text = ""
    try:
        for chunk in model.stream("hello"):
            text += chunk.content
        raise SystemExit("ended as if it were whole")
    except openai.APIError as error:
        assert text == "one " and "model could not answer" in str(error) and "hunter2" not in str(error), (text, error)


def busy():
    try:
        model.invoke("hello")
        raise SystemExit("answered")
    except openai.InternalServerError as error:
        assert error.status_code == 503 and error.code == "overloaded", error


def real():
    asked = [("system", "Answer in a few words."), ("human", "Count to five.")]
    bound = model.bind(max_tokens=16, temperature=0)
    answer = bound.invoke(asked)
    assert answer.content and 0 < answer.usage_metadata["output_tokens"] <= 16, answer
    chunks = list(bound.stream(asked))
    assert "".join(chunk.content for chunk in chunks) == answer.content and len(chunks) > 3, chunks
    assert sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks) <= 16, chunks
    print(f"{answer.content!r}, {answer.usage_metadata}")


globals()[part]()
print("as it should be")
